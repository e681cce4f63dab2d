#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::bench::{
    floor::ratios::tests::floor,
    proof::Proof,
    summary::{Ceiling, tests::example},
};

/// The parts that a page has, in order.
fn parts(page: &str) -> Vec<&str> {
    page.match_indices("<section id=\"").map(|(at, tag)| page[at + tag.len()..].split('"').next().unwrap_or_default()).collect()
}

#[test]
fn a_page_has_every_part_in_the_order_in_which_people_ask() {
    let mut it = example();
    assert_eq!(parts(&report(&it, None)), ["verdict", "latency", "rate", "heatmap", "spans", "decisions", "accounts", "circumstances"]);
    it.floor = Some(floor(600, 6_000));
    let search = Some(super::super::steps::tests::search());
    it.ceiling = Some(Ceiling { rate_per_s: 4_321.5, p99_bound_us: 100_000, reached: true, search });
    let whole = ["verdict", "latency", "rate", "heatmap", "spans", "floors", "ceiling", "decisions", "accounts", "circumstances"];
    assert_eq!(parts(&report(&it, None)), whole);
}

#[test]
fn a_page_says_what_the_run_found() {
    let page = report(&example(), None);
    for part in [
        "<title>steady over amqp: failed</title>",
        "✗ Failed",
        "1 requests had no answer",
        "a debug build was measured",
        "<code>p99&lt;5ms</code>",
        "p99&lt;5ms ✗",
        "fsync=on synchronous_commit=on",
        "✗ lost: sent, and not answered",
        "✓ The books agree.",
        "0123456789ab",
        "not known to this build",
        "<code>rate_per_s</code>",
    ] {
        assert!(page.contains(part), "{part}\n{page}");
    }
}

#[test]
fn the_run_before_is_beside_it_and_a_run_of_another_workload_is_called_so() {
    let it = example();
    let mut before = example();
    before.response_time.percentiles_us.insert("p99".to_owned(), 4_500);
    before.tool.commit = Some("abc1234".to_owned());
    let page = report(&it, Some(&before));
    for part in ["class=\"previous\"", "at abc1234", "under the same workload", "+100 %"] {
        assert!(page.contains(part), "{part}\n{page}");
    }
    assert!(!report(&it, None).contains("path class=\"previous\""));
    before.scenario.workload_digest = "other".to_owned();
    assert!(report(&it, Some(&before)).contains("under ANOTHER workload (other, not 0123456789ab)"));
}

#[test]
fn a_threshold_is_drawn_when_it_is_about_response_time() {
    let graded = |threshold: &str, unit: &str| {
        let (threshold, unit) = (threshold.to_owned(), unit.to_owned());
        limit(&Graded { threshold, limit: 5_000.0, value: None, unit, passed: true }).map(|bound| bound.steps)
    };
    for (threshold, unit, expected) in [
        ("p99<5ms", "us", Some(vec![(0.99, 5_000)])),
        ("p99.9 <= 5ms", "us", Some(vec![(0.999, 5_000)])),
        ("response_time.p50<5ms", "us", Some(vec![(0.5, 5_000)])),
        ("max<5ms", "us", Some(vec![(1.0, 5_000)])),
        ("service_time.p99<5ms", "us", None),
        ("commit.p99<5ms", "us", None),
        ("mean<5ms", "us", None),
        ("p99>5ms", "us", None),
        ("errors<5%", "%", None),
    ] {
        assert_eq!(graded(threshold, unit), expected, "{threshold}");
    }
}

#[test]
fn whatever_a_result_says_stays_text() {
    let evil = "</style><script>alert(1)</script>\"'><img src=x>".to_owned();
    let mut it = example();
    it.scenario.name.clone_from(&evil);
    it.scenario.question.clone_from(&evil);
    it.scenario.workload.insert(evil.clone(), evil.clone());
    it.failures.push(evil.clone());
    it.warnings[0].text.clone_from(&evil);
    it.thresholds[0].threshold = format!("p99<{evil}");
    it.requests.examples.push(evil.clone());
    it.reasons.insert(evil.clone(), 3);
    it.stages[0].span.clone_from(&evil);
    it.environment.host.clone_from(&evil);
    it.target.profile.clone_from(&evil);
    it.target.durability = Some(evil.clone());
    it.tool.commit = Some(evil.clone());
    it.tool.command = Some(evil.clone());
    it.started_at = evil;
    let page = report(&it, Some(&it));
    assert!(page.matches("alert(1)").count() > 20, "it is told");
    for tag in ["<script", "<img", "</style><script"] {
        assert!(!page.contains(tag), "{tag}");
    }
}

#[test]
fn an_empty_result_is_a_page_too() {
    let empty = serde_json::json!({
        "schema_version": 1, "verdict": "failed", "failures": ["nothing was answered"], "started_at": "",
        "tool": {"name": "jitauth", "version": "0.1.0", "commit": null, "build": "debug"},
        "scenario": {"name": "", "question": "", "workload": {}, "workload_digest": ""},
        "target": {"kind": "", "spawned": false, "store": null, "durability": null, "queue_type": null, "profile": "", "lanes": 0, "batch_max": 0,
                   "configuration": ""},
        "environment": crate::bench::environment::Environment::default(), "rate": crate::bench::summary::Rate::default(),
        "requests": crate::bench::summary::Requests::default(), "decisions": {}, "reasons": {},
        "response_time": Latency::default(), "service_time": Latency::default(), "stages": [], "promise": "too_few", "seconds": [],
        "heatmap": {"bounds_us": [], "rows": []}, "ceiling": null, "thresholds": [], "proof": null, "warnings": [], "floor": null
    });
    let it: Summary = serde_json::from_value(empty).unwrap();
    let page = report(&it, Some(&it));
    assert_eq!(parts(&page), ["verdict", "latency", "decisions", "accounts", "circumstances"]);
    for part in ["Nothing was answered.", "Nothing was decided.", "The store was not looked at"] {
        assert!(page.contains(part), "{part}\n{page}");
    }
    let none = Summary { proof: Some(Proof::default()), ..it };
    assert!(report(&none, None).contains("no decision of this run"));
}

#[test]
fn a_page_needs_nothing_but_itself() {
    let page = report(&example(), Some(&example()));
    for word in ["http:", "https:", "//", "src=", "url(", "@import", "<script", "<link", "javascript:"] {
        assert!(!page.contains(word), "{word}");
    }
}

/// A second `class` on an element is dropped by browsers, silently.
#[test]
fn no_element_says_the_same_twice() {
    let page = report(&example(), Some(&example()));
    for tag in page.split('<').filter_map(|rest| rest.split_once('>')).map(|(tag, _)| tag) {
        let names: Vec<&str> = tag.split("=\"").filter_map(|part| part.rsplit([' ', '"']).next()).collect();
        assert!(names.iter().filter(|name| **name == "class").count() < 2, "{tag}");
    }
}
