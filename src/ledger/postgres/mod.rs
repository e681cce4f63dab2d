//! The ledger on PostgreSQL: a PL/pgSQL function commits a batch in one round trip.

mod create;
mod settings;

pub use create::create_database;
pub use settings::Settings;

/// Why the store cannot be used, for a person to act on.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nobody answers, or only a server that takes no writes now. It may heal by itself.
    #[error("PostgreSQL cannot be reached: {0}")]
    Unreachable(String),
    /// The server answers and says no: password, role, permission, or no such database.
    #[error("PostgreSQL refuses: {0}")]
    Refused(String),
    /// Anything else.
    #[error("PostgreSQL: {0}")]
    Failed(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let text = error.to_string();
        match &error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => Self::Unreachable(text),
            sqlx::Error::Database(database) => match database.code().as_deref().unwrap_or_default() {
                // 28: authorization, 42501: privilege, 3D000: no such database.
                code if code.starts_with("28") || matches!(code, "42501" | "3D000") => Self::Refused(text),
                // 08: connection, 53300: too many connections, 57P: shutting down, starting, or a standby; 25006: read-only.
                code if code.starts_with("08") || code.starts_with("57P") || matches!(code, "53300" | "25006") => Self::Unreachable(text),
                _ => Self::Failed(text),
            },
            _ => Self::Failed(text),
        }
    }
}

/// Stands in until the real one is merged.
#[derive(Debug)]
pub struct Postgres;

impl Postgres {
    /// Connects.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn connect(settings: &Settings) -> Result<Self, StoreError> {
        Err(StoreError::Failed(format!("not in this build: a pool of {}", settings.pool_max)))
    }

    /// Applies the migrations that are missing.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
