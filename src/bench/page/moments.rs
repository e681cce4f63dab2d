//! A run over time: stretches of equal length, as many as there is room for.

use super::{
    chart::{Area, px},
    format,
    scale::Scale,
};
use jiff::Timestamp;
use maud::{Markup, html};

/// What lies less apart follows each other.
const GAP_MAX_S: f64 = 0.5;

/// A stretch of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Moment {
    /// Seconds from the start to its start.
    pub(super) at_s: f64,
    /// Its length, seconds.
    pub(super) lasts_s: f64,
    /// Whether it counts.
    pub(super) measured: bool,
    /// Requests due in it; `None` where nobody knows.
    pub(super) offered: Option<u64>,
    /// Answers in it.
    pub(super) answered: u64,
    /// Declined for reasons of ours, and lost.
    pub(super) failed: u64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    pub(super) max_us: u64,
    /// Answers by latency bucket.
    pub(super) buckets: Vec<u64>,
}

/// A run over time.
#[derive(Clone, Debug, Default)]
pub(super) struct Moments {
    /// In order.
    pub(super) all: Vec<Moment>,
    /// Upper bounds of the buckets, microseconds; the last bucket has none.
    pub(super) bounds_us: Vec<u64>,
    /// The time of day at the start, where the axis shows that.
    pub(super) clock: Option<Timestamp>,
}

impl Moments {
    /// Seconds from the start to the end.
    pub(super) fn lasts_s(&self) -> f64 {
        self.all.last().map_or(0.0, |last| last.at_s + last.lasts_s)
    }

    /// So many at most: neighbours are put together.
    pub(super) fn merged(&self, max: usize) -> Vec<Moment> {
        let together = self.all.len().div_ceil(max.max(1)).max(1);
        self.all.chunks(together).map(merge).collect()
    }

    /// The horizontal scale.
    pub(super) fn across(&self, area: Area) -> Scale {
        Scale::linear(0.0, self.lasts_s(), area.left, area.right)
    }

    /// Figures for the horizontal axis: seconds since the start, or the time of day.
    pub(super) fn ticks(&self, across: &Scale, max: usize) -> Vec<(f64, String)> {
        let label = |second: f64| match self.clock {
            None => format!("{} s", format::plain(second)),
            Some(clock) => {
                let at = clock.checked_add(jiff::SignedDuration::from_millis((second * 1e3) as i64)).unwrap_or(clock);
                at.strftime("%H:%M:%S").to_string()
            }
        };
        across.ticks(max).into_iter().map(|second| (across.at(second), label(second))).collect()
    }

    /// Stretches that do not count, shaded.
    pub(super) fn unmeasured(&self, area: Area) -> Markup {
        let across = self.across(area);
        let runs: Vec<&[Moment]> = self.all.chunk_by(|one, other| one.measured == other.measured).filter(|run| !run[0].measured).collect();
        html! {
            @for run in runs {
                @let (from, to) = (across.at(run[0].at_s), run.last().map_or(0.0, |last| across.at(last.at_s + last.lasts_s)));
                rect.doubtful x=(px(from)) y=(px(area.top)) width=(px(to - from)) height=(px(area.bottom - area.top)) {}
                @if to - from > 60.0 {
                    text.note x=(px(from + 5.0)) y=(px(area.top + 13.0)) { @if run[0].at_s == 0.0 { "warm-up" } @else { "not measured" } }
                }
            }
        }
    }

    /// What a pointer over a stretch is told.
    pub(super) fn hover(&self, area: Area, moments: &[Moment]) -> Markup {
        let across = self.across(area);
        html! {
            @for moment in moments {
                @let (from, to) = (across.at(moment.at_s), across.at(moment.at_s + moment.lasts_s));
                rect.hover x=(px(from)) y=(px(area.top)) width=(px(to - from)) height=(px(area.bottom - area.top)) { title { (told(moment)) } }
            }
        }
    }
}

/// Stretches that follow each other without a gap: a line through a gap would tell what nobody knows.
pub(super) fn runs(columns: &[Moment]) -> impl Iterator<Item = &[Moment]> {
    columns.chunk_by(|one, next| next.at_s - (one.at_s + one.lasts_s) < GAP_MAX_S)
}

