//! A result for people: on a terminal, and in Markdown.

use super::{
    summary::{Latency, Summary},
    threshold::Graded,
};
use crate::{domain::money::Currency, telemetry::promise::Verdict};
use indicatif::HumanCount;
use std::io::{self, Write};

/// The percentiles in tables.
const SHOWN: [&str; 5] = ["p50", "p90", "p99", "p99.9", "p99.99"];

/// Prints it for a terminal.
///
/// # Errors
/// The reader is gone.
pub fn summary(out: &mut impl Write, it: &Summary) -> io::Result<()> {
    let (scenario, target, rate) = (&it.scenario, &it.target, &it.rate);
    writeln!(out, "{} over {}: {}", scenario.name, place(it), scenario.question)?;
    writeln!(out, "\nDurability: {}", target.durability.as_deref().unwrap_or("not known: the store was not looked at"))?;
    writeln!(out, "Environment: {}", environment(it))?;
    writeln!(
        out,
        "Rate: {} offered, {} achieved a second over {} s; sent p99 {} µs late, {} held back",
        decimal(rate.offered_per_s),
        decimal(rate.achieved_per_s),
        rate.measured_s,
        HumanCount(rate.lag.percentile("p99")),
        rate.held_back
    )?;
    if let Some(ceiling) = &it.ceiling {
        writeln!(out, "Ceiling: {}", ceiling_line(ceiling))?;
    }
    steps(out, it)?;
    latency(out, it)?;
    decisions(out, it)?;
    floors(out, it)?;
    requests(out, it)?;
    for graded in &it.thresholds {
        writeln!(out, "Threshold {} {}: {}", if graded.passed { "kept  " } else { "BROKEN" }, graded.threshold, value(graded))?;
    }
    for warning in &it.warnings {
        writeln!(out, "Warning: {}", warning.text)?;
    }
    match it.failures.as_slice() {
        [] => writeln!(out, "\nPassed."),
        failures => writeln!(out, "\nFAILED: {}", failures.join("; ")),
    }
}

/// Writes it as Markdown.
///
/// # Errors
/// The writer failed.
pub fn markdown(out: &mut impl Write, it: &Summary) -> io::Result<()> {
    writeln!(out, "# {} over {}: {}\n\n{}\n", it.scenario.name, place(it), it.verdict, it.scenario.question)?;
    for failure in &it.failures {
        writeln!(out, "- **{failure}**")?;
    }
    for warning in &it.warnings {
        writeln!(out, "- {}", warning.text)?;
    }
    writeln!(out, "\n| | {} | max |\n|---|{}", SHOWN.join(" | "), "--:|".repeat(SHOWN.len() + 1))?;
    for (name, latency) in [("response time", &it.response_time), ("service time", &it.service_time)] {
        markdown_row(out, name, latency, "")?;
    }
    for stage in &it.stages {
        markdown_row(out, &stage.span, &stage.latency, stage.verdict.map_or("", grade))?;
    }
    writeln!(
        out,
        "\nMicroseconds. {} requests, {} offered and {} achieved a second.",
        it.requests.sent, it.rate.offered_per_s, it.rate.achieved_per_s
    )?;
    if let Some(ceiling) = &it.ceiling {
        writeln!(out, "Ceiling: {}.", ceiling_line(ceiling))?;
    }
    let search = it.ceiling.as_ref().and_then(|ceiling| ceiling.search.as_ref());
    if search.is_some() {
        writeln!(out, "\n| step | offered | achieved | p50 | p99 | |\n|---|--:|--:|--:|--:|---|")?;
    }
    for step in search.iter().flat_map(|search| &search.steps) {
        let (p50, p99, why) = (HumanCount(step.p50_us), HumanCount(step.p99_us), step.why.as_deref().unwrap_or("kept"));
        writeln!(out, "| {} | {} | {} | {p50} | {p99} | {why} |", step.of, step.rate_per_s, step.achieved_per_s)?;
    }
    if !it.thresholds.is_empty() {
        writeln!(out, "\n| threshold | value | |\n|---|--:|---|")?;
    }
    for graded in &it.thresholds {
        writeln!(out, "| `{}` | {} | {} |", graded.threshold, value(graded), if graded.passed { "kept" } else { "**broken**" })?;
    }
    if let Some(floor) = &it.floor {
        writeln!(out, "\n| ratio to the floor | |\n|---|--:|")?;
        for ratio in &floor.ratios {
            writeln!(out, "| {} | {} |", ratio.meaning, ratio.value)?;
        }
    }
    writeln!(
        out,
        "\nLost {}, duplicated {}, unexpected {}; {}.",
        it.requests.lost,
        it.requests.duplicated,
        it.requests.unexpected,
        proof_line(it)
    )?;
    let durability = it.target.durability.as_deref().unwrap_or("not known");
    writeln!(out, "\n{}. Durability: {durability}.", environment(it))
}

