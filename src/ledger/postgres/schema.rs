//! Migrations, and whether they were applied.

use super::Postgres;
use crate::ledger::{SchemaState, StoreError};
use sqlx::{Connection as _, migrate::Migrator};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

impl Postgres {
    /// Brings the schema up to date, under a lock that keeps other migrators out.
    ///
    /// # Errors
    /// [`StoreError`]; whatever failed was rolled back.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut connection = self.server.open_with(&self.server.migration_options()).await?;
        MIGRATIONS.run(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }

    /// Compares the applied migrations with ours.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when a migration was changed after it was applied; otherwise the store could not be read.
    pub async fn schema(&self) -> Result<SchemaState, StoreError> {
        let there: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null").fetch_one(&self.administration).await?;
        if !there {
            return Ok(SchemaState::Missing);
        }
        let applied: Vec<(i64, Vec<u8>)> = sqlx::query_as("select version, checksum from _sqlx_migrations where success order by version")
            .fetch_all(&self.administration)
            .await?;
        SchemaState::compare(&MIGRATIONS, &applied)
    }
}
