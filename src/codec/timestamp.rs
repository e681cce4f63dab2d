//! RFC 3339 instants.

use crate::domain::time::Timestamp;

/// Writes an instant.
#[must_use]
pub fn format(at: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.0).map_or_else(|_| at.0.to_string(), |at| format!("{at:.3}"))
}
