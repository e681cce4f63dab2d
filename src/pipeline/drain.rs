//! How many requests are in flight, and when there are none any more.

use crate::telemetry::Telemetry;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::Notify;

/// Counts requests in flight, up to a bound. Cheap to clone.
#[derive(Clone)]
pub(super) struct InFlight {
    inner: Arc<Inner>,
}

struct Inner {
    max: usize,
    telemetry: Telemetry,
    count: AtomicUsize,
    idle: Notify,
}

/// A place among the requests in flight; dropped when the request is answered.
pub(super) struct Slot {
    inner: Arc<Inner>,
}

impl InFlight {
    pub(super) fn new(max: usize, telemetry: Telemetry) -> Self {
        Self { inner: Arc::new(Inner { max, telemetry, count: AtomicUsize::new(0), idle: Notify::new() }) }
    }

    /// A place, if there is one left.
    pub(super) fn take(&self) -> Option<Slot> {
        let taken =
            self.inner.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| (count < self.inner.max).then_some(count + 1));
        taken.is_ok().then(|| {
            self.inner.telemetry.job_began();
            Slot { inner: self.inner.clone() }
        })
    }

    pub(super) fn count(&self) -> usize {
        self.inner.count.load(Ordering::Acquire)
    }

    /// Waits until nothing is in flight. Whoever calls it has stopped the edges, so that nothing new comes.
    pub(super) async fn idle(&self) {
        loop {
            let notified = self.inner.idle.notified();
            if self.count() == 0 {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.inner.telemetry.job_ended();
        if self.inner.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.inner.idle.notify_waiters();
        }
    }
}
