//! Answers by time and latency: where the slow ones are, and whether all are slow or a few.

use super::{
    chart::{Area, Drawing, Figure, Size, legend, path, px},
    format,
    moments::{Moment, Moments, runs},
    scale::Scale,
};
use maud::{Markup, html};
use std::ops::RangeInclusive;

/// Shades, from few answers to many.
const LEVELS: u64 = 6;
/// What the first bucket starts at, against the first bound, when there is one bound only.
const STEP: f64 = std::f64::consts::SQRT_2;

/// The figure; `None` when nothing was answered.
pub(super) fn figure(id: &str, caption: &str, moments: &Moments) -> Option<Markup> {
    let rows = rows(moments)?;
    let mut entries = vec![("p99", "p99".to_owned()), ("p50", "median".to_owned())];
    entries.reverse();
    let mut caption = caption.to_owned();
    let together = moments.all.len().div_ceil(Size::Wide.pick(120, 60));
    if together > 1 {
        let length = format::plain(moments.merged(120).first().map_or(0.0, |moment| (moment.lasts_s * 10.0).round() / 10.0));
        caption = format!("{caption} A column is {length} s wide: the lines are the middle one of its medians and the highest of its p99.");
    }
    let title = "Latency over time";
    let it = Figure { id, title, caption, legend: html! { (legend(&entries)) (shades(most(&moments.merged(120)))) }, table: None };
    Some(it.draw(|size| draw(size, moments, &rows)))
}

/// The buckets that anything fell into, with one more on each side.
fn rows(moments: &Moments) -> Option<RangeInclusive<usize>> {
    let used = |bucket: &usize| moments.all.iter().any(|moment| moment.buckets.get(*bucket).is_some_and(|count| *count > 0));
    let last = moments.bounds_us.len();
    let (low, high) = ((0..=last).find(used)?, (0..=last).rfind(used)?);
    Some(low.saturating_sub(1)..=(high + 1).min(last))
}

fn most(columns: &[Moment]) -> u64 {
    columns.iter().flat_map(|moment| &moment.buckets).copied().max().unwrap_or(0)
}

/// The shade of a count: by its logarithm, so that a single slow answer shows beside thousands of fast ones.
fn level(count: u64, most: u64) -> u64 {
    if count == 0 {
        return 0;
    }
    let share = (1.0 + count as f64).ln() / (1.0 + most.max(count) as f64).ln();
    ((share * LEVELS as f64).ceil() as u64).clamp(1, LEVELS)
}

/// The counts that have each shade.
fn ranges(most: u64) -> Vec<(u64, u64, u64)> {
    let mut found: Vec<(u64, u64, u64)> = Vec::new();
    // Where a shade ends follows from its formula; two are tried, for what was rounded.
    let mut from = 1;
    for shade in 1..=LEVELS {
        let end = ((1.0 + most as f64).powf(shade as f64 / LEVELS as f64) - 1.0).round() as u64;
        let to = [end + 1, end, end.saturating_sub(1)]
            .into_iter()
            .find(|count| level(*count, most) == shade && *count >= from && *count <= most);
        if let Some(to) = to {
            found.push((shade, from, to));
            from = to + 1;
        }
    }
    found
}

fn shades(most: u64) -> Markup {
    html! {
        ul.legend.shades {
            li { "answers:" }
            @for (shade, from, to) in ranges(most) {
                li {
                    svg viewBox="0 0 14 12" aria-hidden="true" { rect class={ "h" (shade) } width="14" height="12" {} }
                    @if from == to { (format::count(from)) } @else { (format::count(from)) "–" (format::count(to)) }
                }
            }
        }
    }
}

/// Where a bucket ends, microseconds. The last has no bound: it is drawn like the one before it.
fn upper(bounds: &[u64], bucket: usize) -> f64 {
    let step = match bounds {
        [.., before, last] if *before > 0 => *last as f64 / *before as f64,
        _ => STEP,
    };
    bounds.get(bucket).map_or_else(|| bounds.last().map_or(1.0, |last| *last as f64) * step, |bound| *bound as f64)
}

fn lower(bounds: &[u64], bucket: usize) -> f64 {
    let step = match bounds {
        [first, second, ..] if *first > 0 => *second as f64 / *first as f64,
        _ => STEP,
    };
    if bucket == 0 { upper(bounds, 0) / step } else { upper(bounds, bucket - 1) }
}

