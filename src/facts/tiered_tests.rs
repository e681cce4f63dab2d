#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
use super::*;
use crate::facts::{
    memory,
    sample::{file, token},
};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};

/// A store whose reads wait until they are let go. Each sees what is current when it begins.
#[derive(Clone, Default)]
struct Source(Arc<State>);

struct State {
    version: AtomicU64,
    reads: AtomicU64,
    began: Notify,
    let_go: Semaphore,
    panics: AtomicU64,
}

impl Default for State {
    fn default() -> Self {
        let (version, reads, panics) = (AtomicU64::new(1), AtomicU64::new(0), AtomicU64::new(0));
        Self { version, reads, began: Notify::new(), let_go: Semaphore::new(0), panics }
    }
}

impl FactSource for Source {
    async fn fetch(&self, _: &CardToken) -> Result<Found, FactError> {
        let version = self.0.version.load(Relaxed);
        self.0.reads.fetch_add(1, Relaxed);
        self.0.began.notify_one();
        self.0.let_go.acquire().await.unwrap().forget();
        let panics = self.0.panics.swap(0, Relaxed) > 0;
        assert!(!panics, "a bug in a store");
        Ok(Some(file(1, i64::try_from(version).unwrap())))
    }
}

fn tiers() -> (FactTiers<Source>, Source) {
    let settings = memory::Settings { bytes_max: 1 << 20, ttl: Duration::from_secs(3600), absent_ttl: Duration::from_secs(2) };
    let source = Source::default();
    (FactTiers::new(Memory::new(settings), None, source.clone(), Telemetry::default()), source)
}

fn version(read: &Result<Read, FactError>) -> i64 {
    read.as_ref().unwrap().found.as_ref().unwrap().card.version
}

fn seen(tiers: &FactTiers<Source>) -> Option<i64> {
    tiers.peek(&token(1), &mut Spans::default()).flatten().map(|file| file.card.version)
}

#[tokio::test(start_paused = true)]
async fn a_read_that_ends_badly_is_not_the_last_one() {
    let (tiers, source) = tiers();
    source.0.panics.store(1, Relaxed);
    source.0.let_go.add_permits(2);
    let first = tiers.lookup(&token(1)).await;
    assert!(matches!(first, Err(FactError::Unavailable(_))), "{first:?}");
    assert_eq!(version(&tiers.lookup(&token(1)).await), 1, "the next one reads again");
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_at_once_cost_one_read() {
    let (tiers, source) = tiers();
    source.0.let_go.add_permits(1);
    let card = token(1);
    let all = futures_util::future::join_all((0..50).map(|_| tiers.lookup(&card))).await;
    assert!(all.iter().all(|found| version(found) == 1));
    assert_eq!(source.0.reads.load(Relaxed), 1);
    assert_eq!(seen(&tiers), Some(1));
}

#[tokio::test(start_paused = true)]
async fn who_asks_after_a_change_does_not_get_what_was_read_before() {
    for version_told in [None, Some(2)] {
        let (tiers, source) = tiers();
        let slow = tokio::spawn({
            let tiers = tiers.clone();
            async move { tiers.lookup(&token(1)).await }
        });
        source.0.began.notified().await;
        source.0.version.store(2, Relaxed);
        assert!(!tiers.forget(&Change::Card { token: token(1), version: version_told }), "memory did not have it yet");
        let card = token(1);
        let mut later = std::pin::pin!(tiers.lookup(&card));
        assert!(futures_util::poll!(&mut later).is_pending());
        source.0.began.notified().await;
        source.0.let_go.add_permits(2);
        assert_eq!(version(&later.await), 2, "it has a read of its own");
        assert_eq!(version(&slow.await.unwrap()), 1, "who asked before is told what was then");
        assert_eq!(seen(&tiers), Some(2), "and that is not kept");
    }
}
