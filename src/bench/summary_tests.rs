#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::bench::record::histogram;
use std::collections::BTreeSet;

fn latency(p50: u64, p99: u64, p999: u64, max: u64, mean_us: f64) -> Latency {
    let percentiles = [("p50", p50), ("p75", p50), ("p90", p50), ("p95", p99), ("p99", p99), ("p99.9", p999), ("p99.99", max)];
    Latency {
        count: 200,
        min_us: 500,
        mean_us,
        stdev_us: 10.0,
        percentiles_us: percentiles.map(|(name, us)| (name.to_owned(), us)).into(),
        max_us: max,
        curve: vec![(0.0, 500), (1.0, max)],
        histogram: String::new(),
    }
}

fn stage(span: &str, p50: u64, p99: u64, p999: u64) -> Stage {
    let budget = Some(Budget { p50_us: 1_000, p95_us: 2_000, p99_us: 3_000 });
    let latency = Latency { curve: Vec::new(), ..latency(p50, p99, p999, p999, 400.0) };
    Stage { span: span.to_owned(), source: "answers".to_owned(), stretch: None, latency, budget, verdict: Some(Verdict::Kept) }
}

/// A run of 200 answers, of which a few went wrong, with figures that are easy to tell apart.
pub(crate) fn example() -> Summary {
    let counts = |counts: &[(&str, u64)]| counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    Summary {
        schema_version: SCHEMA_VERSION,
        verdict: "failed".to_owned(),
        troubles: Vec::new(),
        failures: vec!["1 requests had no answer".to_owned()],
        started_at: "2026-03-04T10:15:07.112Z".to_owned(),
        tool: Tool { name: "jitauth".to_owned(), version: "0.1.0".to_owned(), commit: None, build: "release".to_owned(), command: None },
        scenario: ScenarioLine {
            name: "steady".to_owned(),
            question: "How long?".to_owned(),
            workload: BTreeMap::from([("rate_per_s".to_owned(), "100".to_owned())]),
            workload_digest: "0123456789ab".to_owned(),
        },
        target: TargetLine {
            kind: "amqp".to_owned(),
            spawned: true,
            store: Some("postgresql".to_owned()),
            durability: Some("fsync=on synchronous_commit=on full_page_writes=on".to_owned()),
            queue_type: Some("quorum".to_owned()),
            profile: "production".to_owned(),
            lanes: 2,
            batch_max: 64,
            configuration: "ba9876543210".to_owned(),
            redis: Some("off".to_owned()),
        },
        environment: Environment { host: "bench-1".to_owned(), cpu: "A processor".to_owned(), cores: 2, ..Environment::default() },
        rate: Rate { offered_per_s: 100.0, achieved_per_s: 99.5, measured_s: 2.0, saturated: false, held_back: 0, ..Rate::default() },
        cpu: None,
        requests: Requests {
            sent: 201,
            answered: 200,
            lost: 1,
            retries: 3,
            errors: 4,
            late_approvals: 5,
            measured: 200,
            ..Requests::default()
        },
        decisions: counts(&[("approved", 150), ("partially_approved", 10), ("declined", 40)]),
        reasons: counts(&[("amount_limit", 36), ("deadline_exceeded", 2), ("system_unavailable", 2)]),
        response_time: latency(1_000, 9_000, 12_000, 20_000, 1_500.0),
        service_time: latency(900, 8_000, 11_000, 19_000, 1_400.0),
        stages: vec![stage("commit", 300, 700, 800), stage("publish", 50, 90, 99)],
        promise: Verdict::TooFew,
        seconds: vec![Second {
            second: 0,
            measured: true,
            offered: 101,
            answered: 100,
            lost: 1,
            p50_us: 1_000,
            p99_us: 9_000,
            ..Second::default()
        }],
        heatmap: Heatmap { bounds_us: vec![1_000, 10_000], rows: vec![vec![60, 39, 1]] },
        ceiling: None,
        thresholds: vec![Graded {
            threshold: "p99<5ms".to_owned(),
            limit: 5_000.0,
            value: Some(9_000.0),
            unit: "us".to_owned(),
            passed: false,
        }],
        proof: Some(Proof {
            decisions: 200,
            accounts: 10,
            holds: 160,
            counters: 30,
            approved: [("USD".to_owned(), 425_000)].into(),
            ..Proof::default()
        }),
        remains: Remains::default(),
        warnings: vec![Warning { code: "debug_build".to_owned(), text: "a debug build was measured".to_owned() }],
        floor: None,
    }
}