/// The steps of a search for the ceiling.
fn steps(out: &mut impl Write, it: &Summary) -> io::Result<()> {
    let Some(search) = it.ceiling.as_ref().and_then(|ceiling| ceiling.search.as_ref()) else { return Ok(()) };
    writeln!(out, "\n  {:<7} {:>9} {:>11} {:>9} {:>9}", "", "offered", "achieved", "p50", "p99")?;
    for step in &search.steps {
        let (p50, p99) = (HumanCount(step.p50_us).to_string(), HumanCount(step.p99_us).to_string());
        let (rate, achieved) = (HumanCount(u64::from(step.rate_per_s)).to_string(), decimal(step.achieved_per_s));
        let why = step.why.as_deref().unwrap_or("kept");
        writeln!(out, "  {:<7} {rate:>9} {achieved:>11} {p50:>9} {p99:>9}  {why}", step.of)?;
    }
    Ok(())
}

fn markdown_row(out: &mut impl Write, name: &str, latency: &Latency, grade: &str) -> io::Result<()> {
    write!(out, "| {name}{}{grade} |", if grade.is_empty() { "" } else { ", " })?;
    for percentile in SHOWN {
        write!(out, " {} |", figure(latency, percentile))?;
    }
    writeln!(out, " {} |", HumanCount(latency.max_us))
}

fn latency(out: &mut impl Write, it: &Summary) -> io::Result<()> {
    writeln!(out, "\nLatency in µs, {} answers", HumanCount(it.response_time.count))?;
    write!(out, "  {:<14}", "")?;
    for percentile in SHOWN {
        write!(out, " {percentile:>9}")?;
    }
    writeln!(out, " {:>9}  promise of {}", "max", it.target.profile)?;
    row(out, "response time", &it.response_time, "from the moment a request was due")?;
    row(out, "service time", &it.service_time, "from the moment it was sent")?;
    for stage in &it.stages {
        let promised = match (stage.verdict, stage.budget) {
            (Some(verdict), Some(budget)) => {
                format!("{} (p50 {}, p95 {}, p99 {})", grade(verdict), budget.p50_us, budget.p95_us, budget.p99_us)
            }
            _ => String::new(),
        };
        row(out, &stage.span, &stage.latency, &promised)?;
    }
    Ok(())
}

fn row(out: &mut impl Write, name: &str, latency: &Latency, remark: &str) -> io::Result<()> {
    let mut line = format!("  {name:<14}");
    for percentile in SHOWN {
        line.push_str(&format!(" {:>9}", figure(latency, percentile)));
    }
    line.push_str(&format!(" {:>9}  {remark}", HumanCount(latency.max_us).to_string()));
    writeln!(out, "{}", line.trim_end())
}

/// A percentile, or a dash where it was not told.
fn figure(latency: &Latency, percentile: &str) -> String {
    latency.percentiles_us.get(percentile).map_or_else(|| "-".to_owned(), |us| HumanCount(*us).to_string())
}

