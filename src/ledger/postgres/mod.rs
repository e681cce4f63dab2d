//! The ledger on PostgreSQL: a PL/pgSQL function commits a group in one round trip, another one a single decision for less.
//!
//! [`Postgres`] reads facts and serves administration through pools; each lane takes its own [`PgLedger`] with a connection that
//! nothing else waits for. The guards are in `migrations/postgres/0005_lean_commit.sql`, what makes them exact in `0002_facts.sql`.
//!
//! **Invariant**: a connection whose last call did not end in a definite answer is never used again, and its backend is gone
//! before the next call is sent. So a call that was given up cannot be applied later.

mod administration;
mod commit;
mod connection;
mod create;
mod error;
mod facts;
mod inspect;
mod lane;
mod news;
mod report;
mod schema;
mod settings;
mod single;
#[cfg(test)]
mod tests;

pub use administration::PgSession;
pub use create::create_database;
pub use inspect::Inspection;
pub use lane::PgLedger;
pub use news::PgNews;
pub use settings::Settings;

use super::{SchemaState, Store, StoreError};
use crate::telemetry::Telemetry;
use connection::Server;
use parking_lot::Mutex;
use sqlx::{
    PgConnection,
    postgres::{PgPool, PgPoolOptions},
};
use std::{fmt, sync::Arc};
use tokio::time::timeout;

/// Connections that administration may open at once.
const ADMINISTRATION_CONNECTIONS_MAX: u32 = 4;

/// What the server promises about a commit that it acknowledged, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durability {
    /// `on` when commits reach the disk at all.
    pub fsync: String,
    /// What a commit of the ledger waits for; never `off`, whatever the server's default is.
    pub synchronous_commit: String,
    /// `on` when a torn page can be repaired.
    pub full_page_writes: String,
}

/// A PostgreSQL store: cheap to clone, all clones share the pools.
#[derive(Clone, Debug)]
pub struct Postgres {
    server: Arc<Server>,
    facts: PgPool,
    administration: PgPool,
    /// The connection of [`Store::ping`], while none is under way.
    asked: Arc<Mutex<Option<PgConnection>>>,
    durability: Durability,
    version: u32,
    /// Who is told how long facts waited for a connection.
    telemetry: Option<Telemetry>,
}

impl Postgres {
    /// Connects once, to learn about the server and to fail early, and prepares the pools.
    ///
    /// # Errors
    /// [`StoreError`] tells a server that cannot be reached from one that refuses us.
    pub async fn connect(settings: &Settings) -> Result<Self, StoreError> {
        let server = Arc::new(Server::new(settings)?);
        let session = server.open().await?;
        let pool = |max: u32| {
            PgPoolOptions::new()
                .max_connections(max)
                .acquire_timeout(settings.connect_timeout)
                .idle_timeout(settings.idle_timeout)
                .test_before_acquire(false)
        };
        Ok(Self {
            facts: pool(settings.pool_max).min_connections(settings.pool_min).connect_lazy_with(server.facts_options()),
            administration: pool(ADMINISTRATION_CONNECTIONS_MAX).connect_lazy_with(server.administration_options()),
            asked: Arc::default(),
            durability: session.durability,
            version: session.version,
            telemetry: None,
            server,
        })
    }

    /// A ledger for one lane. It connects on first use.
    #[must_use]
    pub fn ledger(&self) -> PgLedger {
        PgLedger::new(Arc::clone(&self.server))
    }

    /// Connections for administration by plain SQL, with the server's own planner settings. Statements end after
    /// `query_timeout`; a longer one says `set local statement_timeout = 0` first.
    #[must_use]
    pub const fn pool(&self) -> &PgPool {
        &self.administration
    }

    /// How durable an acknowledged commit is.
    #[must_use]
    pub const fn durability(&self) -> &Durability {
        &self.durability
    }

    /// The server's version as a number: 150020 is 15.20.
    #[must_use]
    pub const fn server_version(&self) -> u32 {
        self.version
    }
}

impl Store for Postgres {
    type Ledger = PgLedger;
    const NAME: &'static str = "postgresql";
    /// Larger groups would be committed in less time per decision, but hold locks that other writers wait for beyond 5 ms.
    const BATCH_MAX: usize = 64;

    fn ledger(&self) -> PgLedger {
        self.ledger()
    }

    async fn schema(&self) -> Result<SchemaState, StoreError> {
        self.schema().await
    }

    async fn durability(&self) -> Result<String, StoreError> {
        Ok(self.durability.to_string())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        // In a pool's hands, a connection whose ping was given up would be waited for, and its place be lost as long as the server is
        // silent. This one is closed with the ping.
        let kept = self.asked.lock().take();
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.server.open_with(&self.server.administration_options()).await?,
        };
        let answer = timeout(self.server.answer_timeout(), sqlx::query("select 1").execute(&mut connection)).await;
        answer.map_err(|_| StoreError::Unreachable("no answer in time".to_owned()))??;
        *self.asked.lock() = Some(connection);
        Ok(())
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fsync, synchronous_commit, full_page_writes } = self;
        write!(f, "fsync={fsync} synchronous_commit={synchronous_commit} full_page_writes={full_page_writes}")
    }
}
