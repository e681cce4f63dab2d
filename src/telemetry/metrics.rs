//! The metrics themselves. Every label value is there from the start: a counter that appears with its first event hides that event
//! from `increase()`.

use super::{
    Readiness, Span,
    freshness::Freshness,
    labels::{
        CacheResult, Cause, CommitOutcome, Dependency, EventOutcome, Level, PublishOutcome, RedisCommand, Role, Settlement, Tier,
        class_name,
    },
    recorder::{Recorders, Set},
};
use crate::domain::{
    decision::Decision,
    reason::{Reason, ReasonClass},
};
use crossbeam::utils::CachePadded;
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, exemplar::Exemplar, histogram::Histogram},
};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::runtime::RuntimeMetrics;

/// Seconds. 2, 3 and 6 s are what processors wait.
pub(super) const ANSWER_BUCKETS_S: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.003, 0.005, 0.007_5, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0,
    2.0, 3.0, 6.0, 10.0,
];
/// Seconds. Stages in memory take microseconds, so these begin lower.
pub(super) const STAGE_BUCKETS_S: &[f64] = &[
    0.000_001, 0.000_002, 0.000_003, 0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.003, 0.005,
    0.007_5, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 3.0, 6.0, 10.0,
];
/// Decisions in one commit.
const BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Why messages are dead-lettered besides being bad input. Others get their row with their first message.
const DEAD_LETTER_REASONS: &[&str] = &["reply_to_forbidden", "reply_unroutable", "no_reply_route", "attempts_exhausted"];

/// Value of a gauge that is not shown, because what it tells about is not in use.
const ABSENT: u64 = u64::MAX;

