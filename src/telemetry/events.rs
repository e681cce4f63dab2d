//! Everything worth telling, by name. One function is one log line and one metric.

use super::{Recorder, Span, Spans};
use crate::domain::{decision::Decision, reason::Reason};
use std::{sync::Arc, time::Duration};

/// The handle through which the daemon tells what happens. Cheap to clone; one per daemon, none global.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {}

/// Which cache tier was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// In this process.
    Memory,
    /// Redis.
    Redis,
}

/// What a tier answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheResult {
    /// Had it.
    Hit,
    /// Did not have it.
    Miss,
    /// Had it, but of another moment than the rest, or too old.
    Stale,
    /// Failed or was too slow.
    Error,
    /// Was not asked.
    Bypass,
}

/// What became of a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublishOutcome {
    /// The broker has it.
    Confirmed,
    /// No queue takes it.
    Returned,
    /// The broker refused it.
    Nacked,
    /// No confirm in time, or the connection was lost: fate unknown.
    Timeout,
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Settlement {
    /// Acknowledged after its response was confirmed.
    Answered,
    /// Acknowledged after its dead letter was confirmed.
    DeadLettered,
    /// Not acknowledged: the broker will deliver it again.
    Returned,
}

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommitOutcome {
    /// Durable.
    Committed,
    /// A guard failed: decided again.
    Rejected,
    /// A lock or the statement ran out of time.
    Contended,
    /// Deadlock or the like: sent again.
    Transient,
    /// No connection.
    Unreachable,
    /// The answer was lost: sent again until known.
    Unknown,
    /// Not acceptable: the batch is halved.
    Refused,
}

/// What the daemon depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dependency {
    /// PostgreSQL or SQLite.
    Store,
    /// Redis.
    Redis,
    /// RabbitMQ.
    Broker,
}

/// Which of the two broker connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes deliveries, acks.
    Consumer,
    /// Publishes, waits for confirms.
    Publisher,
}

impl Telemetry {
    /// A set of histograms for one writer (a lane, the publisher, the HTTP edge), read together by scrapes.
    #[must_use]
    pub fn recorder(&self) -> Arc<Recorder> {
        Arc::new(Recorder::default())
    }

    /// A request was decided and its answer handed to the edge.
    pub fn decided(&self, decision: Decision, reason: Option<Reason>, spans: &Spans) {
        let _ = (decision, reason, spans);
    }

    /// A known id was answered with its stored bytes.
    pub fn replayed(&self) {}

    /// A known id came with other material fields.
    pub fn conflicted(&self) {}

    /// A body was not a request.
    pub fn invalid_input(&self, reason: Reason, detail: &str) {
        let _ = (reason, detail);
    }

    /// A request carried fields that are not known.
    pub fn unknown_fields(&self, fields: u32) {
        let _ = fields;
    }

    /// `sent_at` was more than a second in the future.
    pub fn clock_skewed(&self, ahead: Duration) {
        let _ = ahead;
    }

    /// A request was late when `span` was reached.
    pub fn deadline_exceeded(&self, span: Span) {
        let _ = span;
    }

    /// An approval was taken back because it could not be sent in time.
    pub fn approval_voided(&self) {}

    /// An approval's fate is unknown: its hold stays, and it is listed in the store.
    pub fn approval_unheard(&self) {}

    /// A request was answered without a decision in the journal, because we could not decide it in time.
    pub fn shed(&self, reason: Reason) {
        let _ = reason;
    }

    /// A batch was committed, or not.
    pub fn committed(&self, outcome: CommitOutcome, decisions: usize, took: Duration) {
        let _ = (outcome, decisions, took);
    }

    /// One decision in a batch was not acceptable to the store.
    pub fn decision_refused(&self, error: &str) {
        let _ = error;
    }

    /// A cache tier answered.
    pub fn cache(&self, tier: Tier, result: CacheResult) {
        let _ = (tier, result);
    }

    /// A cache tier failed.
    pub fn cache_failed(&self, tier: Tier, error: &str) {
        let _ = (tier, error);
    }

    /// A dependency came or went. Logs only when it changed.
    pub fn dependency(&self, dependency: Dependency, up: bool, detail: &str) {
        let _ = (dependency, up, detail);
    }

    /// A delivery arrived.
    pub fn received(&self, redelivered: bool) {
        let _ = redelivered;
    }

    /// A delivery was settled.
    pub fn settled(&self, settlement: Settlement) {
        let _ = settlement;
    }

    /// A message was dead-lettered.
    pub fn dead_lettered(&self, reason: &'static str) {
        let _ = reason;
    }

    /// A publish ended.
    pub fn published(&self, outcome: PublishOutcome) {
        let _ = outcome;
    }

    /// A broker connection was made, made again or lost.
    pub fn broker_connection(&self, role: Role, up: bool, detail: &str) {
        let _ = (role, up, detail);
    }

    /// Work in flight changed.
    pub fn in_flight(&self, jobs: usize) {
        let _ = jobs;
    }
}
