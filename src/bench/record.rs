//! What came back, sending by sending, written down by whoever heard it. Nothing is worked out while the run goes on.

use super::traffic::{Kind, Traffic};
use crate::{
    domain::{
        decision::Decision,
        reason::{Reason, ReasonClass},
    },
    telemetry::{Span, Spans},
};
use foldhash::fast::FixedState;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Deserialize;
use std::{
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::OwnedSemaphorePermit;

/// Examples of what should not have happened that are kept, for the person who has to find out why.
const EXAMPLES_MAX: usize = 5;
/// How much of an example is kept, bytes.
const EXAMPLE_BYTES_MAX: usize = 400;
/// A time that was not measured.
const NEVER: u32 = u32::MAX;

/// An answer as a target heard it.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The response's bytes.
    pub body: &'a [u8],
    /// Whether the journal has it: not when `x-final: false` says so.
    pub journaled: bool,
    /// The spans that the daemon told.
    pub spans: Spans,
}

/// The place of one sending among those under way. Dropped without an answer, the sending stays unanswered.
#[derive(Debug)]
pub struct Seat {
    nth: usize,
    due: Instant,
    record: Arc<Record>,
    _slot: OwnedSemaphorePermit,
}

/// Everything that came back. Times are in microseconds from the moment a sending was due.
#[derive(Debug)]
pub struct Record {
    traffic: Arc<Traffic>,
    due: Vec<Duration>,
    measured_from: Duration,
    sendings: Vec<Sending>,
    /// Whether the answers decide anything; those of an echo are all the same.
    decided: bool,
    /// The first answer to each id; see [`Known`].
    answers: Vec<AtomicU64>,
    live: Mutex<Live>,
    counts: Counts,
    examples: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct Sending {
    /// From the start of the warm-up. In a closed loop it is known when a place is free.
    due_us: AtomicU64,
    sent_us: AtomicU32,
    answered_us: AtomicU32,
    outcome: AtomicU32,
    retried: AtomicBool,
}

/// Counted as it happens.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    answered: AtomicU64,
    retries: AtomicU64,
    identical: AtomicU64,
    differing: AtomicU64,
    duplicated: AtomicU64,
    unexpected: AtomicU64,
}

/// Histograms that are needed before the end, or that nothing else keeps.
#[derive(Debug)]
struct Live {
    recent: Histogram<u64>,
    stages: Vec<Histogram<u64>>,
    gathered: Histogram<u64>,
}

/// What is known of the answer to an id, in 64 bits: a digest of its bytes, and whether it is journaled and whether it holds money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known(u64);

/// What a response says, numbered: 0 to 2 a [`Decision`], then the reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome(u32);

/// One sending, after the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When it was due, from the start of the warm-up.
    pub due: Duration,
    /// How late it was sent, microseconds; `None` if it never was.
    pub lag_us: Option<u32>,
    /// From when it was due to its first answer, microseconds.
    pub response_us: Option<u32>,
    /// What the answer said.
    pub outcome: Option<Outcome>,
    /// Whether the id was sent before, by an earlier sending or in a try that had no answer.
    pub again: bool,
    /// Whether it was after the warm-up.
    pub measured: bool,
}

/// Totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests handed to the target.
    pub sent: u64,
    /// Of these, answered at least once.
    pub answered: u64,
    /// Tries after the first.
    pub retries: u64,
    /// Answers to ids that had one, with the same bytes.
    pub identical: u64,
    /// With other bytes. There must be none.
    pub differing: u64,
    /// Answers to a sending that had one.
    pub duplicated: u64,
    /// Answers nobody waits for, that cannot be read, that contradict what was asked, and refusals.
    pub unexpected: u64,
}

#[derive(Deserialize)]
struct Response<'a> {
    version: u8,
    id: &'a str,
    decision: &'a str,
    reason: Option<&'a str>,
}

