//! What is known about a card when its request is decided. Facts are hints with a version: the commit checks the versions.

use super::{
    ids::{AccountId, CardId, CardToken, ProgramId, UserId, UserToken},
    limits::{Filter, Limit},
    money::Currency,
    time::Timestamp,
};
use std::sync::Arc;

/// Whether a card may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CardStatus {
    /// May be used.
    Active,
    /// Not activated, frozen or closed.
    Inactive,
    /// Reported lost.
    Lost,
    /// Reported stolen.
    Stolen,
}

/// The parts of an account that are facts. Its money is not one: it lives in the book and in the store's guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The store's key.
    pub id: AccountId,
    /// What it is kept in.
    pub currency: Currency,
    /// Whether it still takes authorizations.
    pub open: bool,
}

/// A card with its account and its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// The store's key.
    pub id: CardId,
    /// The public token.
    pub token: CardToken,
    /// Moves with every change of the card, its user, its account's status and the limits of these. Never repeats.
    pub version: i64,
    /// Its owner.
    pub user: UserId,
    /// The version of its owner that this card version knows.
    pub user_version: i64,
    /// Where the money is.
    pub account: Account,
    /// The program it belongs to.
    pub program: ProgramId,
    /// Whether it may be used.
    pub status: CardStatus,
    /// First instant at which it is no longer valid.
    pub expires: Timestamp,
    /// What the card may be used for. Shared, because most cards say the same.
    pub controls: Arc<Filter>,
    /// The limits of the card, its user and its account, in order of id. In a box, because a vector keeps room to grow, and there are
    /// millions of these.
    pub limits: Box<[Limit]>,
}

/// A cardholder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The store's key.
    pub id: UserId,
    /// The public token.
    pub token: UserToken,
    /// Moves with every change of the user. Never repeats.
    pub version: i64,
    /// Whether the user may spend.
    pub active: bool,
    /// Whether the identity was verified.
    pub kyc_verified: bool,
}

/// Who a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    /// Company cards.
    Business,
    /// Consumer cards.
    Personal,
}

/// The first day of a week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeekStart {
    /// ISO 8601.
    Monday,
    /// As in the US.
    Sunday,
    /// As in parts of the Middle East.
    Saturday,
}

/// A card program with the limits that belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The store's key.
    pub id: ProgramId,
    /// Moves with every change of the program and of its own limits. Never repeats.
    pub version: i64,
    /// Who it is for.
    pub kind: ProgramKind,
    /// IANA name of the time zone its windows are cut in.
    pub time_zone: Box<str>,
    /// The first day of its weeks.
    pub week_start: WeekStart,
    /// Whether its users need a verified identity to spend.
    pub kyc_required: bool,
    /// Whether less than the amount asked for may be approved, when the terminal can take it.
    pub partial_approval: bool,
    /// What its cards may be used for.
    pub controls: Arc<Filter>,
    /// In order of id.
    pub limits: Vec<Limit>,
}

/// Everything known about an existing card, from one moment: the versions inside agree.
#[derive(Clone, Debug)]
pub struct CardFile {
    /// The card with its account and the limits of card, user and account.
    pub card: Arc<Card>,
    /// Its owner.
    pub user: Arc<User>,
    /// Its program, with the program's limits.
    pub program: Arc<Program>,
}

impl CardFile {
    /// Whether the parts belong together. Parts that came from different moments of a cache may not: then the versions that a
    /// commit would check do not cover what was decided on, and the file must be read again in one piece.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.user.id == self.card.user && self.user.version == self.card.user_version && self.program.id == self.card.program
    }

    /// All limits that bear on the card, the card's own ones first.
    pub fn limits(&self) -> impl Iterator<Item = &Limit> {
        self.card.limits.iter().chain(&self.program.limits)
    }
}

/// The money of an account, as a working copy or as the store has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Posted money, minor units.
    pub posted: i64,
    /// Sum of the open holds.
    pub held: i64,
    /// What `posted - held` may not go below: 0, or minus a credit line.
    pub floor: i64,
}

impl Balance {
    /// `posted - held`.
    #[must_use]
    pub const fn available(&self) -> i64 {
        self.posted.saturating_sub(self.held)
    }

    /// What may still be held before the floor is passed. Exact, but for what does not fit into 64 bits, which is more (or less)
    /// than any amount.
    #[must_use]
    pub fn room(&self) -> i64 {
        // In wide numbers: saturating step by step could end far from the truth.
        let room = i128::from(self.posted) - i128::from(self.held) - i128::from(self.floor);
        i64::try_from(room).unwrap_or(if room > 0 { i64::MAX } else { i64::MIN })
    }
}

/// Somebody whose facts or limits may have changed, by public token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A card.
    Card(CardToken),
    /// A user, with all cards.
    User(UserToken),
    /// An account, with all cards.
    Account(String),
    /// A program.
    Program(String),
}
