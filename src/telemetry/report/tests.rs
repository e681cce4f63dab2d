#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::{
    domain::{decision::Decision, reason::Reason},
    telemetry::{Answered, Budget, Settings as TelemetrySettings, Span, Spans, promise::Verdict},
};
use std::{path::PathBuf, thread};
use tempfile::TempDir;

const BUDGET: Budget = Budget { p50_us: 1_000, p95_us: 2_000, p99_us: 5_000 };

fn about() -> About {
    let promise = Promise { user: BUDGET, card: BUDGET, limits: BUDGET, decision: BUDGET, commit: BUDGET, publish: BUDGET, total: BUDGET };
    About { profile: "services".to_owned(), store: "postgresql", durability: "fsync = on".to_owned(), promise }
}

/// A daemon's telemetry and its reports, as after a start.
fn daemon(directory: Option<PathBuf>, kept_max: usize) -> (Telemetry, Reports) {
    let settings =
        TelemetrySettings { report: Settings { directory, kept_max, slowest_max: 2, ..Settings::default() }, ..Default::default() };
    let telemetry = Telemetry::new(None, &settings);
    let reports = Reports::new(about(), settings.report, telemetry.clone());
    (telemetry, reports)
}

/// `count` decisions whose commit took `commit_us`, every tenth declined, and so many µs in total.
fn load(telemetry: &Telemetry, count: usize, commit_us: u64, total_us: u64) {
    let recorder = telemetry.recorder();
    for nth in 0..count {
        let mut spans = Spans::default();
        for (span, us) in [(Span::Decode, 5), (Span::User, 20), (Span::Commit, commit_us), (Span::Total, total_us)] {
            spans.set(span, Duration::from_micros(us));
        }
        recorder.record(&spans);
        let (decision, reason) = match nth % 10 {
            0 => (Decision::Declined, Some(Reason::InsufficientFunds)),
            _ => (Decision::Approved, None),
        };
        telemetry.decided(decision, reason, &spans);
        telemetry.answered(&Answered { id: &format!("auth-{total_us}-{nth}"), decision, reason, spans: &spans });
    }
}

/// A moment that lies between what was before and what comes.
fn moment() -> Timestamp {
    thread_sleep();
    let now = clock::now();
    thread_sleep();
    now
}

#[expect(clippy::disallowed_methods, reason = "intervals are told apart by the wall clock")]
fn thread_sleep() {
    thread::sleep(Duration::from_millis(5));
}

fn commit_p99(report: &Report) -> u64 {
    report.span(Span::Commit).map_or(0, |line| line.p99_us)
}

fn within(us: u64, expected: u64) -> bool {
    us.abs_diff(expected) * 1000 <= expected
}

#[test]
fn since_start_everything_is_told_and_graded() {
    let (telemetry, reports) = daemon(None, 10);
    load(&telemetry, 200, 800, 900);
    reports.end_interval();
    load(&telemetry, 200, 900, 1_100);
    let report = reports.answer(Question::SinceStart).unwrap();
    assert_eq!((report.decisions.count, report.decisions.approved, report.decisions.declined), (400, 360, 40));
    assert_eq!((report.decisions.approval_rate, report.reasons.get("insufficient_funds")), (Some(0.9), Some(&40)));
    assert_eq!((report.profile.as_str(), report.store.as_str(), report.durability.as_str()), ("services", "postgresql", "fsync = on"));
    let total = report.span(Span::Total).unwrap();
    assert_eq!((total.count, total.mean_us, total.min_us, total.verdict), (400, 1000.0, 900, Some(Verdict::Kept)));
    assert_eq!(report.verdict, Verdict::Kept);
    let share = report.largest_share.unwrap();
    assert_eq!((share.span.as_str(), share.share), ("commit", 0.85));
    assert_eq!(report.slowest.iter().map(|slow| slow.total_us).collect::<Vec<_>>(), [1_100, 1_100], "of all intervals, no more than 2");

    load(&telemetry, 200, 7_000, 7_100);
    let report = reports.answer(Question::SinceStart).unwrap();
    assert_eq!((report.verdict, report.span(Span::User).unwrap().verdict), (Verdict::Broken, Some(Verdict::Kept)));
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report, "what is served can be read again");
}

#[test]
fn who_asks_for_details_is_told_the_curve_and_each_interval() {
    let directory = TempDir::new().unwrap();
    // In memory, or on disk because memory keeps one only.
    for (on_disk, kept_max) in [(None, 10), (Some(directory.path().to_owned()), 1)] {
        let (telemetry, reports) = daemon(on_disk.clone(), kept_max);
        let begin = moment();
        load(&telemetry, 100, 800, 900);
        reports.end_interval();
        thread_sleep();
        load(&telemetry, 50, 800, 40_000);
        telemetry.decided(Decision::Declined, Some(Reason::SystemUnavailable), &Spans::default());
        reports.end_interval();
        thread_sleep();
        load(&telemetry, 20, 800, 2_000);
        for question in [Question::SinceStart, Question::Between(begin, moment())] {
            if on_disk.is_some() && question == Question::SinceStart {
                continue;
            }
            let report = reports.answer_in_detail(question).unwrap();
            let detail = report.detail.clone().unwrap();
            let told: Vec<_> = detail.intervals.iter().map(|it| (it.decisions, it.failed, within(it.p99_us, it.max_us))).collect();
            assert_eq!(told, [(100, 0, true), (51, 1, true), (20, 0, true)], "{question:?}");
            assert!(detail.intervals.windows(2).all(|pair| pair[0].until <= pair[1].since), "{detail:?}");
            for (it, us) in detail.intervals.iter().zip([900, 40_000, 2_000]) {
                assert!(within(it.p50_us, us) && it.buckets.len() == detail.bounds_us.len() + 1, "{it:?}");
                let bucket = it.buckets.iter().position(|count| *count > 0).unwrap();
                assert!(detail.bounds_us[bucket - 1] < us && us <= detail.bounds_us[bucket], "{it:?}");
            }
            let (first, last) = (detail.curve.first().unwrap(), detail.curve.last().unwrap());
            assert!(within(first.1, 900) && within(last.1, 40_000) && last.0 >= 1.0, "{:?}", detail.curve);
            assert_eq!(reports.answer(question).unwrap().detail, None, "who does not ask is told nothing of it");
            let json = serde_json::to_string(&report).unwrap();
            assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report, "what is served can be read again");
        }
    }
}

