//! Sample rows: programs, the test cards, and as many load cards as wanted. `jitauth seed` writes them; load is made of them.
//!
//! The same number of cards and seed make the same rows in PostgreSQL and in SQLite (but for versions), and what is there stays
//! as it is. Row ids: [`ids`].

pub mod ids;
pub mod load;
pub mod plan;
mod postgres;
pub mod programs;
pub mod rows;
#[cfg(test)]
pub(crate) mod simulation;
mod sqlite;
pub mod test_cards;
#[cfg(test)]
mod tests;

pub use plan::Plan;
pub use test_cards::{Sample, TEST_CARDS, TestCard};

use rows::Counts;
use sqlx::{Connection, SqliteConnection};
use std::{io, path::PathBuf};

/// 2026-01-01T00:00:00Z, microseconds: when the opening balances were posted. Fixed, so that a seeding does not depend on its day.
const POSTED_AT: i64 = 1_767_225_600_000_000;

/// The store to seed.
#[derive(Clone)]
pub enum Target {
    /// A PostgreSQL database.
    Postgres {
        /// `postgres://` URL. Never printed.
        url: String,
    },
    /// A SQLite file that exists.
    Sqlite {
        /// The file.
        path: PathBuf,
    },
}

/// Why the store was not seeded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or no such file.
    #[error("the store cannot be reached: {0}. Check that it runs and where the configuration points, then seed again")]
    Unreachable(#[source] sqlx::Error),
    /// The store let us in but forbids this.
    #[error("the store refuses: {0}. Seed with a user that may write to its tables")]
    Refused(#[source] sqlx::Error),
    /// The tables are missing or others than this version knows.
    #[error("the store has no schema, or one of another version: {0}. Run `jitauth migrate`, then seed again")]
    Schema(#[source] sqlx::Error),
    /// Anything else; the batch that failed left nothing behind, and seeding again goes on where this ended.
    #[error("seeding failed: {0}. What was written so far is whole; run the same command again to go on")]
    Store(#[source] sqlx::Error),
    /// The terminal is gone.
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let database = error.as_database_error();
        let (code, message) = (database.and_then(|e| e.code()).unwrap_or_default(), database.map(|e| e.message()).unwrap_or_default());
        // SQLite has one code for a missing table and for much else: only the text tells.
        let schema = matches!(code.as_ref(), "42P01" | "42703") || message.contains("no such table") || message.contains("has no column");
        let refused = matches!(code.as_ref(), "42501" | "28000" | "28P01") || message.contains("readonly database");
        match error {
            error if schema => Self::Schema(error),
            error if refused => Self::Refused(error),
            error @ (sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Configuration(_)) => Self::Unreachable(error),
            error => Self::Store(error),
        }
    }
}

impl Error {
    /// The exit code that tells a script what to do.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable(_) => 69,
            Self::Refused(_) => 77,
            Self::Schema(_) => 78,
            Self::Store(_) | Self::Output(_) => 1,
        }
    }
}

/// What a seeding came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seeded {
    /// Rows in the plan.
    pub planned: Counts,
    /// Rows that were not there before.
    pub written: Counts,
}

enum Store {
    Postgres(Box<postgres::Writer>),
    Sqlite(SqliteConnection),
}

impl Store {
    async fn open(target: &Target) -> Result<Self, Error> {
        let opened = match target {
            Target::Postgres { url } => postgres::Writer::open(url).await.map(|writer| Self::Postgres(Box::new(writer))),
            Target::Sqlite { path } => sqlite::open(path).await.map(Self::Sqlite),
        };
        opened.map_err(|error| match Error::from(error) {
            Error::Store(error) => Error::Unreachable(error),
            other => other,
        })
    }

    async fn write(&mut self, batch: rows::Batch) -> Result<Counts, Error> {
        match self {
            Self::Postgres(writer) => Ok(writer.write(batch, POSTED_AT).await?),
            Self::Sqlite(connection) => sqlite::write(connection, &batch, POSTED_AT).await,
        }
    }

    async fn finish(self) -> Result<Counts, Error> {
        match self {
            Self::Postgres(writer) => Ok(writer.finish().await?),
            Self::Sqlite(connection) => {
                connection.close().await?;
                Ok(Counts::default())
            }
        }
    }
}

/// Writes a plan into a store. `progress` is told after each batch how many load cards have been dealt with.
///
/// # Errors
/// [`Error`] says what to do. Batches before the one that failed stay.
pub async fn write(plan: Plan, target: &Target, mut progress: impl FnMut(u64)) -> Result<Seeded, Error> {
    let mut store = Store::open(target).await?;
    let mut seeded = Seeded::default();
    for (nth, batch) in (0..).zip(plan.batches()) {
        seeded.planned += batch.counts();
        seeded.written += store.write(batch).await?;
        progress(plan.cards().min(nth * plan::BATCH_CARDS));
    }
    seeded.written += store.finish().await?;
    Ok(seeded)
}
