//! What the demo tells at its end.

use super::{measure::CacheCounts, tally::Times, traffic::Pace};
use crate::bench::proof::Proof;
use hdrhistogram::Histogram;
use indicatif::HumanCount;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
    time::Duration,
};

/// Everything that was seen.
pub(super) struct Summary<'a> {
    pub(super) cards: u64,
    pub(super) pace: &'a Pace,
    pub(super) steady: &'a Times,
    pub(super) burst: &'a BurstSeen,
    /// Up to the kill.
    pub(super) burst_times: &'a Times,
    pub(super) outage: &'a Outage,
    pub(super) decisions: &'a Decisions,
    pub(super) caches: &'a CacheCounts,
    pub(super) sync_cost: &'a Histogram<u64>,
    /// How the daemon says it opened its store, if it does.
    pub(super) durability: Option<&'a str>,
    pub(super) replays: Replays,
    pub(super) proof: &'a Proof,
    /// Where everything stays, if it does.
    pub(super) kept: Option<&'a Path>,
}

/// How the burst went, without the outage in its middle.
#[derive(Clone, Copy, Debug)]
pub(super) struct BurstSeen {
    pub(super) connections: usize,
    pub(super) answered: u64,
    pub(super) took: Duration,
}

/// The kill and what followed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    /// From SIGKILL until the next daemon was ready.
    pub(super) down: Duration,
    /// Requests that had to be sent again.
    pub(super) resent: u64,
    /// Of these, those whose decision was in the journal already.
    pub(super) recovered: u64,
}

/// Second answers to an id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replays {
    pub(super) identical: u64,
    pub(super) differing: u64,
}

/// What was decided, counted, and an example of either kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Decisions {
    pub(super) by_outcome: BTreeMap<String, u64>,
    approved: Option<String>,
    declined: Option<String>,
    /// Answers that are not version 1 responses.
    pub(super) unreadable: u64,
}

#[derive(Deserialize)]
struct Response<'a> {
    decision: &'a str,
    reason: Option<&'a str>,
    hold: Option<&'a str>,
    available: Option<&'a str>,
}

impl Decisions {
    /// Counts an answer.
    pub(super) fn add(&mut self, body: &[u8]) {
        let Ok(response) = serde_json::from_slice::<Response<'_>>(body) else {
            self.unreadable += 1;
            return;
        };
        let outcome = response.reason.unwrap_or(response.decision);
        match self.by_outcome.get_mut(outcome) {
            Some(count) => *count += 1,
            None => drop(self.by_outcome.insert(outcome.to_owned(), 1)),
        }
        let text = || String::from_utf8_lossy(body).into_owned();
        if self.approved.is_none() && response.decision == "approved" && response.hold.is_some() {
            self.approved = Some(text());
        }
        // One over money tells most.
        if self.declined.is_none() && response.decision == "declined" && response.available.is_some() {
            self.declined = Some(text());
        }
    }

    fn total(&self) -> u64 {
        self.by_outcome.values().sum()
    }

    fn declines(&self) -> impl Iterator<Item = (&String, &u64)> {
        self.by_outcome.iter().filter(|(outcome, _)| !matches!(outcome.as_str(), "approved" | "partially_approved"))
    }
}

/// Prints all of it.
pub(super) fn summary(out: &mut impl Write, summary: &Summary<'_>) -> io::Result<()> {
    decisions(out, summary.decisions)?;
    latency(out, summary)?;
    burst(out, summary)?;
    store(out, summary)?;
    examples(out, summary.decisions)?;
    proof(out, summary)?;
    next(out, summary)
}

