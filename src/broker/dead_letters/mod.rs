//! Dead letters, looked at and sent again by a person.
//!
//! To look at a letter is to take it unacknowledged and to give it back. Letters come back in the order they had, in front of
//! those that arrived meanwhile, marked as redelivered and with their delivery count raised by one; while one person looks,
//! nobody else sees them. Of more than [`VISITS_MAX`] letters those looked at change places with the rest, and where two people
//! look at the same time, their parts do. The queues are declared so that no count of deliveries ever drops a letter. Whatever
//! ends a visit, the broker puts back what was not acknowledged.
//!
//! **Invariant**: a letter leaves its queue only after the broker confirmed that the work queue has its message again.

mod judge;
mod letter;
mod replay;
#[cfg(test)]
mod tests;
mod tray;

pub use judge::{Refusal, Rules};
pub use letter::Letter;
pub use replay::{Failure, Order, Outcome, replay};

use super::{BrokerError, Settings, topology};
use crate::domain::time::Timestamp;
use tray::Tray;

/// Letters that one visit looks at, at most: each is held unacknowledged until the visit ends.
pub const VISITS_MAX: u32 = 10_000;
/// How often a message is sent again before a person has to mend something first.
pub const REPLAYS_MAX: u64 = 3;

/// Which letters are meant; what is absent means all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Reasons by name, any of them.
    pub reasons: Vec<String>,
    /// Dead-lettered at this time or later. A letter without a time is never meant then.
    pub since: Option<Timestamp>,
    /// Dead-lettered before this time. A letter without a time is never meant then.
    pub until: Option<Timestamp>,
    /// The beginning of the letter's id, or the message's whole id.
    pub id: Option<String>,
}

/// How far a visit came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visited {
    /// Letters in the queue when the visit began, those that somebody else was looking at left out.
    pub ready: u32,
    /// Letters looked at.
    pub seen: u32,
}

impl Filter {
    /// Whether the letter is meant.
    #[must_use]
    pub fn matches(&self, letter: &Letter) -> bool {
        let from = |since: Timestamp| letter.failed_at.is_some_and(|at| at >= since);
        let before = |until: Timestamp| letter.failed_at.is_some_and(|at| at < until);
        (self.reasons.is_empty() || self.reasons.contains(&letter.reason))
            && self.since.is_none_or(from)
            && self.until.is_none_or(before)
            && self.id.as_ref().is_none_or(|id| letter.id.starts_with(id.as_str()) || letter.message_id.as_ref() == Some(id))
    }
}

/// Looks at the letters of a dead letter queue, oldest first, until there are no more, `visit` gives false, or [`VISITS_MAX`] were
/// seen. Everything is as it was afterwards.
///
/// # Errors
/// [`BrokerError`] says why the broker could not be asked; the letters are back all the same.
pub async fn browse(settings: &Settings, queue: &str, mut visit: impl FnMut(Letter) -> bool) -> Result<Visited, BrokerError> {
    let mut tray = Tray::open(settings, queue).await?;
    while let Some(delivery) = tray.next().await? {
        if !visit(Letter::read(&delivery)) {
            break;
        }
    }
    Ok(tray.give_back().await)
}

/// The dead letter queues there are, the one of authorizations first.
#[must_use]
pub fn queues(settings: &Settings) -> Vec<String> {
    topology::dead_letter_queues(settings).into_iter().map(|(name, _)| name).collect()
}
