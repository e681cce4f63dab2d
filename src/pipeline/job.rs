//! What travels: a job in, an answer out.

use crate::{
    domain::{decision::Decision, ids::RequestId, reason::Reason, request::AuthRequest},
    ledger::Void,
    telemetry::Spans,
};
use std::sync::Arc;
use tokio::{sync::mpsc, time::Instant};

/// A request on its way, with the one who waits for its answer.
pub struct Job {
    /// What is asked.
    pub request: AuthRequest,
    /// When the bytes arrived here.
    pub received: Instant,
    /// When the requester stops listening, less the time for the way back.
    pub deadline: Instant,
    /// What has been measured so far.
    pub spans: Spans,
    /// Whether the way back loses messages (direct reply-to): an approval sent there counts as unheard from the start.
    pub lossy_reply: bool,
    /// Who waits.
    pub requester: Box<dyn Requester>,
}

/// Where an edge hands its requests in.
pub trait Intake: Clone + Send + Sync + 'static {
    /// Takes a request on. Must not block; the edge bounds how many are under way.
    fn submit(&self, job: Job);
}

/// Whoever waits for an answer: a delivery's ticket, an HTTP handler. It is called once, or twice when it hands a fresh approval
/// back to be [voided](FreshApproval::void).
pub trait Requester: Send + 'static {
    /// Takes the answer. Must not block.
    fn answer(self: Box<Self>, answer: Answer);
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    /// The response as it must be sent.
    pub body: Arc<[u8]>,
    /// What was decided.
    pub decision: Decision,
    /// Why not.
    pub reason: Option<Reason>,
    /// Whether these bytes were decided for an earlier delivery of the same id.
    pub replayed: bool,
    /// Whether the journal has it. A decline that is not journaled may be decided again (`x-final: false`).
    pub journaled: bool,
    /// What was measured.
    pub spans: Spans,
    /// For an approval nobody has seen yet.
    pub fresh: Option<FreshApproval>,
}

/// An approval that exists only in the store so far. Whoever sends it must say what became of it; dropped without a word it
/// counts as unheard, because then its hold stays.
#[derive(Debug)]
#[must_use]
pub struct FreshApproval {
    inner: Option<Inner>,
    deadline: Instant,
}

#[derive(Debug)]
struct Inner {
    void: Void,
    desk: mpsc::Sender<DeskOrder>,
}

/// What the late desk is asked to do.
pub(crate) enum DeskOrder {
    /// Take the approval back at `at`, then answer the requester with what stands.
    Void { void: Box<Void>, at: Instant, requester: Option<Box<dyn Requester>> },
    /// List the approval: its fate is unknown.
    Unheard(RequestId),
}

impl FreshApproval {
    pub(crate) fn new(void: Void, deadline: Instant, desk: mpsc::Sender<DeskOrder>) -> Self {
        Self { inner: Some(Inner { void, desk }), deadline }
    }

    /// After this it must not be sent any more, but handed back by [`FreshApproval::void`].
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// It certainly reached its requester, or the broker that keeps it for them.
    pub fn heard(mut self) {
        self.inner = None;
    }

    /// It was handed over, and nobody can tell whether it arrived.
    pub fn unheard(self) {
        drop(self);
    }

    /// It certainly was not sent. It is taken back once its deadline has passed, and `requester`, if there still is one,
    /// is answered with what stands then.
    pub fn void(mut self, requester: Option<Box<dyn Requester>>) {
        if let Some(Inner { void, desk }) = self.inner.take() {
            let order = DeskOrder::Void { void: Box::new(void), at: self.deadline, requester };
            if desk.try_send(order).is_err() {
                // The desk is bounded by the work in flight, so this is the end of a drain. The hold stays, as after a crash.
                tracing::error!(event = "void_abandoned", "an approval could not be taken back; its hold stays until it is settled");
            }
        }
    }
}

impl Drop for FreshApproval {
    fn drop(&mut self) {
        if let Some(Inner { void, desk }) = self.inner.take() {
            let id = void.id.clone();
            if desk.try_send(DeskOrder::Unheard(id)).is_err() {
                tracing::error!(event = "unheard_unlisted", authorization_id = void.id.as_str(), "an unheard approval could not be listed");
            }
        }
    }
}
