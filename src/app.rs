//! The wiring. Stands in until the real one is merged.

use crate::config::Config;
use std::future::Future;

/// Why the daemon ended other than well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppError {
    /// A dependency is not there.
    #[error("{what}")]
    Unavailable {
        /// What happened.
        what: String,
        /// What to do.
        next: String,
    },
    /// A dependency refuses us.
    #[error("{what}")]
    Refused {
        /// What happened.
        what: String,
        /// What to do.
        next: String,
    },
    /// Configuration, topology or schema are wrong.
    #[error("{what}")]
    Misconfigured {
        /// What happened.
        what: String,
        /// What to do.
        next: String,
    },
    /// The drain took too long.
    #[error("{what}")]
    DrainTimedOut {
        /// What was left.
        what: String,
    },
    /// An invariant does not hold.
    #[error("{what}")]
    Broken {
        /// What happened.
        what: String,
    },
}

/// Runs the daemon until `shutdown` is ready and everything in flight has ended.
///
/// # Errors
/// Why it could not start or go on.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), AppError> {
    tracing::debug!(event = "ready", profile = config.profile);
    shutdown.await;
    Err(AppError::Broken { what: "the daemon is not in this build".to_owned() })
}
