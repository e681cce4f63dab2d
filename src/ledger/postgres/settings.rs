//! What an operator may set about PostgreSQL.

use std::{fmt, time::Duration};

/// The postgres section of the configuration, resolved.
#[derive(Clone)]
pub struct Settings {
    /// `postgres://` URL. Never logged.
    pub url: String,
    /// Connections the facts pool keeps open.
    pub pool_min: u32,
    /// Connections the facts pool may open.
    pub pool_max: u32,
    /// How long a connection attempt may take.
    pub connect_timeout: Duration,
    /// After how long an unused pool connection is closed.
    pub idle_timeout: Duration,
    /// How long a statement outside of the hot path may take.
    pub query_timeout: Duration,
    /// How long a commit may take in the server.
    pub commit_timeout: Duration,
    /// How long a commit waits for a lock; well below the server's `deadlock_timeout`.
    pub lock_timeout: Duration,
}

/// Secrets stay out.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("pool_max", &self.pool_max)
            .field("commit_timeout", &self.commit_timeout)
            .field("lock_timeout", &self.lock_timeout)
            .finish_non_exhaustive()
    }
}
