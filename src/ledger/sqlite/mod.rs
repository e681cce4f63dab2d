//! The ledger on SQLite: one string of statements commits a batch under BEGIN IMMEDIATE.

mod settings;

pub use settings::Settings;

use super::StoreError;

/// Stands in until the real one is merged.
#[derive(Debug)]
pub struct Sqlite;

impl Sqlite {
    /// Opens the file beside a daemon that may be running on it.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn visit(settings: &Settings) -> Result<Self, StoreError> {
        Err(StoreError::Broken(format!("not in this build: {}", settings.path.display())))
    }

    /// Applies the migrations that are missing.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
