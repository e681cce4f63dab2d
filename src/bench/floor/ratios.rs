//! The daemon over the floors: worked out round by round, told as the median with its spread. Only what was measured on both sides, and
//! only against a floor that was measured well: one that was late, lost requests or was overloaded flatters.

use super::{Echo, FloorReport, Ratio};
use crate::bench::{
    measure::{Measured, median},
    record::Record,
    scenario::Arrival,
    summary::{Latency, Warning, rounded},
    threshold::Stat,
};
use crate::telemetry::Span;

/// Samples that a round must have above a percentile.
const SAMPLES_MIN: u64 = 10;
/// Lag of the generator above which a floor counts as late, microseconds.
const LAG_MAX_US: u64 = 1_000;
/// A floor that takes longer than this share of what stands on it was disturbed.
const DISTURBED: f64 = 0.9;
/// No disk has anything safe in less, microseconds.
const SYNC_MIN_US: u64 = 20;

/// What one turn of load came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) response: Latency,
    /// The daemon's own span.
    pub(super) commit: Latency,
    pub(super) achieved_per_s: f64,
}

/// One round of everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Round {
    pub(super) daemon: Figures,
    pub(super) echo: Option<Figures>,
    /// Decisions a second, by size of the group as in [`FloorReport::commit`].
    pub(super) commits_per_s: Vec<f64>,
}

impl Figures {
    pub(super) fn new(measured: &Measured, record: &Record) -> Self {
        let commit = record.stages().into_iter().find(|(span, _)| *span == Span::Commit);
        Self {
            response: Latency::figures(&measured.response),
            commit: commit.map(|(_, times)| Latency::figures(&times)).unwrap_or_default(),
            achieved_per_s: measured.rate.achieved_per_s,
        }
    }
}

/// All that can be told.
pub(super) fn ratios(floor: &FloorReport, rounds: &[Round], daemon: &Measured, arrival: Arrival) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    let mut add = |name: &str, digits: i32, meaning: &str, values: Vec<Option<f64>>| ratios.extend(ratio(name, digits, meaning, values));
    if floor.echo.as_ref().is_some_and(is_floor) {
        let both = |quantile, of: fn(f64, f64) -> f64| -> Vec<Option<f64>> {
            let figures = |round: &Round| Some(of(at(&round.daemon.response, quantile)?, at(&round.echo.as_ref()?.response, quantile)?));
            rounds.iter().map(figures).collect()
        };
        let meaning = "response time p50, microseconds over the broker's echo";
        add("p50_over_echo_us", 0, meaning, both("p50", |ours, theirs| ours - theirs));
        add("p99_to_echo", 3, "response time p99, to that of the broker's echo", both("p99", |ours, theirs| ours / theirs));
    }
    if let (Some(ours), Some(echo)) = (&daemon.ceiling, &floor.echo)
        && let (Some(theirs), true) = (echo.ceiling_per_s, ours.reached && echo.ceiling_reached && echo.lost == 0)
    {
        add("ceiling_to_echo", 3, "ceiling, to that of the broker's echo", vec![Some(ours.rate_per_s / theirs)]);
    }
    let alone = floor.commit_alone.as_ref().and_then(|alone| at(alone, "p50")).filter(|_| arrival != Arrival::Closed);
    let commits = rounds.iter().map(|round| Some(at(&round.daemon.commit, "p50")? / alone?));
    add("commit_p50_to_floor", 3, "commit p50, to that of one decision alone on one connection", commits.collect());
    let best = floor.commit.iter().enumerate().max_by(|one, other| one.1.decisions_per_s.total_cmp(&other.1.decisions_per_s));
    if let Some((nth, best)) = best.filter(|_| arrival == Arrival::Closed) {
        let meaning = format!("decisions a second, to the store's own group commit of the same, {} in a group", best.batch);
        let rates = rounds.iter().map(|round| Some(round.daemon.achieved_per_s / round.commits_per_s.get(nth)?));
        add("decisions_to_commits", 3, &meaning, rates.collect());
    }
    ratios
}

