//! The way in: facts for a request, then its lane.
//!
//! This is the only place that waits for facts; a request whose facts are in memory does not wait at all.

use super::{
    Intake, Job, Settings,
    batch::{Known, Ready},
    decline::Declines,
    drain::{InFlight, Slot},
};
use crate::{
    domain::{facts::CardFile, reason::Reason},
    facts::{
        FactError, FactSource,
        tiered::{FactTiers, Found},
    },
    telemetry::{Span, Spans},
};
use backon::{ExponentialBuilder, Retryable};
use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};

/// The pipeline as the edges hold it. Cheap to clone.
pub struct Pipeline<S> {
    inner: Arc<Inner<S>>,
}

pub(super) struct Inner<S> {
    pub(super) settings: Settings,
    pub(super) facts: FactTiers<S>,
    pub(super) lanes: Vec<mpsc::Sender<Ready>>,
    /// To the same lanes: cards whose money they may read while nothing else is to be done.
    pub(super) ahead: Vec<mpsc::Sender<Vec<CardFile>>>,
    pub(super) declines: Declines,
    pub(super) in_flight: InFlight,
}

impl<S> Clone for Pipeline<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<S: FactSource> Pipeline<S> {
    pub(super) fn new(inner: Inner<S>) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Requests that are not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inner.in_flight.count()
    }

    /// Waits until every request that was submitted is answered. Whoever calls it has stopped the edges first.
    pub async fn idle(&self) {
        self.inner.in_flight.idle().await;
    }

    /// Has the lanes read the money of all cards that memory knows, while nothing waits for them: an account's first request then finds it in
    /// a lane's book. Done when the last of it was handed to them, or they have no room for more.
    pub async fn read_ahead(&self) {
        self.inner.read_ahead().await;
    }
}

impl<S: FactSource> Intake for Pipeline<S> {
    fn submit(&self, job: Job) {
        let now = Instant::now();
        let Some(job) = self.inner.declines.recall(job, now) else { return };
        let Some(slot) = self.inner.in_flight.take() else {
            return self.inner.declines.shed(job, Reason::SystemUnavailable, now);
        };
        self.inner.clone().gather(job, slot, now);
    }
}

impl<S: FactSource> Inner<S> {
    /// Finds the facts, in memory at once or elsewhere in a task of its own, and hands the job to its lane.
    fn gather(self: Arc<Self>, mut job: Job, slot: Slot, now: Instant) {
        if job.deadline <= now {
            return self.enqueue(job, slot, Known::Nothing(Reason::DeadlineExceeded));
        }
        match self.facts.peek(&job.request.card, &mut job.spans) {
            Some(found) => self.enqueue(job, slot, known(found)),
            None => {
                // A task of its own: an HTTP handler may be dropped, and a delivery behind this one must not wait.
                tokio::spawn(async move { self.gather_cold(job, slot).await });
            }
        }
    }

    async fn gather_cold(&self, mut job: Job, slot: Slot) {
        let began = Instant::now();
        let give_up = job.deadline.checked_sub(self.settings.shed_before).unwrap_or(job.deadline);
        let card = &job.request.card;
        let retries = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(10))
            .with_max_delay(Duration::from_millis(200))
            .with_max_times(self.settings.fact_tries.saturating_sub(1))
            .with_jitter();
        let lookup = (|| self.facts.lookup(card)).retry(retries).when(|error| matches!(error, FactError::Unavailable(_)));
        let read = tokio::time::timeout_at(give_up, lookup).await;
        missed_spans(&mut job.spans, began.elapsed());
        match &read {
            Ok(Ok(read)) => job.spans.set_fact_read(read.redis, read.store),
            // Redis is given up early; what ran out of time, or failed, is the store.
            Ok(Err(_)) | Err(_) => job.spans.set_fact_read(Duration::ZERO, began.elapsed()),
        }
        match read {
            Ok(Ok(read)) => self.enqueue(job, slot, known(read.found)),
            Ok(Err(error @ FactError::Malformed(_))) => {
                tracing::error!(event = "facts_malformed", error = %error, "mend the card's rows in the store");
                self.enqueue(job, slot, Known::Nothing(Reason::SystemError));
            }
            Ok(Err(FactError::Unavailable(_))) | Err(_) if job.redelivered => {
                self.enqueue(job, slot, Known::Nothing(Reason::SystemUnavailable));
            }
            Ok(Err(FactError::Unavailable(_))) | Err(_) => self.declines.shed(job, Reason::SystemUnavailable, Instant::now()),
        }
    }

    fn enqueue(&self, job: Job, slot: Slot, known: Known) {
        let lane = match &known {
            Known::File(file) => self.lane_of(&file.card.account.id),
            Known::Absent | Known::Nothing(_) => self.lane_of(&job.request.id),
        };
        let ready = Ready { job, known, queued: Instant::now(), slot };
        let refused = match self.lanes.get(lane) {
            Some(lane) => lane.try_send(ready).err().map(mpsc::error::TrySendError::into_inner),
            None => Some(ready),
        };
        // A lane's queue holds all that can be in flight, so this is the end of a drain.
        if let Some(ready) = refused {
            self.declines.shed(ready.job, Reason::SystemUnavailable, Instant::now());
        }
    }

    /// The same in every process, so that daemons that share accounts by partition can rely on it.
    pub(super) fn lane_of(&self, key: &impl std::hash::Hash) -> usize {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        usize::try_from(hash % self.lanes.len().max(1) as u64).unwrap_or_default()
    }
}

fn known(found: Found) -> Known {
    found.map_or(Known::Absent, Known::File)
}

/// What was not found in memory was fetched together: each of these stages took as long as the fetch.
fn missed_spans(spans: &mut Spans, took: Duration) {
    for span in [Span::User, Span::Card, Span::Limits] {
        if spans.get(span).is_none() {
            spans.set(span, took);
        }
    }
}
