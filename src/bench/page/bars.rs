//! Where the time went, span by span, against what the profile promises.

use super::{
    chart::{Drawing, Figure, Size, legend, px},
    format,
    scale::Scale,
};
use crate::telemetry::{Budget, promise::Verdict};
use maud::{Markup, html};

/// A span.
#[derive(Clone, Debug)]
pub(super) struct SpanBar {
    pub(super) span: String,
    pub(super) count: u64,
    pub(super) p50_us: u64,
    pub(super) p95_us: u64,
    pub(super) p99_us: u64,
    pub(super) budget: Option<Budget>,
    pub(super) verdict: Option<Verdict>,
}

impl SpanBar {
    /// Percentile, measured and promised.
    fn figures(&self) -> [(&'static str, u64, Option<u64>); 3] {
        [
            ("p50", self.p50_us, self.budget.map(|budget| budget.p50_us)),
            ("p95", self.p95_us, self.budget.map(|budget| budget.p95_us)),
            ("p99", self.p99_us, self.budget.map(|budget| budget.p99_us)),
        ]
    }

    /// Whether a figure is above what is promised, and that counts.
    fn broken(&self, us: u64, budget: Option<u64>) -> bool {
        self.verdict == Some(Verdict::Broken) && budget.is_some_and(|budget| us > budget)
    }
}

/// What became of a promise, in words: colour alone says nothing to many.
pub(super) fn verdict(verdict: Option<Verdict>) -> Markup {
    match verdict {
        Some(Verdict::Kept) => html! { span.kept { "✓ kept" } },
        Some(Verdict::Broken) => html! { span.broken { "✗ broken" } },
        Some(Verdict::TooFew) => html! { span.few { "too few" } },
        None => html! { span.few { "–" } },
    }
}

/// The figure; `None` without spans.
pub(super) fn figure(id: &str, caption: &str, spans: &[SpanBar]) -> Option<Markup> {
    (!spans.is_empty()).then(|| {
        let entries = [
            ("bar50", "p50".to_owned()),
            ("bar95", "p95".to_owned()),
            ("bar99", "p99".to_owned()),
            ("budget", "promised".to_owned()),
            ("barbroken", "✗ over the promise".to_owned()),
        ];
        let it = Figure { id, title: "Spans and what is promised", caption: caption.to_owned(), legend: legend(&entries), table: None };
        html! { (it.draw(|size| draw(size, spans))) (table(spans)) }
    })
}

fn draw(size: Size, spans: &[SpanBar]) -> Drawing {
    let (left, right) = (size.pick(92.0, 4.0), size.pick(850.0, 350.0));
    let (row, top) = (size.pick(44.0, 56.0), 26.0);
    let bottom = top + row * spans.len() as f64;
    let longest = spans.iter().flat_map(SpanBar::figures).flat_map(|(_, us, budget)| [us, budget.unwrap_or(0)]).max().unwrap_or(1);
    let across = Scale::wide_log(1.0, longest.max(10) as f64, left, right);
    let body = html! {
        text.name x="0" y="12" { "log scale" }
        @for tick in across.ticks(size.pick(9, 4)) {
            line.grid x1=(px(across.at(tick))) x2=(px(across.at(tick))) y1=(px(top)) y2=(px(bottom)) {}
            // At the edge of a telephone a figure in the middle would be cut off.
            @let last = size == Size::Narrow && across.at(tick) > right - 20.0;
            text.tick.middle[tick > 1.0 && !last].end[last] x=(px(across.at(tick))) y=(px(bottom + 16.0)) { (format::tick_time(tick)) }
        }
        @for (span, place) in spans.iter().zip(0_u32..) {
            @let y = top + row * f64::from(place);
            (one(size, &across, span, y, row))
        }
    };
    Drawing { height: bottom + 24.0, body }
}

fn one(size: Size, across: &Scale, span: &SpanBar, y: f64, row: f64) -> Markup {
    let (label, first) = (size.pick((0.0, y + row / 2.0 + 4.0), (0.0, y + 17.0)), size.pick(y + 7.0, y + 22.0));
    let word = match span.verdict {
        Some(Verdict::Kept) => Some(("✓ kept", "kept")),
        Some(Verdict::Broken) => Some(("✗ broken", "broken")),
        Some(Verdict::TooFew) => Some(("too few", "few")),
        None => None,
    };
    html! {
        text.span x=(px(label.0)) y=(px(label.1)) { (span.span) }
        @for ((name, us, budget), place) in span.figures().into_iter().zip(0_u32..) {
            @let (top, end) = (first + 10.0 * f64::from(place), across.at(us as f64).max(across.at(1.0) + 1.5));
            @let class = if span.broken(us, budget) { "barbroken" } else { ["bar50", "bar95", "bar99"][place as usize] };
            rect class=(class) x=(px(across.at(1.0))) y=(px(top)) width=(px(end - across.at(1.0))) height="7" {
                title { (span.span) " " (name) ": " (format::time(us)) @if let Some(budget) = budget { ", promised " (format::time(budget)) } }
            }
            @if let Some(budget) = budget {
                line.budget x1=(px(across.at(budget as f64))) x2=(px(across.at(budget as f64))) y1=(px(top - 1.5)) y2=(px(top + 8.5)) {}
            }
        }
        @if let Some((word, class)) = word {
            text class={ "end " (class) } x=(px(size.width())) y=(px(label.1)) { (word) }
        }
    }
}

fn table(spans: &[SpanBar]) -> Markup {
    html! {
        table.spans {
            thead {
                tr { th scope="col" { "span" } th.count scope="col" { "measured" } th scope="col" { "p50" } th scope="col" { "p95" } th scope="col" { "p99" } th scope="col" { "promise" } }
            }
            tbody {
                @for span in spans {
                    tr {
                        th scope="row" { (span.span) }
                        td.count { (format::count(span.count)) }
                        @for (_, us, budget) in span.figures() {
                            td {
                                span.broken[span.broken(us, budget)] { (format::time(us)) }
                                @if let Some(budget) = budget { small { " of " (format::time(budget)) } }
                            }
                        }
                        td { (verdict(span.verdict)) }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(p99_us: u64, grade: Option<Verdict>) -> SpanBar {
        let budget = grade.map(|_| Budget { p50_us: 1_000, p95_us: 2_000, p99_us: 3_000 });
        SpanBar { span: "commit".to_owned(), count: 200, p50_us: 300, p95_us: 600, p99_us, budget, verdict: grade }
    }

    #[test]
    fn a_bar_that_breaks_its_promise_is_told_by_shape_and_word() {
        for (p99_us, grade, bars, word) in [
            (2_999, Some(Verdict::Kept), 0, "✓ kept"),
            (3_001, Some(Verdict::Broken), 1, "✗ broken"),
            // Too few measurements break nothing.
            (9_000, Some(Verdict::TooFew), 0, "too few"),
            (9_000, None, 0, "–"),
        ] {
            let text = figure("s", "C.", &[span(p99_us, grade)]).map(Markup::into_string).unwrap_or_default();
            assert_eq!(text.matches(r#"<rect class="barbroken""#).count(), bars * 2, "{p99_us}, both drawings: {text}");
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn no_spans_are_no_figure() {
        assert!(figure("s", "", &[]).is_none());
    }
}
