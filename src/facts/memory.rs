//! Facts in this process.

use std::time::Duration;

/// The memory section of the configuration, resolved.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Cards kept, with their limits.
    pub cards_max: usize,
    /// Users kept.
    pub users_max: usize,
    /// How long a fact is believed without asking again. A backstop: the commit finds stale facts anyway.
    pub ttl: Duration,
    /// How long an unknown token stays unknown.
    pub absent_ttl: Duration,
}
