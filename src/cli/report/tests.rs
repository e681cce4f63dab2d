#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

/// A report as a daemon gives it.
const SERVED: &str = include_str!("served.json");

#[test]
fn a_report_reads_as_a_person_would() {
    let report: Report = serde_json::from_str(SERVED).unwrap();
    assert_eq!(table::render(&report), include_str!("shown.txt"));
}

#[test]
fn a_report_of_nothing_says_so() {
    let mut report: Report = serde_json::from_str(SERVED).unwrap();
    report.decisions.count = 0;
    (report.decisions.approval_rate, report.decisions.per_second, report.decisions.replayed) = (None, 0.0, 0);
    report.decisions.partially_approved = 0;
    [&mut report.reasons, &mut report.alerts].into_iter().for_each(std::collections::BTreeMap::clear);
    (report.caches, report.spans, report.slowest, report.largest_share) = Default::default();
    report.verdict = Verdict::TooFew;
    let expected = "jitauth 0.1.0, profile services, postgresql (fsync = on, synchronous_commit = on)\n\
                    2026-03-04T14:05:00.000Z to 2026-03-04T14:06:00.000Z, 6 intervals\n\n\
                    decisions   0, 0.0 a second\n\n\
                    span          count       p50       p95       p99     p99.9       max  p99                promised p99\n\n\
                    promises of profile services: not graded: too few decisions\n";
    // An empty report has no line between the table and the verdict.
    assert_eq!(table::render(&report), expected.replace("p99\n\npromises", "p99\npromises"));
}

#[test]
fn times_and_bars_are_short() {
    for (us, expected) in [
        (0, "0 µs"),
        (999, "999 µs"),
        (1_000, "1.00 ms"),
        (12_345, "12.3 ms"),
        (123_456, "123 ms"),
        (1_234_567, "1.23 s"),
        (60_000_000, "60.0 s"),
    ] {
        assert_eq!(time(us), expected);
    }
    for (value, longest, expected) in
        [(0, 8, ""), (8, 8, "████"), (4, 8, "██"), (1, 8, "▌"), (1, 1_000_000, "▏"), (9, 8, "████"), (3, 0, "▏")]
    {
        assert_eq!(bar(value, longest, 4), expected, "{value} of {longest}");
    }
}

#[test]
fn a_stretch_of_time_is_asked_for_in_the_query() {
    for (from, to, detail, expected) in [
        (None, None, false, "/report"),
        (None, None, true, "/report?detail=true"),
        (Some("14:05"), Some("14:06"), false, "/report?from=14%3A05&to=14%3A06"),
        (Some("-15m"), None, true, "/report?from=-15m&detail=true"),
        (Some("2026-03-04T15:00:00+01:00"), None, false, "/report?from=2026-03-04T15%3A00%3A00%2B01%3A00"),
    ] {
        assert_eq!(path(from, to, detail), expected);
    }
}

#[test]
fn the_window_before_is_as_long_and_ends_where_this_one_begins() {
    let mut report: Report = serde_json::from_str(SERVED).unwrap();
    let expected = ("2026-03-04T14:04:00Z".to_owned(), "2026-03-04T14:05:00Z".to_owned());
    assert_eq!(window_before(&report), Some(expected));
    report.until.clone_from(&report.since);
    assert_eq!(window_before(&report), None, "there is none");
    report.until = "soon".to_owned();
    assert_eq!(window_before(&report), None);
}
