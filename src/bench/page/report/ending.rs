//! What became of every request, and where all this took place.

use super::super::{
    format,
    frame::{facts, section},
};
use crate::bench::{
    proof::Proof,
    summary::{Cpu, Summary},
};
use maud::{Markup, html};

/// Every request accounted for, and the store's books.
pub(super) fn accounts(it: &Summary) -> Markup {
    let requests = &it.requests;
    let faults = [
        ("lost: sent, and not answered", requests.lost),
        ("unsent: due, and never sent", requests.unsent),
        ("answers to requests that had one", requests.duplicated),
        ("answers that were not what was asked for", requests.unexpected),
        ("replays with other bytes", requests.replays_differing),
    ];
    let counts = [
        ("sent, warm-up included", requests.sent),
        ("answered", requests.answered),
        ("sent again", requests.retries),
        ("replays with the same bytes", requests.replays_identical),
        ("declined for reasons of ours", requests.errors),
    ];
    let body = html! {
        table {
            caption { "Requests" }
            @for (what, count) in counts { tr { th scope="row" { (what) } td { (format::count(count)) } } }
            @for (what, count) in faults {
                tr.fault[count > 0] { th scope="row" { @if count > 0 { "✗ " } (what) } td { (format::count(count)) } }
            }
        }
        @if !requests.examples.is_empty() {
            h3 { "Examples" }
            ul { @for example in &requests.examples { li { (example) } } }
        }
        h3 { "Proof" }
        @match &it.proof {
            None => p { "The store was not looked at: nothing is proved about balances and limits." },
            Some(proof) => (proved(proof)),
        }
    };
    section("accounts", "Every request accounted for", &body)
}

fn proved(proof: &Proof) -> Markup {
    let faults: Vec<(&str, u64)> = proof.faults().collect();
    let [decisions, accounts, holds, counters] = [proof.decisions, proof.accounts, proof.holds, proof.counters].map(format::count);
    html! {
        @if faults.is_empty() && proof.decisions > 0 {
            p { span.kept { "✓ The books agree." } " " (decisions) " decisions are in the journal, every answer byte for byte. " (holds)
                " holds are what " (accounts) " accounts hold, " (counters) " counters are what was charged to them, and no floor and no limit was passed." }
        } @else if faults.is_empty() {
            p { span.broken { "✗ The store has no decision of this run." } }
        } @else {
            p { span.broken { "✗ The books do not agree:" } }
            ul.faults { @for (what, count) in faults { li { (format::count(count)) " " (what) } } }
        }
    }
}

/// Where it was, on what, and how it was asked for.
pub(super) fn circumstances(it: &Summary) -> Markup {
    let (machine, tool, target) = (&it.environment, &it.tool, &it.target);
    let number = |count: usize| (count > 0).then(|| count.to_string());
    let frequency = machine.governor.as_ref().map(|governor| format!("frequencies: {governor}"));
    let cores = format!("{}, {} cores{}", machine.cpu, machine.cores, frequency.map(|text| format!(", {text}")).unwrap_or_default());
    let named = |name: &str, version: &Option<String>| version.as_ref().map(|version| format!("{name} {version}"));
    let versions = [
        Some(format!("jitauth {} ({} build)", tool.version, tool.build)),
        named("daemon", &machine.daemon),
        named(target.store.as_deref().unwrap_or("store"), &machine.store),
        named("RabbitMQ", &machine.broker),
        named("Redis", &machine.redis),
    ];
    let versions = versions.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let place = [
        ("durability", Some(target.durability.clone().unwrap_or_else(|| "not known: the store was not looked at".to_owned()))),
        ("machine", Some(format!("{}: {cores}", machine.host))),
        ("memory", (machine.memory_mib > 0).then(|| format!("{} MiB", format::count(machine.memory_mib)))),
        ("kernel", (!machine.kernel.is_empty()).then(|| format!("Linux {}", machine.kernel))),
        ("disk", machine.disk.as_ref().map(|disk| format!("{disk}, under the run's own directory"))),
        ("processor time", it.cpu.as_ref().map(processor_time)),
        ("busy before", machine.busy_before.map(|share| format!("{:.0} % of the processors' time", share * 100.0))),
        ("load before", machine.load_before.map(|load| format!("{} over a minute", format::plain(load)))),
        ("versions", Some(versions)),
        ("commit", Some(tool.commit.clone().unwrap_or_else(|| "not known to this build".to_owned()))),
        ("profile", Some(target.profile.clone())),
        ("queues", target.queue_type.clone()),
        ("lanes", number(target.lanes)),
        ("decisions in a commit", number(target.batch_max).map(|max| format!("{max} at most"))),
        ("configuration", Some(target.configuration.clone())),
        ("workload", Some(it.scenario.workload_digest.clone())),
        ("schema", Some(it.schema_version.to_string())),
    ];
    let body = html! {
        (facts(&place))
        @if let Some(command) = &tool.command { h3 { "Command" } code.code { (command) } }
        @if !it.scenario.workload.is_empty() {
            h3 { "Settings of the load" }
            table { @for (key, value) in &it.scenario.workload { tr { th scope="row" { code { (key) } } td { (value) } } } }
        }
    };
    section("circumstances", "Where, on what, and how durable", &body)
}

fn processor_time(cpu: &Cpu) -> String {
    let daemon = cpu.daemon_s.map(|seconds| format!(", daemon {} s", format::plain(seconds))).unwrap_or_default();
    format!("generator {} s{daemon}, of {} s", format::plain(cpu.generator_s), format::plain(cpu.available_s))
}
