//! Rows as they are written, and the group of them that goes into one transaction.

/// A row of `programs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the columns")]
pub struct Program {
    pub id: i64,
    pub token: &'static str,
    pub kind: &'static str,
    pub currency: &'static str,
    pub time_zone: &'static str,
    pub week_start: &'static str,
    pub kyc_required: bool,
    pub partial_approval: bool,
    pub controls: &'static str,
}

/// A row of `accounts`. `posted` is moved here from the funding account of the program, in two entries.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the columns")]
pub struct Account {
    pub id: i64,
    pub token: String,
    pub program_id: i64,
    pub kind: &'static str,
    pub currency: &'static str,
    pub status: &'static str,
    pub posted: i64,
    pub floor: i64,
}

/// A row of `users`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the columns")]
pub struct User {
    pub id: i64,
    pub token: String,
    pub program_id: i64,
    pub status: &'static str,
    pub kyc: &'static str,
}

/// A row of `limits`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the columns")]
pub struct Limit {
    pub id: i64,
    pub owner: &'static str,
    pub owner_id: i64,
    pub scope: &'static str,
    pub period: &'static str,
    pub filter: &'static str,
    pub cap_amount: Option<i64>,
    pub cap_count: Option<i64>,
}

/// A row of `cards`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the columns")]
pub struct Card {
    pub id: i64,
    pub token: String,
    pub user_id: i64,
    pub account_id: i64,
    pub program_id: i64,
    pub status: &'static str,
    pub expires_at: i64,
    pub controls: &'static str,
}

/// What one program's money in a batch is booked as: every account against the funding account, under one transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Funding {
    /// The program.
    pub program_id: i64,
    /// Its funding account, which is in this batch or an earlier one.
    pub account_id: i64,
    /// The transfer's name.
    pub transfer: String,
}

/// Rows of one transaction, in the order in which they are written: what a row points at comes before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// First, with their own limits right after them.
    pub programs: Vec<Program>,
    /// Funding accounts come before those they fund.
    pub funding_accounts: Vec<Account>,
    /// Cardholders' accounts.
    pub accounts: Vec<Account>,
    /// How the money in `accounts` is booked; one per program that has accounts here.
    pub funding: Vec<Funding>,
    /// Cardholders.
    pub users: Vec<User>,
    /// Limits of programs, users, accounts and cards: before the cards, so that no card's version has to move for them.
    pub limits: Vec<Limit>,
    /// Last.
    pub cards: Vec<Card>,
}

/// Rows written, or that would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the tables")]
pub struct Counts {
    pub programs: u64,
    pub accounts: u64,
    pub users: u64,
    pub limits: u64,
    pub cards: u64,
}

impl Counts {
    /// All tables together.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.programs + self.accounts + self.users + self.limits + self.cards
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.programs += other.programs;
        self.accounts += other.accounts;
        self.users += other.users;
        self.limits += other.limits;
        self.cards += other.cards;
    }
}

impl Batch {
    /// How many rows of each kind this batch has.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        Counts {
            programs: self.programs.len() as u64,
            accounts: (self.funding_accounts.len() + self.accounts.len()) as u64,
            users: self.users.len() as u64,
            limits: self.limits.len() as u64,
            cards: self.cards.len() as u64,
        }
    }
}
