//! RabbitMQ, by way of lapin: takes deliveries, publishes responses, and acks last.
//!
//! **Invariant**: a delivery is acked only after its response, or its dead letter, was confirmed by the broker.

mod error;
mod settings;
pub mod topology;

pub use error::BrokerError;
pub use settings::{QueueType, Settings};