fn draw(size: Size, moments: &Moments, rows: &RangeInclusive<usize>) -> Drawing {
    let height = size.pick(340.0, 280.0);
    let area = Area::new(size, height);
    let columns = moments.merged(size.pick(120, 60));
    let bounds = &moments.bounds_us;
    let up = Scale::log(lower(bounds, *rows.start()), upper(bounds, *rows.end()), area.bottom, area.top);
    let across = moments.across(area);
    let most = most(&columns);
    let line = |figure: fn(&Moment) -> u64| -> String {
        let place = |moment: &Moment| (across.at(moment.at_s + moment.lasts_s / 2.0), up.at(figure(moment) as f64));
        runs(&columns).map(|run| path(run.iter().filter(|moment| moment.max_us > 0).map(place))).collect()
    };
    let (p50, p99) = (line(|moment| moment.p50_us), line(|moment| moment.p99_us));
    let body = html! {
        (area.left_axis(&up, "response time, log scale", format::tick_time))
        (moments.unmeasured(area))
        @for shade in 1..=LEVELS {
            path class={ "h" (shade) } d=(cells(&columns, rows, &across, |bucket| (up.at(upper(bounds, bucket)), up.at(lower(bounds, bucket))), |count| level(count, most) == shade)) {}
        }
        // A line beneath each line sets it off from any shade.
        path.halo d=(p50) {} path.halo d=(p99) {}
        path.p50 d=(p50) {} path.p99 d=(p99) {}
        @if let [only] = columns.as_slice() {
            // One point is no line.
            @let x = across.at(only.at_s + only.lasts_s / 2.0);
            circle.dot.p50 cx=(px(x)) cy=(px(up.at(only.p50_us as f64))) r="4" {}
            circle.dot.p99 cx=(px(x)) cy=(px(up.at(only.p99_us as f64))) r="4" {}
        }
        (area.bottom_axis(&moments.ticks(&across, size.pick(9, 4)), if moments.clock.is_some() { "time of day, UTC" } else { "time since the start" }))
        (moments.hover(area, &columns))
    };
    Drawing { height, body }
}

/// All cells of one shade as one path; upright neighbours in a column are one rectangle.
fn cells(
    columns: &[Moment],
    rows: &RangeInclusive<usize>,
    across: &Scale,
    edges: impl Fn(usize) -> (f64, f64),
    is_shade: impl Fn(u64) -> bool,
) -> String {
    let mut text = String::new();
    for moment in columns {
        let (from, to) = (across.at(moment.at_s), across.at(moment.at_s + moment.lasts_s));
        for bucket in rows.clone().filter(|bucket| moment.buckets.get(*bucket).is_some_and(|count| is_shade(*count))) {
            let (top, bottom) = edges(bucket);
            text.push_str(&format!("M{} {}H{}V{}H{}z", px(from), px(top), px(to), px(bottom), px(from)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{super::moments::tests::run, *};

    #[test]
    fn shades_grow_with_the_logarithm_and_the_legend_says_which_counts_have_which() {
        for (count, most, expected) in [(0, 100, 0), (1, 100, 1), (3, 100, 2), (100, 100, 6), (1, 1, 6), (200, 100, 6), (1, 1_000_000, 1)] {
            assert_eq!(level(count, most), expected, "{count} of {most}");
        }
        for most in [1, 2, 3, 5, 9, 40, 100, 12_345] {
            let ranges = ranges(most);
            assert_eq!((ranges.first().map(|range| range.1), ranges.last().map(|range| range.2)), (Some(1), Some(most)), "{ranges:?}");
            for (shade, from, to) in &ranges {
                assert!((*from..=*to).all(|count| level(count, most) == *shade), "{most}: {ranges:?}");
            }
            assert!(ranges.windows(2).all(|pair| pair[0].2 + 1 == pair[1].1), "{most}: {ranges:?}");
        }
    }

    #[test]
    fn buckets_without_answers_at_the_ends_are_left_out() {
        let mut moments = run(3);
        moments.bounds_us = (1..=10).map(|bound| bound * 100).collect();
        for (buckets, expected) in [
            (vec![0, 0, 0, 1, 0, 2], Some(2..=6)),
            (vec![1], Some(0..=1)),
            (vec![0; 11], None),
            ([vec![0; 10], vec![1]].concat(), Some(9..=10)),
        ] {
            moments.all.iter_mut().for_each(|moment| moment.buckets.clone_from(&buckets));
            assert_eq!(rows(&moments), expected);
        }
    }

    #[test]
    fn a_cell_has_the_edges_of_its_bucket_and_second() {
        let moments = run(1);
        let across = Scale::linear(0.0, 1.0, 0.0, 10.0);
        let text = cells(&moments.all, &(0..=2), &across, |bucket| (10.0 - bucket as f64, 11.0 - bucket as f64), |count| count == 1);
        assert_eq!(text, "M0 8H10V9H0z");
        for (bounds, bucket, expected) in [
            (&[100, 200][..], 0, (50.0, 100.0)),
            (&[100, 200], 1, (100.0, 200.0)),
            (&[100, 200], 2, (200.0, 400.0)),
            (&[100], 1, (100.0, 100.0 * STEP)),
            (&[], 0, (1.0, STEP)),
        ] {
            let found = (lower(bounds, bucket), upper(bounds, bucket));
            assert!((found.0 - expected.0).abs() < 1e-9 && (found.1 - expected.1).abs() < 0.5, "{bounds:?} {bucket}: {found:?}");
        }
    }
}
