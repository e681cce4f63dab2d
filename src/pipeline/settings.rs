//! What an operator may set about the pipeline.

use std::time::Duration;

/// The pipeline and deadline sections of the configuration, resolved.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Lanes; each is one writer with its own store connection.
    pub lanes: usize,
    /// Decisions in one commit, at least one.
    pub batch_max: usize,
    /// Requests waiting in front of one lane.
    pub lane_queue_max: usize,
    /// Requests in the pipeline at once, all lanes and edges together.
    pub in_flight_max: usize,
    /// Accounts in one lane's book.
    pub book_accounts_max: usize,
    /// Counters in one lane's book.
    pub book_counters_max: usize,
    /// Deadline of a request that names none.
    pub deadline_default: Duration,
    /// Taken off every deadline for the way back.
    pub deadline_reserve: Duration,
    /// How long before its deadline a request that waits behind a stuck commit is declined `system_unavailable`.
    pub shed_before: Duration,
    /// How often facts are asked for again when the store fails.
    pub fact_tries: usize,
    /// How long a drain may take before the process gives up (exit 75).
    pub drain_timeout: Duration,
}
