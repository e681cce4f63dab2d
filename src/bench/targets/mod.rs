//! Where the load goes: a daemon over HTTP, a daemon through RabbitMQ, or the pipeline in this process.

pub mod amqp;
pub mod http;
pub mod inproc;
mod stages;

use super::record::Seat;
use bytes::Bytes;

/// A request on its way out, with the place that its answer is waited for on.
#[derive(Debug)]
pub struct Parcel {
    /// The request.
    pub body: Bytes,
    /// Told when it is sent, and given its answer.
    pub seat: Seat,
}

/// Something that answers requests.
pub trait Target: Send + Sync + 'static {
    /// Sends a request. Called on the thread that keeps the pace, within the runtime: it must not block.
    fn send(&self, parcel: Parcel);
}
