//! How long the slowest of so many take: a curve over the percentiles, whose axis stretches towards 100 %.

use super::{
    chart::{Area, Drawing, Figure, Size, legend, path, px},
    format,
    scale::Scale,
};
use maud::{Markup, html};

/// A distribution as a curve.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    pub(super) name: String,
    /// How it is drawn.
    pub(super) class: &'static str,
    pub(super) count: u64,
    /// Quantile and microseconds, both growing.
    pub(super) points: Vec<(f64, u64)>,
}

/// What a time must stay below, up to a percentile.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bound {
    pub(super) name: String,
    pub(super) class: &'static str,
    /// Up to which quantile, and microseconds.
    pub(super) steps: Vec<(f64, u64)>,
}

/// What lies so many times above the slowest is not drawn: it would leave the curves no room.
const BOUND_DRAWN_MAX: u64 = 20;
/// Measurements beyond a percentile below which it says little.
const ENOUGH: f64 = 100.0;
/// Percentiles at the axis.
const TICKS: [(f64, &str); 8] = [
    (0.0, "0 %"),
    (0.5, "50 %"),
    (0.9, "90 %"),
    (0.99, "99 %"),
    (0.999, "99.9 %"),
    (0.9999, "99.99 %"),
    (0.99999, "99.999 %"),
    (0.999_999, "99.9999 %"),
];

/// The figure; `None` when nothing was measured. The first curve is the one that is looked at.
pub(super) fn figure(id: &str, caption: &str, curves: &[Curve], bounds: &[Bound]) -> Option<Markup> {
    let curves: Vec<&Curve> = curves.iter().filter(|curve| curve.count > 0 && !curve.points.is_empty()).collect();
    let first = *curves.first()?;
    let slowest = curves.iter().filter_map(|curve| curve.points.last()).map(|(_, us)| *us).max()?;
    let drawn = |bound: &&Bound| bound.steps.iter().all(|(_, us)| *us <= slowest.saturating_mul(BOUND_DRAWN_MAX));
    let (near, far): (Vec<&Bound>, Vec<&Bound>) = bounds.iter().partition(drawn);
    let mut entries: Vec<(&str, String)> = curves.iter().map(|curve| (curve.class, curve.name.clone())).collect();
    for same in near.chunk_by(|one, other| one.class == other.class) {
        entries.push((same[0].class, same.iter().map(|bound| bound.name.as_str()).collect::<Vec<_>>().join(", ")));
    }
    let mut caption = caption.to_owned();
    if !far.is_empty() {
        let far: Vec<&str> = far.iter().map(|bound| bound.name.as_str()).collect();
        caption = format!("{caption} Far above what is drawn: {}.", far.join(", "));
    }
    let it = Figure { id, title: "Latency by percentile", caption, legend: legend(&entries), table: None };
    Some(it.draw(|size| draw(size, first, &curves, &near, slowest)))
}

/// Where a quantile lies: 1 for 90 %, 2 for 99 %, and so on.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile.clamp(0.0, 1.0 - 1e-12)).log10()
}

fn draw(size: Size, first: &Curve, curves: &[&Curve], bounds: &[&Bound], slowest: u64) -> Drawing {
    let height = size.pick(400.0, 300.0);
    let area = Area::new(size, height);
    // The slowest of a thousand lies at 99.9 %.
    let last = curves.iter().map(|curve| (curve.count.max(10) as f64).log10()).fold(1.0, f64::max);
    let across = Scale::linear(0.0, last, area.left, area.right);
    let shortest = curves.iter().filter_map(|curve| curve.points.first()).map(|(_, us)| *us).min().unwrap_or(1);
    let limits = bounds.iter().flat_map(|bound| &bound.steps).map(|(_, us)| *us);
    let (low, high) = limits.fold((shortest, slowest), |(low, high), us| (low.min(us), high.max(us)));
    let up = Scale::wide_log(low.max(1) as f64, high.max(2) as f64, area.bottom, area.top);
    let body = html! {
        (doubtful(area, &across, first))
        (area.left_axis(&up, "time, log scale", format::tick_time))
        (area.bottom_axis(&ticks(size, &across, last), "share of answers that were faster, log scale"))
        @for bound in bounds { path class=(bound.class) d=(stairs(&across, &up, bound)) { title { (bound.name) } } }
        @for curve in curves.iter().rev() { path class=(curve.class) d=(line(&across, &up, curve, last)) { title { (curve.name) } } }
        (marks(&across, &up, first))
    };
    Drawing { height, body }
}

/// A step for each percentile; a quantile of 1 ends at the curve's own end.
fn line(across: &Scale, up: &Scale, curve: &Curve, last: f64) -> String {
    let end = (curve.count.max(10) as f64).log10().min(last);
    path(curve.points.iter().map(|(quantile, us)| (across.at(nines(*quantile).min(end)), up.at(*us as f64))))
}

