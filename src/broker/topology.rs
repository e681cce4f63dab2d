//! Stands in until the real one is merged.

use super::Settings;

/// Why the topology is not as it should be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TopologyError {
    /// The broker does not answer.
    #[error("the broker cannot be reached: {0}")]
    Unreachable(String),
    /// The broker refuses us.
    #[error("the broker refuses: {0}")]
    Refused(String),
    /// Something is missing or was declared in another way.
    #[error("the topology is wrong: {0}")]
    Mismatch(String),
}

/// Compares.
///
/// # Errors
/// What differs.
pub async fn check(settings: &Settings) -> Result<(), TopologyError> {
    Err(TopologyError::Unreachable(format!("not in this build: {}", settings.exchange)))
}

/// Declares.
///
/// # Errors
/// What could not be declared.
pub async fn apply(settings: &Settings) -> Result<(), TopologyError> {
    check(settings).await
}
