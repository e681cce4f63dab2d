//! The ledger on PostgreSQL: a PL/pgSQL function commits a batch in one round trip.

mod create;
mod settings;

pub use create::create_database;
pub use settings::Settings;

use super::StoreError;

/// Stands in until the real one is merged.
#[derive(Debug)]
pub struct Postgres;

impl Postgres {
    /// Connects.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn connect(settings: &Settings) -> Result<Self, StoreError> {
        Err(StoreError::Broken(format!("not in this build: a pool of {}", settings.pool_max)))
    }

    /// Applies the migrations that are missing.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
