//! `jitauth seed`. Stands in until the real one is merged.

use std::{io, path::PathBuf};

/// What `jitauth seed` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct SeedArgs {
    /// Load cards to have in the store, beside the test cards
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub cards: u64,
}

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
    /// Anything else.
    #[error("seeding failed: {0}. What was written so far is whole; run the same command again to go on")]
    Store(#[source] sqlx::Error),
    /// The terminal is gone.
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
}

/// Runs `jitauth seed`.
///
/// # Errors
/// [`Error`].
pub async fn run(args: &SeedArgs, target: &Target) -> Result<(), Error> {
    let kind = if matches!(target, Target::Sqlite { .. }) { "SQLite" } else { "PostgreSQL" };
    Err(Error::Output(io::Error::other(format!("seeding {} cards into {kind} is not in this build", args.cards))))
}
