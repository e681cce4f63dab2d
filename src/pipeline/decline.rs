//! Declines that are not journaled: conflicts, and what could not be decided while the store was out.
//!
//! Such a decline is remembered until its request's deadline, so that a redelivery in the meantime gets the same bytes. After the
//! deadline a redelivery is late by its own `sent_at`, and is declined again.

use super::{Answer, Job, Requester};
use crate::{
    codec::response::{self, Response},
    domain::{decision::Decision, ids::RequestId, money::Currency, reason::Reason, request::Digest, time::Timestamp},
    telemetry::{Spans, Telemetry},
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::time::Instant;

/// Where the wall clock is read; an argument, so that tests can turn it.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Gives unjournaled declines, and remembers them. Cheap to clone.
#[derive(Clone)]
pub(super) struct Declines {
    inner: Arc<Inner>,
}

struct Inner {
    wall: WallClock,
    telemetry: Telemetry,
    remembered_max: usize,
    /// So that the usual case, nothing remembered, costs no lock.
    remembered_len: AtomicUsize,
    remembered: Mutex<HashMap<RequestId, Remembered>>,
}

struct Remembered {
    digest: Digest,
    reason: Reason,
    body: Arc<[u8]>,
    until: Instant,
}

impl Declines {
    pub(super) fn new(wall: WallClock, telemetry: Telemetry, remembered_max: usize) -> Self {
        let inner = Inner { wall, telemetry, remembered_max, remembered_len: AtomicUsize::new(0), remembered: Mutex::new(HashMap::new()) };
        Self { inner: Arc::new(inner) }
    }

    /// Declines a job that could not be decided.
    pub(super) fn shed(&self, job: Job, reason: Reason, now: Instant) {
        // What was declined under the same id is said again, byte for byte.
        let Some(job) = self.recall(job, now) else { return };
        self.inner.telemetry.shed(reason);
        let body = self.inner.encode(&job, reason);
        self.inner.remember(&job, reason, &body, now);
        self.inner.answer(job.requester, body, reason, false, job.spans);
    }

    /// Declines a job whose id is known with other material fields.
    pub(super) fn conflict(&self, job: Job) {
        self.inner.telemetry.conflicted();
        let body = self.inner.encode(&job, Reason::DuplicateConflict);
        self.inner.answer(job.requester, body, Reason::DuplicateConflict, false, job.spans);
    }

    /// Answers a job whose id was shed before; gives back one that was not.
    pub(super) fn recall(&self, job: Job, now: Instant) -> Option<Job> {
        if self.inner.remembered_len.load(Ordering::Acquire) == 0 {
            return Some(job);
        }
        let found = self.inner.remembered.lock().get(&job.request.id).filter(|known| now < known.until).map(Remembered::facts);
        match found {
            None => Some(job),
            Some((digest, _, _)) if digest != job.request.digest => {
                self.conflict(job);
                None
            }
            Some((_, reason, body)) => {
                self.inner.telemetry.replayed();
                self.inner.answer(job.requester, body, reason, true, job.spans);
                None
            }
        }
    }
}

impl Inner {
    fn encode(&self, job: &Job, reason: Reason) -> Arc<[u8]> {
        let request = &job.request;
        decline(&request.id, request.amount.currency, None, reason, (self.wall)()).into()
    }

    fn remember(&self, job: &Job, reason: Reason, body: &Arc<[u8]>, now: Instant) {
        if job.deadline <= now {
            return;
        }
        let mut remembered = self.remembered.lock();
        if remembered.len() >= self.remembered_max {
            remembered.retain(|_, known| now < known.until);
        }
        if remembered.len() < self.remembered_max {
            let entry = Remembered { digest: job.request.digest, reason, body: body.clone(), until: job.deadline };
            remembered.insert(job.request.id.clone(), entry);
        }
        self.remembered_len.store(remembered.len(), Ordering::Release);
    }

    fn answer(&self, requester: Box<dyn Requester>, body: Arc<[u8]>, reason: Reason, replayed: bool, spans: Spans) {
        let reason = Some(reason);
        requester.answer(Answer { body, decision: Decision::Declined, reason, replayed, journaled: false, spans, fresh: None });
    }
}

impl Remembered {
    fn facts(&self) -> (Digest, Reason, Arc<[u8]>) {
        (self.digest, self.reason, self.body.clone())
    }
}

/// The bytes of a decline.
pub(super) fn decline(id: &RequestId, currency: Currency, available: Option<i64>, reason: Reason, decided_at: Timestamp) -> Vec<u8> {
    response::encode(&Response {
        id: Some(id),
        decision: Decision::Declined,
        reason: Some(reason),
        approved: 0,
        currency: Some(currency),
        available,
        hold: None,
        decided_at,
    })
}
