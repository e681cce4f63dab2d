//! What an operator may set about the HTTP listener.

use std::{fmt, net::SocketAddr, time::Duration};

/// The http section of the configuration, resolved.
#[derive(Clone)]
pub struct Settings {
    /// Where to listen. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Bearer token asked of every request but `/livez`, `/ready` and `/health`; required off loopback. Never logged.
    pub token: Option<String>,
    /// Authorizations in work at once; one more is declined `system_unavailable`.
    pub in_flight_max: usize,
    /// Open connections; further ones wait to be accepted.
    pub connections_max: usize,
    /// How long the head of a request may take to arrive.
    pub header_timeout: Duration,
    /// How long the body of a request may take to arrive.
    pub body_timeout: Duration,
}

/// Secrets stay out.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("listen", &self.listen).field("in_flight_max", &self.in_flight_max).finish_non_exhaustive()
    }
}