fn decisions(out: &mut impl Write, it: &Summary) -> io::Result<()> {
    let total: u64 = it.decisions.values().sum();
    let named = |counts: &std::collections::BTreeMap<String, u64>| {
        let mut ordered: Vec<_> = counts.iter().collect();
        ordered.sort_by_key(|(name, count)| (u64::MAX - **count, (*name).clone()));
        ordered.into_iter().map(|(name, count)| format!("{name} {}", HumanCount(*count))).collect::<Vec<_>>().join(", ")
    };
    writeln!(out, "\nDecisions: {}: {}", HumanCount(total), named(&it.decisions))?;
    if it.reasons.is_empty() { Ok(()) } else { writeln!(out, "Reasons: {}", named(&it.reasons)) }
}

fn floors(out: &mut impl Write, it: &Summary) -> io::Result<()> {
    let Some(floor) = &it.floor else { return Ok(()) };
    writeln!(out, "\nFloors, in turn with the daemon ({} rounds of {} s each); µs", floor.rounds, floor.slice_s)?;
    if let Some(rate) = floor.echo.as_ref().and_then(|echo| echo.ceiling_per_s) {
        writeln!(out, "  the broker echo's ceiling: {} a second", decimal(rate))?;
    }
    if let Some(echo) = floor.echo.as_ref().filter(|echo| echo.response_time.count > 0) {
        row(out, "broker echo", &echo.response_time, &format!("{} queue, consume, publish with confirm, ack", echo.queue_type))?;
    }
    for commits in &floor.commit {
        let remark =
            format!("{} decisions, {} writers: {} decisions a second", commits.batch, commits.writers, decimal(commits.decisions_per_s));
        row(out, "group commit", &commits.commit, &remark)?;
    }
    if let Some(alone) = &floor.commit_alone {
        row(out, "commit alone", alone, "one decision at a time on one connection, at a lane's pace")?;
    }
    for rows in &floor.rows {
        let remark = format!("{} rows, {} writers: {} rows a second", rows.batch, rows.writers, decimal(rows.rows_per_s));
        row(out, "plain rows", &rows.commit, &remark)?;
    }
    if let Some(redis) = &floor.redis {
        row(out, "Redis GET", redis, "")?;
    }
    if let Some(fsync) = &floor.fsync {
        row(out, "fsync", fsync, "4 KiB written and synced")?;
    }
    for ratio in &floor.ratios {
        writeln!(out, "  {}: {} (rounds: {} to {})", ratio.meaning, ratio.value, ratio.lowest, ratio.highest)?;
    }
    Ok(())
}

fn requests(out: &mut impl Write, it: &Summary) -> io::Result<()> {
    let requests = &it.requests;
    writeln!(
        out,
        "\nRequests: {} sent = {} answered + {} lost; {} duplicated, {} unexpected, {} sent again, {} declined for reasons of ours, {} \
         approved too late",
        HumanCount(requests.sent),
        HumanCount(requests.answered),
        requests.lost,
        requests.duplicated,
        requests.unexpected,
        requests.retries,
        requests.errors,
        requests.late_approvals
    )?;
    for example in &requests.examples {
        writeln!(out, "  {example}")?;
    }
    writeln!(out, "Replays: {} with the same bytes, {} with others", HumanCount(requests.replays_identical), requests.replays_differing)?;
    writeln!(out, "Proof: {}", proof_line(it))?;
    for example in it.proof.iter().flat_map(|proof| &proof.examples) {
        writeln!(out, "  {example}")?;
    }
    Ok(())
}