pub(super) type Labels = Vec<(&'static str, String)>;

/// A family of counters or gauges whose label values are all known at start.
#[derive(Debug)]
pub(super) struct Table {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    rows: Box<[(Labels, CachePadded<AtomicU64>)]>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Counter,
    Gauge,
    /// A gauge in seconds, kept in microseconds.
    SecondsGauge,
}

impl Table {
    fn new(name: &'static str, help: &'static str, kind: Kind, rows: impl IntoIterator<Item = Labels>) -> Self {
        let initial = if let Kind::Counter = kind { 0 } else { ABSENT };
        let rows = rows.into_iter().map(|labels| (labels, CachePadded::new(AtomicU64::new(initial)))).collect();
        Self { name, help, kind, rows }
    }

    pub(super) fn counter(name: &'static str, help: &'static str, rows: impl IntoIterator<Item = Labels>) -> Self {
        Self::new(name, help, Kind::Counter, rows)
    }

    /// A gauge whose rows show once they are first set.
    pub(super) fn gauge(name: &'static str, help: &'static str, rows: impl IntoIterator<Item = Labels>) -> Self {
        Self::new(name, help, Kind::Gauge, rows)
    }

    /// As [`Table::gauge`], set in microseconds and shown in seconds.
    pub(super) fn seconds_gauge(name: &'static str, help: &'static str, rows: impl IntoIterator<Item = Labels>) -> Self {
        Self::new(name, help, Kind::SecondsGauge, rows)
    }

    /// A gauge without labels that starts at 0.
    fn one_gauge(name: &'static str, help: &'static str, kind: Kind) -> Self {
        let table = Self::new(name, help, kind, [Labels::new()]);
        table.set(0, 0);
        table
    }

    pub(super) fn add(&self, row: usize, more: u64) {
        if let Some((_, cell)) = self.rows.get(row) {
            cell.fetch_add(more, Relaxed);
        }
    }

    pub(super) fn inc(&self, row: usize) {
        self.add(row, 1);
    }

    /// For a gauge that was raised before.
    pub(super) fn dec(&self, row: usize) {
        if let Some((_, cell)) = self.rows.get(row) {
            cell.fetch_sub(1, Relaxed);
        }
    }

    /// The value of a gauge that is in use.
    pub(super) fn shown(&self, row: usize) -> Option<u64> {
        self.rows.get(row).map(|(_, cell)| cell.load(Relaxed)).filter(|value| *value != ABSENT)
    }

    pub(super) fn total(&self) -> u64 {
        self.rows.iter().map(|(_, cell)| cell.load(Relaxed)).sum()
    }

    pub(super) fn get(&self, row: usize) -> u64 {
        self.rows.get(row).map_or(0, |(_, cell)| cell.load(Relaxed))
    }

    /// Sets a gauge; `None` comes back when it was not in use before.
    pub(super) fn set(&self, row: usize, value: u64) -> Option<u64> {
        let before = self.rows.get(row)?.1.swap(value, Relaxed);
        (before != ABSENT).then_some(before)
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = if let Kind::Counter = self.kind { MetricType::Counter } else { MetricType::Gauge };
        let mut family = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for (labels, cell) in &self.rows {
            let value = cell.load(Relaxed);
            if value == ABSENT {
                continue;
            }
            on_row(&mut family, labels, |row| match self.kind {
                Kind::Counter => row.encode_counter(&value, NO_EXEMPLAR),
                Kind::Gauge => row.encode_gauge(&value),
                Kind::SecondsGauge => row.encode_gauge(&(value as f64 / 1e6)),
            })?;
        }
        Ok(())
    }
}

const NO_EXEMPLAR: Option<&Exemplar<Labels, f64>> = None;

/// Writes a row of a family. An empty set of labels would leave empty braces, so it is not mentioned at all.
fn on_row(family: &mut MetricEncoder<'_>, labels: &Labels, write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result) -> fmt::Result {
    if labels.is_empty() { write(family) } else { write(&mut family.encode_family(labels)?) }
}

/// Everything that is counted, besides the latency histograms.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) broker: BrokerMetrics,
    pub(super) authorizations: Table,
    pub(super) deadline_exceeded: Table,
    pub(super) duplicates: Table,
    pub(super) invalid_inputs: Table,
    pub(super) latency_alerts: Table,
    pub(super) promised: Table,
    pub(super) in_flight: Table,
    pub(super) in_flight_limit: Table,
    pub(super) cache_requests: Table,
    pub(super) freshness: Freshness,
    pub(super) db_transactions: Table,
    pub(super) dependency_up: Table,
    pub(super) unheard: Table,
    pub(super) voided: Table,
    pub(super) unknown_fields: Table,
    pub(super) clock_skew: Table,
    pub(super) clock_skew_last: Table,
    pub(super) last_decision: Table,
    pub(super) redis_commands: Vec<(Labels, Histogram)>,
    pub(super) db_transaction: Histogram,
    pub(super) pool_wait: Histogram,
    pub(super) batch_decisions: Histogram,
    pub(super) tokio_busy: Table,
    /// Requests waiting for each lane.
    pub(super) lane_queues: OnceLock<Vec<Arc<AtomicU64>>>,
    pub(super) request_threads: OnceLock<RuntimeMetrics>,
    pub(super) log_dropped: OnceLock<Arc<AtomicU64>>,
    pub(super) readiness: Readiness,
    pub(super) recorders: Recorders,
    queue: String,
    dead_letters: Mutex<BTreeMap<&'static str, u64>>,
}

pub(super) fn each<T: Copy>(key: &'static str, all: &[T], name: impl Fn(T) -> &'static str) -> Vec<Labels> {
    all.iter().map(|value| vec![(key, name(*value).to_owned())]).collect()
}

fn bare() -> Vec<Labels> {
    vec![Labels::new()]
}

fn invalid_reasons() -> Vec<Reason> {
    let bad = |reason: &Reason| reason.class() == ReasonClass::Input && *reason != Reason::DuplicateConflict;
    Reason::ALL.iter().copied().filter(bad).collect()
}

/// What is counted about the broker.
#[derive(Debug)]
pub(super) struct BrokerMetrics {
    pub(super) received: Table,
    pub(super) settled: Table,
    pub(super) published: Table,
    pub(super) events: Table,
    pub(super) connection_up: Table,
    pub(super) connection_blocked: Table,
    pub(super) reconnects: Table,
}

