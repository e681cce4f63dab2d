//! What an operator may set about the broker.

use std::{fmt, time::Duration};

/// How queues are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueType {
    /// Replicated log; delivers after the fsync.
    Quorum,
    /// Single copy; delivers before the fsync.
    Classic,
}

/// The broker section of the configuration, resolved.
#[derive(Clone)]
pub struct Settings {
    /// `amqp://` or `amqps://` URL with user, password and vhost. Never logged.
    pub url: String,
    /// How the queues are declared.
    pub queue_type: QueueType,
    /// Exchange that requests, responses and dead letters go through.
    pub exchange: String,
    /// Exchange for events.
    pub events_exchange: String,
    /// Queue that authorization requests are taken from.
    pub request_queue: String,
    /// Queue that takes answers to requests without a `reply_to`.
    pub response_queue: String,
    /// Queue that takes dead letters of `request_queue`.
    pub dead_letter_queue: String,
    /// Queue of the life cycle (declared, not consumed yet).
    pub transaction_queue: String,
    /// Queue of the processor adapters (declared, not consumed yet).
    pub webhook_queue: String,
    /// What `reply_to` must begin with.
    pub reply_to_allowed: Vec<String>,
    /// Deliveries held unacknowledged at once.
    pub prefetch: u16,
    /// Publishes waiting for their confirm at once.
    pub confirms_max: usize,
    /// How long an answered delivery may wait for others to be acked with it.
    pub ack_within: Duration,
    /// How long a confirm may take before its publish counts as of unknown fate.
    pub confirm_timeout: Duration,
    /// How long a connection attempt may take.
    pub connect_timeout: Duration,
    /// Heartbeat interval; a silent peer is dead after two.
    pub heartbeat: Duration,
    /// Longest pause between attempts to reconnect.
    pub reconnect_max: Duration,
}

/// Secrets stay out.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("request_queue", &self.request_queue).field("prefetch", &self.prefetch).finish_non_exhaustive()
    }
}
