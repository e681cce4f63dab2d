//! What a server says about itself, for a person who asks whether it is set up well.

use super::Postgres;
use crate::ledger::{SchemaState, StoreError};
use sqlx::Row as _;

/// The tables that a daemon reads facts from, and those that it writes.
const PRIVILEGES: &str = "select format('%s on %s', privilege, name) \
    from (values ('select', 'programs'), ('select', 'users'), ('select', 'cards'), ('select', 'limits'), ('select', 'accounts'), \
        ('update', 'accounts'), ('insert', 'authorizations'), ('update', 'authorizations'), ('insert', 'holds'), ('update', 'holds'), \
        ('insert', 'counters'), ('update', 'counters')) as needed (privilege, name) \
    where to_regclass(name) is not null and not has_table_privilege(to_regclass(name), privilege)";

/// Settings as every new session has them, whatever the daemon's own sessions choose.
const SERVER: &str = "select current_setting('server_version') as version, \
    (select reset_val from pg_settings where name = 'fsync') as fsync, \
    (select reset_val from pg_settings where name = 'synchronous_commit') as synchronous_commit, \
    (select reset_val from pg_settings where name = 'full_page_writes') as full_page_writes, \
    current_setting('max_connections')::bigint as connections_max, \
    (extract(epoch from clock_timestamp()) * 1000000)::bigint as clock_us";

/// What a server says.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Its version, in words.
    pub version: String,
    /// How its schema compares with this build's.
    pub schema: SchemaState,
    /// `off`: a crash of its machine can lose and damage everything.
    pub fsync: String,
    /// What a session gets that does not choose. The daemon's own sessions never run with less than `on`.
    pub synchronous_commit: String,
    /// `off`: a crash of its machine can damage pages beyond repair.
    pub full_page_writes: String,
    /// Sessions it takes.
    pub connections_max: i64,
    /// Its clock, microseconds since 1970.
    pub clock_us: i64,
    /// What this user may not do and a daemon has to, as in `update on accounts`.
    pub forbidden: Vec<String>,
}

impl Postgres {
    /// Asks the server about itself. Changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be asked.
    pub async fn inspect(&self) -> Result<Inspection, StoreError> {
        let schema = self.schema().await?;
        let forbidden = sqlx::query_scalar(PRIVILEGES).fetch_all(self.pool()).await?;
        let server = sqlx::query(SERVER).fetch_one(self.pool()).await?;
        Ok(Inspection {
            schema,
            forbidden,
            version: server.try_get("version")?,
            fsync: server.try_get("fsync")?,
            synchronous_commit: server.try_get("synchronous_commit")?,
            full_page_writes: server.try_get("full_page_writes")?,
            connections_max: server.try_get("connections_max")?,
            clock_us: server.try_get("clock_us")?,
        })
    }
}