impl BrokerMetrics {
    fn new(queue: &str) -> Self {
        let in_queue = |key: &'static str, value: &str| vec![("queue", queue.to_owned()), (key, value.to_owned())];
        Self {
            received: Table::counter(
                "messages_received",
                "Deliveries taken from the broker",
                ["false", "true"].map(|redelivered| in_queue("redelivered", redelivered)),
            ),
            settled: Table::counter(
                "messages_settled",
                "Deliveries that ended, by how",
                Settlement::ALL.iter().map(|settlement| in_queue("outcome", settlement.name())),
            ),
            published: Table::counter(
                "responses_published",
                "Responses published, by what became of them",
                each("outcome", PublishOutcome::ALL, PublishOutcome::name),
            ),
            events: Table::counter(
                "events",
                "Events heard from and told to the exchange for events",
                each("outcome", EventOutcome::ALL, EventOutcome::name),
            ),
            connection_up: Table::gauge("broker_connection_up", "Whether a broker connection stands", each("role", Role::ALL, Role::name)),
            connection_blocked: Table::gauge(
                "broker_connection_blocked",
                "Whether the broker has blocked a connection (memory or disk alarm)",
                each("role", Role::ALL, Role::name),
            ),
            reconnects: Table::counter(
                "broker_reconnects",
                "Broker connections made again after a loss",
                each("role", Role::ALL, Role::name),
            ),
        }
    }
}

fn redis_commands() -> Vec<(Labels, Histogram)> {
    let histogram = |labels| (labels, Histogram::new(ANSWER_BUCKETS_S.iter().copied()));
    each("command", RedisCommand::ALL, RedisCommand::name).into_iter().map(histogram).collect()
}

fn dead_letter_reasons() -> impl Iterator<Item = &'static str> {
    invalid_reasons().into_iter().map(Reason::name).chain(DEAD_LETTER_REASONS.iter().copied())
}

impl Metrics {
    pub(super) fn new(queue: &str) -> Self {
        Self {
            broker: BrokerMetrics::new(queue),
            authorizations: Table::counter("authorizations", "Authorizations answered, replays not included", outcomes()),
            deadline_exceeded: Table::counter(
                "deadline_exceeded",
                "Requests found to be late, by the stage that found it",
                each("stage", &Span::ALL, Span::name),
            ),
            duplicates: Table::counter(
                "duplicates",
                "Known ids that came again: replayed, or in conflict with what was decided",
                each("kind", &["replayed", "conflict"], |kind| kind),
            ),
            invalid_inputs: Table::counter(
                "invalid_inputs",
                "Bodies that are not requests",
                each("reason", &invalid_reasons(), Reason::name),
            ),
            promised: super::promise::table(),
            latency_alerts: Table::counter(
                "latency_alerts",
                "Latency alerts raised, by what the worst decision spent its time on",
                Level::ALL.iter().flat_map(|level| {
                    Cause::ALL.iter().map(|cause| vec![("level", level.name().to_owned()), ("cause", cause.name().to_owned())])
                }),
            ),
            in_flight: Table::one_gauge("inflight_messages", "Requests in the pipeline", Kind::Gauge),
            in_flight_limit: Table::one_gauge("inflight_limit_messages", "Requests that the pipeline takes at once", Kind::Gauge),
            cache_requests: Table::counter(
                "cache_requests",
                "Look-ups of facts, by tier and what it answered",
                Tier::ALL.iter().flat_map(|tier| {
                    CacheResult::ALL.iter().map(|result| vec![("tier", tier.name().to_owned()), ("result", result.name().to_owned())])
                }),
            ),
            freshness: Freshness::default(),
            db_transactions: Table::counter(
                "db_transactions",
                "Commits sent to the store, by how they ended",
                each("outcome", CommitOutcome::ALL, CommitOutcome::name),
            ),
            dependency_up: Table::gauge(
                "dependency_up",
                "Whether a dependency in use can be used",
                each("dependency", Dependency::ALL, Dependency::name),
            ),
            unheard: Table::counter("unheard_approvals", "Approvals whose fate is unknown; their holds stay", bare()),
            voided: Table::counter("voided_approvals", "Approvals taken back because they could not be sent in time", bare()),
            unknown_fields: Table::counter("unknown_fields", "Top-level request fields that are not known", bare()),
            clock_skew: Table::counter("clock_skew", "Requests sent more than a second in the future, by our clock", bare()),
            clock_skew_last: Table::one_gauge("clock_skew_seconds", "How far ahead the last such request was", Kind::SecondsGauge),
            last_decision: Table::one_gauge(
                "last_decision_timestamp_seconds",
                "Unix time of the last decision; 0 before the first",
                Kind::SecondsGauge,
            ),
            redis_commands: redis_commands(),
            db_transaction: Histogram::new(ANSWER_BUCKETS_S.iter().copied()),
            pool_wait: Histogram::new(STAGE_BUCKETS_S.iter().copied()),
            batch_decisions: Histogram::new(BATCH_BUCKETS.iter().copied()),
            tokio_busy: Table::one_gauge(
                "tokio_busy_ratio",
                "Share of the last second that the busier of the runtimes was busy",
                Kind::SecondsGauge,
            ),
            lane_queues: OnceLock::new(),
            request_threads: OnceLock::new(),
            log_dropped: OnceLock::new(),
            readiness: Readiness::default(),
            recorders: Recorders::default(),
            queue: queue.to_owned(),
            dead_letters: Mutex::new(dead_letter_reasons().map(|reason| (reason, 0)).collect()),
        }
    }