#[test]
fn an_interval_is_told_apart_from_the_others() {
    let directory = TempDir::new().unwrap();
    for on_disk in [None, Some(directory.path().join("made/for/it"))] {
        let (telemetry, reports) = daemon(on_disk.clone(), 10);
        let begin = moment();
        load(&telemetry, 100, 800, 900);
        reports.end_interval();
        let middle = moment();
        reports.end_interval();
        load(&telemetry, 300, 30_000, 31_000);
        let end = moment();
        reports.end_interval();
        let after = moment();
        load(&telemetry, 50, 60_000, 61_000);
        let ask = |from, to| reports.answer(Question::Between(from, to)).unwrap();
        for (name, from, to, decisions, p99_us, verdict) in [
            ("calm", begin, middle, 100, 800, Verdict::Kept),
            ("slow", middle, end, 300, 30_000, Verdict::Broken),
            ("both", begin, end, 400, 30_000, Verdict::Broken),
            ("open", after, clock::now(), 50, 60_000, Verdict::TooFew),
        ] {
            let report = ask(from, to);
            let name = format!("{name}, on disk: {on_disk:?}");
            assert_eq!((report.decisions.count, report.verdict), (decisions, verdict), "{name}");
            assert!(within(commit_p99(&report), p99_us), "{name}: {}", commit_p99(&report));
            assert_eq!(report.largest_share.map(|share| share.span), Some("commit".to_owned()), "{name}");
            assert_eq!(report.slowest.len(), 2, "{name}");
        }
        let before = Timestamp(begin.0 - 10_000_000_000);
        let refused = reports.answer(Question::Between(before, Timestamp(before.0 + 1_000_000)));
        assert!(matches!(refused, Err(ReportError::NotKept(_))), "{refused:?}");
    }
}

#[test]
fn what_is_on_disk_outlives_a_restart_and_a_torn_end() {
    let directory = TempDir::new().unwrap();
    let at = || Some(directory.path().to_owned());
    let begin = moment();
    {
        let (telemetry, reports) = daemon(at(), 1);
        load(&telemetry, 100, 800, 900);
        moment();
        reports.end_interval();
        load(&telemetry, 100, 1_600, 1_700);
        // Memory holds one; the first is on disk only.
        reports.end_interval();
        assert_eq!(reports.answer(Question::Between(begin, clock::now())).unwrap().decisions.count, 200);
    }
    // The machine lost power within a line.
    let file = std::fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&file).unwrap();
    let (telemetry, reports) = daemon(at(), 10);
    load(&telemetry, 100, 3_200, 3_300);
    // What a daemon that was killed left behind, and what the next one wrote: without its end an interval does not count.
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    let ends = |line: &[u8]| line.starts_with(b"#[jitauth {");
    let first_end = lines.iter().position(|line| ends(line)).unwrap();
    let endless = [lines[..first_end].concat(), lines[first_end + 1..].concat()].concat();
    for (name, content, decisions, p99_us) in [
        ("whole", &whole[..], 300, 3_200),
        ("torn in the last line", &whole[..whole.len() - 10], 200, 3_200),
        ("torn in the middle", &whole[..whole.len() * 2 / 3], 200, 3_200),
        ("torn in the first line", &whole[..10], 100, 3_200),
        ("torn, and followed by a whole one", &endless, 200, 3_200),
    ] {
        std::fs::write(&file, content).unwrap();
        let report = reports.answer(Question::Between(begin, clock::now())).unwrap();
        assert_eq!(report.decisions.count, decisions, "{name}");
        assert_eq!(report.span(Span::Commit).unwrap().count, decisions, "{name}: histograms go with their counts");
        assert!(within(commit_p99(&report), p99_us), "{name}: {}", commit_p99(&report));
    }
    let garbage = [&whole[..], b"Tag=commit,1,2,3,HISTFAAA\n\xff\xfe\n#[jitauth {}]\n#[jitauth \n,,,\n", &whole[..]].concat();
    std::fs::write(&file, garbage).unwrap();
    assert_eq!(reports.answer(Question::Between(begin, clock::now())).unwrap().decisions.count, 500, "garbage costs itself only");
}

#[test]
fn a_directory_that_cannot_be_used_costs_no_report() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let (telemetry, reports) = daemon(Some(file), 10);
    let begin = moment();
    load(&telemetry, 100, 800, 900);
    reports.end_interval();
    assert_eq!(reports.answer(Question::Between(begin, clock::now())).unwrap().decisions.count, 100);
}
