//! How connections to the file are opened.

use super::{error::store_error, settings::Settings};
use crate::ledger::store::StoreError;
use sqlx::{
    ConnectOptions, Connection, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::time::Duration;

/// How long a reader waits for its turn when all connections read.
const READER_WAIT_MAX: Duration = Duration::from_secs(5);
/// Page cache of the writer, in KiB.
const WRITER_CACHE_KIB: u32 = 65_536;
/// What a write-ahead log is cut down to after a checkpoint has emptied it, in bytes.
const LOG_KEPT_BYTES: u32 = 64 << 20;

/// A broken guard rolls back at once and names itself, so that a batch needs no second call to be undone. The view stores
/// nothing and is the connection's own: other programs do not see it. A missing value counts as broken.
const GUARD: &str = "
create temp view guard (what, bad) as select null, null where false;
create temp trigger guard_refuses instead of insert on guard when new.bad is not 0 begin
  select raise(rollback, 'guard: ' || new.what);
end";

/// How a broken guard's message begins.
pub(super) const GUARD_PREFIX: &str = "guard: ";

/// Opens connections, all alike.
#[derive(Debug)]
pub(super) struct Door {
    options: SqliteConnectOptions,
    readers: u32,
    /// Bound for opening: the lock may have to be waited for, twice at worst.
    open_max: Duration,
}

impl Door {
    pub(super) fn new(settings: &Settings) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(&settings.path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(settings.busy_timeout)
            .pragma("wal_autocheckpoint", settings.autocheckpoint_pages.to_string())
            .pragma("temp_store", "memory")
            .disable_statement_logging();
        Self { options, readers: settings.readers.max(1), open_max: settings.busy_timeout * 2 + Duration::from_secs(1) }
    }

    /// A writing connection.
    pub(super) async fn writer(&self) -> Result<SqliteConnection, StoreError> {
        let options = self
            .options
            .clone()
            .create_if_missing(true)
            .pragma("cache_size", format!("-{WRITER_CACHE_KIB}"))
            .pragma("journal_size_limit", LOG_KEPT_BYTES.to_string());
        let opening = async {
            let mut writer = SqliteConnection::connect_with(&options).await?;
            sqlx::raw_sql(GUARD).execute(&mut writer).await?;
            Ok::<_, sqlx::Error>(writer)
        };
        match tokio::time::timeout(self.open_max, opening).await {
            Ok(opened) => opened.map_err(|error| store_error(&error)),
            Err(_) => Err(self.late()),
        }
    }

    /// The pool that facts are read through. Connects on first use.
    pub(super) fn readers(&self) -> SqlitePool {
        SqlitePoolOptions::new()
            .max_connections(self.readers)
            .acquire_timeout(READER_WAIT_MAX)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_lazy_with(self.reading())
    }

    /// A reading connection outside of the pool.
    pub(super) async fn reader(&self) -> Result<SqliteConnection, StoreError> {
        let options = self.reading();
        let opening = SqliteConnection::connect_with(&options);
        match tokio::time::timeout(self.open_max, opening).await {
            Ok(opened) => opened.map_err(|error| store_error(&error)),
            Err(_) => Err(self.late()),
        }
    }

    fn reading(&self) -> SqliteConnectOptions {
        self.options.clone().read_only(true)
    }

    fn late(&self) -> StoreError {
        StoreError::Unreachable(format!("{} could not be opened in time", self.options.get_filename().display()))
    }

    /// Closes a connection and waits until its transaction, if any, is undone.
    pub(super) async fn close(&self, connection: SqliteConnection) {
        if let Err(error) = connection.close().await {
            tracing::debug!(event = "sqlite_close_failed", %error, "a connection was not closed in good order");
        }
    }
}
