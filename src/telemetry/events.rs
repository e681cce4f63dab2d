//! Everything worth telling, by name. One function is one log line and one metric.
//!
//! Lines above `debug` are for an operator to act on; what can happen thousands of times a second is throttled and says how often it
//! happened. Per request there is one line, at `debug`.

pub use super::labels::{
    BreakerState, CacheResult, Cause, ChangeKind, CommitOutcome, Dependency, EventOutcome, Level, Path, PublishOutcome, RedisCommand, Role,
    Settlement, Tier,
};

use super::{
    Answered, LatencyAlert, Readiness, Recorder, Settings, Span, Spans, alerts::Alerts, clock, metrics::Metrics, slowest::Slowest,
    throttle::Throttle,
};
use crate::domain::{decision::Decision, reason::Reason};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::mpsc;

/// Between two lines about the same trouble.
const REPEAT_AFTER: Duration = Duration::from_secs(10);
/// The queue that is named in metrics unless [`Telemetry::new`] says otherwise.
const DEFAULT_QUEUE: &str = "jit-funding-queue";

/// The handle through which the daemon tells what happens. Cheap to clone; one per daemon, none global.
#[derive(Clone, Debug)]
pub struct Telemetry {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) metrics: Arc<Metrics>,
    alerts: Alerts,
    pub(super) slowest: Slowest,
    /// Whether the role was ever connected, by role: only then another connection is a reconnect.
    connected_once: [AtomicBool; Role::ALL.len()],
    /// When what `up` says of a dependency began, microseconds.
    pub(super) dependency_since: [AtomicI64; Dependency::ALL.len()],
    pub(super) commits_begun: AtomicU64,
    cache_trouble: Throttle,
    commit_trouble: Throttle,
    dead_letter_trouble: Throttle,
    unheard_trouble: Throttle,
    shed_trouble: Throttle,
    event_trouble: Throttle,
    news_trouble: Throttle,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new(None, &Settings::default())
    }
}

