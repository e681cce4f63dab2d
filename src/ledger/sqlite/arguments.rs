//! Parameters, counted: one too few would be bound as NULL, and a guard over NULL would be no guard.

use super::statements::Statements;
use crate::ledger::LedgerError;
use sqlx::{Arguments, Encode, Sqlite, Type, error::BoxDynError, sqlite::SqliteArguments};

/// Statements with their parameters.
pub(super) struct Parameters {
    statements: Statements,
    values: SqliteArguments,
}

impl Parameters {
    pub(super) fn of(statements: Statements) -> Self {
        Self { statements, values: SqliteArguments::default() }
    }

    pub(super) fn text(self, value: &str) -> Result<Self, LedgerError> {
        self.add(value)
    }

    pub(super) fn bytes(self, value: &[u8]) -> Result<Self, LedgerError> {
        self.add(value)
    }

    pub(super) fn integer(self, value: i64) -> Result<Self, LedgerError> {
        self.add(value)
    }

    pub(super) fn count(self, value: usize) -> Result<Self, LedgerError> {
        self.add(i64::try_from(value).map_err(|error| refused(&error.into()))?)
    }

    /// The whole, if it is whole.
    pub(super) fn done(self) -> Result<(Statements, SqliteArguments), LedgerError> {
        let (given, taken) = (self.values.len(), self.statements.parameters);
        if given == taken {
            Ok((self.statements, self.values))
        } else {
            Err(LedgerError::Refused(format!("{given} parameters for statements that take {taken}")))
        }
    }

    fn add<'a>(mut self, value: impl Encode<'a, Sqlite> + Type<Sqlite>) -> Result<Self, LedgerError> {
        self.values.add(value).map_err(|error| refused(&error))?;
        Ok(self)
    }
}

fn refused(error: &BoxDynError) -> LedgerError {
    LedgerError::Refused(error.to_string())
}
