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
    /// Waiting for the lane: for the commit before, and for the rest of the batch to be decided.
    Lane,
    /// The durable commit, all tries.
    Commit,
    /// Until the response was written to the socket.
    Publish,
    /// From there until the broker confirmed it.
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

/// The measured spans of one decision, in whole microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spans([Option<u32>; Span::ALL.len()]);

impl Spans {
    /// Notes how long `span` took.
    pub fn set(&mut self, span: Span, took: Duration) {
        self.0[span as usize] = Some(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    /// Microseconds, where the span was measured.
    #[must_use]
    pub fn get(&self, span: Span) -> Option<u32> {
        self.0[span as usize]
    }

    /// The measured spans, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Span, u32)> + '_ {
        Span::ALL.into_iter().filter_map(|span| self.get(span).map(|us| (span, us)))
    }
}
