//! Stands in until the real one is merged.

use super::topology::Finding;

/// Why something asked of the broker could not be done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BrokerError {
    /// The URL cannot be used.
    #[error("broker.url is not usable")]
    Address,
    /// No connection.
    #[error("the broker cannot be reached: {0}")]
    Unreachable(String),
    /// The broker does not let us.
    #[error("the broker refuses: {0}")]
    Refused(String),
    /// What is declared is not what is asked for.
    #[error("{0}")]
    Topology(Box<Finding>),
}