fn told(moment: &Moment) -> String {
    let from = format::plain((moment.at_s * 10.0).round() / 10.0);
    let mut text = format!("{from} s: ");
    if let Some(offered) = moment.offered {
        text += &format!("{} due, ", format::count(offered));
    }
    text += &format!("{} answered", format::count(moment.answered));
    if moment.failed > 0 {
        text += &format!(", {} failed", format::count(moment.failed));
    }
    if moment.max_us > 0 {
        let [p50, p99, max] = [moment.p50_us, moment.p99_us, moment.max_us].map(format::time);
        text += &format!(", p50 {p50}, p99 {p99}, longest {max}");
    }
    text
}

/// Neighbours as one: counts are added; of the medians the middle one stands for all, of the tails the worst.
fn merge(parts: &[Moment]) -> Moment {
    let sum = |figure: fn(&Moment) -> u64| parts.iter().map(figure).sum();
    let most = |figure: fn(&Moment) -> u64| parts.iter().map(figure).max().unwrap_or(0);
    let mut medians: Vec<u64> = parts.iter().map(|part| part.p50_us).filter(|us| *us > 0).collect();
    medians.sort_unstable();
    let mut buckets = vec![0; parts.iter().map(|part| part.buckets.len()).max().unwrap_or(0)];
    for (at, count) in parts.iter().flat_map(|part| part.buckets.iter().enumerate()) {
        buckets[at] += count;
    }
    let ends = parts.last().map_or(0.0, |last| last.at_s + last.lasts_s);
    let at_s = parts.first().map_or(0.0, |first| first.at_s);
    Moment {
        at_s,
        lasts_s: ends - at_s,
        measured: parts.iter().any(|part| part.measured),
        offered: parts.iter().map(|part| part.offered).sum(),
        answered: sum(|part| part.answered),
        failed: sum(|part| part.failed),
        p50_us: medians.get(medians.len() / 2).copied().unwrap_or(0),
        p99_us: most(|part| part.p99_us),
        max_us: most(|part| part.max_us),
        buckets,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run of so many seconds, the first of them not measured.
    pub(in crate::bench::page) fn run(seconds: u32) -> Moments {
        let moment = |second: u32| Moment {
            at_s: f64::from(second),
            lasts_s: 1.0,
            measured: second > 0,
            offered: Some(10),
            answered: 9,
            failed: u64::from(second == 1),
            p50_us: u64::from(100 + second),
            p99_us: u64::from(1_000 - second),
            max_us: 2_000,
            buckets: vec![8, 0, 1],
        };
        Moments { all: (0..seconds).map(moment).collect(), bounds_us: vec![200, 400], clock: None }
    }

    #[test]
    fn neighbours_are_put_together_when_there_is_no_room() {
        for (seconds, max, lengths) in [(3, 5, vec![1.0; 3]), (3, 2, vec![2.0, 1.0]), (10, 3, vec![4.0, 4.0, 2.0]), (0, 3, vec![])] {
            let merged: Vec<f64> = run(seconds).merged(max).iter().map(|moment| moment.lasts_s).collect();
            assert_eq!(merged, lengths, "{seconds} in {max}");
        }
        let whole = run(3).merged(1).remove(0);
        let expected = Moment {
            at_s: 0.0,
            lasts_s: 3.0,
            measured: true,
            offered: Some(30),
            answered: 27,
            failed: 1,
            p50_us: 101,
            p99_us: 1_000,
            max_us: 2_000,
            buckets: vec![24, 0, 3],
        };
        assert_eq!(whole, expected);
    }

    #[test]
    fn a_gap_parts_what_it_lies_between() {
        let mut moments = run(5).all;
        moments.remove(2);
        assert_eq!(runs(&moments).map(<[Moment]>::len).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(runs(&[]).count(), 0);
    }

    #[test]
    fn an_axis_shows_seconds_or_the_time_of_day() {
        let mut moments = run(20);
        let across = Scale::linear(0.0, 20.0, 0.0, 100.0);
        let labels = |moments: &Moments| moments.ticks(&across, 3).into_iter().map(|(_, label)| label).collect::<Vec<_>>();
        assert_eq!(labels(&moments), ["0 s", "10 s", "20 s"]);
        moments.clock = "2026-03-04T23:59:50Z".parse().ok();
        assert_eq!(labels(&moments), ["23:59:50", "00:00:00", "00:00:10"]);
    }
}
