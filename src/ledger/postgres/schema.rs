//! Migrations, and whether they were applied.

use super::{Postgres, StoreError};
use sqlx::{Connection as _, migrate::Migrator};
use std::collections::BTreeMap;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// How the store's schema stands to this program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// It is the one this program was built for.
    Current,
    /// There is none: the database is empty.
    Missing,
    /// Migrations are to be applied.
    Older,
    /// A newer program has migrated it.
    Newer,
}

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
    /// [`StoreError::Failed`] when a migration was changed after it was applied; otherwise the store could not be read.
    pub async fn schema(&self) -> Result<SchemaState, StoreError> {
        let there: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null").fetch_one(&self.administration).await?;
        if !there {
            return Ok(SchemaState::Missing);
        }
        let rows: Vec<(i64, Vec<u8>)> =
            sqlx::query_as("select version, checksum from _sqlx_migrations where success").fetch_all(&self.administration).await?;
        let applied: BTreeMap<i64, Vec<u8>> = rows.into_iter().collect();
        if applied.is_empty() {
            return Ok(SchemaState::Missing);
        }
        if applied.keys().any(|version| !MIGRATIONS.version_exists(*version)) {
            return Ok(SchemaState::Newer);
        }
        for migration in MIGRATIONS.iter() {
            match applied.get(&migration.version) {
                None => return Ok(SchemaState::Older),
                Some(checksum) if *checksum != *migration.checksum => {
                    return Err(StoreError::Failed(format!("migration {} was changed after it was applied", migration.version)));
                }
                Some(_) => {}
            }
        }
        Ok(SchemaState::Current)
    }
}
