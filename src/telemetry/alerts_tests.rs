#![expect(clippy::expect_used, reason = "a failed expectation is a failed test")]

use super::*;
use crate::{
    domain::{decision::Decision, reason::Reason},
    telemetry::{Settings as TelemetrySettings, Spans, events::PublishOutcome},
};

const MS: u64 = 1000;

fn spans(parts: &[(Span, u64)]) -> Spans {
    let mut spans = Spans::default();
    spans.set(Span::Decode, Duration::from_micros(5));
    parts.iter().for_each(|(span, us)| spans.set(*span, Duration::from_micros(*us)));
    spans
}

fn answer<'a>(id: &'a str, spans: &'a Spans) -> Answered<'a> {
    Answered { id, decision: Decision::Declined, reason: Some(Reason::InsufficientFunds), spans }
}

/// Answers that took so many milliseconds, of which the commit took all.
fn committed(alerts: &Alerts, totals_ms: &[u64]) {
    for ms in totals_ms {
        let spans = spans(&[(Span::Commit, ms * MS), (Span::Total, ms * MS)]);
        alerts.offer(&answer(&format!("auth-{ms}"), &spans));
    }
}

#[test]
fn one_alert_a_level_in_ten_seconds_with_the_count_and_the_worst() {
    let alerts = Alerts::new(Settings::default());
    let mut watcher = Watcher::default();
    let start = Instant::now();
    let mut check = |at_s: u64, totals_ms: &[u64], expected: &[(Level, u64, &str)]| {
        committed(&alerts, totals_ms);
        let raised = watcher.look(&alerts, start + Duration::from_secs(at_s));
        let told: Vec<_> =
            raised.iter().map(|raised| (raised.level, raised.held.count, raised.held.worst.authorization.as_ref())).collect();
        assert_eq!(told, expected, "at {at_s} s");
    };
    check(0, &[1, 20, 49], &[]);
    check(1, &[60, 70, 65], &[(Level::Warning, 3, "auth-70")]);
    check(2, &[80; 1000], &[]);
    // A critical one is not held up by a warning, and speaks for those held back.
    check(3, &[150, 130], &[(Level::Critical, 2, "auth-150")]);
    check(4, &[90, 300], &[]);
    check(12, &[200], &[]);
    check(13, &[], &[(Level::Critical, 2, "auth-300")]);
    check(22, &[55], &[]);
    check(23, &[], &[(Level::Warning, 1, "auth-55")]);
    check(60, &[], &[]);
}

#[test]
fn who_waited_for_a_lane_is_named_only_when_nothing_else_was_slow() {
    for (commits_ms, expected) in [(&[][..], "behind"), (&[60][..], "auth-60"), (&[49], "behind"), (&[60, 150], "auth-150")] {
        let alerts = Alerts::new(Settings::default());
        for us in [170 * MS, 180 * MS] {
            alerts.offer(&answer("behind", &spans(&[(Span::Lane, us), (Span::Commit, MS), (Span::Total, us + MS)])));
        }
        committed(&alerts, commits_ms);
        let raised = Watcher::default().look(&alerts, Instant::now());
        assert_eq!(raised.len(), 1);
        assert_eq!((raised[0].held.worst.authorization.as_ref(), raised[0].level), (expected, Level::Critical), "{commits_ms:?}");
        assert_eq!(raised[0].held.count as usize, 2 + commits_ms.iter().filter(|ms| **ms >= 100).count(), "only critical ones");
    }
}

#[test]
fn the_queue_and_the_confirm_count_by_themselves() {
    let alerts = Alerts::new(Settings::default());
    let mut watcher = Watcher::default();
    for (name, parts, expected) in [
        ("nothing is slow", vec![(Span::Total, 49 * MS), (Span::Queue, 249 * MS), (Span::Confirm, 49 * MS)], vec![]),
        ("queue", vec![(Span::Total, MS), (Span::Queue, 300 * MS)], vec![(Kind::QueueWait, Level::Warning)]),
        (
            "both",
            vec![(Span::Total, 60 * MS), (Span::Queue, 1000 * MS)],
            vec![(Kind::Latency, Level::Warning), (Kind::QueueWait, Level::Critical)],
        ),
        ("confirm", vec![(Span::Total, MS), (Span::Confirm, 100 * MS)], vec![(Kind::Latency, Level::Critical)]),
    ] {
        alerts.offer(&answer("a", &spans(&parts)));
        let raised = watcher.look(&alerts, Instant::now());
        assert_eq!(raised.iter().map(|raised| (raised.kind, raised.level)).collect::<Vec<_>>(), expected, "{name}");
        watcher = Watcher::default();
    }
    let mut late = Spans::default();
    late.set(Span::Total, Duration::from_secs(2));
    alerts.offer(&answer("taken back", &late));
    assert!(watcher.look(&alerts, Instant::now()).is_empty(), "what is said again late was told before");
}

