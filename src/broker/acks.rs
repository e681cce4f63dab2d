//! Acks, in multiples: what is confirmed within a few milliseconds is acked by one frame.
//!
//! Nobody waits for an ack, but each one costs: a frame, and on a quorum queue an entry in the replicated log with an fsync of its own,
//! on the disk that requests and decisions need as well. What is lost by waiting: after a crash the broker delivers again what was
//! answered in the last milliseconds, and it is answered from the journal, with the same bytes. So only such answers wait: a decline that
//! the journal does not have might be decided otherwise then, and a dead letter would be written twice.
//!
//! **Invariant**: an ack never covers a delivery that is not answered. A multiple ack goes up to below the first delivery of its channel
//! that is still open; what was answered out of turn is acked by itself. No delivery is acked twice, for which the broker would close the
//! channel: lapin sends what is under way in any order, so no ack is sent before all that went before are done, and a delivery that is
//! given back stays open until that is done.

use super::{connection::LOOK_EVERY, ticket::Ticket};
use crate::telemetry::events::Settlement;
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use lapin::{
    Acker, Channel,
    options::{BasicAckOptions, BasicNackOptions},
    types::DeliveryTag,
};
use parking_lot::Mutex;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How many deliveries wait for an ack at most.
const HELD_MAX: usize = 64;
/// Of what may be unacknowledged at once, the part that waits for an ack, or for its confirm to be seen, at most: the broker must not run
/// out of what it may deliver.
pub(super) const HELD_PART: usize = 4;

/// Pause before a delivery that was dropped unanswered is given back, and one that was delivered before: whatever dropped it may do so
/// again, and a quorum queue keeps count of how often.
const GIVE_BACK_AFTER: Duration = Duration::from_secs(1);
const GIVE_BACK_AGAIN_AFTER: Duration = Duration::from_secs(15);

/// A consumer's channel, kept open, and the deliveries on it that no ack was sent for.
pub(super) struct Deliveries {
    channel: Channel,
    open: Mutex<BTreeSet<DeliveryTag>>,
}

impl Deliveries {
    pub(super) const fn new(channel: Channel) -> Self {
        Self { channel, open: Mutex::new(BTreeSet::new()) }
    }

    pub(super) const fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Notes a delivery. They come in the order of their tags, so one that is not noted yet is above all that are.
    pub(super) fn note(&self, tag: DeliveryTag) {
        self.open.lock().insert(tag);
    }

    /// Takes a delivery off those that are open, once it was given back.
    fn forget(&self, tag: DeliveryTag) {
        self.open.lock().remove(&tag);
    }

    /// Takes answered deliveries off those that are open, and says how they are acked.
    fn close(&self, answered: &[DeliveryTag]) -> Vec<(DeliveryTag, bool)> {
        let mut open = self.open.lock();
        for tag in answered {
            open.remove(tag);
        }
        plan(answered, open.first().copied())
    }
}

/// Tags to ack, each by itself or (`true`) with all before it. `answered` is in order.
fn plan(answered: &[DeliveryTag], first_open: Option<DeliveryTag>) -> Vec<(DeliveryTag, bool)> {
    let (together, alone) = answered.split_at(answered.partition_point(|tag| first_open.is_none_or(|open| *tag < open)));
    let together = together.last().map(|last| (*last, together.len() > 1));
    together.into_iter().chain(alone.iter().map(|tag| (*tag, false))).collect()
}