/// Hundredths of a percent as a percentage.
fn share(part: u64, whole: u64) -> String {
    let hundredths = (part * 10_000).checked_div(whole).unwrap_or(0);
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

fn per_second(count: u64, took: Duration) -> u64 {
    u64::try_from(u128::from(count) * 1_000_000 / took.as_micros().max(1)).unwrap_or(u64::MAX)
}

fn decisions(out: &mut impl Write, decisions: &Decisions) -> io::Result<()> {
    let total = decisions.total();
    let declined: u64 = decisions.declines().map(|(_, count)| count).sum();
    let reasons = decisions.declines().count();
    writeln!(out, "\nDecisions: {}, declined {} over {reasons} reasons", HumanCount(total), share(declined, total))?;
    let mut ordered: Vec<_> = decisions.by_outcome.iter().collect();
    ordered.sort_by_key(|(outcome, count)| (u64::MAX - **count, (*outcome).clone()));
    for (outcome, count) in ordered {
        writeln!(out, "  {outcome:<20} {:>9}  {:>8}", HumanCount(*count).to_string(), share(*count, total))?;
    }
    Ok(())
}

fn latency(out: &mut impl Write, summary: &Summary<'_>) -> io::Result<()> {
    let pace = summary.pace;
    let sent = pace.lag.len();
    writeln!(
        out,
        "\nLatency in µs, {} requests at {} a second over {} cards (open loop)",
        HumanCount(sent),
        pace.rate,
        HumanCount(summary.cards)
    )?;
    writeln!(out, "  {:<12} {:>9} {:>9} {:>9} {:>9} {:>9}", "span", "p50", "p95", "p99", "p99.9", "max")?;
    for (span, times) in summary.steady.spans.iter().filter(|(_, times)| !times.is_empty()) {
        percentiles(out, span.name(), times)?;
    }
    percentiles(out, "round trip", &summary.steady.round_trip)?;
    writeln!(out, "  Spans are the daemon's own; the round trip is the client's, from the moment a request was due.")?;
    let (lag, achieved) = (pace.lag.value_at_quantile(0.99), per_second(sent, pace.took));
    if pace.held_back > 0 || achieved * 100 < pace.rate * 98 {
        writeln!(
            out,
            "  THE GENERATOR FELL BEHIND: {achieved} a second, {} requests held back; read these figures as an overload.",
            pace.held_back
        )
    } else {
        writeln!(out, "  The generator kept pace: {achieved} a second, p99 {} µs late (included above).", HumanCount(lag))
    }
}

fn percentiles(out: &mut impl Write, name: &str, times: &Histogram<u64>) -> io::Result<()> {
    write!(out, "  {name:<12}")?;
    for quantile in [0.5, 0.95, 0.99, 0.999] {
        write!(out, " {:>9}", HumanCount(times.value_at_quantile(quantile)).to_string())?;
    }
    writeln!(out, " {:>9}", HumanCount(times.max()).to_string())
}

fn burst(out: &mut impl Write, summary: &Summary<'_>) -> io::Result<()> {
    let (burst, outage, times) = (summary.burst, summary.outage, &summary.burst_times.round_trip);
    let rate = per_second(burst.answered, burst.took);
    writeln!(
        out,
        "\nBurst: {} decisions a second ({} connections, client on the same cores), round trip p50 {} µs, p99 {} µs",
        HumanCount(rate),
        burst.connections,
        HumanCount(times.value_at_quantile(0.5)),
        HumanCount(times.value_at_quantile(0.99)),
    )?;
    writeln!(
        out,
        "SIGKILL in the middle of it: ready again after {} ms; {} requests sent again, {} of them found their decision in the journal",
        outage.down.as_millis(),
        HumanCount(outage.resent),
        HumanCount(outage.recovered),
    )
}

fn store(out: &mut impl Write, summary: &Summary<'_>) -> io::Result<()> {
    writeln!(out)?;
    for (tier, hits, asked) in summary.caches.tiers() {
        writeln!(out, "Cache {tier}: {} of {} requests hit ({})", HumanCount(hits), HumanCount(asked), share(hits, asked))?;
    }
    let (p50, p99) = (summary.sync_cost.value_at_quantile(0.5), summary.sync_cost.value_at_quantile(0.99));
    writeln!(out, "Disk: 4 KiB written and synced in p50 {} µs, p99 {} µs", HumanCount(p50), HumanCount(p99))?;
    match summary.durability {
        Some(stated) => writeln!(out, "Durability: SQLite; the daemon opened it with {stated}"),
        // `synchronous` belongs to a connection: asking for it on another one would prove nothing.
        None => writeln!(out, "Durability: SQLite; the daemon's log does not state how it was opened"),
    }
}

fn examples(out: &mut impl Write, decisions: &Decisions) -> io::Result<()> {
    for (name, example) in [("Approved", &decisions.approved), ("Declined", &decisions.declined)] {
        if let Some(example) = example {
            writeln!(out, "\n{name}: {example}")?;
        }
    }
    Ok(())
}

fn proof(out: &mut impl Write, summary: &Summary<'_>) -> io::Result<()> {
    let (proof, replays) = (summary.proof, summary.replays);
    let passed = proof.holds_good() && replays.differing == 0;
    writeln!(
        out,
        "\nProof {}: {} decisions, {} replays byte-identical, lost {}, doubled {}, accounts below floor {}, limits passed {}, held {} sum of holds",
        if passed { "passed" } else { "FAILED" },
        HumanCount(proof.decisions),
        HumanCount(replays.identical),
        HumanCount(proof.lost + proof.altered),
        HumanCount(proof.doubled),
        HumanCount(proof.below_floor),
        HumanCount(proof.limits_passed),
        if proof.held_off == 0 { "=" } else { "IS NOT" },
    )?;
    writeln!(
        out,
        "  answers   every one is in the journal byte for byte ({} missing, {} altered) and nothing else is ({} untold, {} unheard); {} replays differed",
        proof.lost, proof.altered, proof.untold, proof.unheard, replays.differing
    )?;
    writeln!(
        out,
        "  decisions each says what was asked and what its hold has ({} off), and is what facts, limits and money ask for ({} off)",
        proof.unlike + proof.unasked,
        proof.wrong
    )?;
    writeln!(
        out,
        "  holds     {} open, each for one approval and each approval with one ({} off); held is their sum on {} accounts ({} off)",
        HumanCount(proof.holds),
        proof.doubled,
        HumanCount(proof.accounts),
        proof.held_off
    )?;
    writeln!(
        out,
        "  limits    {} counters, each the sum of the approvals charged to it ({} off); {} counters or approvals are above a cap",
        HumanCount(proof.counters),
        proof.counters_off + proof.uncharged,
        proof.limits_passed
    )?;
    writeln!(out, "  entries   every transfer sums to zero, every posted balance is the sum of its entries ({} off)", proof.entries_off)?;
    writeln!(out, "  Asked of the store by SQL, after a second SIGKILL.")
}

fn next(out: &mut impl Write, summary: &Summary<'_>) -> io::Result<()> {
    writeln!(out)?;
    match summary.kept {
        Some(directory) => {
            writeln!(out, "Kept: {} (jitauth.db, jitauth.log). Go on with it:", directory.display())?;
            writeln!(out, "  JITAUTH_SQLITE__PATH={} jitauth serve", directory.join("jitauth.db").display())
        }
        None => {
            writeln!(out, "Next, a daemon of your own (`--keep` keeps this one's files):")?;
            writeln!(out, "  jitauth migrate && jitauth seed && jitauth serve")
        }
    }?;
    let request = crate::seed::TEST_CARDS[0].request("first-try-1");
    writeln!(out, "and in another terminal:")?;
    writeln!(out, "  curl -H 'content-type: application/json' -d '{request}' http://127.0.0.1:8080/v1/authorizations")
}

#[cfg(test)]
#[path = "print_tests.rs"]
mod tests;
