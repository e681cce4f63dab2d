//! Keeps a line that could repeat thousands of times a second from filling the log.
#![expect(clippy::disallowed_methods, reason = "lines are throttled by real time")]

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Lets one line through per pause and counts the others, so that the next line can say how many there were.
#[derive(Debug)]
pub(super) struct Throttle {
    start: Instant,
    pause: Duration,
    /// Milliseconds after `start` at which the next line may pass.
    next_ms: AtomicU64,
    held_back: AtomicU64,
}

impl Throttle {
    pub(super) fn new(pause: Duration) -> Self {
        Self { start: Instant::now(), pause, next_ms: AtomicU64::new(0), held_back: AtomicU64::new(0) }
    }

    /// `Some` when a line may be written now: how often the same happened since the last one, this time included.
    pub(super) fn pass(&self) -> Option<u64> {
        self.pass_after(self.start.elapsed())
    }

    fn pass_after(&self, elapsed: Duration) -> Option<u64> {
        self.held_back.fetch_add(1, Relaxed);
        let (now, next) = (millis(elapsed), self.next_ms.load(Relaxed));
        let won = now >= next && self.next_ms.compare_exchange(next, now.saturating_add(millis(self.pause)), Relaxed, Relaxed).is_ok();
        won.then(|| self.held_back.swap(0, Relaxed))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_pause_says_how_many_there_were() {
        let throttle = Throttle::new(Duration::from_secs(10));
        for (second, expected) in [(0, Some(1)), (1, None), (9, None), (10, Some(3)), (11, None), (30, Some(2))] {
            assert_eq!(throttle.pass_after(Duration::from_secs(second)), expected, "at {second} s");
        }
    }
}
