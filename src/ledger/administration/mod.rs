//! Changes of facts by command: a card frozen, a user suspended, a limit set.
//!
//! Each is one transaction; triggers move the versions and tell the daemons. Doing the same again changes nothing. The statements are
//! the same on every store, so a store brings no more than a [`Session`].

mod limits;
mod status;

pub use limits::{Caps, LimitRecord, LimitSetting, Owner, OwnerIds, Removal, Terms, canonical, limits_of, owner, remove_limit, set_limit};
pub use status::{CardRecord, Turn, Turned, UserRecord, activate, card, freeze, suspend, unfreeze};

use super::{Store, StoreError};
use crate::facts::change::Subject;
use std::fmt;

/// A store whose facts can be changed by command.
pub trait Administration: Store {
    /// What [`Administration::begin`] gives.
    type Session: Session;

    /// Begins a transaction. Dropping the session undoes it.
    ///
    /// # Errors
    /// [`AdministrationError`] when the store cannot be reached, or is busy for too long.
    fn begin(&self) -> impl Future<Output = Result<Self::Session, AdministrationError>>;
}

/// A transaction.
pub trait Session: Sized {
    /// What a `select` ends with to lock the rows it reads.
    const LOCKING: &'static str;
    /// Keeps all others out who administer limits. Comes first in the order of locks.
    const ALONE: &'static str;
    /// Takes an id for a new limit, one that was never used for another.
    const LIMIT_ID: &'static str;

    /// Runs a statement whose columns are all texts, and gives all its rows.
    fn rows(&mut self, sql: String, values: &[Value<'_>]) -> impl Future<Output = Result<Vec<Record>, AdministrationError>>;

    /// Ends the transaction.
    fn commit(self) -> impl Future<Output = Result<(), AdministrationError>>;
}

/// A parameter of a statement.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A text.
    Text(&'a str),
    /// A number.
    Integer(i64),
    /// A number, or none.
    Optional(Option<i64>),
}

/// A row of texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record(pub Vec<Option<String>>);

impl Record {
    fn get(&self, column: usize) -> Option<&str> {
        self.0.get(column)?.as_deref()
    }

    fn text(&self, column: usize) -> Result<String, AdministrationError> {
        self.get(column).map(str::to_owned).ok_or_else(|| unreadable(column))
    }

    fn number(&self, column: usize) -> Result<i64, AdministrationError> {
        self.optional(column)?.ok_or_else(|| unreadable(column))
    }

    fn optional(&self, column: usize) -> Result<Option<i64>, AdministrationError> {
        self.get(column).map(|text| text.parse().map_err(|_| unreadable(column))).transpose()
    }
}

fn unreadable(column: usize) -> AdministrationError {
    AdministrationError::Store(StoreError::Broken(format!("column {} of a row is not what it should be", column + 1)))
}

/// Why nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AdministrationError {
    /// There is nobody of that name.
    #[error("there is no {0}")]
    Unknown(Name),
    /// What is asked for is not possible as things are; the text says why.
    #[error("{0}")]
    Impossible(String),
    /// Others had the rows locked for too long.
    #[error("the store was busy for too long: {0}")]
    Busy(String),
    /// The store could not be used. Only when the end of the transaction was lost may it have been applied after all.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What somebody is called, by kind and token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// `card`, `user`, `account`, `program` or `limit`.
    pub kind: &'static str,
    /// The token, or the id of a limit.
    pub token: String,
}

impl From<&Subject> for Name {
    fn from(subject: &Subject) -> Self {
        let (kind, token) = match subject {
            Subject::Card(token) => ("card", token.as_str()),
            Subject::User(token) => ("user", token.as_str()),
            Subject::Account(token) => ("account", token.as_str()),
            Subject::Program(token) => ("program", token.as_str()),
        };
        Self { kind, token: token.to_owned() }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.token)
    }
}
