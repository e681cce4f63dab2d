//! A delivery's ticket: the only handle that can ack it.

use super::{
    acks::{self, Deliveries},
    envelope,
    publisher::{Load, Parcel},
    reply::ReplyAddress,
};
use crate::{
    codec::{dead_letter::DeadLetterReason, pan},
    domain::time::Timestamp,
    pipeline::{Answer, Requester},
    telemetry::{Telemetry, events::Settlement},
};
use lapin::{
    Acker,
    message::Delivery,
    types::{DeliveryTag, ShortString},
};
use std::sync::Arc;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, mpsc},
    time::Instant,
};

/// A delivery that is not settled yet. Dropped unsettled it is given back to the broker after a pause, and delivered again then, or once
/// the channel is gone.
#[must_use = "a delivery must be settled"]
pub(super) struct Ticket {
    delivery: Delivery,
    /// Keeps the channel of the delivery open, or it could not be acked any more.
    deliveries: Arc<Deliveries>,
    /// One of as many as may be unsettled at once.
    _permit: OwnedSemaphorePermit,
    pub(super) about: About,
    outbox: mpsc::Sender<Parcel>,
    telemetry: Telemetry,
    settled: bool,
}

/// What answering a delivery needs to know.
pub(super) struct About {
    /// Where the answer goes; `None` where it may not go anywhere.
    pub(super) reply: Option<ReplyAddress>,
    /// The request's id, where it was readable.
    pub(super) id: Option<ShortString>,
    /// When the bytes arrived.
    pub(super) received: Instant,
    /// When the requester stops listening.
    pub(super) deadline: Instant,
    /// How often its answer was published so far.
    pub(super) tries: u32,
    /// How often the broker did not say in time what became of it.
    pub(super) unconfirmed: u32,
    /// When its answer was first written, unless it came back.
    pub(super) written: Option<Instant>,
    /// Whether telemetry was told how long it took.
    pub(super) told: bool,
    /// No queue took the answer until the deadline: what is answered from now on is dead-lettered.
    pub(super) given_up: bool,
}

impl Ticket {
    pub(super) fn new(
        delivery: Delivery,
        deliveries: Arc<Deliveries>,
        permit: OwnedSemaphorePermit,
        about: About,
        outbox: mpsc::Sender<Parcel>,
        telemetry: Telemetry,
    ) -> Self {
        deliveries.note(delivery.delivery_tag);
        Self { delivery, deliveries, _permit: permit, about, outbox, telemetry, settled: false }
    }

    /// Whether the delivery can still be acked. If not, the broker delivers it again, to us or to somebody else.
    pub(super) fn usable(&self) -> bool {
        self.delivery.acker.usable()
    }

    /// Whether the broker has delivered it before, to us or to somebody else.
    pub(super) fn redelivered(&self) -> bool {
        self.delivery.redelivered
    }

    /// What answers to this delivery are correlated by: its own correlation id, or the request's id. A card number is not echoed.
    pub(super) fn correlation(&self) -> Option<ShortString> {
        let own = self.delivery.properties.correlation_id().clone().filter(|own| !pan::contains(own.as_str().as_bytes()));
        own.or_else(|| self.about.id.clone())
    }

    /// The dead letter of this delivery.
    pub(super) fn dead_letter(&self, reason: DeadLetterReason, detail: &str, at: Timestamp) -> envelope::DeadLetter {
        envelope::dead_letter(&self.delivery, reason, detail, self.about.tries.max(1), at)
    }

    /// Hands a parcel to the publisher.
    pub(super) fn send(self, load: Load) {
        let outbox = self.outbox.clone();
        // There is room for a parcel of every ticket, so this fails only when the publisher has ended.
        if let Err(error) = outbox.try_send(Parcel { ticket: self, load }) {
            error.into_inner().abandon();
        }
    }

    /// The channel that it came on.
    pub(super) const fn deliveries(&self) -> &Arc<Deliveries> {
        &self.deliveries
    }

    /// Its place among the deliveries of its channel.
    pub(super) const fn tag(&self) -> DeliveryTag {
        self.delivery.delivery_tag
    }

    /// What acks it.
    pub(super) const fn acker(&self) -> &Acker {
        &self.delivery.acker
    }

    /// Notes what became of the delivery, after an ack that was sent or could not be.
    pub(super) fn settled(mut self, settlement: Settlement) {
        self.settle(settlement);
    }

    /// Leaves the delivery to be delivered again.
    pub(super) fn give_back(mut self) {
        self.settle(Settlement::Returned);
    }

    fn settle(&mut self, settlement: Settlement) {
        if !std::mem::replace(&mut self.settled, true) {
            self.telemetry.settled(settlement);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Unacknowledged it would take a place among those that may be, and make every ack behind it one of its own.
        if !self.settled
            && self.usable()
            && let Ok(runtime) = Handle::try_current()
        {
            let acker = self.delivery.acker.clone();
            runtime.spawn(acks::give_back(acker, Arc::clone(&self.deliveries), self.tag(), self.redelivered()));
        }
        self.settle(Settlement::Returned);
    }
}

impl Requester for Ticket {
    fn answer(self: Box<Self>, answer: Answer) {
        let load = envelope::response(&self, answer);
        self.send(Load::Answer(load));
    }
}
