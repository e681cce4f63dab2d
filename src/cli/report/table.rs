//! A report as a table with bars.

use crate::telemetry::{
    Slow,
    promise::Verdict,
    report::{Caches, Report, SpanLine},
};
use indicatif::HumanCount;
use std::{collections::BTreeMap, fmt::Write as _};

/// Cells that the longest bar takes.
const BAR_CELLS: u64 = 16;
/// Slowest decisions that are shown.
const SLOWEST_SHOWN: usize = 5;

/// All of it.
pub(super) fn render(report: &Report) -> String {
    let mut text = head(report);
    text += &decided(report);
    text += "\n";
    text += &spans(report);
    text += &ending(report);
    text
}

/// Microseconds for people, three digits and a unit.
pub(in crate::cli) fn time(us: u64) -> String {
    let digits = |value: f64| if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.*} ms", digits(us as f64 / 1e3), us as f64 / 1e3),
        _ => format!("{:.*} s", digits(us as f64 / 1e6), us as f64 / 1e6),
    }
}

/// A bar of eighths of cells; what is not nothing shows.
pub(in crate::cli) fn bar(value: u64, longest: u64, cells: u64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (u128::from(value) * u128::from(cells) * 8).checked_div(u128::from(longest)).unwrap_or(0);
    let eighths = usize::try_from(eighths).unwrap_or(0).min(usize::try_from(cells * 8).unwrap_or(0)).max(usize::from(value > 0));
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

/// A share of one as a percentage.
pub(in crate::cli) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn head(report: &Report) -> String {
    let Report { version, profile, store, durability, since, until, intervals, .. } = report;
    let made_of = match intervals {
        0 => "since start".to_owned(),
        1 => "1 interval".to_owned(),
        many => format!("{many} intervals"),
    };
    format!("jitauth {version}, profile {profile}, {store} ({durability})\n{since} to {until}, {made_of}\n\n")
}

fn decided(report: &Report) -> String {
    let decisions = &report.decisions;
    let mut text = format!("decisions   {}, {:.1} a second", HumanCount(decisions.count), decisions.per_second);
    if let Some(rate) = decisions.approval_rate {
        text += &format!(", {} approved", percent(rate));
    }
    if decisions.partially_approved > 0 {
        text += &format!(" ({} partially)", HumanCount(decisions.partially_approved));
    }
    if decisions.replayed > 0 {
        text += &format!(", {} replayed", HumanCount(decisions.replayed));
    }
    text += "\n";
    let mut line = |name: &str, parts: Vec<String>| {
        if !parts.is_empty() {
            text += &format!("{name:<11} {}\n", parts.join(", "));
        }
    };
    line("declined", most_first(&report.reasons));
    let cache = |(tier, caches): (&String, &Caches)| {
        let asked: u64 = caches.results.values().sum();
        Some(format!("{tier} hit {} of {}", percent(caches.hit_rate?), HumanCount(asked)))
    };
    line("caches", report.caches.iter().filter_map(cache).collect());
    line("alerts", most_first(&report.alerts));
    text
}

fn most_first(counts: &BTreeMap<String, u64>) -> Vec<String> {
    let mut ordered: Vec<_> = counts.iter().collect();
    ordered.sort_by_key(|(_, count)| u64::MAX - **count);
    ordered.into_iter().map(|(name, count)| format!("{name} {}", HumanCount(*count))).collect()
}

fn spans(report: &Report) -> String {
    let mut text = format!(
        "{:<9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}  {:<18} promised p99\n",
        "span", "count", "p50", "p95", "p99", "p99.9", "max", "p99"
    );
    // Between two clocks, or after the answer: neither is a part of the whole.
    let apart = |line: &&SpanLine| !matches!(line.span.as_str(), "queue" | "confirm");
    let longest = report.spans.iter().filter(apart).map(|line| line.p99_us).max().unwrap_or(0);
    for line in &report.spans {
        let SpanLine { span, count, p50_us, p95_us, p99_us, p999_us, max_us, .. } = line;
        let [p50, p95, p99, p999, max] = [p50_us, p95_us, p99_us, p999_us, max_us].map(|us| time(*us));
        let count = HumanCount(*count).to_string();
        let bar = bar(*p99_us, longest, BAR_CELLS);
        let row = format!("{span:<9} {count:>9} {p50:>9} {p95:>9} {p99:>9} {p999:>9} {max:>9}  {bar:<18} {}", grade(line));
        text += row.trim_end();
        text += "\n";
    }
    text
}

/// What is promised, and what was not kept of it.
fn grade(line: &SpanLine) -> String {
    let (Some(budget), Some(verdict)) = (line.budget, line.verdict) else { return String::new() };
    let mut text = format!("{:<8} ", time(budget.p99_us));
    match verdict {
        Verdict::Kept => text += "kept",
        Verdict::TooFew => text += "too few",
        Verdict::Broken => {
            let broken = [("p50", line.p50_us, budget.p50_us), ("p95", line.p95_us, budget.p95_us), ("p99", line.p99_us, budget.p99_us)];
            let broken = broken.into_iter().filter(|(_, measured, promised)| measured > promised);
            let broken: Vec<_> = broken.map(|(name, _, promised)| format!("{name} over {}", time(promised))).collect();
            text += &format!("BROKEN: {}", broken.join(", "));
        }
    }
    text
}

fn ending(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    if let Some(share) = &report.largest_share {
        let (of, p99) = (percent(share.share), time(share.p99_us));
        writeln!(text, "\nmost of the time went into {}: {of} of it, p99 {p99}", share.span).unwrap_or_default();
    }
    let verdict = match report.verdict {
        Verdict::Kept => "kept",
        Verdict::Broken => "BROKEN",
        Verdict::TooFew => "not graded: too few decisions",
    };
    writeln!(text, "promises of profile {}: {verdict}", report.profile).unwrap_or_default();
    if !report.slowest.is_empty() {
        text += "\nslowest\n";
    }
    for slow in report.slowest.iter().take(SLOWEST_SHOWN) {
        writeln!(text, "  {}", slowest(slow)).unwrap_or_default();
    }
    text
}

/// One of the slowest decisions in a line.
fn slowest(slow: &Slow) -> String {
    let Slow { authorization, at, decision, reason, total_us, cause, slowest_span, slowest_us, .. } = slow;
    let what = reason.as_ref().unwrap_or(decision);
    let where_to = slowest_span.as_ref().map_or_else(String::new, |span| format!(" in {span}"));
    format!("{:>7}  {at}  {authorization}  {what}  {cause}: {}{where_to}", time((*total_us).into()), time((*slowest_us).into()))
}
