//! What SQLite's errors mean to us.

use super::connect::GUARD_PREFIX;
use crate::{
    facts::FactError,
    ledger::{LedgerError, store::StoreError},
};
use sqlx::Error;

/// SQLite's primary result codes, as far as they are told apart.
mod primary {
    pub(super) const PERM: i64 = 3;
    pub(super) const BUSY: i64 = 5;
    pub(super) const LOCKED: i64 = 6;
    pub(super) const READONLY: i64 = 8;
    pub(super) const CORRUPT: i64 = 11;
    pub(super) const CONSTRAINT: i64 = 19;
    pub(super) const AUTH: i64 = 23;
    pub(super) const NOTADB: i64 = 26;
    /// Wrong statement, too large a value, wrong type, a parameter out of range.
    pub(super) const NOT_ACCEPTABLE: [i64; 4] = [1, 18, 20, 25];
}

/// What a failed statement asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A guard said no and has rolled back.
    Guard,
    /// A lock was not had in time.
    Busy,
    /// What was sent is not acceptable; the transaction is still open.
    Unacceptable,
    /// Anything else: the connection is done with.
    Broken,
}

impl Fault {
    pub(super) fn of(error: &Error) -> Self {
        match code(error) {
            Some(_) if guard(error).is_some() => Self::Guard,
            Some(code) => match code & 0xff {
                primary::BUSY | primary::LOCKED => Self::Busy,
                primary::CONSTRAINT => Self::Unacceptable,
                code if primary::NOT_ACCEPTABLE.contains(&code) => Self::Unacceptable,
                _ => Self::Broken,
            },
            None if matches!(error, Error::Encode(_) | Error::TypeNotFound { .. }) => Self::Unacceptable,
            None => Self::Broken,
        }
    }

    /// The port's error, where it is certain that nothing was applied.
    pub(super) fn nothing_applied(self, error: &Error) -> LedgerError {
        match self {
            Self::Busy => LedgerError::Contended(error.to_string()),
            Self::Guard | Self::Unacceptable => LedgerError::Refused(error.to_string()),
            Self::Broken => LedgerError::Transient(error.to_string()),
        }
    }
}

/// The name of the guard that said no. Other triggers may raise errors too, without rolling back.
pub(super) fn guard(error: &Error) -> Option<&str> {
    error.as_database_error()?.message().strip_prefix(GUARD_PREFIX)
}

/// SQLite's extended result code.
fn code(error: &Error) -> Option<i64> {
    error.as_database_error()?.code()?.parse().ok()
}

/// Why the file cannot be used.
pub(super) fn store_error(error: &Error) -> StoreError {
    let text = error.to_string();
    match code(error).map(|code| code & 0xff) {
        Some(primary::PERM | primary::READONLY | primary::AUTH) => StoreError::Refused(text),
        Some(primary::CORRUPT | primary::NOTADB) => StoreError::Broken(text),
        Some(code) if primary::NOT_ACCEPTABLE.contains(&code) => StoreError::Broken(text),
        _ => StoreError::Unreachable(text),
    }
}

/// Why a ledger has no connection: nothing was sent.
pub(super) fn no_connection(error: &StoreError) -> LedgerError {
    LedgerError::Unreachable(error.to_string())
}

/// Why facts could not be read.
pub(super) fn transient_facts(error: &Error) -> FactError {
    FactError::Unavailable(error.to_string())
}
