//! The parts of a decision's time.

use std::time::Duration;

/// A part of a decision's time. `Total` runs from the delivery's receipt to its response written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum Span {
    /// Between the processor's sending and our receipt, by two clocks.
    Queue,
    /// Bytes to a request.
    Decode,
    /// Stage 1: the user.
    User,
    /// Stage 2: the card.
    Card,
    /// Stage 3: the limits.
    Limits,
    /// Stage 4: the decision.
    Decision,
    /// Waiting for the lane, which works on the batch before.
    Lane,
    /// The lane at work: the batch decided, the money that it needs read, the durable commit with all tries.
    Commit,
    /// From there until the response was written to the socket.
    Publish,
    /// From there until the broker confirmed it, at most: under load nobody is woken for a confirm, and one that came within a few
    /// milliseconds counts from when it was looked at.
    Confirm,
    /// From receipt until the response was written.
    Total,
}

impl Span {
    /// Every span, in the order of a decision's life.
    pub const ALL: [Self; 11] = [
        Self::Queue,
        Self::Decode,
        Self::User,
        Self::Card,
        Self::Limits,
        Self::Decision,
        Self::Lane,
        Self::Commit,
        Self::Publish,
        Self::Confirm,
        Self::Total,
    ];

    /// The name in metrics, headers and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Decode => "decode",
            Self::User => "user",
            Self::Card => "card",
            Self::Limits => "limits",
            Self::Decision => "decision",
            Self::Lane => "lane",
            Self::Commit => "commit",
            Self::Publish => "publish",
            Self::Confirm => "confirm",
            Self::Total => "total",
        }
    }
}

/// The measured spans of one decision, in whole microseconds, and which tier a read of its facts waited for.
#[derive(Clone, Copy, Debug)]
pub struct Spans {
    /// `ABSENT` where a span was not measured.
    us: [u32; Span::ALL.len()],
    redis_us: u32,
    store_us: u32,
}

const ABSENT: u32 = u32::MAX;

impl Default for Spans {
    fn default() -> Self {
        Self { us: [ABSENT; Span::ALL.len()], redis_us: 0, store_us: 0 }
    }
}

impl Spans {
    /// Notes how long `span` took.
    pub fn set(&mut self, span: Span, took: Duration) {
        self.us[span as usize] = micros(took);
    }

    /// Notes how much of a read of facts was spent waiting for Redis, and how much for the store. Whatever is left of the spans of
    /// the read was spent in neither.
    pub fn set_fact_read(&mut self, redis: Duration, store: Duration) {
        (self.redis_us, self.store_us) = (micros(redis), micros(store));
    }

    /// Microseconds, where the span was measured.
    #[must_use]
    pub fn get(&self, span: Span) -> Option<u32> {
        Some(self.us[span as usize]).filter(|us| *us != ABSENT)
    }

    /// Microseconds that a read of facts waited for Redis; 0 when there was no read.
    #[must_use]
    pub fn redis_us(&self) -> u32 {
        self.redis_us
    }

    /// Microseconds that a read of facts waited for the store; 0 when there was no read.
    #[must_use]
    pub fn store_us(&self) -> u32 {
        self.store_us
    }

    /// The measured spans, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Span, u32)> + '_ {
        Span::ALL.into_iter().filter_map(|span| self.get(span).map(|us| (span, us)))
    }
}

fn micros(took: Duration) -> u32 {
    u32::try_from(took.as_micros()).unwrap_or(ABSENT).min(ABSENT - 1)
}