#[test]
fn a_stall_and_the_late_answers_after_it_are_not_two_alerts_at_once() {
    let (alerts, start) = (Alerts::new(Settings::default()), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    let stalled = |watcher: &mut Watcher, seconds| watcher.look_for_stall(&alerts, Progress { open: 1, ended: 0 }, at(seconds)).is_some();
    let mut watcher = Watcher::default();
    assert_eq!([0, 1].map(|seconds| stalled(&mut watcher, seconds)), [false, true]);
    committed(&alerts, &[150]);
    assert_eq!([2, 10, 11].map(|seconds| watcher.look(&alerts, at(seconds)).len()), [0, 0, 1], "late answers wait for their turn");
    assert_eq!([12, 20, 21].map(|seconds| stalled(&mut watcher, seconds)), [false, false, true], "and so does a stall after them");
}

#[test]
fn a_stall_is_told_while_it_lasts_and_only_then() {
    let alerts = Alerts::new(Settings::default());
    let mut watcher = Watcher::default();
    let start = Instant::now();
    for (at_ms, open, ended, expected) in [
        (0, 5, 10, None),
        (900, 5, 10, None),
        (1000, 5, 10, Some(1000)),
        (1250, 5, 10, None),
        (11_000, 7, 10, Some(11_000)),
        (11_250, 7, 11, None),
        (12_000, 7, 11, None),
        // Nothing open: nothing stalls.
        (30_000, 0, 11, None),
        (59_750, 0, 11, None),
        (60_000, 1, 11, None),
        (60_750, 1, 11, Some(1000)),
    ] {
        let stall = watcher.look_for_stall(&alerts, Progress { open, ended }, start + Duration::from_millis(at_ms));
        assert_eq!(stall.map(|stall| stall.lasted.as_millis()), expected, "at {at_ms} ms");
    }
}

#[test]
fn what_the_broker_says_of_a_publish_is_progress_and_its_silence_is_none() {
    let telemetry = Telemetry::default();
    for (outcome, moves) in [
        (PublishOutcome::Confirmed, true),
        (PublishOutcome::Returned, true),
        (PublishOutcome::Nacked, true),
        (PublishOutcome::Timeout, false),
    ] {
        let before = telemetry.progress().ended;
        telemetry.published(outcome);
        assert_eq!(telemetry.progress().ended != before, moves, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_alert_is_counted_and_becomes_an_event() {
    let telemetry = Telemetry::new(None, &TelemetrySettings::default());
    let mut events = telemetry.take_alerts().expect("nobody took them");
    assert!(telemetry.take_alerts().is_none(), "only once");
    let watching = tokio::spawn(watch(telemetry.clone()));
    let spans = spans(&[(Span::User, 3), (Span::Commit, 150 * MS), (Span::Total, 151 * MS)]);
    telemetry.answered(&answer("auth-1", &spans));
    telemetry.answered(&answer("auth-2", &spans));
    let event = events.recv().await.expect("an event");
    watching.abort();
    let mut body: serde_json::Value = serde_json::from_slice(&event.body).expect("JSON");
    for path in ["/at", "/since", "/worst/at"] {
        let at = body.pointer_mut(path).expect(path);
        assert!(at.as_str().is_some_and(|at| at.parse::<jiff::Timestamp>().is_ok()), "{path} is {at}");
        *at = "T".into();
    }
    let expected = serde_json::json!({
        "version": 1, "type": "latency.alert", "at": "T", "level": "critical", "kind": "latency", "cause": "commit_wait",
        "advice": Cause::CommitWait.advice(), "threshold_ms": 100, "count": 2, "since": "T",
        "worst": {
            "authorization": "auth-1", "at": "T", "decision": "declined", "reason": "insufficient_funds", "total_us": 151_000,
            "cause": "commit_wait", "slowest_span": "commit", "slowest_us": 150_000,
            "spans_us": {"decode": 5, "user": 3, "commit": 150_000, "total": 151_000}
        }
    });
    assert_eq!(body, expected);
    let text = telemetry.scrape(crate::telemetry::Exposition::Prometheus).expect("text");
    let counted: Vec<_> = text.lines().filter(|line| line.starts_with("jitauth_latency_alerts_total") && !line.ends_with(" 0")).collect();
    assert_eq!(counted, [r#"jitauth_latency_alerts_total{level="critical",cause="commit_wait"} 1"#]);
}