impl Record {
    /// A clean sheet for the traffic and its schedule.
    #[must_use]
    pub fn new(traffic: Arc<Traffic>, due: Vec<Duration>, measured_from: Duration) -> Self {
        let sending = |due: &Duration| Sending {
            due_us: AtomicU64::new(wide_micros(*due)),
            sent_us: NEVER.into(),
            answered_us: NEVER.into(),
            outcome: NEVER.into(),
            retried: false.into(),
        };
        Self {
            sendings: due.iter().map(sending).collect(),
            answers: std::iter::repeat_with(AtomicU64::default).take(traffic.requests.len()).collect(),
            live: Mutex::new(Live { recent: histogram(), stages: Span::ALL.map(|_| histogram()).into(), gathered: histogram() }),
            counts: Counts::default(),
            examples: Mutex::default(),
            decided: true,
            traffic,
            due,
            measured_from,
        }
    }

    /// The same for an echo: what it answers is no decision, and nothing is asked of it but to be there.
    #[must_use]
    pub fn of_an_echo(self) -> Self {
        Self { decided: false, ..self }
    }

    /// What is sent.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// When each sending is due, from the start.
    #[must_use]
    pub fn due(&self) -> &[Duration] {
        &self.due
    }

    /// A place for a sending that is due at `began` plus `offset`.
    #[must_use]
    pub fn seat(self: &Arc<Self>, nth: usize, began: Instant, offset: Duration, slot: OwnedSemaphorePermit) -> Seat {
        self.sendings[nth].due_us.store(wide_micros(offset), Relaxed);
        let due = began + offset;
        Seat { nth, due, record: Arc::clone(self), _slot: slot }
    }

    /// Notes an answer that nobody waits for: to a sending that was answered, or to none.
    pub fn answered_again(&self, nth: Option<usize>, reply: Reply<'_>) {
        match nth.and_then(|nth| self.traffic.items.get(nth)) {
            Some(item) => {
                self.counts.duplicated.fetch_add(1, Relaxed);
                self.compare(item.request as usize, &reply, self.parse(item.request as usize, reply.body));
            }
            None => self.unexpected(|| format!("an answer to nobody: {}", shown(reply.body))),
        }
    }

    /// Notes something that should not have happened.
    pub fn unexpected(&self, what: impl FnOnce() -> String) {
        self.counts.unexpected.fetch_add(1, Relaxed);
        let mut examples = self.examples.lock();
        if examples.len() < EXAMPLES_MAX {
            examples.push(shown(what().as_bytes()));
        }
    }