impl Telemetry {
    /// Telemetry of a daemon that takes its requests from this queue; the name only labels metrics.
    #[must_use]
    pub fn new(queue: Option<&str>, settings: &Settings) -> Self {
        let throttle = || Throttle::new(REPEAT_AFTER);
        let inner = Inner {
            metrics: Arc::new(Metrics::new(queue.unwrap_or(DEFAULT_QUEUE))),
            alerts: Alerts::new(settings.alerts),
            slowest: Slowest::new(settings.report.slowest_max),
            connected_once: Default::default(),
            dependency_since: Default::default(),
            commits_begun: AtomicU64::new(0),
            cache_trouble: throttle(),
            commit_trouble: throttle(),
            dead_letter_trouble: throttle(),
            unheard_trouble: throttle(),
            shed_trouble: throttle(),
            event_trouble: throttle(),
            news_trouble: throttle(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Whether the daemon is ready, by named checks; also shown as `jitauth_ready` and `jitauth_draining`.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.metrics().readiness.clone()
    }

    /// A set of histograms for one writer (a lane, the publisher, the HTTP edge), read together by scrapes.
    #[must_use]
    pub fn recorder(&self) -> Arc<Recorder> {
        self.metrics().recorders.add()
    }

    /// This dependency will be used: its `up` shows as 0 until it reports. Unused ones are not shown at all.
    pub fn expects(&self, dependency: Dependency) {
        let metrics = self.metrics();
        self.inner.dependency_since[dependency as usize].store(clock::now().0, Relaxed);
        metrics.dependency_up.set(dependency as usize, 0);
        if dependency == Dependency::Broker {
            for role in Role::ALL {
                metrics.broker.connection_up.set(*role as usize, 0);
                metrics.broker.connection_blocked.set(*role as usize, 0);
            }
        }
    }

    /// Shows `dropped`, where the log writer counts the lines it had to drop.
    pub fn log_dropped_by(&self, dropped: Arc<AtomicU64>) {
        // Only the first log writer of a process is shown; there is no second one.
        drop(self.metrics().log_dropped.set(dropped));
    }

    /// Reasons that messages may be dead-lettered for, to be shown from the start.
    pub fn dead_letter_reasons(&self, reasons: &[&'static str]) {
        reasons.iter().for_each(|reason| self.metrics().count_dead_letters(reason, 0));
    }

    /// A request was decided and its answer handed to the edge. `spans` needs no [`Span::Total`]. Counts one authorization; so do
    /// [`conflicted`](Self::conflicted), [`invalid_input`](Self::invalid_input) and [`shed`](Self::shed), each by itself.
    pub fn decided(&self, decision: Decision, reason: Option<Reason>, spans: &Spans) {
        self.metrics().count_authorization(decision, reason);
        self.metrics().last_decision.set(0, u64::try_from(clock::now().0).unwrap_or(0));
        let commit_us = spans.get(Span::Commit);
        tracing::debug!(event = "decided", decision = decision.name(), reason = reason.map(Reason::name), commit_us);
    }

    /// An answer was written to its requester, and confirmed where there are confirms. Counts nothing: it is looked at for alerts and
    /// for the slowest decisions.
    pub fn answered(&self, answered: &Answered<'_>) {
        self.inner.alerts.offer(answered);
        self.inner.slowest.offer(answered);
    }

    /// The events that alerts become, once: whoever takes them publishes them. `None` when somebody has.
    #[must_use]
    pub fn take_alerts(&self) -> Option<mpsc::Receiver<LatencyAlert>> {
        self.inner.alerts.take_receiver()
    }

    /// A known id was answered with its stored bytes.
    pub fn replayed(&self) {
        self.metrics().duplicates.inc(0);
    }

    /// A known id came with other material fields.
    pub fn conflicted(&self) {
        self.metrics().duplicates.inc(1);
        self.metrics().count_authorization(Decision::Declined, Some(Reason::DuplicateConflict));
        tracing::debug!(event = "duplicate_conflict", "a known id came with other material fields");
    }

    /// A body was not a request.
    pub fn invalid_input(&self, reason: Reason, detail: &str) {
        self.metrics().count_invalid_input(reason);
        self.metrics().count_authorization(Decision::Declined, Some(reason));
        tracing::debug!(event = "invalid_input", reason = reason.name(), detail, "a body is not a request");
    }

    /// A request carried fields that are not known.
    pub fn unknown_fields(&self, fields: u32) {
        self.metrics().unknown_fields.add(0, u64::from(fields));
    }

    /// `sent_at` was more than a second in the future.
    pub fn clock_skewed(&self, ahead: Duration) {
        self.metrics().clock_skew.inc(0);
        self.metrics().clock_skew_last.set(0, micros(ahead));
        tracing::debug!(event = "clock_skewed", ahead_us = micros(ahead), "a request comes from the future");
    }

    /// A request was late when `span` was reached.
    pub fn deadline_exceeded(&self, span: Span) {
        self.metrics().deadline_exceeded.inc(span as usize);
    }

    /// An approval was taken back because it could not be sent in time.
    pub fn approval_voided(&self) {
        self.metrics().voided.inc(0);
        tracing::debug!(event = "approval_voided", "an approval could not be sent in time and was taken back");
    }

    /// An approval's fate is unknown: its hold stays, and it is listed in the store.
    pub fn approval_unheard(&self) {
        self.metrics().unheard.inc(0);
        if let Some(count) = self.inner.unheard_trouble.pass() {
            tracing::warn!(
                event = "approvals_unheard",
                count,
                "nobody can tell whether these approvals arrived; their holds stay until settled (authorizations with unheard set)"
            );
        }
    }

    /// A request was answered without a decision in the journal, because we could not decide it in time.
    pub fn shed(&self, reason: Reason) {
        self.metrics().count_authorization(Decision::Declined, Some(reason));
        if let Some(count) = self.inner.shed_trouble.pass() {
            tracing::warn!(
                event = "requests_shed",
                count,
                reason = reason.name(),
                "requests were declined because they could not be decided in time; look for a dependency that is down or slow, or for overload"
            );
        }
    }

    /// A batch is sent to the store.
    pub fn commit_begun(&self) {
        self.inner.commits_begun.fetch_add(1, Relaxed);
    }

    /// A batch was committed, or not.
    pub fn committed(&self, outcome: CommitOutcome, decisions: usize, took: Duration) {
        let metrics = self.metrics();
        metrics.db_transactions.inc(outcome as usize);
        metrics.db_transaction.observe(took.as_secs_f64());
        if outcome == CommitOutcome::Committed {
            metrics.batch_decisions.observe(decisions as f64);
        }
        // A guard that fails is the design at work; the others are the store's trouble.
        let trouble = !matches!(outcome, CommitOutcome::Committed | CommitOutcome::Rejected);
        if trouble && let Some(count) = self.inner.commit_trouble.pass() {
            tracing::warn!(event = "commits_failing", count, outcome = outcome.name(), decisions, "commits fail and are tried again");
        }
    }

    /// One decision in a batch was not acceptable to the store.
    pub fn decision_refused(&self, error: &str) {
        tracing::error!(event = "decision_refused", error, "the store refused a decision for itself; it was answered system_error");
    }

    /// A cache tier answered.
    pub fn cache(&self, tier: Tier, result: CacheResult) {
        self.metrics().cache_requests.inc(tier as usize * CacheResult::ALL.len() + result as usize);
    }

    /// A cache tier failed. Writes a line only; [`cache`](Self::cache) counts.
    pub fn cache_failed(&self, tier: Tier, error: &str) {
        if let Some(count) = self.inner.cache_trouble.pass() {
            tracing::warn!(
                event = "cache_failing",
                count,
                tier = tier.name(),
                error,
                "a cache does not answer; the store is asked instead"
            );
        }
    }

    /// A Redis round trip ended, well or not.
    pub fn redis_command(&self, command: RedisCommand, took: Duration) {
        if let Some((_, histogram)) = self.metrics().redis_commands.get(command as usize) {
            histogram.observe(took.as_secs_f64());
        }
    }

    /// A read of facts was given one of the store's connections, or none in time, after so long.
    pub fn pool_waited(&self, waited: Duration) {
        self.metrics().pool_wait.observe(waited.as_secs_f64());
    }

    /// A dependency came or went. Logs only when it changed.
    pub fn dependency(&self, dependency: Dependency, up: bool, detail: &str) {
        let before = self.metrics().dependency_up.set(dependency as usize, u64::from(up));
        if before == Some(u64::from(up)) {
            return;
        }
        self.inner.dependency_since[dependency as usize].store(clock::now().0, Relaxed);
        let name = dependency.name();
        if up {
            tracing::info!(event = "dependency_up", dependency = name, detail, "{name} can be used");
        } else {
            tracing::warn!(event = "dependency_down", dependency = name, detail, "{name} cannot be used; it is tried again");
        }
    }

    /// A delivery arrived.
    pub fn received(&self, redelivered: bool) {
        self.metrics().broker.received.inc(usize::from(redelivered));
    }

    /// A delivery was settled.
    pub fn settled(&self, settlement: Settlement) {
        self.metrics().broker.settled.inc(settlement as usize);
    }

    /// A message was dead-lettered.
    pub fn dead_lettered(&self, reason: &'static str) {
        self.metrics().count_dead_letters(reason, 1);
        if let Some(count) = self.inner.dead_letter_trouble.pass() {
            tracing::warn!(
                event = "messages_dead_lettered",
                count,
                reason,
                "messages went to the dead letter queue; their x-detail says why"
            );
        }
    }

    /// A publish ended.
    pub fn published(&self, outcome: PublishOutcome) {
        self.metrics().broker.published.inc(outcome as usize);
    }

    /// A broker connection was made, made again or lost. Logs only when it changed.
    pub fn broker_connection(&self, role: Role, up: bool, detail: &str) {
        let before = self.metrics().broker.connection_up.set(role as usize, u64::from(up));
        if before == Some(u64::from(up)) {
            return;
        }
        if up {
            // Whether a new connection is blocked will be told anew.
            self.metrics().broker.connection_blocked.set(role as usize, 0);
            if self.inner.connected_once[role as usize].swap(true, Relaxed) {
                self.metrics().broker.reconnects.inc(role as usize);
            }
            tracing::info!(event = "broker_connected", role = role.name(), detail, "connected to the broker");
        } else {
            tracing::warn!(event = "broker_disconnected", role = role.name(), detail, "no connection to the broker; it is made again");
        }
    }

    /// The broker blocked a connection (memory or disk alarm), or unblocked it. Logs only when it changed.
    pub fn broker_blocked(&self, role: Role, blocked: bool) {
        let before = self.metrics().broker.connection_blocked.set(role as usize, u64::from(blocked));
        if before.unwrap_or(0) == u64::from(blocked) {
            return;
        }
        if blocked {
            tracing::warn!(event = "broker_blocked", role = role.name(), "the broker takes no messages: it is out of memory or disk");
        } else {
            tracing::info!(event = "broker_unblocked", role = role.name(), "the broker takes messages again");
        }
    }

    /// A job is in flight from now on.
    pub fn job_began(&self) {
        self.metrics().in_flight.inc(0);
    }

    /// A job that [began](Telemetry::job_began) is not in flight any more.
    pub fn job_ended(&self) {
        self.metrics().in_flight.dec(0);
    }

    /// How much work may be in flight.
    pub fn in_flight_limit(&self, jobs: usize) {
        self.metrics().in_flight_limit.set(0, jobs as u64);
    }

    pub(super) fn alerts(&self) -> &Alerts {
        &self.inner.alerts
    }

    pub(super) fn news_trouble(&self) -> &Throttle {
        &self.inner.news_trouble
    }

    pub(super) fn event_trouble(&self) -> &Throttle {
        &self.inner.event_trouble
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
