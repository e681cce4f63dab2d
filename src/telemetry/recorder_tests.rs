#![expect(clippy::expect_used, reason = "a failed expectation is a failed test")]

use super::*;
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

fn total(us: u64) -> Spans {
    let mut spans = Spans::default();
    spans.set(Span::Total, Duration::from_micros(us));
    spans
}

#[test]
fn concurrent_scrapes_lose_nothing_and_count_nothing_twice() {
    const WRITERS: u64 = 4;
    const EACH: u64 = 50_000;
    let recorders = Recorders::default();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = 0;
            while !done.load(Ordering::Relaxed) {
                let count = recorders.read(|set| set.histograms[Span::Total as usize].len());
                assert!(count >= seen, "a counter never goes back: {count} after {seen}");
                seen = count;
            }
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let recorder = recorders.add();
                scope.spawn(move || (1..=EACH).for_each(|i| recorder.record(&total(i % 1000 + writer))))
            })
            .collect();
        for writer in writers {
            writer.join().expect("writer");
        }
        done.store(true, Ordering::Relaxed);
        reader.join().expect("reader");
    });
    let expected_sum: u64 = (0..WRITERS).map(|writer| (1..=EACH).map(|i| i % 1000 + writer).sum::<u64>()).sum();
    recorders.read(|set| {
        assert_eq!(set.histograms[Span::Total as usize].len(), WRITERS * EACH);
        assert_eq!(set.sums_us[Span::Total as usize], expected_sum);
    });
    assert!(recorders.writers.lock().is_empty(), "writers that are gone are forgotten, what they recorded is not");
}

#[test]
fn a_living_writer_is_kept() {
    let recorders = Recorders::default();
    let recorder = recorders.add();
    for expected in 1..=3 {
        recorder.record(&total(5));
        assert_eq!(recorders.report()[Span::Total as usize].count, expected);
    }
}

#[test]
fn reports_are_exact_to_three_digits_and_saturate() {
    let recorders = Recorders::default();
    let recorder = recorders.add();
    (1..=1000).for_each(|us| recorder.record(&total(us)));
    let report = recorders.report()[Span::Total as usize];
    assert_eq!((report.count, report.min_us, report.max_us), (1000, 1, 1000));
    assert_eq!((report.p50_us, report.p95_us, report.p99_us, report.p999_us), (500, 950, 990, 999));
    assert!((report.mean_us - 500.5).abs() < 1e-9, "{report:?}");

    recorder.record_one(Span::Commit, Duration::from_secs(3600));
    let commit = recorders.report()[Span::Commit as usize];
    assert!((60_000_000..60_100_000).contains(&commit.max_us), "{commit:?}");
    assert_eq!(recorders.report()[Span::User as usize].count, 0);
}
