//! What other systems say about changed facts, brought to the caches.

use crate::{
    broker::events::EventPorts,
    codec::event::FactEvent,
    domain::facts::Subject,
    facts::{FactSource, tiered::FactTiers},
};
use tokio::sync::mpsc;

/// Events between the broker and the caches. When they are slow, the others wait at the broker.
const EVENTS_WAITING_MAX: usize = 256;
/// Events between us and the broker; an alert that finds no room is in the log only.
const TOLD_WAITING_MAX: usize = 64;

/// The ports of the broker, with the caches at the other end.
pub(super) fn ports<S: FactSource>(facts: FactTiers<S>) -> EventPorts {
    let (heard, mut events) = mpsc::channel::<FactEvent>(EVENTS_WAITING_MAX);
    let (_tell, told) = mpsc::channel(TOLD_WAITING_MAX);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let Subject::Card(token) = event.subject {
                // A store that cannot be read now makes a stale fact no worse: the commit finds it.
                drop(facts.refresh(&token).await);
            }
        }
    });
    EventPorts { heard, told }
}
