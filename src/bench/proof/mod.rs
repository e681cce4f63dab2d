//! What must be true of the store afterwards, asked of the store itself.
//!
//! | file | what it does |
//! |---|---|
//! | `store` | reads journal, holds, accounts, counters and facts by SQL |
//! | `journal` | a decision in the journal against the answer that was heard, and against what was asked |
//! | `facts` | what a decision must be, worked out a second time |
//! | `judge` | every decision by these, then the sums: approved is held, charged is counted, nothing passed a cap or a floor |
//!
//! The daemon wrote everything it decided, so that its books agreeing with each other proves little. They are held against what it
//! did not write: the answers as they were heard, the requests as they were sent, and the cards and limits as they were seeded.

mod facts;
mod journal;
mod judge;
mod store;
#[cfg(test)]
mod tests;

use super::{
    record::{Known, Record},
    scratch::Location,
    traffic::Traffic,
};
use judge::Judge;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use store::Books;

/// Whose decisions the store may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The run's only: a decision that nobody was told is a fault, and so is money that is held for nothing of the run.
    Run,
    /// Others' too: only the run's decisions are looked at, and the accounts and counters that they touched.
    Everybody,
}

/// What was asked and answered in one stretch.
#[derive(Clone, Debug)]
pub struct Told<'a> {
    /// What was asked.
    pub traffic: &'a Traffic,
    /// The answers, by index of the request.
    pub answers: Vec<(usize, Known)>,
}

impl<'a> Told<'a> {
    /// What a record has.
    #[must_use]
    pub fn of(record: &'a Record) -> Self {
        Self { traffic: record.traffic(), answers: record.answers().collect() }
    }
}

/// What the store says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Proof {
    /// Decisions in the journal, of the run's requests.
    pub decisions: u64,
    /// Answers we were given that the journal does not have.
    pub lost: u64,
    /// Answers we were given that the journal has with other bytes.
    pub altered: u64,
    /// Decisions that nobody was told, and approvals whose only answer said that nothing was decided.
    pub untold: u64,
    /// Answers that do not say what the journal and the hold have: decision, reason, amount, currency, hold.
    pub unlike: u64,
    /// Decisions about another card, amount or merchant than was asked, or for more than was asked.
    pub unasked: u64,
    /// Decisions that facts, limits and money do not explain.
    pub wrong: u64,
    /// Approvals that are not charged to exactly the counters that their limits ask for.
    pub uncharged: u64,
    /// Ids decided or held for more than once, and holds that do not match their decision.
    pub doubled: u64,
    /// Accounts with less than they may have.
    pub below_floor: u64,
    /// Counters above a cap, and approvals above a cap.
    pub limits_passed: u64,
    /// Counters that are not the sum of the approvals that had to be charged to them.
    pub counters_off: u64,
    /// Accounts whose held money is not the sum of their open holds, or not the sum of the approvals that were heard.
    pub held_off: u64,
    /// Transfers that do not sum to zero, and accounts that are not the sum of their entries.
    pub entries_off: u64,
    /// Approvals of which nobody knows whether they arrived, in a store of the run's own.
    pub unheard: u64,
    /// Accounts in the store; in one that others use too, those of the run's decisions.
    pub accounts: u64,
    /// Open holds of the run.
    pub holds: u64,
    /// Counters in the store; in one that others use too, those that the run added to.
    pub counters: u64,
    /// What was approved, as the answers say it, in minor units by currency. It is what the accounts hold.
    pub approved: BTreeMap<String, i64>,
    /// Examples of what is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
}

impl Proof {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn holds_good(&self) -> bool {
        // Nothing decided is nothing proved.
        self.decisions > 0 && self.faults().next().is_none()
    }

    /// What is wrong, with how often.
    pub fn faults(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("answers are missing in the journal", self.lost),
            ("answers are in the journal with other bytes", self.altered),
            ("decisions were told to nobody", self.untold),
            ("answers say other than the journal and the holds", self.unlike),
            ("decisions are about other than what was asked", self.unasked),
            ("decisions are not what facts, limits and money ask for", self.wrong),
            ("approvals are not charged to the counters of their limits", self.uncharged),
            ("ids are decided or held for twice, or held for wrongly", self.doubled),
            ("accounts are below their floor", self.below_floor),
            ("limits were passed", self.limits_passed),
            ("counters are not the sum of what was charged to them", self.counters_off),
            ("accounts hold other than the sum of their holds, or of what was approved", self.held_off),
            ("accounts or transfers are not the sum of their entries", self.entries_off),
            ("approvals were sent, and nobody knows whether they arrived", self.unheard),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
    }
}

/// Checks a store against what was asked and answered. `run` is what the ids of all stretches begin with, before a dash or a dot.
///
/// # Errors
/// The store could not be asked.
pub async fn check(store: &Location, owner: Owner, run: &str, told: &[Told<'_>]) -> Result<Proof, sqlx::Error> {
    let mut books = Books::open(store, owner, run).await?;
    let mut judge = Judge::new(books.facts().await?, owner, told);
    books.journal(|row| judge.see(&row)).await?;
    let (accounts, counters) = (books.accounts().await?, books.counters().await?);
    let totals = books.totals().await?;
    books.close().await?;
    let proof = judge.close(&accounts, &counters);
    Ok(Proof {
        doubled: proof.doubled + totals.doubled,
        untold: proof.untold + totals.others,
        entries_off: totals.entries_off,
        unheard: if owner == Owner::Run { totals.unheard } else { 0 },
        accounts: if owner == Owner::Run { totals.accounts } else { accounts.len() as u64 },
        ..proof
    })
}
