//! Facts in Redis.

use std::time::Duration;

/// The redis section of the configuration, resolved.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `redis://` or `rediss://` URL. Never logged.
    pub url: String,
    /// How long a command may take before the store is asked instead.
    pub command_timeout: Duration,
    /// How long a connection attempt may take.
    pub connect_timeout: Duration,
    /// How long a user is kept.
    pub user_ttl: Duration,
    /// How long a card is kept.
    pub card_ttl: Duration,
    /// How long a card's limits are kept.
    pub limits_ttl: Duration,
}
