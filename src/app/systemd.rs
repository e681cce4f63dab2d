//! What the service manager is told, by the protocol of systemd: ready, alive, what it does, and that it ends.
//!
//! Without `NOTIFY_SOCKET` nothing is told.

use crate::telemetry::{Span, Telemetry};
use sd_notify::NotifyState::{self, ExtendTimeoutUsec, Ready, Status, Stopping, Watchdog};
use std::{convert::Infallible, env, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often the status line is written anew while nothing changes.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
/// For how much longer a start that goes on may take, each time it says so.
const START_EXTENSION: Duration = Duration::from_secs(30);
/// What is left for the exit once the drain has ended.
const EXIT_MARGIN: Duration = Duration::from_secs(5);
/// How often a drain says that it goes on.
const DRAIN_INTERVAL: Duration = Duration::from_secs(1);

/// The service manager, if one listens.
pub(super) struct Systemd {
    listens: bool,
    ready: bool,
    heart: Heart,
    next_status: Instant,
    /// When the rate was last counted, and the decisions until then.
    counted: (Instant, u64),
}

impl Systemd {
    pub(super) fn from_environment() -> Self {
        let now = Instant::now();
        Self {
            listens: env::var_os("NOTIFY_SOCKET").is_some(),
            ready: false,
            heart: Heart::new(sd_notify::watchdog_enabled(), now),
            next_status: now,
            counted: (now, 0),
        }
    }

    /// Called at every turn of the loop that watches the daemon, with the lane that is stuck, if one is. Says that the daemon is
    /// ready when it is for the first time, that it is alive unless a lane is stuck, and now and then what it does.
    pub(super) async fn turned(&mut self, stuck: Option<usize>, ready: bool, waits_for: &str, telemetry: &Telemetry) {
        if !self.listens {
            return;
        }
        if ready && !self.ready {
            self.ready = true;
            self.next_status = Instant::now();
            self.tell(&[Ready]);
        }
        match self.heart.beat(Instant::now(), stuck.is_none()) {
            Beat::Now => self.tell(&[Watchdog]),
            Beat::Withheld => {
                tracing::error!(event = "watchdog_withheld", lane = stuck, "a lane takes nothing; the service manager will restart us");
            }
            Beat::NotDue => {}
        }
        if Instant::now() >= self.next_status {
            self.next_status = Instant::now() + STATUS_INTERVAL;
            let status = if ready { self.rates(telemetry).await } else { format!("not ready, waits for: {waits_for}") };
            self.tell(&[Status(&status)]);
            if !self.ready {
                self.tell(&[ExtendTimeoutUsec(micros(START_EXTENSION))]);
            }
        }
    }

    /// Says that the daemon drains, again and again, for as long as it does. Never returns.
    pub(super) async fn draining(&mut self, until: Instant, in_flight: impl Fn() -> usize) -> Infallible {
        let mut tick = interval(DRAIN_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.tell(&[Stopping]);
        loop {
            tick.tick().await;
            let left = until.saturating_duration_since(Instant::now()) + EXIT_MARGIN;
            let status = format!("draining, {} in flight", in_flight());
            self.tell(&[Status(&status), ExtendTimeoutUsec(micros(left)), Watchdog]);
        }
    }

    async fn rates(&mut self, telemetry: &Telemetry) -> String {
        let reader = telemetry.clone();
        let read = tokio::task::spawn_blocking(move || (reader.tally().decided, reader.report()));
        let Ok((decided, spans)) = read.await else { return "running".to_owned() };
        let (since, before) = std::mem::replace(&mut self.counted, (Instant::now(), decided));
        let rate = (decided - before) as f64 / since.elapsed().as_secs_f64().max(0.001);
        let total = spans.iter().find(|report| report.span == Span::Total);
        let p99_ms = total.map_or(0.0, |report| report.p99_us as f64 / 1e3);
        format!("decides {rate:.0}/s, {decided} so far, p99 {p99_ms:.1} ms since start")
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        if self.listens
            && let Err(error) = sd_notify::notify(states)
        {
            tracing::debug!(event = "service_manager_deaf", %error, "NOTIFY_SOCKET takes no message");
        }
    }
}

/// When a sign of life is due: at half of what the service manager waits for one.
struct Heart {
    every: Option<Duration>,
    next: Instant,
    withheld: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beat {
    Now,
    NotDue,
    /// It is due, and must not be given; said once.
    Withheld,
}

impl Heart {
    fn new(patience: Option<Duration>, now: Instant) -> Self {
        Self { every: patience.map(|patience| patience / 2), next: now, withheld: false }
    }

    fn beat(&mut self, now: Instant, turns: bool) -> Beat {
        let Some(every) = self.every.filter(|_| now >= self.next) else { return Beat::NotDue };
        if turns {
            self.next = now + every;
            self.withheld = false;
            return Beat::Now;
        }
        if std::mem::replace(&mut self.withheld, true) { Beat::NotDue } else { Beat::Withheld }
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_sign_of_life_is_given_at_half_the_patience_and_only_while_the_lanes_turn() {
        let began = Instant::now();
        let mut heart = Heart::new(Some(Duration::from_secs(10)), began);
        for (at_s, turns, expected) in [
            (0, true, Beat::Now),
            (4, true, Beat::NotDue),
            (4, false, Beat::NotDue),
            (5, false, Beat::Withheld),
            (6, false, Beat::NotDue),
            (7, true, Beat::Now),
            (11, true, Beat::NotDue),
            (12, false, Beat::Withheld),
        ] {
            assert_eq!(heart.beat(began + Duration::from_secs(at_s), turns), expected, "after {at_s} s, lanes turn: {turns}");
        }
        assert_eq!(Heart::new(None, began).beat(began, true), Beat::NotDue, "nobody waits for one");
    }
}
