//! The page of a running daemon: the same parts as that of a run, from the intervals that it keeps.

use super::{
    bars::{self, SpanBar},
    format,
    frame::{Key, Mood, counts, facts, keys, page, section, verdict},
    heatmap,
    moments::{Moment, Moments},
    percentiles::{self, Bound, Curve},
    rate,
};
use crate::telemetry::{
    Budget, Slow, Span,
    promise::Verdict,
    report::{Caches, Report, SpanLine},
};
use jiff::Timestamp;
use maud::{Markup, html};

/// Slowest decisions that are shown.
const SLOWEST_SHOWN: usize = 10;

/// The page of a report, beside the window before it.
#[must_use]
pub fn operations(it: &Report, before: Option<&Report>) -> String {
    let moments = moments(it);
    let body = html! {
        (head(it))
        (latency(it, before))
        (over_time(&moments))
        (spans(it))
        (decided(it))
        (slowest(&it.slowest))
        (circumstances(it))
    };
    page(&format!("jitauth report: profile {}, {}", it.profile, format::instant(&it.until)), &body)
}

fn head(it: &Report) -> Markup {
    let (mood, word) = match it.verdict {
        Verdict::Kept => (Mood::Good, "Promises kept"),
        Verdict::Broken => (Mood::Bad, "Promises broken"),
        Verdict::TooFew => (Mood::Wary, "Not graded"),
    };
    let broken: Vec<&str> = it.spans.iter().filter(|line| line.verdict == Some(Verdict::Broken)).map(|line| line.span.as_str()).collect();
    let sentence = match it.verdict {
        Verdict::Kept => format!("Every latency that profile {} promises was kept.", it.profile),
        Verdict::Broken => format!("Profile {} promises less for: {}.", it.profile, broken.join(", ")),
        Verdict::TooFew => "There are too few decisions.".to_owned(),
    };
    let made_of = match it.intervals {
        0 => "since start".to_owned(),
        1 => "1 interval".to_owned(),
        many => format!("{} intervals", format::count(many as u64)),
    };
    html! {
        header {
            p.over { "jitauth report" }
            h1 { "jitauth " (it.version) ", " (it.store) }
            p.question { (format::instant(&it.since)) " to " (format::instant(&it.until)) ", " (made_of) }
        }
        section id="verdict" aria-label="Verdict" {
            (verdict(mood, word, &sentence))
            (keys(&key_figures(it)))
            @if let Some(share) = &it.largest_share {
                p { "Most of the time went into " strong { (share.span) } ": " (format::percent(share.share)) " of it, p99 " (format::time(share.p99_us)) "." }
            }
        }
    }
}

fn total(it: &Report) -> Option<&SpanLine> {
    it.span(Span::Total)
}

fn key_figures(it: &Report) -> Vec<Key> {
    let decisions = &it.decisions;
    let time = |name: &'static str, figure: fn(&SpanLine) -> u64| {
        let value = total(it).map_or_else(|| "–".to_owned(), |line| format::time(figure(line)));
        Key { name, value, remark: "receipt to answer".to_owned() }
    };
    let approved = decisions.approval_rate.map_or_else(|| "–".to_owned(), format::percent);
    let failed: u64 = it.alerts.values().sum();
    vec![
        time("median", |line| line.p50_us),
        time("p99", |line| line.p99_us),
        time("p99.9", |line| line.p999_us),
        Key {
            name: "decisions a second",
            value: format::rate(decisions.per_second),
            remark: format!("{} in all", format::count(decisions.count)),
        },
        Key { name: "approved", value: approved, remark: format!("{} partially", format::count(decisions.partially_approved)) },
        Key { name: "latency alerts", value: format::count(failed), remark: format!("{} replays", format::count(decisions.replayed)) },
    ]
}

