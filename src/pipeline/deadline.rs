//! When a requester stops listening, by our monotonic clock.

use crate::domain::time::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

/// How far in the future `sent_at` may lie before the two clocks are said to disagree.
const SKEW_MAX: Duration = Duration::from_secs(1);

/// Turns what a request says about its time into a deadline.
///
/// `received` and `wall` are the same moment, the receipt, by two clocks. The deadline is `sent_at` plus `deadline_ms` (or
/// `default`) less `reserve`. An old `sent_at` is believed. One in the future is not: nothing arrives before it was sent, so
/// time counts from receipt then, as it does without `sent_at`. A deadline that has passed already is given as `received`.
///
/// Returns the deadline, how far the sender's clock is ahead where that is more than a second, and how long the request was
/// on its way to us where `sent_at` tells.
#[must_use]
pub fn deadline(
    received: Instant,
    wall: Timestamp,
    sent_at: Option<Timestamp>,
    deadline_ms: Option<u32>,
    default: Duration,
    reserve: Duration,
) -> (Instant, Option<Duration>, Option<Duration>) {
    let patience = deadline_ms.map_or(default, |ms| Duration::from_millis(u64::from(ms))).saturating_sub(reserve);
    let Some(sent_at) = sent_at else { return (received + patience, None, None) };
    let ahead = Duration::from_micros(u64::try_from(sent_at.0.saturating_sub(wall.0)).unwrap_or(0));
    if ahead > SKEW_MAX {
        return (received + patience, Some(ahead), None);
    }
    let queued = Duration::from_micros(u64::try_from(wall.0.saturating_sub(sent_at.0)).unwrap_or(0));
    (received + patience.saturating_sub(queued), None, Some(queued))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_US: i64 = 1_772_619_307_000_000;
    const DEFAULT: Duration = Duration::from_secs(2);
    const RESERVE: Duration = Duration::from_millis(50);

    /// `sent_us` counts from the receipt. Expected: left until the deadline, skew, queue wait; milliseconds.
    fn check(sent_us: Option<i64>, deadline_ms: Option<u32>, expected: (u64, Option<u64>, Option<u64>)) {
        let received = Instant::now();
        let sent_at = sent_us.map(|us| Timestamp(NOW_US.saturating_add(us)));
        let (deadline, skew, queued) = deadline(received, Timestamp(NOW_US), sent_at, deadline_ms, DEFAULT, RESERVE);
        let ms = Duration::from_millis;
        let expected = (received + ms(expected.0), expected.1.map(ms), expected.2.map(ms));
        assert_eq!((deadline, skew, queued), expected, "sent {sent_us:?} us from receipt, deadline_ms {deadline_ms:?}");
    }

    #[test]
    fn an_old_sent_at_is_believed_and_one_ahead_is_not() {
        check(None, None, (1950, None, None));
        check(None, Some(3000), (2950, None, None));
        check(Some(0), Some(3000), (2950, None, Some(0)));
        check(Some(-400_000), Some(3000), (2550, None, Some(400)));
        check(Some(-2_950_000), Some(3000), (0, None, Some(2950)));
        check(Some(-60_000_000), None, (0, None, Some(60_000)));
        check(Some(1_000_000), None, (1950, None, Some(0)));
        check(Some(1_500_000), None, (1950, Some(1500), None));
        check(None, Some(20), (0, None, None));
    }

    #[test]
    fn absurd_instants_do_not_overflow() {
        let received = Instant::now();
        for sent_at in [i64::MIN, i64::MAX] {
            let (deadline, ..) = deadline(received, Timestamp(NOW_US), Some(Timestamp(sent_at)), None, DEFAULT, RESERVE);
            assert!(deadline >= received && deadline <= received + DEFAULT, "{sent_at}");
        }
    }
}
