//! What is told about facts in memory: how many there are, how fresh they are kept, and by whom.

use super::{
    Telemetry,
    events::{BreakerState, ChangeKind, Dependency, Path},
    metrics::{Labels, Table, each},
};
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, histogram::Histogram},
};
use std::{fmt, time::Duration};

/// Seconds. 50 ms is what is aimed at.
const PROPAGATION_BUCKETS_S: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002, 0.003, 0.005, 0.007_5, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// Dependencies with a breaker.
const BREAKERS: &[Dependency] = &[Dependency::Redis];

#[derive(Debug)]
pub(super) struct Freshness {
    invalidations: Table,
    live: Table,
    entries: Table,
    bytes: Table,
    evictions: Table,
    breaker: Table,
    tombstones_lost: Table,
    propagation: Vec<(Labels, Histogram)>,
}

impl Default for Freshness {
    fn default() -> Self {
        let memory = || each("tier", &["memory"], |tier| tier);
        let histogram = |labels| (labels, Histogram::new(PROPAGATION_BUCKETS_S.iter().copied()));
        Self {
            invalidations: Table::counter(
                "cache_invalidations",
                "Facts dropped from memory because they changed, by the way the news came; one that was dropped already is not counted again",
                pairs(("path", Path::ALL, Path::name), ("kind", ChangeKind::ALL, ChangeKind::name)),
            ),
            live: Table::gauge(
                "news_path_live",
                "Whether every change is heard of by this way now; not there when it is not listened to",
                each("path", Path::ALL, Path::name),
            ),
            entries: Table::gauge("cache_entries", "Facts kept, those known to be absent or outdated included", memory()),
            bytes: Table::gauge("cache_bytes", "What the facts in memory take, estimated", memory()),
            evictions: Table::counter("cache_evictions", "Facts that had to go to make room", memory()),
            breaker: Table::gauge(
                "breaker_state",
                "1 for the state that a breaker is in, 0 for the others",
                pairs(("dependency", BREAKERS, Dependency::name), ("state", BreakerState::ALL, BreakerState::name)),
            ),
            tombstones_lost: Table::counter(
                "redis_tombstones_lost",
                "Changes that Redis was not told of, because too many were waiting; their rows live out their time",
                [Labels::new()],
            ),
            propagation: each("path", Path::ALL, Path::name).into_iter().map(histogram).collect(),
        }
    }
}

/// Every value of one label with every value of another.
fn pairs<A: Copy, B: Copy>(
    (first, of_first, name_first): (&'static str, &[A], fn(A) -> &'static str),
    (second, of_second, name_second): (&'static str, &[B], fn(B) -> &'static str),
) -> Vec<Labels> {
    let row = |a: A, b: B| vec![(first, name_first(a).to_owned()), (second, name_second(b).to_owned())];
    of_first.iter().flat_map(|a| of_second.iter().map(move |b| row(*a, *b))).collect()
}

impl Freshness {
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for table in [&self.invalidations, &self.live, &self.entries, &self.bytes, &self.evictions, &self.breaker, &self.tombstones_lost] {
            table.encode(encoder)?;
        }
        let help = "From a fact's change until memory had dropped it, by the way the news came and by two clocks";
        let mut family = encoder.encode_descriptor("freeze_propagation_seconds", help, None, MetricType::Histogram)?;
        for (labels, histogram) in &self.propagation {
            histogram.encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }
}

impl Telemetry {
    /// A fact was dropped from memory because it changed; `after` is how long ago that was, where it is known.
    pub fn invalidated(&self, path: Path, kind: ChangeKind, after: Option<Duration>) {
        let freshness = &self.metrics().freshness;
        freshness.invalidations.inc(path as usize * ChangeKind::ALL.len() + kind as usize);
        if let (Some(after), Some((_, histogram))) = (after, freshness.propagation.get(path as usize)) {
            histogram.observe(after.as_secs_f64());
        }
        tracing::debug!(
            event = "invalidated",
            path = path.name(),
            kind = kind.name(),
            after_us = after.map(|after| after.as_micros() as u64)
        );
    }

    /// Changes are heard of by this way from now on, or not any more. Logs only when that changed.
    pub fn news(&self, path: Path, live: bool, why: &str) {
        let before = self.news_live(path, live);
        if before == Some(u64::from(live)) {
            return;
        }
        let name = path.name();
        if live {
            tracing::info!(event = "news_heard", path = name, "hearing of every changed fact by way of {name}");
        } else if before.is_some()
            && let Some(count) = self.news_trouble().pass()
        {
            tracing::warn!(
                event = "news_lost",
                count,
                path = name,
                why,
                "changed facts may be missed; what was missed is looked for afterwards"
            );
        }
    }

    /// As [`Telemetry::news`], without a line. Gives what was shown before, if anything was.
    pub(super) fn news_live(&self, path: Path, live: bool) -> Option<u64> {
        self.metrics().freshness.live.set(path as usize, u64::from(live))
    }

    /// How much memory keeps.
    pub fn memory_size(&self, entries: u64, bytes: u64, evictions: u64) {
        let freshness = &self.metrics().freshness;
        freshness.entries.set(0, entries);
        freshness.bytes.set(0, bytes);
        freshness.evictions.set(0, evictions);
    }

    /// How a breaker stands.
    pub fn breaker(&self, dependency: Dependency, state: BreakerState) {
        let Some(place) = BREAKERS.iter().position(|known| *known == dependency) else { return };
        for each in BreakerState::ALL {
            let row = place * BreakerState::ALL.len() + *each as usize;
            let before = self.metrics().freshness.breaker.set(row, u64::from(*each == state));
            if *each == BreakerState::Open && *each == state && before == Some(0) {
                tracing::debug!(event = "breaker_opened", dependency = dependency.name(), "not asked until it answers a probe");
            }
        }
    }

    /// Redis could not be told of a change.
    pub fn tombstone_lost(&self) {
        self.metrics().freshness.tombstones_lost.inc(0);
        if let Some(count) = self.news_trouble().pass() {
            tracing::warn!(
                event = "tombstones_lost",
                count,
                "Redis is out and too many changes wait for it; until its rows expire, some requests are decided twice"
            );
        }
    }

    /// Facts are being read from the store into memory.
    pub fn warming(&self, cards: u64, cards_per_s: u64, bytes: u64) {
        tracing::info!(event = "warming", cards, cards_per_s, bytes, "reading facts into memory");
    }

    /// All facts that fit were read into memory.
    pub fn warmed(&self, cards: u64, took: Duration, bytes: u64, full: bool) {
        let took_ms = took.as_millis() as u64;
        if full {
            tracing::warn!(
                event = "warmed",
                cards,
                took_ms,
                bytes,
                full,
                "memory is full before all cards are in it: raise memory.bytes_max_mib, or expect the others to be read when they are used"
            );
        } else {
            tracing::info!(event = "warmed", cards, took_ms, bytes, full, "every usable card is in memory");
        }
    }

    /// Facts could not be read from the store into memory.
    pub fn warming_failed(&self, error: &str, again: bool) {
        let then = if again { "it is tried again" } else { "cards are read when they are used: slower, not wrong" };
        tracing::warn!(event = "warming_failed", error, "facts could not be read into memory; {then}");
    }

    /// What memory may have missed was looked for: so many cards were read, and so many had changed.
    pub fn healed(&self, cards: u64, changed: u64, took: Duration) {
        tracing::info!(event = "healed", cards, changed, took_ms = took.as_millis() as u64, "compared memory with the store");
    }
}
