//! What an error of the driver says about the store.

use crate::ledger::{LedgerError, StoreError};
use sqlx::postgres::{PgDatabaseError, PgSeverity};

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let text = error.to_string();
        match &error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => Self::Unreachable(text),
            sqlx::Error::Database(database) => match database.code().as_deref().unwrap_or_default() {
                // 28: authorization, 42501: privilege, 3D000: no such database.
                code if code.starts_with("28") || matches!(code, "42501" | "3D000") => Self::Refused(text),
                // 08: connection, 53300: too many connections, 57P: shutting down, starting, or a standby; 25006: read-only.
                code if code.starts_with("08") || code.starts_with("57P") || matches!(code, "53300" | "25006") => Self::Unreachable(text),
                _ => Self::Broken(text),
            },
            _ => Self::Broken(text),
        }
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        match error {
            sqlx::migrate::MigrateError::Execute(error) | sqlx::migrate::MigrateError::ExecuteMigration(error, _) => error.into(),
            other => Self::Broken(other.to_string()),
        }
    }
}

/// Whether a guard of `jit_commit_one` did not hold: nothing was applied, and nothing is wrong with the server.
pub(super) fn guard_failed(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|database| database.code()).is_some_and(|code| code == "JA001")
}

/// What is known after a statement that was sent failed.
///
/// An error of severity ERROR ends the transaction of the statement, and the statement is a transaction of its own: nothing was
/// applied. Everything else (a backend that dies, a broken connection) leaves it open.
pub(super) fn after_sending(error: &sqlx::Error) -> LedgerError {
    let text = error.to_string();
    let Some(database) = error.as_database_error().and_then(|database| database.try_downcast_ref::<PgDatabaseError>()) else {
        return match error {
            // The driver refused our values before it sent them, or could not read rows of a statement that was done.
            sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) | sqlx::Error::TypeNotFound { .. } => LedgerError::Refused(text),
            _ => LedgerError::Unknown(text),
        };
    };
    if matches!(database.severity(), PgSeverity::Fatal | PgSeverity::Panic) {
        return LedgerError::Unknown(text);
    }
    match database.code() {
        // 55P03: lock_timeout, 57014: statement_timeout or cancelled.
        "55P03" | "57014" => LedgerError::Contended(text),
        // A serialization failure, a deadlock, two transactions inserting the same key.
        "40001" | "40P01" | "23505" => LedgerError::Transient(text),
        // The server became a standby under us; or a migration took a function or a table away, which is not the fault of the group.
        "25006" | "42883" | "42P01" => LedgerError::Unreachable(text),
        // 08: connection, 57P: the server or this backend is going down, 40003: the server itself does not know.
        code if code.starts_with("08") || code.starts_with("57P") || code == "40003" => LedgerError::Unknown(text),
        // 53: out of disk, memory or connections; 58: input or output of the server failed. Not the fault of the group.
        code if code.starts_with("53") || code.starts_with("58") => LedgerError::Transient(text),
        _ => LedgerError::Refused(text),
    }
}
