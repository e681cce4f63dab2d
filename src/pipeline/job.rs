//! What travels: a job in, an answer out.

use crate::{
    domain::{
        decision::Decision,
        ids::{AccountId, RequestId},
        limits::CounterKey,
        money::Currency,
        reason::Reason,
        request::AuthRequest,
    },
    telemetry::Spans,
};
use std::{fmt, sync::Arc};
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
    /// Whether it was delivered before, to somebody who may have decided it and died. Then only the store may answer it, however
    /// late: a decline without the store could contradict what is durable, and was perhaps heard already.
    pub redelivered: bool,
    /// Who waits.
    pub requester: Box<dyn Requester>,
}

/// The pipeline as the edges see it.
pub trait Intake: Clone + Send + Sync + 'static {
    /// Takes a job in. Does not block; every job's requester is answered, sooner or later.
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

/// An approval on its way out. Whoever sends it must say what became of it; dropped without a word it counts as unheard, because
/// then its hold stays.
///
/// Until its deadline a new one can be taken back, because it exists only in the store so far. One that was, or is being, answered
/// elsewhere as well (a replay, the same id twice in a batch) stands whatever happens, and has no deadline.
#[must_use]
pub struct FreshApproval {
    deadline: Option<Instant>,
    open: Option<(Open, mpsc::Sender<DeskOrder>)>,
}

/// What can become of an approval that nobody has heard.
enum Open {
    /// It is taken back.
    New(Approval),
    /// It is listed.
    Standing { id: RequestId, response: Arc<[u8]>, decision: Decision },
}

/// What taking an approval back needs.
#[derive(Clone, Debug)]
pub(crate) struct Approval {
    pub(crate) id: RequestId,
    pub(crate) account: AccountId,
    pub(crate) held: i64,
    pub(crate) counters: Vec<CounterKey>,
    pub(crate) currency: Currency,
    /// Available on the account once it is taken back, minor units.
    pub(crate) available_without: i64,
    pub(crate) response: Arc<[u8]>,
    pub(crate) decision: Decision,
}

/// What the late desk is asked to do.
pub(crate) enum DeskOrder {
    /// Take the approval back at `at`, then answer the requesters with what stands.
    Void { approval: Approval, at: Instant, requesters: Vec<Box<dyn Requester>> },
    /// List the approval: its fate is unknown.
    Unheard(RequestId),
}

impl FreshApproval {
    pub(super) fn new(approval: Approval, deadline: Instant, desk: mpsc::Sender<DeskOrder>) -> Self {
        Self { deadline: Some(deadline), open: Some((Open::New(approval), desk)) }
    }

    pub(super) fn standing(id: &RequestId, response: &Arc<[u8]>, decision: Decision, desk: mpsc::Sender<DeskOrder>) -> Self {
        let standing = Open::Standing { id: id.clone(), response: response.clone(), decision };
        Self { deadline: None, open: Some((standing, desk)) }
    }

    /// After this it must not be sent any more, but handed back by [`FreshApproval::void`]. `None`: it is sent, however late.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// It certainly reached its requester, or the broker that keeps it for them.
    pub fn heard(mut self) {
        self.open = None;
    }

    /// It was handed over, and nobody can tell whether it arrived: its hold stays, and it is listed.
    pub fn unheard(self) {
        drop(self);
    }

    /// It certainly was not sent. A new one is taken back once its deadline has passed, and `requester`, if there still is one, is
    /// answered with what stands then. One that stands anyway is listed, and `requester` is answered with it again at once.
    pub fn void(mut self, requester: Option<Box<dyn Requester>>) {
        match self.open.take() {
            None => {}
            Some((Open::New(approval), desk)) => {
                let at = self.deadline.unwrap_or_else(Instant::now);
                send(&desk, DeskOrder::Void { approval, at, requesters: requester.into_iter().collect() });
            }
            Some((Open::Standing { id, response: body, decision }, desk)) => {
                send(&desk, DeskOrder::Unheard(id));
                if let Some(requester) = requester {
                    let spans = Spans::default();
                    requester.answer(Answer { body, decision, reason: None, replayed: true, journaled: true, spans, fresh: None });
                }
            }
        }
    }

    fn id(&self) -> Option<&RequestId> {
        self.open.as_ref().map(|(open, _)| match open {
            Open::New(approval) => &approval.id,
            Open::Standing { id, .. } => id,
        })
    }
}

#[cfg(test)]
impl FreshApproval {
    /// An approval of 42.50 EUR whose desk a test holds.
    pub(crate) fn at_desk(id: RequestId, response: Arc<[u8]>, deadline: Instant, desk: mpsc::Sender<DeskOrder>) -> Self {
        #[expect(clippy::unwrap_used, reason = "the code is a constant")]
        let currency = Currency::from_code("EUR").unwrap();
        let (account, counters, decision) = (AccountId(1), Vec::new(), Decision::Approved);
        Self::new(Approval { id, account, held: 4250, counters, currency, available_without: 0, response, decision }, deadline, desk)
    }
}

impl Drop for FreshApproval {
    fn drop(&mut self) {
        if let Some(id) = self.id().cloned()
            && let Some((_, desk)) = self.open.take()
        {
            send(&desk, DeskOrder::Unheard(id));
        }
    }
}

/// The desk's queue holds twice as many orders as there can be requests in flight. It is full when the store is out for longer than
/// these take to come, and gone at the end of a drain that ran out of time. The approval's hold stays then, as after a crash.
fn send(desk: &mpsc::Sender<DeskOrder>, order: DeskOrder) {
    if let Err(refused) = desk.try_send(order) {
        let (what, id) = match refused.into_inner() {
            DeskOrder::Void { approval, .. } => ("void", approval.id),
            DeskOrder::Unheard(id) => ("unheard", id),
        };
        tracing::error!(event = "desk_gone", order = what, authorization_id = id.as_str(), "an approval stays as it is in the store");
    }
}

impl fmt::Debug for FreshApproval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreshApproval").field("id", &self.id()).finish_non_exhaustive()
    }
}
