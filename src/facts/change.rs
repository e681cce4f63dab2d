//! News about facts: what has changed, and the port through which the store tells it.

pub use crate::domain::facts::Subject;

use super::{FactError, FactSource};
use crate::domain::{
    facts::CardFile,
    ids::{CardToken, ProgramId, UserId, UserToken},
    time::Timestamp,
};
use std::ops::ControlFlow;

/// A fact that is not what it was. What is known about it must not be believed any more.
///
/// `version` is the fact's new version where the teller knows it: whatever is older than it is stale. After a deletion it is a version
/// that the deleted row never had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A card, its account's status, or a limit that bears on it.
    Card {
        /// The card.
        token: CardToken,
        /// Its new version.
        version: Option<i64>,
    },
    /// A user. The cards of the user are told one by one besides, because their versions move too.
    User {
        /// The store's key.
        id: UserId,
        /// The public token.
        token: UserToken,
        /// The user's new version.
        version: Option<i64>,
    },
    /// A program, or one of its own limits.
    Program {
        /// The store's key.
        id: ProgramId,
        /// Its new version.
        version: Option<i64>,
    },
    /// More than is worth telling one by one.
    Everything,
}

/// A change with the instant at which it was made, by the clock of whoever made it, where that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// What changed.
    pub change: Change,
    /// When.
    pub at: Option<Timestamp>,
}

/// What a [`ChangeFeed`] hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// From here on no change is missed. What changed before may have been.
    Listening,
    /// Changes, in the order they were committed in as far as the store tells.
    Changes(Vec<Announced>),
    /// Changes may be missed from here on until [`Heard::Listening`] comes again; the text says why.
    Lost(String),
}

/// The store's own news. It connects by itself, and again after a failure, for ever and with pauses.
pub trait ChangeFeed: Send + 'static {
    /// The next piece of news. May be dropped while it waits; nothing is lost by that.
    fn next(&mut self) -> impl Future<Output = Heard> + Send;
}

/// What a reading of every card comes upon.
#[derive(Debug)]
pub enum Scanned {
    /// What it keeps in memory itself until it ends, bytes. Told before the first card.
    Aside(u64),
    /// A card that can be used.
    Card(CardFile),
}

/// A store that can be read as a whole and says what changes in it.
pub trait FactStore: FactSource {
    /// What [`FactStore::feed`] gives.
    type Feed: ChangeFeed;

    /// The store's news, from the first call of [`ChangeFeed::next`] on.
    fn feed(&self) -> Self::Feed;

    /// Hands every card that can be used, with its user, limits and program, to `keep`, until that breaks off. The files of one
    /// program share its facts. Says how many there were; and to `keep` first of all what it needs for that itself.
    ///
    /// # Errors
    /// [`FactError`] when the store could not be read to its end; what was handed out before is good.
    fn every_card(&self, keep: impl FnMut(Scanned) -> ControlFlow<()> + Send) -> impl Future<Output = Result<u64, FactError>> + Send;

    /// What a change of `subject` concerns, with the versions of now: the subject and, for users and accounts, every card. An
    /// unknown subject concerns nothing, except that a card token that is not known is told without a version.
    ///
    /// # Errors
    /// [`FactError`] when the store could not be read.
    fn concerned(&self, subject: &Subject) -> impl Future<Output = Result<Vec<Change>, FactError>> + Send;
}
