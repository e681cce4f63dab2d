//! What a slow decision spent its time on.

use super::{Span, Spans, labels::Cause};

/// The part of a decision that took longest, and why it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blame {
    pub(super) cause: Cause,
    /// The span that the time was spent in; `None` between the spans.
    pub(super) span: Option<Span>,
    pub(super) us: u32,
}

/// What took longest of what an answer's requester waited for, and of its confirm.
pub(super) fn blame(spans: &Spans) -> Blame {
    let us = |span| spans.get(span).unwrap_or(0);
    // The decision is made while the lane holds the batch, which counts as the commit's time.
    let commit = us(Span::Commit).saturating_sub(us(Span::Decision));
    let facts = facts(spans);
    let parts = [
        Blame { cause: Cause::Decode, span: Some(Span::Decode), us: us(Span::Decode) },
        facts,
        Blame { cause: Cause::Decision, span: Some(Span::Decision), us: us(Span::Decision) },
        Blame { cause: Cause::LaneWait, span: Some(Span::Lane), us: us(Span::Lane) },
        Blame { cause: Cause::CommitWait, span: Some(Span::Commit), us: commit },
        Blame { cause: Cause::Publish, span: Some(Span::Publish), us: us(Span::Publish) },
    ];
    let measured = parts.iter().fold(0_u32, |sum, part| sum.saturating_add(part.us));
    let between = us(Span::Total).saturating_sub(measured);
    let rest = [
        Blame { cause: Cause::Scheduling, span: None, us: between },
        Blame { cause: Cause::ConfirmWait, span: Some(Span::Confirm), us: us(Span::Confirm) },
    ];
    parts.into_iter().chain(rest).max_by_key(|part| part.us).unwrap_or(facts)
}

/// User, card and limits are fetched side by side when they are missed, so only the longest of them counts.
fn facts(spans: &Spans) -> Blame {
    let longest = [Span::User, Span::Card, Span::Limits].into_iter().filter_map(|span| spans.get(span).map(|us| (span, us)));
    let Some((span, us)) = longest.max_by_key(|(_, us)| *us) else {
        return Blame { cause: Cause::MemoryMiss, span: None, us: 0 };
    };
    let (redis, store) = (spans.redis_us(), spans.store_us());
    let neither = us.saturating_sub(redis.saturating_add(store));
    let cause = match redis.max(store) {
        // Nothing was read: memory had it, and only a processor that was taken away makes that slow.
        0 => Cause::Scheduling,
        longest if neither > longest => Cause::MemoryMiss,
        longest if longest == redis => Cause::Redis,
        _ => Cause::Database,
    };
    Blame { cause, span: Some(span), us }
}

impl Cause {
    /// What it means and where to look, for a person.
    pub(super) const fn advice(self) -> &'static str {
        match self {
            Self::Decode => "reading the request; is the machine out of processors?",
            Self::MemoryMiss => "waiting for facts that another request was reading, or between tries; is the cache warm?",
            Self::Redis => "waiting for facts from Redis; look at its latency",
            Self::Database => "waiting for facts from the store; look at its load, and at why memory and Redis did not have them",
            Self::Decision => "deciding; is the machine out of processors?",
            Self::LaneWait => "waiting for its lane, which was busy with the commit before; look at the commits",
            Self::CommitWait => "waiting for the store to commit; look for rows locked by somebody else, and at the disk",
            Self::Publish => "waiting to be written; look at the broker's connection, or at requesters that do not read",
            Self::ConfirmWait => "waiting for the broker's confirm; look at the broker's disk and load",
            Self::Scheduling => "between the stages, waiting for a processor; is the machine overloaded?",
            Self::QueueWait => "in the queue before we received it; is there a backlog, or are two clocks apart?",
            Self::Stalled => "in flight, and nothing at all is answered; look at the store and the broker",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn check(name: &str, parts: &[(Span, u64)], (redis, store): (u64, u64), expected: (Cause, Option<Span>, u32)) {
        let mut spans = Spans::default();
        parts.iter().for_each(|(span, us)| spans.set(*span, Duration::from_micros(*us)));
        spans.set_fact_read(Duration::from_micros(redis), Duration::from_micros(store));
        let Blame { cause, span, us } = blame(&spans);
        assert_eq!((cause, span, us), expected, "{name}");
    }

    #[test]
    fn the_longest_part_is_blamed() {
        use Span::{Card, Commit, Confirm, Decision, Decode, Lane, Limits, Publish, Queue, Total, User};
        let warm = [(Decode, 5), (User, 2), (Card, 3), (Limits, 2), (Decision, 4)];
        let with = |more: &[(Span, u64)]| [warm.as_slice(), more].concat();
        let cold = |more: &[(Span, u64)]| {
            let cold = [(Decode, 5), (User, 60_000), (Card, 60_000), (Limits, 60_000), (Decision, 4), (Lane, 9), (Commit, 900)];
            [cold.as_slice(), more].concat()
        };
        for (name, parts, read, expected) in [
            ("commit", with(&[(Lane, 40_000), (Commit, 70_004), (Total, 111_000)]), (0, 0), (Cause::CommitWait, Some(Commit), 70_000)),
            ("lane", with(&[(Lane, 70_000), (Commit, 40_000), (Total, 111_000)]), (0, 0), (Cause::LaneWait, Some(Lane), 70_000)),
            (
                "the decision is not the commit's",
                [(Decision, 60_000), (Commit, 61_000), (Total, 62_000)].to_vec(),
                (0, 0),
                (Cause::Decision, Some(Decision), 60_000),
            ),
            ("decode", [(Decode, 60_000), (Commit, 900), (Total, 61_000)].to_vec(), (0, 0), (Cause::Decode, Some(Decode), 60_000)),
            ("publish", with(&[(Commit, 900), (Publish, 55_000), (Total, 56_000)]), (0, 0), (Cause::Publish, Some(Publish), 55_000)),
            ("confirm", with(&[(Commit, 900), (Total, 1_000), (Confirm, 90_000)]), (0, 0), (Cause::ConfirmWait, Some(Confirm), 90_000)),
            ("between", with(&[(Commit, 900), (Publish, 100), (Total, 61_008)]), (0, 0), (Cause::Scheduling, None, 60_000)),
            ("redis", cold(&[(Total, 62_000)]), (58_000, 1_000), (Cause::Redis, Some(Limits), 60_000)),
            ("database", cold(&[(Total, 62_000)]), (1_000, 58_000), (Cause::Database, Some(Limits), 60_000)),
            ("neither", cold(&[(Total, 62_000)]), (1_000, 9_000), (Cause::MemoryMiss, Some(Limits), 60_000)),
            ("a hit that took long", cold(&[(Total, 62_000)]), (0, 0), (Cause::Scheduling, Some(Limits), 60_000)),
            (
                "the queue is not ours",
                with(&[(Queue, 900_000), (Commit, 900), (Total, 950)]),
                (0, 0),
                (Cause::CommitWait, Some(Commit), 896),
            ),
            ("nothing", Vec::new(), (0, 0), (Cause::ConfirmWait, Some(Confirm), 0)),
        ] {
            check(name, &parts, read, expected);
        }
    }
}