/// Level up to the percentile, then up or down to the next bound.
fn stairs(across: &Scale, up: &Scale, bound: &Bound) -> String {
    let mut from = 0.0;
    let mut points = Vec::new();
    for (quantile, us) in &bound.steps {
        let (to, y) = (nines(*quantile), up.at(*us as f64));
        points.extend([(across.at(from), y), (across.at(to), y)]);
        from = to;
    }
    path(points)
}

/// Circles where people look first; each tells its figure.
fn marks(across: &Scale, up: &Scale, curve: &Curve) -> Markup {
    let end = (curve.count.max(10) as f64).log10();
    let at = |(name, quantile): (&'static str, f64)| {
        let (_, us) = *curve.points.iter().find(|(reached, _)| *reached >= quantile)?;
        (nines(quantile) <= end).then(|| (name, across.at(nines(quantile)), up.at(us as f64), us))
    };
    html! {
        @for (name, x, y, us) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)].into_iter().filter_map(at) {
            circle class={ "dot " (curve.class) } cx=(px(x)) cy=(px(y)) r="3.5" { title { (curve.name) ", " (name) ": " (format::time(us)) } }
        }
    }
}

/// The part of the curve that single requests decide.
fn doubtful(area: Area, across: &Scale, curve: &Curve) -> Markup {
    let from = across.at(nines(1.0 - ENOUGH / curve.count as f64));
    let room = area.right - from;
    html! {
        @if room > 1.0 {
            rect.doubtful x=(px(from)) y=(px(area.top)) width=(px(room)) height=(px(area.bottom - area.top)) {}
            text.note.end x=(px(area.right - 4.0)) y=(px(area.bottom - 7.0)) { "fewer than 100 slower" }
        }
    }
}

fn ticks(size: Size, across: &Scale, last: f64) -> Vec<(f64, String)> {
    let room = size.pick(60.0, 48.0);
    let mut ticks: Vec<(f64, String)> = Vec::new();
    for (quantile, label) in TICKS.into_iter().filter(|(quantile, _)| nines(*quantile) <= last + 1e-9) {
        let at = across.at(nines(quantile));
        if ticks.last().is_none_or(|(before, _)| at - before >= room) {
            ticks.push((at, label.to_owned()));
        }
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(count: u64) -> Curve {
        let points = vec![(0.0, 100), (0.5, 200), (0.9, 400), (0.99, 1_000), (1.0, 5_000)];
        Curve { name: "response time".to_owned(), class: "response", count, points }
    }

    #[test]
    fn each_nine_has_the_same_room() {
        for (quantile, expected) in [(0.0, 0.0), (0.9, 1.0), (0.99, 2.0), (0.999, 3.0), (1.0, 12.0)] {
            assert!((nines(quantile) - expected).abs() < 1e-3, "{quantile}");
        }
    }

    #[test]
    fn a_curve_ends_where_its_slowest_lies_and_a_bound_at_its_percentile() {
        let across = Scale::linear(0.0, 3.0, 0.0, 300.0);
        let up = Scale::log(100.0, 10_000.0, 200.0, 0.0);
        assert_eq!(line(&across, &up, &curve(1_000), 3.0), "M0 200L30.1 169.9L100 139.8L200 100L300 30.1");
        assert!(line(&across, &up, &curve(100), 3.0).ends_with("L200 30.1"), "of a hundred, at 99 %");
        let bound = Bound { name: "b".to_owned(), class: "limit", steps: vec![(0.9, 1_000), (0.99, 10_000)] };
        assert_eq!(stairs(&across, &up, &bound), "M0 100L100 100L100 0L200 0");
    }

    #[test]
    fn what_would_leave_no_room_is_told_and_not_drawn() {
        let bound = |us| Bound { name: format!("p99<{us}us"), class: "limit", steps: vec![(0.99, us)] };
        let page = figure("f", "C.", &[curve(1_000)], &[bound(9_000), bound(60_000_000)]).map(Markup::into_string);
        let page = page.unwrap_or_default();
        assert!(page.contains("<title>p99&lt;9000us</title>") && page.contains("Far above what is drawn: p99&lt;60000000us."), "{page}");
        assert!(!page.contains("<title>p99&lt;60000000us</title>"), "{page}");
    }

    #[test]
    fn nothing_measured_is_no_figure() {
        assert!(figure("f", "", &[Curve { count: 0, ..curve(0) }], &[]).is_none());
        assert!(figure("f", "", &[Curve { points: Vec::new(), ..curve(9) }], &[]).is_none());
    }
}