fn latency(it: &Report, before: Option<&Report>) -> Markup {
    let mut curves: Vec<Curve> = curve("this window", "response", it).into_iter().collect();
    curves.extend(before.and_then(|before| curve("the window before it", "previous", before)));
    let budget = total(it).and_then(|line| line.budget);
    let bounds: Vec<Bound> = budget.map(|budget| promised(&it.profile, budget)).into_iter().collect();
    let caption = "From the receipt of a request until its answer was written, as the daemon measured it. Higher is slower.";
    let body = html! {
        @match percentiles::figure("latency-chart", caption, &curves, &bounds) {
            Some(figure) => { (figure) (percentile_table(it, before)) }
            None => p { "Nothing was answered." }
        }
        @if let Some(before) = before {
            p.note { "The window before it: " (format::instant(&before.since)) " to " (format::instant(&before.until)) ", "
                     (format::count(before.decisions.count)) " decisions." }
        }
    };
    section("latency", "How long an answer takes", &body)
}

fn promised(profile: &str, Budget { p50_us, p95_us, p99_us }: Budget) -> Bound {
    Bound { name: format!("promised by profile {profile}"), class: "promise", steps: vec![(0.5, p50_us), (0.95, p95_us), (0.99, p99_us)] }
}

/// The whole curve, or as much of it as a daemon without details tells.
fn curve(name: &str, class: &'static str, it: &Report) -> Option<Curve> {
    let line = total(it)?;
    let told = it.detail.as_ref().map(|detail| detail.curve.clone()).filter(|curve| !curve.is_empty());
    let known =
        [(0.0, line.min_us), (0.5, line.p50_us), (0.95, line.p95_us), (0.99, line.p99_us), (0.999, line.p999_us), (1.0, line.max_us)];
    Some(Curve { name: name.to_owned(), class, count: line.count, points: told.unwrap_or_else(|| known.to_vec()) })
}

fn percentile_table(it: &Report, before: Option<&Report>) -> Markup {
    type Figure = fn(&SpanLine) -> u64;
    let figures: [(&str, Figure); 6] = [
        ("shortest", |line| line.min_us),
        ("p50", |line| line.p50_us),
        ("p95", |line| line.p95_us),
        ("p99", |line| line.p99_us),
        ("p99.9", |line| line.p999_us),
        ("longest", |line| line.max_us),
    ];
    let before = before.and_then(total);
    html! {
        @if let Some(now) = total(it) {
            table {
                thead {
                    tr {
                        th scope="col" { "" } th scope="col" { "this window" }
                        @if before.is_some() { th scope="col" { "before" } th scope="col" { "change" } }
                    }
                }
                @for (name, figure) in figures {
                    tr {
                        th scope="row" { (name) } td { (format::time(figure(now))) }
                        @if let Some(before) = before { td { (format::time(figure(before))) } td { (format::change(figure(now), figure(before))) } }
                    }
                }
            }
        }
    }
}

/// The intervals, from where the first one begins.
fn moments(it: &Report) -> Moments {
    let Some(detail) = &it.detail else { return Moments::default() };
    let at = |text: &str| text.parse::<Timestamp>().ok();
    let Some(start) = detail.intervals.first().and_then(|first| at(&first.since)) else { return Moments::default() };
    let since_start = |text: &str| at(text).map(|at| at.duration_since(start).as_secs_f64());
    let moment = |stretch: &crate::telemetry::report::Stretch| {
        let (from, to) = (since_start(&stretch.since)?, since_start(&stretch.until)?);
        Some(Moment {
            at_s: from,
            lasts_s: (to - from).max(0.0),
            measured: true,
            offered: None,
            answered: stretch.decisions,
            failed: stretch.failed,
            p50_us: stretch.p50_us,
            p99_us: stretch.p99_us,
            max_us: stretch.max_us,
            buckets: stretch.buckets.clone(),
        })
    };
    Moments { all: detail.intervals.iter().filter_map(moment).collect(), bounds_us: detail.bounds_us.clone(), clock: Some(start) }
}

