#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

const METRICS: &str = r#"# HELP jitauth_ready Whether requests are wanted
# TYPE jitauth_ready gauge
jitauth_ready 1
jitauth_draining 0
jitauth_inflight_messages 64
jitauth_inflight_limit_messages 2048
jitauth_tokio_busy_ratio 0.413
jitauth_worker_queue_messages{lane="0"} 0
jitauth_worker_queue_messages{lane="1"} 17
jitauth_messages_dead_lettered_total{queue="q",reason="malformed"} 2
jitauth_messages_dead_lettered_total{queue="q",reason="pan_present"} 1
jitauth_unheard_approvals_total 0
jitauth_latency_alerts_total{level="warning",cause="commit_wait"} 2
jitauth_latency_alerts_total{level="warning",cause="redis"} 0
jitauth_latency_alerts_total{level="critical",cause="commit_wait"} 1
jitauth_latency_alerts_total{level="critical",cause="redis"} 1
process_resident_memory_bytes 132042752
"#;

const HEALTH: &str = r#"{"status":"degraded","timestamp":"2026-03-04T14:06:00.113Z","services":{
    "postgres":{"status":"healthy","detail":"answers","since":"2026-03-04T09:54:00.001Z"},
    "redis":{"status":"degraded","detail":"does not answer; the log says why","since":"2026-03-04T14:05:31.214Z"},
    "messageQueue":{"status":"healthy","detail":"answers","since":"2026-03-04T09:54:00.210Z"}}}"#;

fn seen() -> Seen {
    let report = serde_json::from_str(include_str!("../report/served.json")).unwrap();
    Seen { report, health: serde_json::from_str(HEALTH).unwrap(), samples: Samples::parse(METRICS) }
}

#[test]
fn a_screen_reads_as_a_person_would() {
    assert_eq!(frame::render(&seen()).join("\n") + "\n", include_str!("shown.txt"));
}

#[test]
fn samples_are_found_by_family_and_label() {
    let samples = Samples::parse(METRICS);
    assert_eq!(samples.sum("jitauth_messages_dead_lettered_total"), 3.0);
    assert_eq!(samples.sum("jitauth_messages_dead_lettered"), 0.0, "half a name is no family");
    assert_eq!(samples.sum("jitauth_nonsense"), 0.0);
    assert_eq!(samples.by_label("jitauth_worker_queue_messages", "lane"), [("0", 0.0), ("1", 17.0)]);
    assert!(samples.by_label("jitauth_worker_queue_messages", "shard").is_empty());
}
