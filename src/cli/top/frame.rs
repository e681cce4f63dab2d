//! One screen.

use super::samples::Samples;
use crate::{
    cli::report::{bar, percent, time},
    telemetry::{Span, promise::Verdict, report::Report},
};
use indicatif::{HumanBytes, HumanCount};
use serde::Deserialize;
use std::{collections::BTreeMap, time::Duration};

/// Cells that the longest bar takes.
const BAR_CELLS: u64 = 40;
const REASONS_SHOWN: usize = 5;
const SLOWEST_SHOWN: usize = 3;

/// Everything that a screen shows.
pub(super) struct Seen {
    pub(super) report: Report,
    pub(super) health: Health,
    pub(super) samples: Samples,
}

/// What `/health` says.
#[derive(Debug, Deserialize)]
pub(super) struct Health {
    status: String,
    timestamp: String,
    services: BTreeMap<String, Service>,
}

#[derive(Debug, Deserialize)]
struct Service {
    status: String,
    since: String,
}

/// The lines of a screen.
pub(super) fn render(seen: &Seen) -> Vec<String> {
    let mut lines = vec![head(seen), String::new(), decisions(seen), latency(&seen.report), work(&seen.samples)];
    lines.extend(row("lanes", lanes(&seen.samples)));
    lines.push(row("caches", caches(&seen.report)).unwrap_or_else(|| named("caches", "not asked")));
    lines.extend(row("depends on", dependencies(&seen.health)));
    lines.push(alerts(&seen.samples));
    lines.push(String::new());
    lines.extend(spans(&seen.report));
    lines.push(String::new());
    lines.extend(row("declines", declines(&seen.report)));
    for (nth, slow) in seen.report.slowest.iter().take(SLOWEST_SHOWN).enumerate() {
        let name = if nth == 0 { "slowest" } else { "" };
        let what = format!("{:>9}  {}  {}", time(slow.total_us.into()), slow.cause, slow.authorization);
        lines.push(named(name, &what));
    }
    lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

fn named(name: &str, what: &str) -> String {
    format!("{name:<11} {what}")
}

fn row(name: &str, parts: Vec<String>) -> Option<String> {
    (!parts.is_empty()).then(|| named(name, &parts.join("   ")))
}

fn head(seen: &Seen) -> String {
    let Report { version, profile, uptime_s, .. } = &seen.report;
    let ready = if seen.samples.sum("jitauth_draining") > 0.0 {
        "draining"
    } else if seen.samples.sum("jitauth_ready") > 0.0 {
        "ready"
    } else {
        "NOT READY"
    };
    let up = duration(Duration::from_secs_f64(uptime_s.max(0.0)));
    let health = if seen.health.status == "healthy" { "healthy".to_owned() } else { seen.health.status.to_uppercase() };
    format!("jitauth {version}   {profile}   {ready}, {health}   up {up}   {}   Ctrl-C quits", seen.health.timestamp)
}

fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

fn decisions(seen: &Seen) -> String {
    let decisions = &seen.report.decisions;
    let rate = decisions.approval_rate.map_or_else(|| "-".to_owned(), percent);
    let what = format!("{:.1} a second   approved {rate}   replayed {}", decisions.per_second, HumanCount(decisions.replayed));
    named("decisions", &what)
}

fn latency(report: &Report) -> String {
    let Some(total) = report.span(Span::Total) else { return named("latency", "nothing was answered") };
    let times = [("p50", total.p50_us), ("p95", total.p95_us), ("p99", total.p99_us), ("p99.9", total.p999_us), ("max", total.max_us)];
    let times: Vec<_> = times.into_iter().map(|(name, us)| format!("{name} {}", time(us))).collect();
    let promises = match report.verdict {
        Verdict::Kept => "promises kept",
        Verdict::Broken => "promises BROKEN",
        Verdict::TooFew => "too few to grade",
    };
    named("latency", &format!("{}   {promises}", times.join("   ")))
}

fn work(samples: &Samples) -> String {
    let count = |family: &str| HumanCount(samples.sum(family) as u64);
    let what = format!(
        "in flight {} of {}   runtime busy {}   memory {}   dead letters {}   unheard {}",
        count("jitauth_inflight_messages"),
        count("jitauth_inflight_limit_messages"),
        percent(samples.sum("jitauth_tokio_busy_ratio")),
        HumanBytes(samples.sum("process_resident_memory_bytes") as u64),
        count("jitauth_messages_dead_lettered_total"),
        count("jitauth_unheard_approvals_total"),
    );
    named("work", &what)
}

fn lanes(samples: &Samples) -> Vec<String> {
    let lanes = samples.by_label("jitauth_worker_queue_messages", "lane");
    lanes.into_iter().map(|(lane, waiting)| format!("{lane}: {waiting} waiting")).collect()
}

fn caches(report: &Report) -> Vec<String> {
    let hits = |rate: f64| format!("hit {}", percent(rate));
    report.caches.iter().filter_map(|(tier, caches)| Some(format!("{tier} {}", hits(caches.hit_rate?)))).collect()
}

fn dependencies(health: &Health) -> Vec<String> {
    let one = |(name, service): (&String, &Service)| {
        if service.status == "healthy" { format!("{name} up") } else { format!("{name} DOWN since {}", service.since) }
    };
    health.services.iter().map(one).collect()
}

fn alerts(samples: &Samples) -> String {
    let all = samples.by_label("jitauth_latency_alerts_total", "cause");
    let mut by_cause = BTreeMap::<&str, f64>::new();
    all.into_iter().filter(|(_, count)| *count > 0.0).for_each(|(cause, count)| *by_cause.entry(cause).or_default() += count);
    let parts: Vec<_> = by_cause.into_iter().map(|(cause, count)| format!("{cause} {count}")).collect();
    named("alerts", &if parts.is_empty() { "none since start".to_owned() } else { format!("{} since start", parts.join("   ")) })
}

fn spans(report: &Report) -> Vec<String> {
    let longest = report.spans.iter().map(|line| line.p99_us).max().unwrap_or(0);
    let one = |line: &crate::telemetry::report::SpanLine| {
        let broken = if line.verdict == Some(Verdict::Broken) { "  BROKEN" } else { "" };
        let (p50, p99) = (time(line.p50_us), time(line.p99_us));
        format!("  {:<9} p50 {p50:>8}   p99 {p99:>8}   {}{broken}", line.span, bar(line.p99_us, longest, BAR_CELLS))
    };
    report.spans.iter().map(one).collect()
}

fn declines(report: &Report) -> Vec<String> {
    let declined = report.decisions.declined;
    let mut ordered: Vec<_> = report.reasons.iter().collect();
    ordered.sort_by_key(|(_, count)| u64::MAX - **count);
    let share = |count: u64| percent(if declined == 0 { 0.0 } else { count as f64 / declined as f64 });
    ordered.into_iter().take(REASONS_SHOWN).map(|(reason, count)| format!("{reason} {}", share(*count))).collect()
}
