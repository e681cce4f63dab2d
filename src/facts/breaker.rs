//! Takes a sick dependency out of the way, and lets it in again once it has answered a single probe.

pub use crate::telemetry::events::BreakerState;

use parking_lot::Mutex;
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};
use tokio::time::Instant;

/// Failures in a row after which nothing more is asked of the dependency.
const FAILURES_MAX: u32 = 5;
/// The first pause before a probe; it doubles with every probe that fails.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest pause: a dependency that is well again is used again before long.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Closed, until too much fails in a row. Probes are sent by one supervisor, never by somebody who waits for an answer.
#[derive(Debug)]
pub struct Breaker {
    /// Whether it is closed, for those who only want to know that.
    closed: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: BreakerState,
    failures: u32,
    pause: Duration,
    probe_at: Option<Instant>,
}

impl Default for Breaker {
    fn default() -> Self {
        let inner = Inner { state: BreakerState::Closed, failures: 0, pause: PAUSE, probe_at: None };
        Self { closed: AtomicBool::new(true), inner: Mutex::new(inner) }
    }
}

impl Breaker {
    /// Whether something may be asked of the dependency.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.inner.lock().state
    }

    /// Whether the supervisor may probe now: always when closed, after the pause when open. Whoever is told yes says how it went.
    #[must_use]
    pub fn may_probe(&self, now: Instant) -> bool {
        let mut inner = self.inner.lock();
        match inner.state {
            BreakerState::Closed => true,
            BreakerState::HalfOpen => false,
            BreakerState::Open => {
                let due = inner.probe_at.is_none_or(|at| at <= now);
                if due {
                    inner.state = BreakerState::HalfOpen;
                }
                due
            }
        }
    }

    /// Something was answered. Only the probe's answer closes it: one that was asked for before says nothing about now.
    pub fn succeeded(&self, probe: bool) {
        let mut inner = self.inner.lock();
        if probe || inner.state == BreakerState::Closed {
            *inner = Inner { state: BreakerState::Closed, failures: 0, pause: PAUSE, probe_at: None };
            self.closed.store(true, Relaxed);
        }
    }

    /// Something was not answered, or not in time.
    pub fn failed(&self, now: Instant) {
        let mut inner = self.inner.lock();
        let pause = match inner.state {
            BreakerState::Open => return,
            BreakerState::HalfOpen => (inner.pause * 2).min(PAUSE_MAX),
            BreakerState::Closed => {
                inner.failures += 1;
                if inner.failures < FAILURES_MAX {
                    return;
                }
                PAUSE
            }
        };
        *inner = Inner { state: BreakerState::Open, failures: 0, pause, probe_at: Some(now + pause) };
        self.closed.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Step {
        Fail,
        Answer,
        /// What the supervisor may do, and how it then goes.
        Probe(Option<bool>),
        Wait(u64),
    }
    use BreakerState::{Closed, HalfOpen, Open};
    use Step::{Answer, Fail, Probe, Wait};

    fn check(name: &str, steps: &[Step], expected: BreakerState) {
        let (breaker, mut now) = (Breaker::default(), Instant::now());
        for (place, step) in steps.iter().enumerate() {
            match step {
                Fail => breaker.failed(now),
                Answer => breaker.succeeded(false),
                Wait(ms) => now += Duration::from_millis(*ms),
                Probe(expected) => {
                    assert_eq!(breaker.may_probe(now), expected.is_some(), "{name}, step {place}");
                    match expected {
                        Some(true) => breaker.succeeded(true),
                        Some(false) => breaker.failed(now),
                        None => {}
                    }
                }
            }
        }
        assert_eq!((breaker.state(), breaker.is_closed()), (expected, expected == Closed), "{name}");
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_after_one_good_probe() {
        let open = || vec![Fail, Fail, Fail, Fail, Fail];
        check("a few failures", &[Fail, Fail, Fail, Fail], Closed);
        check("failures that are not in a row", &[Fail, Fail, Fail, Fail, Answer, Fail, Fail, Fail, Fail], Closed);
        check("failures in a row", &open(), Open);
        for (name, then, expected) in [
            ("no probe before the pause is over", vec![Wait(249), Probe(None)], Open),
            ("a good probe", vec![Wait(250), Probe(Some(true))], Closed),
            ("a bad probe", vec![Wait(250), Probe(Some(false))], Open),
            ("pauses grow", vec![Wait(250), Probe(Some(false)), Wait(499), Probe(None), Wait(1), Probe(Some(true))], Closed),
            ("an answer from before does not close it", vec![Answer], Open),
            ("after a good probe it takes as many failures again", vec![Wait(250), Probe(Some(true)), Fail, Fail, Fail, Fail], Closed),
        ] {
            check(name, &open().into_iter().chain(then).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn one_probe_at_a_time() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        (0..FAILURES_MAX).for_each(|_| breaker.failed(now));
        let later = now + PAUSE;
        assert!(breaker.may_probe(later));
        assert_eq!(breaker.state(), HalfOpen);
        assert!(!breaker.may_probe(later) && !breaker.is_closed(), "while one is under way, nothing else goes through");
    }

    #[test]
    fn pauses_have_an_end() {
        let (breaker, mut now) = (Breaker::default(), Instant::now());
        (0..FAILURES_MAX).for_each(|_| breaker.failed(now));
        for _ in 0..20 {
            now += PAUSE_MAX;
            assert!(breaker.may_probe(now), "due after the longest pause");
            breaker.failed(now);
        }
    }
}
