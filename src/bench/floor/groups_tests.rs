#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::{
    bench::{
        proof::{self, Owner, Told},
        scratch::{Scratch, sqlite_in},
    },
    ledger::sqlite,
};

fn pipeline() -> pipeline::Settings {
    let second = Duration::from_secs(1);
    pipeline::Settings {
        lanes: 2,
        batch_max: 40,
        lane_queue_max: 8,
        in_flight_max: 8,
        book_accounts_max: 1_000,
        book_counters_max: 1_000,
        deadline_default: second,
        deadline_reserve: second,
        shed_before: second,
        fact_tries: 1,
        drain_timeout: second,
    }
}

fn memory() -> memory::Settings {
    let minute = Duration::from_secs(60);
    memory::Settings { bytes_max: 10_000_000, ttl: minute, absent_ttl: minute }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_counted_is_in_the_books_and_every_group_was_full() {
    let directory = tempfile::tempdir().unwrap();
    let settings =
        sqlite::Settings { path: "unused".into(), readers: 2, busy_timeout: Duration::from_secs(5), autocheckpoint_pages: 1_000 };
    let store = sqlite_in(directory.path(), &settings);
    let mix = Mix { replay: 200, unknown_card: 100, wrong_user: 100, ..Mix::default() };
    let scenario = Scenario { cards: 60, mix, ..Scenario::default() };
    Scratch::new(store.clone()).make(&scenario).await.unwrap();
    let mut committers = Committers::open(&store, pipeline(), memory()).await.unwrap();
    let mut records = Vec::new();
    for round in 0..2 {
        let ids = Ids::new(&format!("bench-1.commit{round}"));
        let (record, per_s) = committers.turn(&scenario, ids, Duration::from_millis(60)).await.unwrap();
        assert!(per_s.len() == 4 && per_s.iter().all(|rate| *rate > 0.0), "{per_s:?}");
        records.push(record);
    }
    let (commits, alone) = committers.finish();
    assert_eq!(
        commits.iter().map(|it| (it.batch, it.writers, it.refused)).collect::<Vec<_>>(),
        [(1, 1, 0), (16, 1, 0), (40, 1, 0), (64, 1, 0)]
    );
    let counted = alone.count + commits.iter().map(|it| it.commit.count * it.batch as u64).sum::<u64>();
    for record in &records {
        assert_eq!((record.totals().unexpected, record.totals().differing), (0, 0), "{:?}", record.examples());
    }
    let told: Vec<Told<'_>> = records.iter().map(|record| Told::of(record)).collect();
    let proof = proof::check(&store, Owner::Run, "bench-1", &told).await.unwrap();
    assert!(proof.holds_good() && proof.holds > 0 && proof.counters > 0, "{proof:?}");
    assert_eq!(proof.decisions, counted);
}

#[test]
fn sizes_are_those_that_a_lane_may_use_and_each_is_there_once() {
    assert_eq!([sizes(64), sizes(256), sizes(1)], [vec![1, 16, 64], vec![1, 16, 64, 256], vec![1, 16, 64]]);
}
