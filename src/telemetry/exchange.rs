//! What is told about the exchange for events.

use super::{
    Telemetry,
    events::{EventOutcome, Path},
};

impl Telemetry {
    /// An event came in that says what has changed.
    pub fn event_received(&self, kind: &'static str) {
        self.metrics().broker.events.inc(EventOutcome::Accepted as usize);
        tracing::debug!(event = "event_received", kind, "facts are said to have changed");
    }

    /// An event came in that is none.
    pub fn event_refused(&self, error: &str) {
        self.metrics().broker.events.inc(EventOutcome::Refused as usize);
        if let Some(count) = self.event_trouble().pass() {
            tracing::warn!(event = "events_refused", count, error, "events that are none were ignored; mend their sender");
        }
    }

    /// An event was told, or `why` it was not.
    pub fn event_published(&self, kind: &'static str, why: Option<&str>) {
        let outcome = if why.is_none() { EventOutcome::Sent } else { EventOutcome::Dropped };
        self.metrics().broker.events.inc(outcome as usize);
        tracing::debug!(event = "event_published", kind, outcome = outcome.name(), why);
    }

    /// Events are heard from now on, or are not any more.
    pub fn events_heard(&self, heard: bool, why: &str) {
        self.news_live(Path::Events, heard);
        if heard {
            tracing::info!(event = "events_heard", "listening to events about cards, users and limits");
        } else if let Some(count) = self.event_trouble().pass() {
            tracing::warn!(event = "events_not_heard", count, why, "events cannot be listened to; it is tried again");
        }
    }
}