    /// Totals so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let Counts { sent, answered, retries, identical, differing, duplicated, unexpected } = &self.counts;
        Totals {
            sent: sent.load(Relaxed),
            answered: answered.load(Relaxed),
            retries: retries.load(Relaxed),
            identical: identical.load(Relaxed),
            differing: differing.load(Relaxed),
            duplicated: duplicated.load(Relaxed),
            unexpected: unexpected.load(Relaxed),
        }
    }

    /// Examples of what should not have happened.
    #[must_use]
    pub fn examples(&self) -> Vec<String> {
        self.examples.lock().clone()
    }

    /// The median and the 99th percentile since they were last asked for, microseconds.
    #[must_use]
    pub fn recent(&self) -> (u64, u64) {
        let mut live = self.live.lock();
        let quantiles = (live.recent.value_at_quantile(0.5), live.recent.value_at_quantile(0.99));
        live.recent.reset();
        quantiles
    }

    /// The daemon's own spans, without those of the warm-up.
    #[must_use]
    pub fn stages(&self) -> Vec<(Span, Histogram<u64>)> {
        Span::ALL.into_iter().zip(self.live.lock().stages.iter().cloned()).collect()
    }

    /// Gather and decision of each request, as [`gathered`](super::stages::gathered) has it, without those of the warm-up.
    #[must_use]
    pub fn gathered(&self) -> Histogram<u64> {
        self.live.lock().gathered.clone()
    }

    /// Every sending, in order.
    pub fn seen(&self) -> impl Iterator<Item = Seen> + '_ {
        let some = |value: &AtomicU32| Some(value.load(Relaxed)).filter(|value| *value != NEVER);
        self.sendings.iter().zip(&self.traffic.items).map(move |(sending, item)| {
            let due = Duration::from_micros(sending.due_us.load(Relaxed));
            Seen {
                due,
                lag_us: some(&sending.sent_us),
                response_us: some(&sending.answered_us),
                outcome: some(&sending.outcome).map(Outcome),
                again: item.replay || sending.retried.load(Relaxed),
                measured: due >= self.measured_from,
            }
        })
    }

    /// The first answer to each id that has one, with the id's index.
    pub fn answers(&self) -> impl Iterator<Item = (usize, Known)> + '_ {
        let known = |answer: &AtomicU64| Some(Known(answer.load(Relaxed))).filter(|known| known.0 != 0);
        self.answers.iter().enumerate().filter_map(move |(index, answer)| Some((index, known(answer)?)))
    }

    /// What a response to this request says; `None` when it is not one of version 1, or one to another request.
    fn parse(&self, request: usize, body: &[u8]) -> Option<Outcome> {
        let response: Response<'_> = serde_json::from_slice(body).ok().filter(|response: &Response<'_>| response.version == 1)?;
        if self.decided && self.traffic.ids.index(response.id) != Some(request) {
            return None;
        }
        match (response.decision, response.reason) {
            ("approved", None) => Some(Outcome(1)),
            ("partially_approved", None) => Some(Outcome(2)),
            ("declined", Some(reason)) => {
                let position = Reason::ALL.iter().position(|known| known.name() == reason)?;
                Some(Outcome(3 + u32::try_from(position).ok()?))
            }
            _ => None,
        }
    }

    /// What an answer cannot be whatever the store has. The rest is for the proof.
    fn contradiction(&self, request: usize, outcome: Outcome, journaled: bool) -> Option<&'static str> {
        let (ask, reason) = (&self.traffic.requests[request], outcome.reason());
        if !self.decided || reason.is_some_and(|reason| reason.class() == ReasonClass::System) {
            return None;
        }
        let wrong = matches!(ask.kind(), Kind::WrongUser | Kind::WrongCurrency);
        match (reason, ask.refusal()) {
            (Some(reason), _) if reason.class() == ReasonClass::Input => Some("a request that is right was turned away"),
            _ if !journaled => Some("an answer that is not final, and that the daemon could only give from the store"),
            (reason, Some(expected)) if reason != Some(expected) => Some("another decision than its card asks for"),
            (Some(Reason::CardNotFound), None) => Some("the store does not have a card of the scenario (jitauth seed --cards N)"),
            (None, _) if wrong => Some("an approval with another user or currency than the card's"),
            (None, _) if outcome.decision() == Decision::PartiallyApproved && !ask.may_be_partial() => {
                Some("less was approved than was asked for, and nobody said that it would do")
            }
            _ => None,
        }
    }

    /// Holds an answer against what is known of its id.
    fn compare(&self, request: usize, reply: &Reply<'_>, outcome: Option<Outcome>) {
        let fresh = Known::new(reply.body, reply.journaled, outcome.is_some_and(Outcome::holds));
        let known = match self.answers[request].compare_exchange(0, fresh.0, Relaxed, Relaxed) {
            Ok(_) => return,
            Err(known) => Known(known),
        };
        // What the journal does not have may be decided anew; only journaled answers must repeat.
        match (known.journaled(), fresh.journaled()) {
            (true, true) if known == fresh => drop(self.counts.identical.fetch_add(1, Relaxed)),
            (true, true) => {
                self.counts.differing.fetch_add(1, Relaxed);
                self.unexpected(|| format!("another answer to {}: {}", self.traffic.ids.id(request), shown(reply.body)));
            }
            (false, true) => self.answers[request].store(fresh.0, Relaxed),
            (_, false) => {}
        }
    }
}

impl Seat {
    /// Which sending this is.
    #[must_use]
    pub const fn nth(&self) -> usize {
        self.nth
    }

    /// When it was due.
    #[must_use]
    pub const fn due(&self) -> Instant {
        self.due
    }

    /// Notes that the request is on its way: the service time counts from here.
    pub fn sent(&self, now: Instant) {
        self.record.sendings[self.nth].sent_us.store(micros(now.saturating_duration_since(self.due)), Relaxed);
        self.record.counts.sent.fetch_add(1, Relaxed);
    }

    /// Notes that it has to be sent once more.
    pub fn retried(&self) {
        self.record.sendings[self.nth].retried.store(true, Relaxed);
        self.record.counts.retries.fetch_add(1, Relaxed);
    }

