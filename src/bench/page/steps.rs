//! The search for a ceiling: which rate had which tail, and whether it was kept up with.

use super::{
    chart::{Area, Drawing, Figure, Size, legend, px},
    format,
    scale::Scale,
};
use crate::bench::summary::{CeilingSearch, CeilingStep};
use maud::{Markup, html};

/// The figure; `None` without steps.
pub(super) fn figure(id: &str, caption: &str, search: &CeilingSearch, bound_us: u64) -> Option<Markup> {
    (!search.steps.is_empty()).then(|| {
        let mut entries = vec![("", "● kept".to_owned()), ("", "× not kept".to_owned())];
        if search.steps.iter().any(is_echo) {
            entries.push(("", "◇ broker echo, kept".to_owned()));
            entries.push(("", "+ broker echo, not kept".to_owned()));
        }
        entries.push(("limit", format!("bound: {}", format::time(bound_us))));
        let it = Figure { id, title: "Tail by rate", caption: caption.to_owned(), legend: legend(&entries), table: None };
        html! { (it.draw(|size| draw(size, &search.steps, bound_us))) (table(&search.steps)) }
    })
}

fn is_echo(step: &CeilingStep) -> bool {
    step.of == "echo"
}

fn draw(size: Size, steps: &[CeilingStep], bound_us: u64) -> Drawing {
    let height = size.pick(300.0, 260.0);
    let area = Area::new(size, height);
    let fastest = steps.iter().map(|step| step.rate_per_s).max().unwrap_or(1);
    let across = Scale::linear(0.0, f64::from(fastest) * 1.05, area.left, area.right);
    let tails = || steps.iter().map(|step| step.p99_us).filter(|us| *us > 0).chain([bound_us]);
    let (low, high) = (tails().min().unwrap_or(1), tails().max().unwrap_or(1));
    let up = Scale::wide_log(low.max(1) as f64, high.max(2) as f64, area.bottom, area.top);
    let ticks: Vec<(f64, String)> = across.ticks(size.pick(9, 4)).into_iter().map(|rate| (across.at(rate), format::rate(rate))).collect();
    let body = html! {
        (area.left_axis(&up, "p99 of the response time, log scale", format::tick_time))
        (area.bottom_axis(&ticks, "requests offered a second"))
        line.limit x1=(px(area.left)) x2=(px(area.right)) y1=(px(up.at(bound_us as f64))) y2=(px(up.at(bound_us as f64))) {}
        @for step in steps { (mark(step, across.at(step.rate_per_s.into()), up.at(step.p99_us.max(1) as f64))) }
    };
    Drawing { height, body }
}

/// A shape for each of the four, so that colour is not needed.
fn mark(step: &CeilingStep, x: f64, y: f64) -> Markup {
    let told = step.told();
    html! {
        @match (is_echo(step), step.kept) {
            (false, true) => circle.keptmark cx=(px(x)) cy=(px(y)) r="5" { title { (told) } },
            (true, true) => path.echomark d={ "M" (px(x)) " " (px(y - 6.0)) "l6 6l-6 6l-6-6z" } { title { (told) } },
            (false, false) => path.failed d={ "M" (px(x - 5.0)) " " (px(y - 5.0)) "l10 10m0-10l-10 10" } { title { (told) } },
            (true, false) => path.echofailed d={ "M" (px(x - 6.0)) " " (px(y)) "h12m-6-6v12" } { title { (told) } },
        }
    }
}

fn table(steps: &[CeilingStep]) -> Markup {
    html! {
        div.scroll {
            table {
                thead { tr { th scope="col" { "step" } th scope="col" { "offered/s" } th scope="col" { "achieved/s" } th scope="col" { "p50" } th scope="col" { "p99" } th.left scope="col" { "" } } }
                @for step in steps {
                    tr {
                        th scope="row" { (step.of) }
                        td { (format::rate(step.rate_per_s.into())) }
                        td { (format::rate(step.achieved_per_s)) }
                        td { (format::time(step.p50_us)) }
                        td { (format::time(step.p99_us)) }
                        td.left { @if step.kept { span.kept { "✓ kept" } } @else { span.broken { "✗ " } (step.why.as_deref().unwrap_or("not kept")) } }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn step(of: &str, rate_per_s: u32, p99_us: u64, kept: bool) -> CeilingStep {
        CeilingStep {
            of: of.to_owned(),
            rate_per_s,
            achieved_per_s: f64::from(rate_per_s),
            p50_us: p99_us / 2,
            p99_us,
            service_p99_us: p99_us,
            lag_p99_us: 10,
            lost: 0,
            errors: 0,
            kept,
            why: (!kept).then(|| "p99 is not under the bound".to_owned()),
        }
    }

    /// A search with a step of each kind.
    pub(in crate::bench::page) fn search() -> CeilingSearch {
        let steps = vec![
            step("daemon", 1_000, 4_000, true),
            step("echo", 1_000, 3_000, true),
            step("daemon", 2_000, 400_000, false),
            step("echo", 4_000, 600_000, false),
        ];
        CeilingSearch { confirmed: true, generator: false, echo_confirmed: Some(true), echo_generator: Some(false), steps }
    }

    #[test]
    fn each_kind_of_step_has_its_own_shape() {
        let page = figure("c", "C.", &search(), 100_000).map(Markup::into_string).unwrap_or_default();
        for shape in ["circle class=\"keptmark\"", "path class=\"echomark\"", "path class=\"failed\"", "path class=\"echofailed\""] {
            assert_eq!(page.matches(shape).count(), 2, "{shape}, in both drawings: {page}");
        }
        for part in ["bound: 100 ms", "p99 is not under the bound", "4,000", "600 ms"] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        let none = CeilingSearch { steps: Vec::new(), ..search() };
        assert!(figure("c", "", &none, 1).is_none());
    }
}
