//! The store that owns the money: the port, and its two implementations.
//!
//! A lane decides in memory and commits what it decided as a group. The [`Ledger`] applies the group **all or nothing**, and only
//! if everything the group was decided on is still true in the store; otherwise it applies nothing and says what is different.
//!
//! **Invariant**: a wrong approval cannot be committed, whatever the caller believed. Guards live here, not in the lanes.

pub mod administration;
mod concern;
pub mod feed;
mod port;
pub mod postgres;
mod roster;
mod shape;
pub mod sqlite;
mod store;

pub use port::{
    AbsentCard, AccountDelta, CardVersion, Commit, CounterClaim, CounterDelta, JournalEntry, Known, Ledger, LedgerError, Outcome,
    Positions, Report, Store, Void, Voided,
};
pub use store::{SchemaState, StoreError};