    /// Counts a decision. The rows are the two approvals, then a decline for every reason in order.
    pub(super) fn count_authorization(&self, decision: Decision, reason: Option<Reason>) {
        let row = match (decision, reason) {
            (Decision::Approved, _) => 0,
            (Decision::PartiallyApproved, _) => 1,
            (Decision::Declined, reason) => {
                let reason = reason.unwrap_or(Reason::SystemError);
                2 + Reason::ALL.iter().position(|known| *known == reason).unwrap_or(0)
            }
        };
        self.authorizations.inc(row);
    }

    /// Counts a body that is no request. A reason that is not about input counts as the most general of those that are.
    pub(super) fn count_invalid_input(&self, reason: Reason) {
        self.invalid_inputs.inc(invalid_reasons().iter().position(|known| *known == reason).unwrap_or(0));
    }

    pub(super) fn count_dead_letters(&self, reason: &'static str, more: u64) {
        *self.dead_letters.lock().entry(reason).or_default() += more;
    }

    fn encode_dead_letters(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.dead_letters.lock().clone();
        let name = "messages_dead_lettered";
        let mut family = encoder.encode_descriptor(name, "Messages dead-lettered, by reason", None, MetricType::Counter)?;
        for (reason, count) in counts {
            let labels = vec![("queue", self.queue.clone()), ("reason", reason.to_owned())];
            on_row(&mut family, &labels, |row| row.encode_counter(&count, NO_EXEMPLAR))?;
        }
        Ok(())
    }