/// Answered deliveries on their way to being acked.
pub(super) struct Acks {
    within: Duration,
    held_max: usize,
    held: Vec<(Ticket, Settlement)>,
    due: Option<Instant>,
    under_way: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Acks {
    /// Acks that are sent `within` this time; sooner when many wait, measured by how many may be unacknowledged at once.
    pub(super) fn new(within: Duration, prefetch: u16) -> Self {
        let held_max = (usize::from(prefetch) / HELD_PART).clamp(1, HELD_MAX);
        Self { within, held_max, held: Vec::new(), due: None, under_way: FuturesUnordered::new() }
    }

    /// Takes a delivery that needs no more than its ack, at once unless its answer is in the journal.
    pub(super) fn add(&mut self, ticket: Ticket, settlement: Settlement, journaled: bool) {
        self.held.push((ticket, settlement));
        let now = Instant::now();
        let due = if !journaled || self.held.len() >= self.held_max { now } else { now + self.within };
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// Sends what is due. Gives way after each step; without anything to do it never ends.
    pub(super) async fn progress(&mut self) {
        let due = self.due;
        tokio::select! { biased;
            Some(()) = self.under_way.next(), if !self.under_way.is_empty() => {}
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && self.under_way.is_empty() => self.send(),
            else => std::future::pending().await,
        }
    }

    fn send(&mut self) {
        self.due = None;
        self.held.sort_by_key(|(ticket, _)| (Arc::as_ptr(ticket.deliveries()), ticket.tag()));
        let mut held = std::mem::take(&mut self.held).into_iter().peekable();
        while let Some((first, settlement)) = held.next() {
            let deliveries = Arc::clone(first.deliveries());
            let mut of_channel = vec![(first, settlement)];
            while let Some(next) = held.next_if(|(ticket, _)| Arc::ptr_eq(ticket.deliveries(), &deliveries)) {
                of_channel.push(next);
            }
            let tags: Vec<DeliveryTag> = of_channel.iter().map(|(ticket, _)| ticket.tag()).collect();
            let mut tickets = of_channel.into_iter().peekable();
            for (tag, multiple) in deliveries.close(&tags) {
                let covered = std::iter::from_fn(|| tickets.next_if(|(ticket, _)| ticket.tag() <= tag)).collect();
                self.under_way.push(Box::pin(ack(covered, multiple)));
            }
        }
    }
}

/// Acks what the last of `covered` stands for.
async fn ack(covered: Vec<(Ticket, Settlement)>, multiple: bool) {
    let Some((last, _)) = covered.last() else { return };
    let acked = sent(last.acker(), last.acker().ack(BasicAckOptions { multiple })).await;
    for (ticket, settlement) in covered {
        ticket.settled(if acked { settlement } else { Settlement::Returned });
    }
}

/// Gives a delivery back that nobody will answer, so that the broker delivers it again. Open until then, or a multiple ack would cover it.
pub(super) async fn give_back(acker: Acker, deliveries: Arc<Deliveries>, tag: DeliveryTag, redelivered: bool) {
    sleep(if redelivered { GIVE_BACK_AGAIN_AFTER } else { GIVE_BACK_AFTER }).await;
    if sent(&acker, acker.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() })).await {
        deliveries.forget(tag);
    }
}

/// Whether an ack was sent. One that is under way while its connection is lost may never come to an end in lapin, so the channel is
/// looked at meanwhile.
async fn sent(acker: &Acker, ack: impl Future<Output = lapin::Result<bool>>) -> bool {
    tokio::pin!(ack);
    loop {
        match timeout(LOOK_EVERY, &mut ack).await {
            // `Ok(false)` means that nothing was sent: the channel is gone, and the broker delivers the message again.
            Ok(outcome) => return matches!(outcome, Ok(true)),
            Err(_) if acker.poisoned() => return false,
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answered: &[DeliveryTag], first_open: Option<DeliveryTag>, acks: &[(DeliveryTag, bool)]) {
        assert_eq!(plan(answered, first_open), acks, "{answered:?} with {first_open:?} open");
    }

    #[test]
    fn a_multiple_ack_ends_below_the_first_open_delivery() {
        check(&[], None, &[]);
        check(&[4], None, &[(4, false)]);
        check(&[1, 2, 3], None, &[(3, true)]);
        check(&[1, 2, 3], Some(4), &[(3, true)]);
        check(&[2, 3, 5, 6], Some(4), &[(3, true), (5, false), (6, false)]);
        check(&[3, 5, 6], Some(4), &[(3, false), (5, false), (6, false)]);
        check(&[5, 6], Some(1), &[(5, false), (6, false)]);
        check(&[7, 9], Some(10), &[(9, true)]);
    }
}
