//! Stands in until the real one is merged.

use super::{BrokerError, Settings};

/// Something about the topology that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which exchange or queue.
    pub object: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with an exchange or a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It does not exist.
    Missing,
    /// It exists with other arguments.
    Differs(String),
    /// It exists, and this user may not look further. Not in the way of a start.
    Unverified(String),
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {:?}", self.object, self.problem)
    }
}

/// Compares.
///
/// # Errors
/// Why the broker could not be asked.
pub async fn check(settings: &Settings) -> Result<Vec<Finding>, BrokerError> {
    Err(BrokerError::Unreachable(format!("not in this build: {}", settings.exchange)))
}

/// Declares.
///
/// # Errors
/// What could not be declared.
pub async fn apply(settings: &Settings) -> Result<(), BrokerError> {
    check(settings).await.map(drop)
}
