//! What came back: every answer, and how long it took.

use crate::{
    bench::record::{Known, histogram},
    cli::daemon::Reply,
    telemetry::Span,
};
use bytes::Bytes;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// The first answer to an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The response.
    pub(super) body: Bytes,
    /// Whether the journal has it.
    pub(super) journaled: bool,
}

/// Everything that came back, by index of the body.
#[derive(Debug)]
pub(super) struct Tally {
    answers: Vec<OnceLock<Answer>>,
    times: Mutex<Times>,
    /// Requests answered, replays included.
    pub(super) answered: AtomicU64,
    /// Answers to ids that had one, with the same bytes.
    pub(super) identical: AtomicU64,
    /// Answers to ids that had another one. There must be none.
    pub(super) differing: AtomicU64,
    /// Requests that had no answer at first and were sent again.
    pub(super) resent: AtomicU64,
    /// Of these, those that had been decided before: the answer came from the journal.
    pub(super) recovered: AtomicU64,
}

/// Histograms of one phase, microseconds, three significant digits.
#[derive(Clone, Debug)]
pub(super) struct Times {
    /// As the daemon measured it, by span.
    pub(super) spans: Vec<(Span, Histogram<u64>)>,
    /// As the client saw it, from the intended moment of sending.
    pub(super) round_trip: Histogram<u64>,
}

impl Default for Times {
    fn default() -> Self {
        Self { spans: Span::ALL.into_iter().map(|span| (span, histogram())).collect(), round_trip: histogram() }
    }
}

/// Microseconds, for a histogram.
pub(super) fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

impl Answer {
    /// What is kept of it for the proof.
    pub(super) fn known(&self) -> Known {
        const DECLINE: &[u8] = br#""decision":"declined""#;
        let declined = self.body.windows(DECLINE.len()).any(|window| window == DECLINE);
        Known::new(&self.body, self.journaled, !declined)
    }
}

impl Tally {
    /// Room for the answers to `bodies` ids.
    pub(super) fn new(bodies: usize) -> Self {
        Self {
            answers: std::iter::repeat_with(OnceLock::new).take(bodies).collect(),
            times: Mutex::default(),
            answered: AtomicU64::new(0),
            identical: AtomicU64::new(0),
            differing: AtomicU64::new(0),
            resent: AtomicU64::new(0),
            recovered: AtomicU64::new(0),
        }
    }

    /// Takes note of an answer. `tries` is how often the request was sent.
    pub(super) fn note(&self, body: usize, reply: Reply, took: Duration, tries: u32) {
        {
            let mut times = self.times.lock();
            times.round_trip.saturating_record(micros(took));
            for (span, us) in &reply.stages {
                times.spans[*span as usize].1.saturating_record(*us);
            }
        }
        if tries > 1 {
            self.resent.fetch_add(1, Relaxed);
            self.recovered.fetch_add(u64::from(reply.replayed), Relaxed);
        }
        let answer = Answer { body: reply.body, journaled: reply.journaled };
        let mut first = false;
        let known = self.answers[body].get_or_init(|| {
            first = true;
            answer.clone()
        });
        // What the journal does not have may be decided anew; only journaled answers must repeat.
        if !first && known.journaled && answer.journaled {
            let counter = if *known == answer { &self.identical } else { &self.differing };
            counter.fetch_add(1, Relaxed);
        }
        self.answered.fetch_add(1, Relaxed);
    }

    /// The answers so far, with the index of their body.
    pub(super) fn answers(&self) -> impl Iterator<Item = (usize, &Answer)> {
        self.answers.iter().enumerate().filter_map(|(body, answer)| answer.get().map(|answer| (body, answer)))
    }

    /// The 99th percentile of this phase so far, milliseconds and tenths, for people.
    pub(super) fn p99(&self) -> String {
        let us = self.times.lock().round_trip.value_at_quantile(0.99);
        format!("p99 {}.{} ms", us / 1_000, us % 1_000 / 100)
    }

    /// Ends a phase: its times, and a clean sheet for the next.
    pub(super) fn take_times(&self) -> Times {
        std::mem::take(&mut *self.times.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::StatusCode;

    fn reply(body: &'static str, journaled: bool) -> Reply {
        Reply {
            status: StatusCode::OK,
            body: Bytes::from_static(body.as_bytes()),
            replayed: true,
            journaled,
            stages: vec![(Span::Card, 4)],
            detail: None,
        }
    }

    #[test]
    fn a_second_answer_is_compared_with_the_first() {
        for (second, journaled, identical, differing) in [("a", true, 1, 0), ("b", true, 0, 1), ("b", false, 0, 0)] {
            let tally = Tally::new(1);
            tally.note(0, reply("a", true), Duration::from_micros(900), 1);
            tally.note(0, reply(second, journaled), Duration::from_micros(900), 2);
            assert_eq!((tally.identical.load(Relaxed), tally.differing.load(Relaxed)), (identical, differing), "{second}");
            assert_eq!((tally.answered.load(Relaxed), tally.resent.load(Relaxed), tally.recovered.load(Relaxed)), (2, 1, 1));
            assert_eq!(tally.answers().count(), 1);
            let times = tally.take_times();
            assert_eq!((times.round_trip.len(), times.spans[Span::Card as usize].1.max()), (2, 4));
            assert_eq!(tally.take_times().round_trip.len(), 0);
        }
    }
}
