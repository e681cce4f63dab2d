//! Why the daemon does not run, and what a person does about it.

use crate::{broker::BrokerError, ledger::StoreError};

/// Why the daemon ended other than well. Each kind has its exit code.
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

impl From<BrokerError> for AppError {
    fn from(error: BrokerError) -> Self {
        let what = error.to_string();
        match error {
            BrokerError::Unreachable(_) => {
                Self::Unavailable { what, next: "start RabbitMQ, or mend `broker.url` (JITAUTH_BROKER__URL)".to_owned() }
            }
            BrokerError::Refused(_) => {
                Self::Refused { what, next: "mend the user, its password or its permissions on the vhost".to_owned() }
            }
            BrokerError::Address | BrokerError::Topology(_) => {
                Self::Misconfigured { what, next: "mend the broker section of the configuration".to_owned() }
            }
        }
    }
}

impl From<StoreError> for AppError {
    fn from(error: StoreError) -> Self {
        let what = error.to_string();
        match error {
            StoreError::Unreachable(_) => {
                Self::Unavailable { what, next: "start the store, or mend JITAUTH_POSTGRES__URL or JITAUTH_SQLITE__PATH".to_owned() }
            }
            StoreError::Locked { .. } => {
                Self::Unavailable { what, next: "stop that daemon, or give this one its own `sqlite.path`".to_owned() }
            }
            StoreError::Refused(_) => Self::Refused { what, next: "mend the user's password or permissions".to_owned() },
            StoreError::Broken(_) => {
                Self::Misconfigured { what, next: "restore the store from a backup, or migrate a fresh one".to_owned() }
            }
        }
    }
}
