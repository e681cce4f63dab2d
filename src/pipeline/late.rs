//! The late desk: takes approvals back that were not sent in time, and lists those of unknown fate.
//!
//! **Invariant**: only the process that committed an approval, and never handed it to anybody, voids it; and only while nobody was
//! replayed its bytes. What was sent once stays.

use super::{
    Answer, FreshApproval, Requester,
    decline::{self, WallClock},
    job::{Approval, DeskOrder},
};
use crate::{
    domain::{decision::Decision, ids::RequestId, reason::Reason},
    ledger::{Ledger, LedgerError, Void, Voided},
    telemetry::{Span, Spans, Telemetry},
};
use std::{cmp::Ordering, collections::BinaryHeap, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};

/// Orders taken out of the queue at once. Beyond that they wait in it.
const WAITING_MAX: usize = 100_000;
/// Pause before an order that the store could not take is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

pub(super) struct LateDesk<L> {
    ledger: L,
    orders: mpsc::Receiver<DeskOrder>,
    /// Where what stands is listed if it is not heard this time either. Weak: the desk closes when nobody else can order.
    desk: mpsc::WeakSender<DeskOrder>,
    wall: WallClock,
    telemetry: Telemetry,
    waiting: BinaryHeap<Due>,
}

/// An order with the instant it is due at. Orders sort by it, the earliest first.
struct Due {
    at: Instant,
    order: Order,
}

enum Order {
    Void { void: Box<Void>, approved: Decision, requesters: Vec<Box<dyn Requester>> },
    Unheard(RequestId),
}

impl<L: Ledger> LateDesk<L> {
    pub(super) fn new(
        ledger: L,
        orders: mpsc::Receiver<DeskOrder>,
        desk: mpsc::WeakSender<DeskOrder>,
        wall: WallClock,
        telemetry: Telemetry,
    ) -> Self {
        Self { ledger, orders, desk, wall, telemetry, waiting: BinaryHeap::new() }
    }

    /// Works until nobody can give orders any more and all are done. What is still waiting then is done at once.
    pub(super) async fn run(mut self) {
        loop {
            let next = self.waiting.peek().map(|due| due.at);
            // What is due goes first, so that many orders cannot keep the desk from its work.
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => self.work().await,
                order = self.orders.recv(), if self.waiting.len() < WAITING_MAX => match order {
                    Some(order) => self.accept(order),
                    None => break,
                },
            }
        }
        while !self.waiting.is_empty() {
            self.work().await;
        }
    }

    fn accept(&mut self, order: DeskOrder) {
        let due = match order {
            DeskOrder::Void { approval, at, requesters } => {
                let approved = approval.decision;
                Due { at, order: Order::Void { void: Box::new(self.void(approval)), approved, requesters } }
            }
            DeskOrder::Unheard(id) => {
                self.telemetry.approval_unheard();
                Due { at: Instant::now(), order: Order::Unheard(id) }
            }
        };
        self.waiting.push(due);
    }

    fn void(&self, approval: Approval) -> Void {
        let Approval { id, account, held, mut counters, currency, available_without, response, .. } = approval;
        counters.sort_unstable();
        let reason = Reason::DeadlineExceeded;
        let decline: Arc<[u8]> = decline::decline(&id, currency, Some(available_without), reason, (self.wall)()).into();
        Void { id, account, held, counters, response, decline, reason }
    }

    /// Does the order that is due first. One that the store cannot take now comes again.
    async fn work(&mut self) {
        let Some(Due { order, .. }) = self.waiting.pop() else { return };
        let undone = match order {
            Order::Unheard(id) => match self.ledger.mark_unheard(&id).await {
                Ok(()) => return,
                Err(error) => (Order::Unheard(id), error),
            },
            Order::Void { void, approved, requesters } => match self.ledger.void(&void).await {
                Ok(Voided::Done) => {
                    self.telemetry.approval_voided();
                    self.telemetry.deadline_exceeded(Span::Commit);
                    self.answer(&void.id, requesters, &void.decline, Decision::Declined, Some(void.reason));
                    return;
                }
                Ok(Voided::Stands(body)) => {
                    self.telemetry.replayed();
                    self.answer(&void.id, requesters, &body, approved, None);
                    return;
                }
                Err(error) => (Order::Void { void, approved, requesters }, error),
            },
        };
        let (order, error) = undone;
        if let LedgerError::Refused(error) = error {
            // It will not heal: the journal does not have the approval any more, or not as it was committed.
            self.telemetry.approval_unheard();
            tracing::error!(event = "approval_not_taken_back", error, "look at the authorization in the store");
            return;
        }
        tracing::warn!(event = "late_desk_retries", error = %error, "an approval waits to be taken back or listed");
        self.waiting.push(Due { at: Instant::now() + RETRY_PAUSE, order });
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl<L> LateDesk<L> {
    /// Answers those who wait: with the decline, or with what stands.
    fn answer(&self, id: &RequestId, requesters: Vec<Box<dyn Requester>>, body: &Arc<[u8]>, decision: Decision, reason: Option<Reason>) {
        for requester in requesters {
            let stands = self.desk.upgrade().filter(|_| decision.holds());
            let fresh = stands.map(|desk| FreshApproval::standing(id, body, decision, desk));
            let (body, spans, replayed) = (body.clone(), Spans::default(), decision.holds());
            requester.answer(Answer { body, decision, reason, replayed, journaled: true, spans, fresh });
        }
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    /// Reversed: the heap's greatest is the one due first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}
