//! What can be read from telemetry: metrics, reports, counts. Nothing in here is for the hot path.

use super::{
    Exposition, Slow, SpanReport, Telemetry,
    alerts::Progress,
    exposition::to_prometheus,
    labels::{Cause, CommitOutcome, Dependency, Level, PublishOutcome, Settlement},
    metrics::Table,
    process::Process,
    recorder::Set,
    report::Counts,
};
use crate::domain::time::Timestamp;
use prometheus_client::{encoding::text, registry::Registry};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::runtime::Handle;

/// Counts of a daemon's life. Decisions and replays are those of both edges, the rest are deliveries of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Decisions made.
    pub decided: u64,
    /// Requests answered from the journal, conflicts included.
    pub replayed: u64,
    /// Deliveries taken.
    pub received: u64,
    /// Deliveries acknowledged after their response was confirmed.
    pub answered: u64,
    /// Deliveries acknowledged after their dead letter was confirmed.
    pub dead_lettered: u64,
    /// Deliveries left for the broker to deliver again.
    pub returned: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { decided, replayed, received, answered, dead_lettered, returned } = self;
        write!(
            f,
            "decided={decided} replayed={replayed} received={received} answered={answered} dead_lettered={dead_lettered} returned={returned}"
        )
    }
}

/// How commits have fared since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitCounts {
    /// Those that the store gave a definite answer to.
    pub went_through: u64,
    /// Those it could not be asked, or whose answer was lost, or that it asked to try again.
    pub failed: u64,
    /// Those that have ended, however.
    pub ended: u64,
    /// Those that have not.
    pub under_way: u64,
}

impl Telemetry {
    /// How commits have fared. A lock that was not had in time counts neither way.
    #[must_use]
    pub fn commit_counts(&self) -> CommitCounts {
        let transactions = &self.metrics().db_transactions;
        let counted = |outcomes: &[CommitOutcome]| outcomes.iter().map(|outcome| transactions.get(*outcome as usize)).sum();
        let ended = transactions.total();
        CommitCounts {
            went_through: counted(&[CommitOutcome::Committed, CommitOutcome::Rejected, CommitOutcome::Refused]),
            failed: counted(&[CommitOutcome::Transient, CommitOutcome::Unreachable, CommitOutcome::Unknown]),
            ended,
            under_way: self.inner.commits_begun.load(Relaxed).saturating_sub(ended),
        }
    }

    /// All metrics as text. Takes about a millisecond: not for an async worker thread.
    ///
    /// # Errors
    /// When a metric could not be formatted, which does not happen.
    pub fn scrape(&self, exposition: Exposition) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.sub_registry_with_prefix("jitauth").register_collector(Box::new(Arc::clone(&self.inner.metrics)));
        registry.register_collector(Box::new(Process));
        let mut text = String::with_capacity(64 * 1024);
        text::encode(&mut text, &registry)?;
        Ok(match exposition {
            Exposition::OpenMetrics => text,
            Exposition::Prometheus => to_prometheus(&text),
        })
    }

    /// The latencies of every span since start, all writers together. Takes about a millisecond.
    #[must_use]
    pub fn report(&self) -> Vec<SpanReport> {
        self.metrics().recorders.report()
    }

    /// What became of everything so far: the last line of a drain.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let metrics = self.metrics();
        let settled = |settlement: Settlement| metrics.broker.settled.get(settlement as usize);
        Tally {
            decided: metrics.authorizations.total(),
            replayed: metrics.duplicates.total(),
            received: metrics.broker.received.total(),
            answered: settled(Settlement::Answered),
            dead_lettered: settled(Settlement::DeadLettered),
            returned: settled(Settlement::Returned),
        }
    }

    /// The dependencies in use: whether each can be used, and since when that has been so.
    #[must_use]
    pub fn dependencies(&self) -> Vec<(Dependency, bool, Timestamp)> {
        let state = |dependency: &Dependency| {
            let up = self.metrics().dependency_up.shown(*dependency as usize)?;
            Some((*dependency, up == 1, Timestamp(self.inner.dependency_since[*dependency as usize].load(Relaxed))))
        };
        Dependency::ALL.iter().filter_map(state).collect()
    }

    /// Where each of so many lanes says how many requests wait for it. Of the first pipeline of a daemon only; there is no second.
    #[must_use]
    pub fn lane_queues(&self, lanes: usize) -> Vec<Arc<AtomicU64>> {
        self.metrics().lane_queues.get_or_init(|| (0..lanes).map(|_| Arc::default()).collect()).clone()
    }

    /// Watches how busy these threads are as well. Of the first pipeline of a daemon only.
    pub fn request_threads(&self, threads: &Handle) {
        self.metrics().request_threads.get_or_init(|| threads.metrics());
    }

    pub(super) fn count_alert(&self, level: Level, cause: Cause) {
        self.metrics().latency_alerts.inc(level as usize * Cause::ALL.len() + cause as usize);
    }

    /// The busiest of the runtimes was busy for so many millionths of the time of its threads.
    pub(super) fn runtime_busy(&self, millionths: u128) {
        self.metrics().tokio_busy.set(0, u64::try_from(millionths.min(1_000_000)).unwrap_or(0));
    }

    pub(super) fn progress(&self) -> Progress {
        let metrics = self.metrics();
        let broker = &metrics.broker;
        let (received, settled) = (broker.received.total(), broker.settled.total());
        let ended = [&metrics.authorizations, &metrics.duplicates, &broker.settled, &broker.published];
        // To publish again and again what nobody confirms is no progress.
        let unconfirmed = broker.published.get(PublishOutcome::Timeout as usize);
        Progress {
            open: metrics.in_flight.get(0).saturating_add(received.saturating_sub(settled)),
            ended: ended.into_iter().map(Table::total).sum::<u64>().saturating_sub(unconfirmed),
        }
    }

    /// Everything counted since start.
    pub(super) fn counts(&self) -> Counts {
        Counts::of(self.metrics())
    }

    /// Everything recorded since start.
    pub(super) fn whole(&self) -> Set {
        self.metrics().recorders.read(Set::clone)
    }

    /// What was recorded since the last interval ended.
    pub(super) fn interval(&self) -> Set {
        self.metrics().recorders.read_interval(Set::clone)
    }

    /// As [`interval`](Self::interval), and ends it.
    pub(super) fn take_interval(&self) -> Set {
        self.metrics().recorders.take_interval()
    }

    /// The slowest decisions of the interval that is open, the slowest first.
    pub(super) fn slowest(&self) -> Vec<Slow> {
        self.inner.slowest.look()
    }

    /// As [`slowest`](Self::slowest), and begins anew.
    pub(super) fn take_slowest(&self) -> Vec<Slow> {
        self.inner.slowest.take()
    }
}