#[test]
fn what_is_written_is_read_again() {
    let summary = example();
    let text = serde_json::to_string_pretty(&summary).unwrap();
    assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
}

/// Whoever reads the file relies on these names: a test that breaks here asks for a new schema version.
#[test]
fn the_schema_has_the_fields_it_promises() {
    let json = serde_json::to_value(example()).unwrap();
    let keys: BTreeSet<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let rows = include_str!("summary.rs").lines().filter_map(|line| line.strip_prefix("//! | `")?.split_once(" |"));
    // The first column may name several: `one`, `other`.
    let documented: BTreeSet<&str> = rows.flat_map(|(names, _)| names.split(['`', ',', ' '])).filter(|name| !name.is_empty()).collect();
    assert_eq!(keys, documented);
    for path in [
        "/response_time/percentiles_us/p99.9",
        "/response_time/curve/0/1",
        "/stages/0/budget/p99_us",
        "/stages/0/verdict",
        "/seconds/0/offered",
        "/heatmap/rows/0/2",
        "/thresholds/0/limit",
        "/scenario/workload_digest",
        "/target/durability",
        "/requests/duplicated",
        "/rate/saturated",
        "/proof/altered",
    ] {
        assert!(json.pointer(path).is_some(), "{path}");
    }
}

#[test]
fn a_distribution_is_told_by_figures_curve_and_histogram() {
    let mut times = histogram();
    (1..=1_000).for_each(|us| times.saturating_record(us * 10));
    let latency = Latency::whole(&times);
    assert_eq!((latency.count, latency.min_us, latency.percentile("p50")), (1_000, 10, 5_003));
    assert_eq!((latency.curve.first().unwrap().1, latency.curve.last().unwrap().1), (10, latency.max_us));
    let bytes = STANDARD.decode(&latency.histogram).unwrap();
    let read: Histogram<u64> = hdrhistogram::serialization::Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
    assert_eq!(read, times);
    assert_eq!(Latency::whole(&histogram()).stat(Stat::Max), None);
}

#[test]
fn a_fault_of_any_kind_fails_the_run() {
    let mut sound = example();
    sound.requests = Requests { sent: 200, answered: 200, measured: 100, ..Requests::default() };
    assert_eq!(sound.faults(), [""; 0]);
    type Plant = fn(&mut Summary);
    let plants: [(&str, Plant); 11] = [
        ("had no answer", |it| it.requests.lost = 1),
        ("more than one answer", |it| it.requests.duplicated = 1),
        ("not what was asked for", |it| it.requests.unexpected = 1),
        ("could not be sent", |it| it.requests.unsent = 1),
        ("nothing was answered", |it| it.requests.answered = 0),
        ("nothing was measured", |it| it.requests.measured = 0),
        ("not the store of this daemon", |it| it.proof = Some(Proof::default())),
        ("2 messages were left in q-dlq", |it| it.remains.queues = [("q-dlq".to_owned(), 2)].into()),
        ("ended with 70", |it| it.remains.ended = Some("it ended with 70".to_owned())),
        ("missing in the journal", |it| it.proof.as_mut().unwrap().lost = 1),
        ("limits were passed", |it| it.proof.as_mut().unwrap().limits_passed = 1),
    ];
    for (part, plant) in plants {
        let mut wrong = sound.clone();
        plant(&mut wrong);
        let faults = wrong.faults();
        assert!(faults.len() == 1 && faults[0].contains(part), "{part}: {faults:?}");
    }
}