fn over_time(moments: &Moments) -> Markup {
    let rate = "Decisions in each interval that is kept. Intervals in which nothing happened are not kept.";
    let heat = "Each cell counts the answers of one interval, by how long they took.";
    html! {
        @if let Some(figure) = rate::figure("rate-chart", rate, moments) { (section("rate", "Decisions over time", &figure)) }
        @if let Some(figure) = heatmap::figure("heatmap-chart", heat, moments) { (section("heatmap", "Latency over time", &figure)) }
    }
}

fn spans(it: &Report) -> Markup {
    let bar = |line: &SpanLine| SpanBar {
        span: line.span.clone(),
        count: line.count,
        p50_us: line.p50_us,
        p95_us: line.p95_us,
        p99_us: line.p99_us,
        budget: line.budget,
        verdict: line.verdict,
    };
    let bars: Vec<SpanBar> = it.spans.iter().map(bar).collect();
    let caption = format!(
        "The daemon's own clock, span by span, in the order of a decision's life. A mark is what profile {} promises for p50, p95 and p99.",
        it.profile
    );
    html! { @if let Some(figure) = bars::figure("spans-chart", &caption, &bars) { (section("spans", "Where the time goes", &figure)) } }
}

fn decided(it: &Report) -> Markup {
    let decisions = &it.decisions;
    let kinds = [("approved", decisions.approved), ("partially_approved", decisions.partially_approved), ("declined", decisions.declined)];
    let tier = |(tier, caches): (&String, &Caches)| {
        let asked: u64 = caches.results.values().sum();
        Some((tier.clone(), format::percent(caches.hit_rate?), format::count(asked)))
    };
    let tiers: Vec<_> = it.caches.iter().filter_map(tier).collect();
    let body = html! {
        (counts("Decisions", &kinds))
        (counts("Declines by reason", &format::most_first(&it.reasons)))
        (counts("Latency alerts by level", &format::most_first(&it.alerts)))
        @if !tiers.is_empty() {
            table {
                caption { "Where facts were found" }
                thead { tr { th scope="col" { "tier" } th scope="col" { "hits" } th scope="col" { "look-ups" } } }
                @for (tier, hits, asked) in tiers { tr { th scope="row" { (tier) } td { (hits) } td { (asked) } } }
            }
        }
        @if decisions.count == 0 { p { "Nothing was decided." } }
    };
    section("decisions", "Decisions and reasons", &body)
}

fn slowest(all: &[Slow]) -> Markup {
    let body = html! {
        div.scroll {
            table {
                thead { tr { th scope="col" { "answered" } th.left scope="col" { "authorization" } th.left scope="col" { "decision" } th.left scope="col" { "what it waited for" } th scope="col" { "took" } } }
                @for slow in all.iter().take(SLOWEST_SHOWN) {
                    tr {
                        th scope="row" { (format::instant(&slow.at)) }
                        td.left { code { (slow.authorization) } }
                        td.left { (slow.reason.as_ref().unwrap_or(&slow.decision)) }
                        td.left { (slow.cause) ": " (format::time(slow.slowest_us.into())) @if let Some(span) = &slow.slowest_span { " in " (span) } }
                        td { (format::time(slow.total_us.into())) }
                    }
                }
            }
        }
    };
    html! { @if !all.is_empty() { (section("slowest", "The slowest decisions", &body)) } }
}

fn circumstances(it: &Report) -> Markup {
    let body = facts(&[
        ("durability", Some(it.durability.clone())),
        ("store", Some(it.store.clone())),
        ("profile", Some(it.profile.clone())),
        ("version", Some(format!("jitauth {}", it.version))),
        ("up for", Some(format!("{} s", format::count(it.uptime_s.max(0.0) as u64)))),
        ("page made by", Some(format!("jitauth {}", env!("CARGO_PKG_VERSION")))),
    ]);
    section("circumstances", "On what, and how durable", &body)
}

#[cfg(test)]
#[path = "operations_tests.rs"]
mod tests;
