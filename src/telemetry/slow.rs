//! Slow decisions: sampled by whoever answers, told by one reporter.

use super::{Span, Spans, Telemetry, throttle::Throttle};
use crate::domain::{decision::Decision, reason::Reason};
use crossbeam::queue::ArrayQueue;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// A decision that took longer than this, in microseconds, is worth a word.
pub const SLOW_US: u32 = 50_000;
/// Samples kept between two looks of the reporter; the oldest give way.
const SAMPLES_MAX: usize = 256;
const LOOK_EVERY: Duration = Duration::from_secs(1);
const WARN_EVERY: Duration = Duration::from_secs(10);

/// What is kept of a slow decision: nothing that names a card, a person or a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) decision: Decision,
    pub(super) reason: Option<Reason>,
    pub(super) spans: Spans,
    pub(super) total_us: u32,
}

/// The samples on their way to the reporter.
#[derive(Debug)]
pub(super) struct Slow {
    samples: ArrayQueue<Sample>,
    throttle: Throttle,
}

impl Default for Slow {
    fn default() -> Self {
        Self { samples: ArrayQueue::new(SAMPLES_MAX), throttle: Throttle::new(WARN_EVERY) }
    }
}

impl Slow {
    pub(super) fn offer(&self, sample: Sample) {
        self.samples.force_push(sample);
    }

    /// Takes all samples: how many there were, and the worst of them.
    fn take(&self) -> Option<(usize, Sample)> {
        // At most one queue full, so that a storm cannot keep the reporter here.
        let samples: Vec<Sample> = std::iter::from_fn(|| self.samples.pop()).take(SAMPLES_MAX).collect();
        let worst = samples.iter().max_by_key(|sample| sample.total_us).copied()?;
        Some((samples.len(), worst))
    }
}

/// The part of `spans` that took longest.
pub(super) fn slowest_part(spans: &Spans) -> Option<(Span, u32)> {
    spans.iter().filter(|(span, _)| !matches!(span, Span::Total | Span::Queue)).max_by_key(|(_, us)| *us)
}

/// What passed inside of the pipeline, microseconds. User, card and limits are fetched side by side when they are missed, so only the
/// longest of them counts.
pub(super) fn inside_us(spans: &Spans) -> u32 {
    let us = |span| spans.get(span).unwrap_or(0);
    let facts = us(Span::User).max(us(Span::Card)).max(us(Span::Limits));
    [facts, us(Span::Decode), us(Span::Decision), us(Span::Lane), us(Span::Commit)].into_iter().fold(0, u32::saturating_add)
}

/// Tells about slow decisions until it is dropped: looks once a second, warns at most once in ten. The wiring runs one of these.
pub async fn report(telemetry: Telemetry) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut count, mut worst): (usize, Option<Sample>) = (0, None);
    loop {
        ticks.tick().await;
        if let Some((more, sample)) = telemetry.slow().take() {
            count += more;
            worst = Some(worst.filter(|known| known.total_us >= sample.total_us).unwrap_or(sample));
        }
        if let Some(sample) = worst
            && telemetry.slow().throttle.pass().is_some()
        {
            warn(count, &sample);
            (count, worst) = (0, None);
        }
    }
}

fn warn(count: usize, worst: &Sample) {
    let (span, us) = slowest_part(&worst.spans).unwrap_or((Span::Total, worst.total_us));
    tracing::warn!(
        event = "slow_decisions",
        count,
        worst_us = worst.total_us,
        slowest_stage = span.name(),
        slowest_stage_us = us,
        queue_us = worst.spans.get(Span::Queue),
        decision = worst.decision.name(),
        reason = worst.reason.map(Reason::name),
        "decisions took longer than {} ms; the stage named is where the worst one spent its time",
        SLOW_US / 1000
    );
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "a failed expectation is a failed test")]
mod tests {
    use super::*;

    fn spans(parts: &[(Span, u64)]) -> Spans {
        let mut spans = Spans::default();
        parts.iter().for_each(|(span, us)| spans.set(*span, Duration::from_micros(*us)));
        spans
    }

    #[test]
    fn each_slow_decision_is_sampled_once_and_the_worst_is_told() {
        let telemetry = Telemetry::default();
        let fast = spans(&[(Span::Lane, 10), (Span::Commit, 900)]);
        let slow_commit = spans(&[(Span::User, 40_000), (Span::Card, 40_000), (Span::Commit, 20_000)]);
        let side_by_side = spans(&[(Span::User, 40_000), (Span::Card, 40_000), (Span::Limits, 40_000)]);
        let with_total = |mut spans: Spans, us| {
            spans.set(Span::Total, Duration::from_micros(us));
            spans
        };
        for (name, inside, total_us, sampled) in [
            ("fast", fast, 1_000, 0),
            ("slow in the pipeline", slow_commit, 61_000, 1),
            ("facts fetched side by side do not add up", side_by_side, 41_000, 0),
            ("slow on the way back", fast, 70_000, 1),
        ] {
            telemetry.decided(Decision::Approved, None, &inside);
            telemetry.answered(Decision::Approved, None, &with_total(inside, total_us));
            assert_eq!(telemetry.slow().take().map_or(0, |(count, _)| count), sampled, "{name}");
        }

        telemetry.decided(Decision::Approved, None, &slow_commit);
        telemetry.decided(Decision::Declined, Some(Reason::CardLost), &spans(&[(Span::Commit, 90_000)]));
        let (count, worst) = telemetry.slow().take().expect("two samples");
        assert_eq!((count, worst.total_us, slowest_part(&worst.spans)), (2, 90_000, Some((Span::Commit, 90_000))));
    }

    #[test]
    fn samples_are_bounded_and_the_newest_stay() {
        let slow = Slow::default();
        for total_us in 0..10_000 {
            slow.offer(Sample { decision: Decision::Approved, reason: None, spans: Spans::default(), total_us });
        }
        let (count, worst) = slow.take().expect("samples");
        assert_eq!((count, worst.total_us), (SAMPLES_MAX, 9_999));
    }
}