/// The median over the rounds; `None` when a round has none.
fn ratio(name: &str, digits: i32, meaning: &str, values: Vec<Option<f64>>) -> Option<Ratio> {
    let values = values.into_iter().collect::<Option<Vec<f64>>>()?;
    let (lowest, highest) = (values.iter().copied().reduce(f64::min)?, values.iter().copied().reduce(f64::max)?);
    let value = median(&values).filter(|_| lowest.is_finite() && highest.is_finite())?;
    let [value, lowest, highest] = [value, lowest, highest].map(|value| rounded(value, digits));
    Some(Ratio { name: name.to_owned(), value, lowest, highest, meaning: meaning.to_owned() })
}

/// A percentile with enough samples above it.
fn at(latency: &Latency, name: &str) -> Option<f64> {
    let (position, (_, quantile)) = Latency::PERCENTILES.iter().enumerate().find(|(_, (known, _))| *known == name)?;
    let above = latency.count as f64 * (1.0 - quantile);
    latency.stat(Stat::Percentile(position)).filter(|us| *us > 0.0 && above.round() >= SAMPLES_MIN as f64)
}

/// Why a floor, or a ratio to it, may not mean what it seems to.
pub(in crate::bench) fn warnings(floor: &FloorReport) -> Vec<Warning> {
    let mut warnings: Vec<Warning> = floor.echo.iter().flat_map(echo_faults).collect();
    let mut warn = |code: &str, text: String| warnings.push(Warning { code: code.to_owned(), text });
    for Ratio { name, value, .. } in floor.ratios.iter().filter(|ratio| disturbed(ratio)) {
        let text = format!("{name} is {value}: a floor that is slower than what stands on it was disturbed; take more rounds");
        warn("floor_disturbed", text);
    }
    if let Some(p50) = floor.fsync.as_ref().map(|fsync| fsync.percentile("p50")).filter(|p50| *p50 < SYNC_MIN_US) {
        warn("fsync_without_a_disk", format!("an fsync took {p50} µs: nothing that this directory keeps is on a disk"));
    }
    let refused: u64 = floor.commit.iter().map(|commits| commits.refused).sum();
    if refused > 0 {
        warn(
            "commits_refused",
            format!("{refused} decisions of the commit floor were refused, as where accounts run dry: its rate is without them"),
        );
    }
    warnings
}

/// Whether a ratio is one that only a disturbed floor gives. No floor under a ceiling: the echo acks one by one, as a plain consumer does.
pub(in crate::bench) fn disturbed(ratio: &Ratio) -> bool {
    match ratio.name.as_str() {
        "p50_over_echo_us" => ratio.value < 0.0,
        "p99_to_echo" | "commit_p50_to_floor" => ratio.value < DISTURBED,
        "ceiling_to_echo" => false,
        _ => ratio.value > 1.0 / DISTURBED,
    }
}

/// Whether the echo's times can be compared with.
pub(in crate::bench) fn is_floor(echo: &Echo) -> bool {
    echo_faults(echo).is_empty()
}

/// What speaks against the echo's figures.
fn echo_faults(echo: &Echo) -> Vec<Warning> {
    let (lag, rate) = (echo.rate.lag.percentile("p99"), &echo.rate);
    [
        (
            lag > LAG_MAX_US || rate.held_back > 0,
            "echo_generator_fell_behind",
            format!("in the echo's turns 1 % of the requests went out more than {lag} µs late and {} were held back", rate.held_back),
        ),
        (
            rate.saturated,
            "echo_saturated",
            format!("{} requests a second were offered to the echo and {} answered", rate.offered_per_s, rate.achieved_per_s),
        ),
        (echo.lost > 0, "echo_lost", format!("the echo lost {} requests", echo.lost)),
    ]
    .into_iter()
    .filter(|(applies, ..)| *applies)
    .map(|(_, code, text)| Warning { code: code.to_owned(), text: format!("{text}: no ratio of times to it is told") })
    .collect()
}

#[cfg(test)]
#[path = "ratios_tests.rs"]
pub(in crate::bench) mod tests;
