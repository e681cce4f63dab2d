#![expect(clippy::expect_used, reason = "a failed expectation is a failed test")]

use crate::{
    domain::{decision::Decision, reason::Reason},
    telemetry::{
        Exposition, Settings, Span, Spans, Telemetry,
        events::{CacheResult, Cause, CommitOutcome, Dependency, Level, PublishOutcome, RedisCommand, Role, Settlement, Tier},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What a strict reader makes of the text: types by family, values by sample with its labels.
#[derive(Default)]
struct Parsed {
    types: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

fn parse(text: &str, counter_suffix_in_family: bool) -> Parsed {
    let mut parsed = Parsed::default();
    let mut help = BTreeSet::new();
    let mut current = String::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some((name, words)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            assert!(!words.is_empty() && help.insert(name.to_owned()), "help given once: {line}");
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            assert!(help.contains(name), "help comes first: {line}");
            assert!(
                (name.starts_with("jitauth_") || name.starts_with("process_")) && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{line}"
            );
            assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{line}");
            assert!(parsed.types.insert(name.to_owned(), kind.to_owned()).is_none(), "one family, one block: {line}");
            current = name.to_owned();
        } else {
            sample(line, &current, counter_suffix_in_family, &mut parsed);
        }
    }
    parsed
}

fn sample(line: &str, family: &str, counter_suffix_in_family: bool, parsed: &mut Parsed) {
    let (key, value) = line.rsplit_once(' ').expect("a value");
    let name = key.split('{').next().unwrap_or_default();
    let suffixes: &[&str] = match parsed.types[family].as_str() {
        "counter" if counter_suffix_in_family => &[""],
        "counter" => &["_total"],
        "histogram" => &["_sum", "_count", "_bucket"],
        _ => &[""],
    };
    assert!(suffixes.iter().any(|suffix| name == format!("{family}{suffix}")), "sample outside of its family {family}: {line}");
    if let Some(labels) = key.strip_prefix(name).filter(|labels| !labels.is_empty()) {
        let labels = labels.strip_prefix('{').and_then(|labels| labels.strip_suffix('}')).expect("braces");
        for label in labels.split(',') {
            let (label_name, label_value) = label.split_once('=').expect("a label");
            assert!(label_name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
            assert!(label_value.len() > 2 && label_value.starts_with('"') && label_value.ends_with('"'), "empty label in {line}");
        }
    }
    assert!(parsed.samples.insert(key.to_owned(), value.parse().expect("a number")).is_none(), "twice: {line}");
}

fn scrape(telemetry: &Telemetry) -> Parsed {
    parse(&telemetry.scrape(Exposition::Prometheus).expect("text"), true)
}

#[test]
fn every_label_value_is_there_from_the_start() {
    let telemetry = Telemetry::default();
    let lanes = telemetry.lane_queues(2);
    assert_eq!(lanes.len(), 2);
    let parsed = scrape(&telemetry);
    let counters = parsed.types.iter().filter(|(_, kind)| *kind == "counter").map(|(name, _)| name.as_str());
    for name in counters {
        assert!(parsed.samples.keys().any(|key| key.starts_with(name)), "{name} has no samples");
    }
    let queue = r#"queue="jit-funding-queue""#;
    let mut expected: Vec<String> = Vec::new();
    for reason in Reason::ALL {
        let class = super::class_name(reason.class());
        expected.push(format!(
            r#"jitauth_authorizations_total{{message_type="authorization",decision="declined",reason="{}",reason_class="{class}"}}"#,
            reason.name()
        ));
    }
    for decision in ["approved", "partially_approved"] {
        expected.push(format!(
            r#"jitauth_authorizations_total{{message_type="authorization",decision="{decision}",reason="none",reason_class="ok"}}"#
        ));
    }
    for span in Span::ALL {
        expected.push(format!(r#"jitauth_deadline_exceeded_total{{stage="{}"}}"#, span.name()));
        if span != Span::Total {
            expected.push(format!(r#"jitauth_stage_duration_seconds_bucket{{le="+Inf",stage="{}"}}"#, span.name()));
        }
    }
    for reason in ["malformed", "unsupported_version", "invalid_amount", "invalid_precision", "invalid_currency", "pan_present"] {
        expected.push(format!(r#"jitauth_invalid_inputs_total{{reason="{reason}"}}"#));
        expected.push(format!(r#"jitauth_messages_dead_lettered_total{{{queue},reason="{reason}"}}"#));
    }
    for outcome in ["answered", "dead_lettered", "returned"] {
        expected.push(format!(r#"jitauth_messages_settled_total{{{queue},outcome="{outcome}"}}"#));
    }
    for cause in Cause::ALL {
        expected.push(format!(r#"jitauth_latency_alerts_total{{level="warning",cause="{}"}}"#, cause.name()));
        expected.push(format!(r#"jitauth_latency_alerts_total{{level="critical",cause="{}"}}"#, cause.name()));
    }
    for result in ["hit", "miss", "stale", "error", "bypass"] {
        expected.push(format!(r#"jitauth_cache_requests_total{{tier="memory",result="{result}"}}"#));
        expected.push(format!(r#"jitauth_cache_requests_total{{tier="redis",result="{result}"}}"#));
    }
    for plain in ["unheard_approvals_total", "voided_approvals_total", "unknown_fields_total", "clock_skew_total", "log_dropped_total"] {
        expected.push(format!("jitauth_{plain}"));
    }
    expected.extend([0, 1].map(|lane| format!(r#"jitauth_worker_queue_messages{{lane="{lane}"}}"#)));
    for gauge in
        ["tokio_busy_ratio", "ready", "draining", "inflight_messages", "inflight_limit_messages", "last_decision_timestamp_seconds"]
    {
        expected.push(format!("jitauth_{gauge}"));
    }
    for key in &expected {
        assert_eq!(parsed.samples.get(key), Some(&0.0), "{key}\n{:#?}", parsed.samples.keys());
    }
    assert!(!parsed.samples.keys().any(|key| key.starts_with("jitauth_dependency_up")), "unused dependencies are not shown as down");
}

#[test]
fn each_event_moves_its_own_sample() {
    let telemetry = Telemetry::new(Some("q"), &Settings::default());
    telemetry.expects(Dependency::Broker);
    telemetry.dead_letter_reasons(&["no_reply_to"]);
    let before = scrape(&telemetry);
    let check = |event: &dyn Fn(), expected: &[(&str, f64)]| {
        let before = scrape(&telemetry);
        event();
        let after = scrape(&telemetry);
        for (key, more) in expected {
            let moved = after.samples.get(*key).unwrap_or_else(|| panic!("{key} is missing")) - before.samples.get(*key).unwrap_or(&0.0);
            assert!((moved - more).abs() < 1e-9, "{key} moved by {moved} instead of {more}");
        }
    };
    let declined = |reason: &str, class: &str| {
        format!(
            r#"jitauth_authorizations_total{{message_type="authorization",decision="declined",reason="{reason}",reason_class="{class}"}}"#
        )
    };
    let approved = r#"jitauth_authorizations_total{message_type="authorization",decision="approved",reason="none",reason_class="ok"}"#;
    check(&|| telemetry.decided(Decision::Approved, None, &Spans::default()), &[(approved, 1.0)]);
    check(
        &|| telemetry.decided(Decision::Declined, Some(Reason::InsufficientFunds), &Spans::default()),
        &[(&declined("insufficient_funds", "business"), 1.0), (approved, 0.0)],
    );
    check(&|| telemetry.shed(Reason::SystemUnavailable), &[(&declined("system_unavailable", "system"), 1.0)]);
    check(
        &|| telemetry.invalid_input(Reason::PanPresent, "detail"),
        &[(&declined("pan_present", "input"), 1.0), (r#"jitauth_invalid_inputs_total{reason="pan_present"}"#, 1.0)],
    );
    check(
        &|| telemetry.conflicted(),
        &[(&declined("duplicate_conflict", "input"), 1.0), (r#"jitauth_duplicates_total{kind="conflict"}"#, 1.0)],
    );
    check(&|| telemetry.replayed(), &[(r#"jitauth_duplicates_total{kind="replayed"}"#, 1.0), (approved, 0.0)]);
    for (outcome, event) in [
        ("accepted", &(|| telemetry.event_received("card.updated")) as &dyn Fn()),
        ("refused", &|| telemetry.event_refused("why")),
        ("sent", &|| telemetry.event_published("latency.alert", None)),
        ("dropped", &|| telemetry.event_published("latency.alert", Some("why"))),
    ] {
        check(event, &[(&format!(r#"jitauth_events_total{{outcome="{outcome}"}}"#), 1.0)]);
    }
    check(
        &|| telemetry.count_alert(Level::Critical, Cause::CommitWait),
        &[
            (r#"jitauth_latency_alerts_total{level="critical",cause="commit_wait"}"#, 1.0),
            (r#"jitauth_latency_alerts_total{level="warning",cause="commit_wait"}"#, 0.0),
        ],
    );
    check(&|| telemetry.cache(Tier::Redis, CacheResult::Stale), &[(r#"jitauth_cache_requests_total{tier="redis",result="stale"}"#, 1.0)]);
    check(
        &|| telemetry.redis_command(RedisCommand::Write, Duration::from_millis(2)),
        &[(r#"jitauth_redis_command_duration_seconds_sum{command="write"}"#, 0.002)],
    );
    check(
        &|| telemetry.pool_waited(Duration::from_millis(2)),
        &[("jitauth_pool_wait_seconds_sum", 0.002), ("jitauth_pool_wait_seconds_count", 1.0)],
    );
    check(
        &|| telemetry.committed(CommitOutcome::Committed, 7, Duration::from_millis(1)),
        &[
            (r#"jitauth_db_transactions_total{outcome="committed"}"#, 1.0),
            ("jitauth_db_transaction_duration_seconds_count", 1.0),
            ("jitauth_commit_batch_decisions_sum", 7.0),
        ],
    );
    check(
        &|| telemetry.committed(CommitOutcome::Unknown, 7, Duration::from_millis(1)),
        &[(r#"jitauth_db_transactions_total{outcome="unknown"}"#, 1.0), ("jitauth_commit_batch_decisions_sum", 0.0)],
    );
    check(&|| telemetry.received(true), &[(r#"jitauth_messages_received_total{queue="q",redelivered="true"}"#, 1.0)]);
    check(&|| telemetry.settled(Settlement::Returned), &[(r#"jitauth_messages_settled_total{queue="q",outcome="returned"}"#, 1.0)]);
    check(&|| telemetry.published(PublishOutcome::Nacked), &[(r#"jitauth_responses_published_total{outcome="nacked"}"#, 1.0)]);
    check(&|| telemetry.dead_lettered("no_reply_to"), &[(r#"jitauth_messages_dead_lettered_total{queue="q",reason="no_reply_to"}"#, 1.0)]);
    check(&|| telemetry.deadline_exceeded(Span::Lane), &[(r#"jitauth_deadline_exceeded_total{stage="lane"}"#, 1.0)]);
    check(
        &|| telemetry.clock_skewed(Duration::from_millis(1500)),
        &[("jitauth_clock_skew_total", 1.0), ("jitauth_clock_skew_seconds", 1.5)],
    );
    check(&|| telemetry.unknown_fields(3), &[("jitauth_unknown_fields_total", 3.0)]);
    check(&|| telemetry.job_began(), &[("jitauth_inflight_messages", 1.0)]);
    check(&|| telemetry.job_ended(), &[("jitauth_inflight_messages", -1.0)]);
    check(&|| telemetry.readiness().drain(), &[("jitauth_draining", 1.0), ("jitauth_ready", 0.0)]);
    check(&|| telemetry.dependency(Dependency::Store, true, ""), &[(r#"jitauth_dependency_up{dependency="store"}"#, 1.0)]);

    let up = r#"jitauth_broker_connection_up{role="publisher"}"#;
    let reconnects = r#"jitauth_broker_reconnects_total{role="publisher"}"#;
    assert_eq!(before.samples[up], 0.0, "an expected dependency shows as down until it reports");
    check(&|| telemetry.broker_connection(Role::Publisher, true, ""), &[(up, 1.0), (reconnects, 0.0)]);
    check(&|| telemetry.broker_blocked(Role::Publisher, true), &[(r#"jitauth_broker_connection_blocked{role="publisher"}"#, 1.0)]);
    check(&|| telemetry.broker_connection(Role::Publisher, false, "reset"), &[(up, -1.0), (reconnects, 0.0)]);
    check(
        &|| telemetry.broker_connection(Role::Publisher, true, ""),
        &[(up, 1.0), (reconnects, 1.0), (r#"jitauth_broker_connection_blocked{role="publisher"}"#, -1.0)],
    );
    check(&|| telemetry.broker_connection(Role::Publisher, true, ""), &[(reconnects, 0.0)]);
}

#[test]
fn both_expositions_hold_the_same_samples() {
    let telemetry = Telemetry::default();
    telemetry.decided(Decision::Approved, None, &Spans::default());
    let open = telemetry.scrape(Exposition::OpenMetrics).expect("text");
    assert!(open.ends_with("# EOF\n"));
    let (mut open, mut old) = (parse(&open, false), scrape(&telemetry));
    // What the process uses goes on between the two.
    assert!(open.samples.keys().eq(old.samples.keys()));
    for parsed in [&mut open, &mut old] {
        parsed.samples.retain(|key, _| !key.starts_with("process_"));
    }
    assert_eq!(open.samples, old.samples);
    assert_eq!(open.types["jitauth_authorizations"], "counter");
    assert_eq!(old.types["jitauth_authorizations_total"], "counter");
}

/// What `histogram_quantile` makes of the buckets.
fn quantile(parsed: &Parsed, prefix: &str, labels: &str, q: f64) -> f64 {
    let mut buckets: Vec<(f64, f64)> = parsed
        .samples
        .iter()
        .filter_map(|(key, count)| {
            let labels_of = key.strip_prefix(prefix)?.strip_prefix("_bucket{le=\"")?;
            let (le, rest) = labels_of.split_once('"')?;
            (rest.trim_start_matches(',') == format!("{labels}}}")).then(|| (le.parse().expect("le"), *count))
        })
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let rank = q * buckets.last().expect("buckets").1;
    let (mut below_bound, mut below_count) = (0.0, 0.0);
    for (bound, count) in buckets {
        assert!(count >= below_count, "buckets are cumulative");
        if count >= rank {
            return below_bound + (bound - below_bound) * (rank - below_count) / (count - below_count);
        }
        (below_bound, below_count) = (bound, count);
    }
    f64::NAN
}

#[test]
fn buckets_are_seconds_and_fine_enough() {
    let telemetry = Telemetry::default();
    let recorder = telemetry.recorder();
    for _ in 0..1000 {
        let mut spans = Spans::default();
        for (span, us) in
            [(Span::Total, 1000), (Span::Commit, 1000), (Span::Confirm, 1000), (Span::Queue, 1000), (Span::User, 3), (Span::Lane, 2000)]
        {
            spans.set(span, Duration::from_micros(us));
        }
        recorder.record(&spans);
    }
    let parsed = scrape(&telemetry);
    for (prefix, labels, expected) in [
        ("jitauth_authorization_duration_seconds", r#"message_type="authorization""#, 0.001),
        ("jitauth_stage_duration_seconds", r#"stage="commit""#, 0.001),
        ("jitauth_stage_duration_seconds", r#"stage="lane""#, 0.002),
        ("jitauth_stage_duration_seconds", r#"stage="user""#, 0.000_003),
        ("jitauth_publish_confirm_duration_seconds", "", 0.001),
        ("jitauth_queue_wait_seconds", "", 0.001),
    ] {
        let p99 = quantile(&parsed, prefix, labels, 0.99);
        assert!((p99 / expected - 1.0).abs() < 0.25, "{prefix} {labels}: p99 {p99} instead of {expected}");
    }
    let sum = parsed.samples[r#"jitauth_authorization_duration_seconds_sum{message_type="authorization"}"#];
    assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    for bounds in [super::ANSWER_BUCKETS_S, super::STAGE_BUCKETS_S] {
        assert!(bounds.first().is_some_and(|bound| *bound <= 0.000_05) && bounds.last().is_some_and(|bound| *bound >= 10.0));
        assert!(bounds.is_sorted_by(|a, b| a < b));
    }
}
