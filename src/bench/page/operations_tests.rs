#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::telemetry::report::{Detail, Stretch};

/// A report as a daemon gives it.
const SERVED: &str = include_str!("../../cli/report/served.json");

fn served() -> Report {
    serde_json::from_str(SERVED).unwrap()
}

/// Two intervals of ten seconds, with a gap between them.
fn detailed() -> Report {
    let stretch = |since: &str, until: &str, decisions: u64, failed: u64| Stretch {
        since: since.to_owned(),
        until: until.to_owned(),
        decisions,
        failed,
        p50_us: 900,
        p99_us: 40_000,
        max_us: 50_000,
        buckets: vec![10, 0, 3],
    };
    let intervals = vec![
        stretch("2026-03-04T14:05:00.000Z", "2026-03-04T14:05:10.000Z", 100, 0),
        stretch("2026-03-04T14:05:30.000Z", "2026-03-04T14:05:40.500Z", 210, 7),
    ];
    let detail = Detail { curve: vec![(0.0, 600), (0.5, 900), (1.0, 50_000)], bounds_us: vec![1_000, 30_000], intervals };
    Report { detail: Some(detail), ..served() }
}

fn parts(page: &str) -> Vec<&str> {
    page.match_indices("<section id=\"").map(|(at, tag)| page[at + tag.len()..].split('"').next().unwrap_or_default()).collect()
}

#[test]
fn a_page_has_every_part_and_goes_without_what_was_not_told() {
    let whole = ["verdict", "latency", "rate", "heatmap", "spans", "decisions", "slowest", "circumstances"];
    assert_eq!(parts(&operations(&detailed(), None)), whole);
    assert_eq!(parts(&operations(&served(), None)), ["verdict", "latency", "spans", "decisions", "slowest", "circumstances"]);
    let page = operations(&detailed(), Some(&served()));
    for part in [
        "✗ Promises broken",
        "Profile services promises less for: commit.",
        "fsync = on, synchronous_commit = on",
        "path class=\"previous\"",
        "The window before it: 2026-03-04 14:05:00 UTC",
        "redis",
        "82.2 %",
        "7 failed",
        "auth-7a31c2f4",
        "commit_wait",
    ] {
        assert!(page.contains(part), "{part}\n{page}");
    }
}

#[test]
fn intervals_lie_where_they_were_in_time() {
    let found = moments(&detailed());
    let places: Vec<(f64, f64, u64)> = found.all.iter().map(|moment| (moment.at_s, moment.lasts_s, moment.answered)).collect();
    assert_eq!(places, [(0.0, 10.0, 100), (30.0, 10.5, 210)]);
    assert!(moments(&served()).all.is_empty());
}

#[test]
fn every_verdict_has_its_words() {
    for (verdict, word) in [(Verdict::Kept, "✓ Promises kept"), (Verdict::Broken, "✗ Promises broken"), (Verdict::TooFew, "! Not graded")]
    {
        assert!(operations(&Report { verdict, ..served() }, None).contains(word), "{word}");
    }
}

#[test]
fn whatever_a_daemon_says_stays_text() {
    let evil = "</style><script>alert(1)</script>\"'><img src=x>".to_owned();
    let mut it = detailed();
    for text in [&mut it.version, &mut it.profile, &mut it.store, &mut it.durability, &mut it.since, &mut it.until] {
        text.clone_from(&evil);
    }
    it.spans[0].span.clone_from(&evil);
    it.slowest[0].authorization.clone_from(&evil);
    it.reasons.insert(evil.clone(), 3);
    it.caches.insert(evil.clone(), it.caches["redis"].clone());
    it.alerts.insert(evil, 3);
    let page = operations(&it, Some(&it));
    assert!(page.matches("alert(1)").count() > 10, "it is told");
    for tag in ["<script", "<img", "</style><script"] {
        assert!(!page.contains(tag), "{tag}");
    }
}
