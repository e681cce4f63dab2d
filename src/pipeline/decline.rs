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
    remembered: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    said: HashMap<RequestId, Remembered>,
    /// When the last of them is forgotten.
    until: Option<Instant>,
}

struct Remembered {
    digest: Digest,
    reason: Reason,
    body: Arc<[u8]>,
    until: Instant,
}

impl Declines {
    pub(super) fn new(wall: WallClock, telemetry: Telemetry, remembered_max: usize) -> Self {
        let inner = Inner { wall, telemetry, remembered_max, remembered_len: AtomicUsize::new(0), remembered: Mutex::default() };
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
        let found = self.inner.known(&job.request.id, now);
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
    /// What was said under this id. Once everything is forgotten, the next request need not ask.
    fn known(&self, id: &RequestId, now: Instant) -> Option<(Digest, Reason, Arc<[u8]>)> {
        let mut memory = self.remembered.lock();
        let found = memory.said.get(id).filter(|known| now < known.until).map(Remembered::facts);
        if memory.until.is_none_or(|until| until <= now) {
            memory.said.clear();
            self.remembered_len.store(0, Ordering::Release);
        }
        found
    }

    fn encode(&self, job: &Job, reason: Reason) -> Arc<[u8]> {
        let request = &job.request;
        decline(&request.id, request.amount.currency, None, reason, (self.wall)()).into()
    }

    fn remember(&self, job: &Job, reason: Reason, body: &Arc<[u8]>, now: Instant) {
        if job.deadline <= now {
            return;
        }
        let mut memory = self.remembered.lock();
        if memory.said.len() >= self.remembered_max {
            memory.said.retain(|_, known| now < known.until);
        }
        if memory.said.len() < self.remembered_max {
            let entry = Remembered { digest: job.request.digest, reason, body: body.clone(), until: job.deadline };
            memory.said.insert(job.request.id.clone(), entry);
            memory.until = memory.until.max(Some(job.deadline));
        }
        self.remembered_len.store(memory.said.len(), Ordering::Release);
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

#[cfg(test)]
#[expect(clippy::expect_used, reason = "a failed expectation is a failed test")]
mod tests {
    use super::*;
    use std::{sync::mpsc, time::Duration};

    struct Hears(mpsc::SyncSender<Answer>);

    impl Requester for Hears {
        fn answer(self: Box<Self>, answer: Answer) {
            self.0.send(answer).expect("the test listens");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_said_is_forgotten_at_its_deadline_and_then_costs_nothing() {
        let declines = Declines::new(Arc::new(|| Timestamp(1)), Telemetry::default(), 8);
        let (said, answers) = mpsc::sync_channel(8);
        let start = Instant::now();
        let job = |id: &str, deadline_ms| {
            let body = format!(
                r#"{{"version":1,"type":"authorization","id":"{id}","card":"crd_1","amount":"1.00","currency":"EUR",
                   "merchant":{{"id":"m","mcc":"5812","country":"NLD"}},"channel":"chip"}}"#
            );
            let request = crate::codec::request::decode(body.as_bytes()).expect("a request").request;
            let deadline = start + Duration::from_millis(deadline_ms);
            let requester = Box::new(Hears(said.clone()));
            Job { request, received: start, deadline, spans: Spans::default(), lossy_reply: false, redelivered: false, requester }
        };
        let at = |ms| start + Duration::from_millis(ms);
        declines.shed(job("short", 100), Reason::SystemUnavailable, start);
        declines.shed(job("long", 200), Reason::SystemUnavailable, start);
        let bodies: Vec<_> = answers.try_iter().map(|answer| answer.body).collect();
        for (id, ms, known, kept) in [
            ("short", 99, Some(0), 2),
            ("other", 99, None, 2),
            ("short", 100, None, 2),
            ("long", 199, Some(1), 2),
            ("long", 200, None, 0),
            ("long", 201, None, 0),
        ] {
            let given_back = declines.recall(job(id, 1000), at(ms)).is_some();
            let said = answers.try_iter().next().map(|answer| answer.body);
            assert_eq!((given_back, said), (known.is_none(), known.map(|at: usize| bodies[at].clone())), "{id} at {ms} ms");
            assert_eq!(declines.inner.remembered_len.load(Ordering::Acquire), kept, "{id} at {ms} ms");
        }
    }
}
