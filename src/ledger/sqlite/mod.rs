//! The ledger on SQLite: one string of statements commits a batch under BEGIN IMMEDIATE.
//!
//! SQLite has one writer at a time and no row locks, so a batch that has begun sees everything and is disturbed by nobody:
//! nothing is ever busy in a [`Report`](super::Report). Reading facts and committing do not wait for each other
//! (write-ahead log). Any other program may read and write the file at the same time by plain SQL.
//!
//! **Invariant**: a connection that may be inside a transaction is never used again. It is closed, which rolls back.

mod administration;
mod arguments;
mod commit;
mod connect;
mod error;
mod facts;
mod group;
mod inspect;
mod lock;
mod news;
mod settings;
mod statements;
mod void;

pub use administration::SqliteSession;
pub use commit::SqliteLedger;
pub use inspect::Inspection;
pub use news::SqliteNews;
pub use settings::Settings;

use self::{connect::Door, error::store_error, lock::DaemonLock};
use super::{
    Store,
    store::{SchemaState, StoreError},
};
use crate::telemetry::Telemetry;
use sqlx::{Row, SqliteConnection, SqlitePool, migrate::Migrator};
use std::sync::Arc;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// A database file. Clones share it.
#[derive(Clone, Debug)]
pub struct Sqlite {
    door: Arc<Door>,
    readers: SqlitePool,
    /// Who is told how long facts waited for a connection.
    telemetry: Option<Telemetry>,
    /// Held until the last clone is gone; `None` for visitors.
    _lock: Option<Arc<DaemonLock>>,
}

impl Sqlite {
    /// Opens the file for a daemon, creating it when missing: no second daemon can open it until every clone is gone or
    /// the process has ended, however it ended.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another daemon has it, otherwise as [`Sqlite::visit`].
    pub async fn open(settings: &Settings) -> Result<Self, StoreError> {
        let lock = DaemonLock::take(&settings.path)?;
        Ok(Self { _lock: Some(Arc::new(lock)), ..Self::visit(settings).await? })
    }

    /// Opens the file beside a daemon that may be running on it, for tools: migrating, seeding, proving. Creates it when missing.
    ///
    /// # Errors
    /// [`StoreError`] when the file cannot be opened or is not a database.
    pub async fn visit(settings: &Settings) -> Result<Self, StoreError> {
        let door = Door::new(settings);
        // The first writer creates the file and turns write-ahead logging on, which readers cannot do.
        door.close(door.writer().await?).await;
        let readers = door.readers();
        Ok(Self { door: Arc::new(door), readers, telemetry: None, _lock: None })
    }

    /// Applies the migrations that are missing.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when a migration was edited or fails, otherwise as [`Sqlite::writer`].
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        let migrated = MIGRATIONS.run_direct(None, &mut writer, false).await;
        self.door.close(writer).await;
        migrated.map_err(|error| match error {
            sqlx::migrate::MigrateError::Execute(error) => store_error(&error),
            other => StoreError::Broken(other.to_string()),
        })
    }

    /// Compares the file's schema with this build's.
    ///
    /// # Errors
    /// As [`SchemaState::compare`], or when the file cannot be read.
    pub async fn schema(&self) -> Result<SchemaState, StoreError> {
        let table = "select count(*) from sqlite_schema where type = 'table' and name = '_sqlx_migrations'";
        let tables: i64 = sqlx::query_scalar(table).fetch_one(&self.readers).await.map_err(|error| store_error(&error))?;
        if tables == 0 {
            return Ok(SchemaState::Missing);
        }
        let applied = sqlx::query_as::<_, (i64, Vec<u8>)>("select version, checksum from _sqlx_migrations order by version")
            .fetch_all(&self.readers)
            .await
            .map_err(|error| store_error(&error))?;
        SchemaState::compare(&MIGRATIONS, &applied)
    }

    /// A ledger with a writing connection of its own, which it opens on first use.
    #[must_use]
    pub fn ledger(&self) -> SqliteLedger {
        SqliteLedger::new(Arc::clone(&self.door))
    }

    /// A writing connection for administration by plain SQL. It waits for commits, and commits wait for its transactions.
    ///
    /// # Errors
    /// [`StoreError`] when the file cannot be opened.
    pub async fn writer(&self) -> Result<SqliteConnection, StoreError> {
        self.door.writer().await
    }

    /// What a commit survives, as the database itself states it: `journal_mode=wal synchronous=full wal_autocheckpoint=8000`.
    ///
    /// # Errors
    /// [`StoreError`] when the file cannot be opened.
    pub async fn durability(&self) -> Result<String, StoreError> {
        let mut writer = self.writer().await?;
        let stated = sqlx::query(
            "select 'journal_mode=' || (select journal_mode from pragma_journal_mode)
                 || ' synchronous=' || (select case synchronous when 0 then 'off' when 1 then 'normal' when 2 then 'full' else 'extra' end
                                          from pragma_synchronous)",
        )
        .fetch_one(&mut writer)
        .await
        .and_then(|row| row.try_get::<String, _>(0));
        let pages = sqlx::query_scalar::<_, i64>("pragma wal_autocheckpoint").fetch_one(&mut writer).await;
        self.door.close(writer).await;
        let (stated, pages) = (stated.map_err(|error| store_error(&error))?, pages.map_err(|error| store_error(&error))?);
        Ok(format!("{stated} wal_autocheckpoint={pages}"))
    }
}

impl Store for Sqlite {
    type Ledger = SqliteLedger;
    const NAME: &'static str = "sqlite";
    /// Nobody else waits for the lock of the one writer, and much of a commit costs the same for a few decisions and for many.
    const BATCH_MAX: usize = 256;

    fn ledger(&self) -> SqliteLedger {
        self.ledger()
    }

    async fn schema(&self) -> Result<SchemaState, StoreError> {
        self.schema().await
    }

    async fn durability(&self) -> Result<String, StoreError> {
        self.durability().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("select 1").execute(&self.readers).await.map_err(|error| store_error(&error))?;
        Ok(())
    }
}
