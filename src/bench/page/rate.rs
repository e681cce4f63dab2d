//! Requests offered and answers achieved over time.

use super::{
    chart::{Area, Drawing, Figure, Size, legend, path, px},
    format,
    moments::{Moment, Moments, runs},
    scale::Scale,
};
use maud::{Markup, html};

/// The figure; `None` without time.
pub(super) fn figure(id: &str, caption: &str, moments: &Moments) -> Option<Markup> {
    (!moments.all.is_empty()).then(|| {
        let offered = moments.all.iter().any(|moment| moment.offered.is_some());
        let mut entries = vec![("answered", "answered".to_owned())];
        if offered {
            entries.insert(0, ("offered", "offered".to_owned()));
        }
        if moments.all.iter().any(|moment| moment.failed > 0) {
            entries.push(("", "× lost, or declined for reasons of ours".to_owned()));
        }
        let table = table(&moments.merged(30));
        let it = Figure { id, title: "Rate over time", caption: caption.to_owned(), legend: legend(&entries), table: Some(table) };
        it.draw(|size| draw(size, moments))
    })
}

fn draw(size: Size, moments: &Moments) -> Drawing {
    let height = size.pick(250.0, 220.0);
    let area = Area::new(size, height);
    let columns = moments.merged(size.pick(220, 70));
    let most = columns.iter().map(|moment| per_second(moment.answered, moment).max(per_second(moment.offered.unwrap_or(0), moment)));
    let up = Scale::linear(0.0, most.fold(1.0, f64::max) * 1.25, area.bottom, area.top);
    let across = moments.across(area);
    let offered = |moment: &Moment| moment.offered.map(|offered| per_second(offered, moment));
    let body = html! {
        (moments.unmeasured(area))
        (area.left_axis(&up, "requests a second", format::rate))
        (area.bottom_axis(&moments.ticks(&across, size.pick(9, 4)), if moments.clock.is_some() { "time of day, UTC" } else { "time since the start" }))
        path.offered d=(stairs(&across, &up, &columns, offered)) {}
        path.answered d=(stairs(&across, &up, &columns, |moment| Some(per_second(moment.answered, moment)))) {}
        @for moment in columns.iter().filter(|moment| moment.failed > 0) {
            @let x = across.at(moment.at_s + moment.lasts_s / 2.0);
            path.failed d={ "M" (px(x - 4.0)) " " (px(area.bottom - 12.0)) "l8 8m0-8l-8 8" } {}
        }
        (moments.hover(area, &columns))
    };
    Drawing { height, body }
}

fn per_second(count: u64, moment: &Moment) -> f64 {
    if moment.lasts_s > 0.0 { count as f64 / moment.lasts_s } else { 0.0 }
}

/// Level through each stretch.
fn stairs(across: &Scale, up: &Scale, columns: &[Moment], figure: impl Fn(&Moment) -> Option<f64>) -> String {
    let line = |run: &[Moment]| {
        path(run.iter().filter_map(|moment| Some((moment, up.at(figure(moment)?)))).flat_map(|(moment, y)| {
            let (from, to) = (across.at(moment.at_s), across.at(moment.at_s + moment.lasts_s));
            [(from, y), (to, y)]
        }))
    };
    runs(columns).map(line).collect()
}

/// The figures of this chart and of the heatmap.
fn table(moments: &[Moment]) -> Markup {
    html! {
        div.scroll {
            table {
                thead {
                    tr { th scope="col" { "from" } th scope="col" { "offered/s" } th scope="col" { "answered/s" } th scope="col" { "failed" }
                         th scope="col" { "p50" } th scope="col" { "p99" } th scope="col" { "longest" } }
                }
                tbody {
                    @for moment in moments {
                        tr {
                            th scope="row" { (format::plain((moment.at_s * 10.0).round() / 10.0)) " s" @if !moment.measured { " *" } }
                            td { (moment.offered.map_or_else(|| "–".to_owned(), |offered| format::rate(per_second(offered, moment)))) }
                            td { (format::rate(per_second(moment.answered, moment))) }
                            td { (format::count(moment.failed)) }
                            @for us in [moment.p50_us, moment.p99_us, moment.max_us] {
                                td { @if moment.max_us > 0 { (format::time(us)) } @else { "–" } }
                            }
                        }
                    }
                }
            }
        }
        @if moments.iter().any(|moment| !moment.measured) { p.note { "* not measured" } }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::moments::tests::run, *};

    #[test]
    fn a_stretch_is_level_and_failures_are_marked() {
        let moments = run(2);
        let across = Scale::linear(0.0, 2.0, 0.0, 20.0);
        let up = Scale::linear(0.0, 10.0, 100.0, 0.0);
        assert_eq!(stairs(&across, &up, &moments.all, |moment| Some(per_second(moment.answered, moment))), "M0 10L10 10L10 10L20 10");
        let text = draw(Size::Wide, &moments).body.into_string();
        assert_eq!(text.matches(r#"<path class="failed""#).count(), 1, "{text}");
        assert!(text.contains("1 s: 10 due, 9 answered, 1 failed, p50 101 µs, p99 999 µs, longest 2.00 ms"), "{text}");
        assert!(text.contains("warm-up"), "{text}");
    }

    #[test]
    fn no_time_is_no_figure() {
        assert!(figure("r", "", &Moments::default()).is_none());
    }
}
