#![expect(clippy::expect_used, reason = "tests")]

use super::*;
use crate::{bench::record::histogram, telemetry::Span};

fn times() -> Times {
    let mut times = Times::default();
    for us in 1..=1_000 {
        times.spans[Span::Commit as usize].1.saturating_record(us);
        times.round_trip.saturating_record(us * 2);
    }
    times
}

fn pace(held_back: u64) -> Pace {
    let mut lag = histogram();
    lag.saturating_record_n(60, 1_000);
    Pace { rate: 1_000, lag, held_back, took: Duration::from_secs(1) }
}

fn printed(pace: &Pace, proof: &Proof) -> String {
    let times = times();
    let mut decisions = Decisions::default();
    for body in [
        r#"{"decision":"approved","reason":null,"available":"9.00","hold":"hld_1"}"#,
        r#"{"decision":"partially_approved","reason":null,"available":"0.00","hold":"hld_2"}"#,
        r#"{"decision":"declined","reason":"card_not_found","available":null,"hold":null}"#,
        r#"{"decision":"declined","reason":"insufficient_funds","available":"1.00","hold":null}"#,
    ] {
        decisions.add(body.as_bytes());
    }
    let mut caches = CacheCounts::default();
    caches.0.insert(("memory".to_owned(), "hit".to_owned()), 995);
    caches.0.insert(("memory".to_owned(), "miss".to_owned()), 5);
    let mut sync_cost = histogram();
    sync_cost.saturating_record(120);
    let summary = Summary {
        cards: 10_000,
        pace,
        steady: &times,
        burst: &BurstSeen { connections: 64, answered: 50_000, took: Duration::from_secs(8) },
        burst_times: &times,
        outage: &Outage { down: Duration::from_millis(180), resent: 64, recovered: 21 },
        decisions: &decisions,
        caches: &caches,
        sync_cost: &sync_cost,
        durability: Some("journal_mode=wal synchronous=full wal_autocheckpoint=8000"),
        replays: Replays { identical: 1_200, differing: 0 },
        proof,
        kept: None,
    };
    let mut out = Vec::new();
    super::summary(&mut out, &summary).expect("memory takes everything");
    String::from_utf8(out).expect("text")
}

fn proof() -> Proof {
    Proof { decisions: 58_800, accounts: 6_024, holds: 50_000, counters: 9_000, ..Proof::default() }
}

#[test]
fn the_summary_says_it_all() {
    let text = printed(&pace(0), &proof());
    assert_eq!(text, include_str!("print_snapshot.txt"), "\n{text}");
}

#[test]
fn trouble_is_not_hidden() {
    assert!(printed(&pace(3), &proof()).contains("THE GENERATOR FELL BEHIND"));
    for (fault, part) in [
        (Proof { lost: 1, ..proof() }, "lost 1"),
        (Proof { altered: 2, ..proof() }, "lost 2"),
        (Proof { unlike: 1, ..proof() }, "its hold has (1 off)"),
        (Proof { unasked: 1, ..proof() }, "its hold has (1 off)"),
        (Proof { wrong: 1, ..proof() }, "money ask for (1 off)"),
        (Proof { uncharged: 1, ..proof() }, "charged to it (1 off)"),
        (Proof { unheard: 1, ..proof() }, "1 unheard"),
        (Proof { doubled: 1, ..proof() }, "doubled 1"),
        (Proof { below_floor: 1, ..proof() }, "below floor 1"),
        (Proof { limits_passed: 1, ..proof() }, "limits passed 1"),
        (Proof { held_off: 1, ..proof() }, "held IS NOT sum of holds"),
        (Proof { counters_off: 1, ..proof() }, "charged to it (1 off)"),
        (Proof { untold: 1, ..proof() }, "1 untold"),
        (Proof { entries_off: 1, ..proof() }, "entries (1 off)"),
    ] {
        let text = printed(&pace(0), &fault);
        assert!(text.contains("Proof FAILED") && text.contains(part), "{part} in {text}");
    }
}