fn proof_line(it: &Summary) -> String {
    let Some(proof) = &it.proof else { return "the store was not looked at".to_owned() };
    let faults: Vec<String> = proof.faults().map(|(what, count)| format!("{count} {what}")).collect();
    if !faults.is_empty() {
        return format!("FAILED, {}", faults.join(", "));
    }
    let approved: Vec<String> = proof.approved.iter().map(|(currency, minor)| money(*minor, currency)).collect();
    format!(
        "{} decisions in the journal, every answer byte for byte, and each what facts, limits and money ask for; {} approved is what {} \
         holds and {} accounts have, {} counters are what was charged, no floor and no limit passed",
        HumanCount(proof.decisions),
        if approved.is_empty() { "nothing".to_owned() } else { approved.join(" and ") },
        HumanCount(proof.holds),
        HumanCount(proof.accounts),
        HumanCount(proof.counters)
    )
}

/// An amount as people write it.
fn money(minor: i64, currency: &str) -> String {
    match Currency::from_code(currency) {
        Some(known) => format!("{currency} {}", crate::codec::money::format(minor, known)),
        None => format!("{currency} {minor}"),
    }
}

fn place(it: &Summary) -> String {
    let target = &it.target;
    let queue = target.queue_type.as_ref().map(|queue| format!(", {queue} queues")).unwrap_or_default();
    let store = target.store.as_ref().map(|store| format!(", {store}")).unwrap_or_default();
    format!("{}{queue}{store}{}", target.kind, if target.spawned { "" } else { ", a running daemon" })
}

fn environment(it: &Summary) -> String {
    let machine = &it.environment;
    let version = |name: &str, version: &Option<String>| version.as_ref().map(|version| format!(", {name} {version}")).unwrap_or_default();
    let redis = it.target.redis.as_ref().map(|redis| format!(", the daemon's Redis {redis}")).unwrap_or_default();
    format!(
        "{}, {} cores, Linux {}; jitauth {} ({} build){}{}{redis}{}",
        machine.cpu,
        machine.cores,
        machine.kernel,
        it.tool.version,
        it.tool.build,
        version(it.target.store.as_deref().unwrap_or("store"), &machine.store),
        version("RabbitMQ", &machine.broker),
        version("the floor's Redis", &machine.redis)
    )
}

fn ceiling_line(ceiling: &super::summary::Ceiling) -> String {
    let bound = ceiling.p99_bound_us / 1_000;
    let rate = decimal(ceiling.rate_per_s);
    if ceiling.reached {
        format!("{rate} a second with p99 under {bound} ms")
    } else {
        format!("above {rate} a second: p99 stayed under {bound} ms to the end")
    }
}

const fn grade(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Kept => "kept",
        Verdict::Broken => "BROKEN",
        Verdict::TooFew => "too few",
    }
}

fn value(graded: &Graded) -> String {
    match graded.value {
        None => "not measured".to_owned(),
        Some(us) if graded.unit == "us" => format!("{} ms", super::summary::rounded(us / 1e3, 3)),
        Some(value) => format!("{}{}", super::summary::rounded(value, 3), graded.unit),
    }
}

/// A rate: thousands set apart, one decimal.
fn decimal(value: f64) -> String {
    let tenths = (value * 10.0).round().max(0.0) as u64;
    format!("{}.{}", HumanCount(tenths / 10), tenths % 10)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::bench::{
        floor::{Ratio, ratios::tests::floor},
        summary::{Ceiling, tests::example},
    };

    #[test]
    fn a_person_reads_this() {
        let mut it = example();
        let mut floor = floor(600, 6_000);
        floor.ratios = vec![Ratio {
            name: "p99_to_echo".to_owned(),
            value: 1.5,
            lowest: 1.25,
            highest: 1.75,
            meaning: "p99, to that of the broker's echo".to_owned(),
        }];
        it.floor = Some(floor);
        it.ceiling = Some(Ceiling { rate_per_s: 4_321.5, p99_bound_us: 100_000, reached: true, search: None });
        let mut text = Vec::new();
        summary(&mut text, &it).unwrap();
        text.extend_from_slice(b"\n----\n\n");
        markdown(&mut text, &it).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text, include_str!("print_snapshot.txt"), "\n{text}");
    }
}
