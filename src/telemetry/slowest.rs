//! The slowest decisions, with where they spent their time.

use super::{
    Span, Spans,
    cause::{self, Blame},
    clock,
};
use crate::domain::{decision::Decision, reason::Reason, time::Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    mem,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
};

/// An answer that was written, as telemetry is told of it.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// The authorization's id. Never a card token.
    pub id: &'a str,
    /// What was answered.
    pub decision: Decision,
    /// Why not.
    pub reason: Option<Reason>,
    /// All that was measured, [`Span::Total`] included, [`Span::Confirm`] where there is one.
    pub spans: &'a Spans,
}

/// What is kept of a slow decision: the authorization's id, which operations needs, and nothing that names a card or a person.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Timestamp,
    pub(super) authorization: Box<str>,
    pub(super) decision: Decision,
    pub(super) reason: Option<Reason>,
    pub(super) spans: Spans,
}

/// One of the slowest decisions, as it is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slow {
    /// The authorization's id.
    pub authorization: String,
    /// When it was answered, RFC 3339.
    pub at: String,
    /// What was answered.
    pub decision: String,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// From receipt until its answer was written, microseconds.
    pub total_us: u32,
    /// What took longest: a [`Cause`](super::labels::Cause).
    pub cause: String,
    /// The span that took longest, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowest_span: Option<String>,
    /// How long that took, microseconds.
    pub slowest_us: u32,
    /// Everything measured, microseconds by span.
    pub spans_us: BTreeMap<String, u32>,
}

impl Sample {
    pub(super) fn of(answered: &Answered<'_>) -> Self {
        let Answered { id, decision, reason, spans } = *answered;
        Self { at: clock::now(), authorization: id.into(), decision, reason, spans: *spans }
    }

    /// The time that makes it slow: until the answer was written, or until it was confirmed from there.
    pub(super) fn slow_us(&self) -> u32 {
        slow_us(&self.spans)
    }
}

impl From<&Sample> for Slow {
    fn from(sample: &Sample) -> Self {
        let Blame { cause, span, us } = cause::blame(&sample.spans);
        Self {
            authorization: sample.authorization.to_string(),
            at: clock::rfc3339(sample.at),
            decision: sample.decision.name().to_owned(),
            reason: sample.reason.map(|reason| reason.name().to_owned()),
            total_us: sample.spans.get(Span::Total).unwrap_or(0),
            cause: cause.name().to_owned(),
            slowest_span: span.map(|span| span.name().to_owned()),
            slowest_us: us,
            spans_us: sample.spans.iter().map(|(span, us)| (span.name().to_owned(), us)).collect(),
        }
    }
}

impl Slow {
    /// The time that makes it slow, microseconds.
    pub(super) fn slow_us(&self) -> u32 {
        self.total_us.max(self.spans_us.get(Span::Confirm.name()).copied().unwrap_or(0))
    }
}

pub(super) fn slow_us(spans: &Spans) -> u32 {
    spans.get(Span::Total).max(spans.get(Span::Confirm)).unwrap_or(0)
}

/// The slowest decisions of an interval, at most so many.
#[derive(Debug)]
pub(super) struct Slowest {
    max: AtomicUsize,
    /// Only what is slower gets in: the usual decision costs one look at it.
    floor_us: AtomicU32,
    kept: Mutex<Vec<Sample>>,
}

impl Slowest {
    pub(super) fn new(max: usize) -> Self {
        Self { max: AtomicUsize::new(max), floor_us: AtomicU32::new(0), kept: Mutex::default() }
    }

    pub(super) fn offer(&self, answered: &Answered<'_>) {
        let us = slow_us(answered.spans);
        if us <= self.floor_us.load(Relaxed) {
            return;
        }
        let max = self.max.load(Relaxed);
        let mut kept = self.kept.lock();
        if kept.len() < max {
            kept.push(Sample::of(answered));
        } else if let Some(least) = kept.iter_mut().min_by_key(|sample| sample.slow_us())
            && least.slow_us() < us
        {
            *least = Sample::of(answered);
        }
        if kept.len() >= max {
            self.floor_us.store(kept.iter().map(Sample::slow_us).min().unwrap_or(u32::MAX), Relaxed);
        }
    }

    /// Those kept so far, the slowest first.
    pub(super) fn look(&self) -> Vec<Slow> {
        sorted(self.kept.lock().clone())
    }

    /// As [`look`](Self::look), and begins anew.
    pub(super) fn take(&self) -> Vec<Slow> {
        let mut kept = self.kept.lock();
        self.floor_us.store(0, Relaxed);
        let taken = mem::take(&mut *kept);
        drop(kept);
        sorted(taken)
    }
}

fn sorted(mut samples: Vec<Sample>) -> Vec<Slow> {
    samples.sort_by_key(|sample| std::cmp::Reverse(sample.slow_us()));
    samples.iter().map(Slow::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_slowest_are_kept_and_no_more() {
        let slowest = Slowest::new(3);
        let offer = |us: u64| {
            let mut spans = Spans::default();
            spans.set(Span::Total, Duration::from_micros(us));
            slowest.offer(&Answered { id: &format!("auth-{us}"), decision: Decision::Approved, reason: None, spans: &spans });
        };
        let ids = |slow: Vec<Slow>| slow.into_iter().map(|slow| slow.authorization).collect::<Vec<_>>();
        for us in [5, 900, 30, 7, 31, 29, 1_000, 2] {
            offer(us);
        }
        assert_eq!(ids(slowest.look()), ["auth-1000", "auth-900", "auth-31"]);
        assert_eq!(slowest.floor_us.load(Relaxed), 31, "what is faster is not looked at twice");
        assert_eq!(ids(slowest.take()), ["auth-1000", "auth-900", "auth-31"]);
        offer(4);
        assert_eq!(ids(slowest.take()), ["auth-4"], "an interval begins anew");
        let none = Slowest::new(0);
        none.offer(&Answered { id: "a", decision: Decision::Approved, reason: None, spans: &Spans::default() });
        assert!(none.take().is_empty());
    }
}