    fn encode_state(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let dropped = self.log_dropped.get().map_or(0, |dropped| dropped.load(Relaxed));
        encoder
            .encode_descriptor("log_dropped", "Log lines dropped because their reader was too slow", None, MetricType::Counter)?
            .encode_counter(&dropped, NO_EXEMPLAR)?;
        for (name, help, value) in [
            ("ready", "Whether requests are wanted", self.readiness.is_ready()),
            ("draining", "Whether the daemon is finishing its work before it stops", self.readiness.is_draining()),
        ] {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&u64::from(value))?;
        }
        if let Some(lanes) = self.lane_queues.get() {
            let mut family = encoder.encode_descriptor("worker_queue_messages", "Requests waiting for a lane", None, MetricType::Gauge)?;
            for (lane, waiting) in lanes.iter().enumerate() {
                family.encode_family(&vec![("lane", lane.to_string())])?.encode_gauge(&waiting.load(Relaxed))?;
            }
        }
        let build = vec![("version", env!("CARGO_PKG_VERSION")), ("revision", option_env!("JITAUTH_REVISION").unwrap_or("unknown"))];
        let mut family = encoder.encode_descriptor("build_info", "What is running; always 1", None, MetricType::Gauge)?;
        family.encode_family(&build)?.encode_gauge(&1_u64)
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for table in [
            &self.authorizations,
            &self.deadline_exceeded,
            &self.broker.received,
            &self.broker.settled,
            &self.broker.published,
            &self.broker.events,
            &self.duplicates,
            &self.invalid_inputs,
            &self.latency_alerts,
            &self.promised,
            &self.in_flight,
            &self.in_flight_limit,
            &self.cache_requests,
            &self.db_transactions,
            &self.dependency_up,
            &self.broker.connection_up,
            &self.broker.connection_blocked,
            &self.broker.reconnects,
            &self.unheard,
            &self.voided,
            &self.unknown_fields,
            &self.clock_skew,
            &self.clock_skew_last,
            &self.last_decision,
            &self.tokio_busy,
        ] {
            table.encode(&mut encoder)?;
        }
        self.freshness.encode(&mut encoder)?;
        self.encode_dead_letters(&mut encoder)?;
        self.encode_state(&mut encoder)?;
        for (name, help, histogram) in [
            ("db_transaction_duration_seconds", "Time of one commit round trip", &self.db_transaction),
            (
                "pool_wait_seconds",
                "How long a read of facts waited for one of the store's connections; lanes have their own",
                &self.pool_wait,
            ),
            ("commit_batch_decisions", "Decisions in one commit", &self.batch_decisions),
        ] {
            histogram.encode(encoder.encode_descriptor(name, help, None, MetricType::Histogram)?)?;
        }
        let name = "redis_command_duration_seconds";
        let mut family = encoder.encode_descriptor(name, "Time of one Redis round trip", None, MetricType::Histogram)?;
        for (labels, histogram) in &self.redis_commands {
            histogram.encode(family.encode_family(labels)?)?;
        }
        self.recorders.read(|set| encode_latencies(set, &mut encoder))
    }
}

/// Latency families are derived from what the recorders hold, so nothing is recorded twice.
fn encode_latencies(set: &Set, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let total: Labels = vec![("message_type", "authorization".to_owned())];
    for (name, help, span, labels) in [
        ("authorization_duration_seconds", "From a request's receipt until its answer was written", Span::Total, &total),
        ("publish_confirm_duration_seconds", "From a response written until its confirm was seen", Span::Confirm, &Labels::new()),
        ("queue_wait_seconds", "From the processor's sending until receipt, by two clocks", Span::Queue, &Labels::new()),
    ] {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        on_row(&mut family, labels, |row| encode_histogram(row, set, span, ANSWER_BUCKETS_S))?;
    }
    let mut family = encoder.encode_descriptor("stage_duration_seconds", "Time of each part of a decision", None, MetricType::Histogram)?;
    for span in Span::ALL.into_iter().filter(|span| *span != Span::Total) {
        let labels = vec![("stage", span.name().to_owned())];
        on_row(&mut family, &labels, |row| encode_histogram(row, set, span, STAGE_BUCKETS_S))?;
    }
    Ok(())
}

fn encode_histogram(row: &mut MetricEncoder<'_>, set: &Set, span: Span, bounds_s: &[f64]) -> fmt::Result {
    let (sum, count, buckets) = set.buckets(span, bounds_s);
    row.encode_histogram::<Labels>(sum, count, &buckets, None)
}

/// All outcomes of an authorization, in the order of [`Metrics::count_authorization`].
fn outcomes() -> Vec<Labels> {
    let outcome = |decision: Decision, reason: &str, class: &str| {
        vec![
            ("message_type", "authorization".to_owned()),
            ("decision", decision.name().to_owned()),
            ("reason", reason.to_owned()),
            ("reason_class", class.to_owned()),
        ]
    };
    [Decision::Approved, Decision::PartiallyApproved]
        .into_iter()
        .map(|decision| outcome(decision, "none", "ok"))
        .chain(Reason::ALL.iter().map(|reason| outcome(Decision::Declined, reason.name(), class_name(reason.class()))))
        .collect()
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
