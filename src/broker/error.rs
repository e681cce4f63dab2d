//! What can go wrong with a broker before there is a daemon to heal it.

use super::topology::Finding;
use lapin::{
    ErrorKind,
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
};

/// Why something asked of the broker could not be done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BrokerError {
    /// The URL cannot be used. It is not quoted, because it holds the password.
    #[error("broker.url is not usable: expected amqp://user:password@host:port/vhost, with %2f for the vhost /")]
    Address,
    /// No connection, or it was lost on the way.
    #[error("the broker cannot be reached: {0}")]
    Unreachable(String),
    /// The broker answers, and does not let us: wrong password, missing vhost or permission.
    #[error("the broker refuses: {0}; check user, password, vhost and permissions")]
    Refused(String),
    /// What is declared at the broker is not what is asked for.
    #[error("{0}")]
    Topology(Box<Finding>),
}

impl From<lapin::Error> for BrokerError {
    fn from(error: lapin::Error) -> Self {
        match amqp_kind(&error) {
            Some(AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)) => {
                Self::Refused(error.to_string())
            }
            _ => Self::Unreachable(error.to_string()),
        }
    }
}

/// The broker's own error in `error`, where it sent one.
pub(super) fn amqp_kind(error: &lapin::Error) -> Option<&AMQPErrorKind> {
    match error.kind() {
        ErrorKind::ProtocolError(amqp) => Some(amqp.kind()),
        _ => None,
    }
}

/// Whether the broker closed only the channel, because of what was asked on it.
pub(super) fn refused_on_channel(error: &lapin::Error) -> bool {
    matches!(
        amqp_kind(error),
        Some(AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED | AMQPSoftError::NOTFOUND | AMQPSoftError::PRECONDITIONFAILED))
    )
}
