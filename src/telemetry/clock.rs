//! The wall clock, as reports and events tell it.
#![expect(clippy::disallowed_methods, reason = "reports and events are told by the wall clock, and last by a steady one")]

use crate::domain::time::Timestamp;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The time of day, by the machine.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Now, by a clock that nobody sets.
pub(super) fn instant() -> Instant {
    Instant::now()
}

/// An instant in UTC with milliseconds, `2026-03-04T10:15:07.114Z`.
pub(super) fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.0).map_or_else(|_| "unknown".to_owned(), |at| format!("{at:.3}"))
}