    /// Notes that it was turned away as no request: an answer, and a wrong one.
    pub fn refused(self, why: impl FnOnce() -> String) {
        let record = &self.record;
        record.unexpected(|| format!("{} was refused: {}", record.traffic.ids.id(self.request()), why()));
    }

    /// Notes the answer.
    pub fn answered(self, now: Instant, reply: Reply<'_>) {
        let (record, request) = (&self.record, self.request());
        let response_us = micros(now.saturating_duration_since(self.due));
        let outcome = record.parse(request, reply.body);
        let sending = &record.sendings[self.nth];
        sending.answered_us.store(response_us, Relaxed);
        match outcome {
            Some(outcome) => {
                sending.outcome.store(outcome.0, Relaxed);
                if let Some(wrong) = record.contradiction(request, outcome, reply.journaled) {
                    record.unexpected(|| format!("{wrong}: {}", shown(reply.body)));
                }
            }
            None => record.unexpected(|| format!("no response of version 1 to {}: {}", record.traffic.ids.id(request), shown(reply.body))),
        }
        record.compare(request, &reply, outcome);
        {
            let mut live = record.live.lock();
            live.recent.saturating_record(u64::from(response_us));
            if sending.due_us.load(Relaxed) >= wide_micros(record.measured_from) {
                for (span, us) in reply.spans.iter() {
                    live.stages[span as usize].saturating_record(u64::from(us));
                }
                super::stages::gathered(&reply.spans).into_iter().for_each(|us| live.gathered.saturating_record(us));
            }
        }
        record.counts.answered.fetch_add(1, Relaxed);
    }

    fn request(&self) -> usize {
        self.record.traffic.items[self.nth].request as usize
    }
}

impl Known {
    const JOURNALED: u64 = 1;
    const HOLDS: u64 = 2;
    /// Set in all, so that none is zero.
    const ANSWERED: u64 = 4;

    /// What is kept of an answer.
    #[must_use]
    pub fn new(body: &[u8], journaled: bool, holds: bool) -> Self {
        Self((digest(body) & !7) | Self::ANSWERED | if journaled { Self::JOURNALED } else { 0 } | if holds { Self::HOLDS } else { 0 })
    }

    /// Whether the journal has it.
    #[must_use]
    pub const fn journaled(self) -> bool {
        self.0 & Self::JOURNALED != 0
    }

    /// Whether it is an approval.
    #[must_use]
    pub const fn holds(self) -> bool {
        self.0 & Self::HOLDS != 0
    }

    /// Whether these are its bytes.
    #[must_use]
    pub fn is(self, body: &[u8]) -> bool {
        self.0 & !7 == digest(body) & !7
    }
}

impl Outcome {
    /// Whether money is held.
    #[must_use]
    pub const fn holds(self) -> bool {
        self.0 == 1 || self.0 == 2
    }

    /// The decision on the wire.
    #[must_use]
    pub const fn decision(self) -> Decision {
        match self.0 {
            1 => Decision::Approved,
            2 => Decision::PartiallyApproved,
            _ => Decision::Declined,
        }
    }

    /// Why it was declined.
    #[must_use]
    pub fn reason(self) -> Option<Reason> {
        Reason::ALL.get((self.0 as usize).checked_sub(3)?).copied()
    }
}

/// From 1 µs to a minute, three digits. Fixed bounds: a histogram that may grow still clamps what `saturating_record` is given to
/// its present ones.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).unwrap_or_else(|error| unreachable!("these bounds are good: {error}"))
}

/// Microseconds, for a histogram: up to 71 minutes, which is longer than anybody waits.
#[must_use]
pub fn micros(took: Duration) -> u32 {
    u32::try_from(took.as_micros()).unwrap_or(NEVER - 1).min(NEVER - 1)
}

fn wide_micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn digest(body: &[u8]) -> u64 {
    FixedState::default().hash_one(body)
}

/// Bytes from elsewhere, for a person: not too many, and none that a terminal would act on.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(EXAMPLE_BYTES_MAX)]);
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            ' '..='~' => shown.push(letter),
            other => shown.extend(other.escape_default()),
        }
    }
    if bytes.len() > EXAMPLE_BYTES_MAX {
        shown.push_str(" ...");
    }
    shown
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
