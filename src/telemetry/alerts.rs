//! Alerts about slow decisions: noted by whoever answers, raised by one watcher.
//!
//! An answer below the thresholds costs three comparisons. One above is kept if it is the worst so far; the watcher looks four times
//! a second and raises at most one alert a level in [`Settings::every`], with how many there were and the worst of them. An alert is
//! a log line, a count in `jitauth_latency_alerts_total`, and an event for the broker ([`LatencyAlert`]).

use super::{
    Answered, Slow, Span, Telemetry,
    cause::{self, Blame},
    clock,
    labels::{Cause, Level},
    slowest::{Sample, slow_us},
};
use crate::domain::time::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use std::time::Duration;
use tokio::{
    runtime::{Handle, RuntimeMetrics},
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

/// How often the watcher looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Events that wait to be published; alerts are few, and one that finds no room is in the log anyway.
const EVENTS_MAX: usize = 16;

/// The alerts section of the configuration, resolved.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// An answer that took longer, or whose confirm did, is worth a warning.
    pub warning: Duration,
    /// As `warning`, for a critical alert.
    pub critical: Duration,
    /// A request that waited longer before we received it is worth a warning.
    pub queue_warning: Duration,
    /// As `queue_warning`, for a critical alert.
    pub queue_critical: Duration,
    /// Requests are open and nothing at all was answered for this long: a critical alert.
    pub stall: Duration,
    /// At most one alert of a kind and level in this time.
    pub every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            warning: Duration::from_millis(50),
            critical: Duration::from_millis(100),
            queue_warning: Duration::from_millis(250),
            queue_critical: Duration::from_secs(1),
            stall: Duration::from_secs(1),
            every: Duration::from_secs(10),
        }
    }
}

/// An alert to be published: exchange `events`, routing key `latency.alert`.
#[derive(Clone, Debug)]
pub struct LatencyAlert {
    /// JSON, version 1: `{"version":1,"type":"latency.alert","at":…,"level":"warning|critical","kind":"latency|queue_wait|stall",
    /// "cause":…,"advice":…,"threshold_ms":…,"count":…,"since":…,"open":…,"worst":{…}}`. `worst` is a [`Slow`], `null` for a
    /// stall; `open`, the requests without an answer, is of a stall only. Names no card and no person.
    pub body: Vec<u8>,
}

/// Why an alert was raised. Each kind has its own thresholds and its own pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Latency,
    QueueWait,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Latency, Self::QueueWait];

    const fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::QueueWait => "queue_wait",
        }
    }
}

/// What was noted and not raised yet.
#[derive(Debug)]
struct Held {
    count: u64,
    since: Timestamp,
    worst: Sample,
    worst_us: u32,
    /// What makes it the worst. Whoever waited for a lane waited for another's trouble: that one is named, if it was slow too.
    rank: (bool, u32),
}

impl Held {
    /// Names the worst of both. `other` is of a lower level and not counted as what it is not.
    fn join(self, other: Option<Self>) -> Self {
        let Some(other) = other else { return self };
        let (count, since) = (self.count, self.since.min(other.since));
        let worst = if self.rank >= other.rank { self } else { other };
        Self { count, since, ..worst }
    }
}

/// By level, as in [`Level::ALL`].
type Levels<T> = [T; Level::ALL.len()];

/// Thresholds, what passed them, and the way to whoever publishes.
#[derive(Debug)]
pub(super) struct Alerts {
    settings: Settings,
    /// Microseconds, by kind.
    thresholds_us: [Levels<u32>; Kind::ALL.len()],
    held: Mutex<[Levels<Option<Held>>; Kind::ALL.len()]>,
    sender: mpsc::Sender<LatencyAlert>,
    receiver: Mutex<Option<mpsc::Receiver<LatencyAlert>>>,
}

impl Alerts {
    pub(super) fn new(settings: Settings) -> Self {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let us = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let thresholds_us = [[us(settings.warning), us(settings.critical)], [us(settings.queue_warning), us(settings.queue_critical)]];
        Self { settings, thresholds_us, held: Mutex::default(), sender, receiver: Mutex::new(Some(receiver)) }
    }

    /// Notes an answer that was slow, by itself or by its wait in the queue.
    ///
    /// One without [`Span::Decode`] never came through the stages: it says again, late, what was taken back, and that was told then.
    pub(super) fn offer(&self, answered: &Answered<'_>) {
        if answered.spans.get(Span::Decode).is_none() {
            return;
        }
        for (kind, us) in Kind::ALL.into_iter().zip([slow_us(answered.spans), answered.spans.get(Span::Queue).unwrap_or(0)]) {
            let thresholds = &self.thresholds_us[kind as usize];
            if us < thresholds[0] {
                continue;
            }
            let level = usize::from(us >= thresholds[1]);
            let rank = (kind == Kind::QueueWait || cause::blame(answered.spans).cause != Cause::LaneWait, us);
            let slot = &mut self.held.lock()[kind as usize][level];
            match slot {
                Some(held) if held.rank >= rank => held.count += 1,
                Some(held) => {
                    held.count += 1;
                    (held.worst, held.worst_us, held.rank) = (Sample::of(answered), us, rank);
                }
                None => {
                    let worst = Sample::of(answered);
                    *slot = Some(Held { count: 1, since: worst.at, worst, worst_us: us, rank });
                }
            }
        }
    }

    pub(super) fn take_receiver(&self) -> Option<mpsc::Receiver<LatencyAlert>> {
        self.receiver.lock().take()
    }
}

/// Raises alerts until it is dropped. The wiring runs one of these.
pub async fn watch(telemetry: Telemetry) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watcher = Watcher::default();
    let mut runtimes = Runtimes::begin();
    loop {
        let now = ticks.tick().await;
        runtimes.look(&telemetry, now);
        let alerts = telemetry.alerts();
        for raised in watcher.look(alerts, now) {
            raised.tell(&telemetry);
        }
        if let Some(stall) = watcher.look_for_stall(alerts, telemetry.progress(), now) {
            stall.tell(&telemetry);
        }
    }
}

/// How busy the runtimes are, from one second to the next.
struct Runtimes {
    ours: RuntimeMetrics,
    busy: [Duration; 2],
    at: Instant,
}

impl Runtimes {
    fn begin() -> Self {
        Self { ours: Handle::current().metrics(), busy: [Duration::ZERO; 2], at: Instant::now() }
    }

    fn look(&mut self, telemetry: &Telemetry, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at);
        if elapsed < Duration::from_secs(1) {
            return;
        }
        let all = [Some(&self.ours), telemetry.metrics().request_threads.get()];
        let shares = all.into_iter().zip(&mut self.busy).filter_map(|(runtime, before)| {
            let runtime = runtime?;
            let workers = runtime.num_workers();
            let busy: Duration = (0..workers).map(|worker| runtime.worker_total_busy_duration(worker)).sum();
            let since = busy.saturating_sub(std::mem::replace(before, busy));
            Some(since.as_micros() * 1_000_000 / (elapsed.as_micros() * workers as u128).max(1))
        });
        let busiest = shares.max().unwrap_or(0);
        telemetry.runtime_busy(busiest);
        self.at = now;
    }
}

/// How far the daemon has got: requests that have no answer yet, and a count that moves with everything that is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) open: u64,
    pub(super) ended: u64,
}

/// When what may be raised again.
#[derive(Debug, Default)]
struct Watcher {
    quiet_until: [Levels<Option<Instant>>; Kind::ALL.len()],
    /// Where the daemon had got to when it last got on, and when that was.
    got_on: Option<(u64, Instant)>,
}

#[derive(Debug)]
struct Raised {
    kind: Kind,
    level: Level,
    threshold: Duration,
    held: Held,
}

#[derive(Debug)]
struct Stall {
    open: u64,
    lasted: Duration,
    threshold: Duration,
}

impl Watcher {
    /// What is to be raised now: of each kind one alert at most, of the worst level that is not quiet. A critical one speaks for the
    /// warnings that came with it.
    fn look(&mut self, alerts: &Alerts, now: Instant) -> Vec<Raised> {
        let mut all = alerts.held.lock();
        let mut raised = Vec::new();
        for kind in Kind::ALL {
            let (held, quiet) = (&mut all[kind as usize], &mut self.quiet_until[kind as usize]);
            let may = |until: Option<Instant>| until.is_none_or(|until| until <= now);
            let level = if held[1].is_some() && may(quiet[1]) {
                1
            } else if held[0].is_some() && may(quiet[0]) {
                0
            } else {
                continue;
            };
            let Some(mut worst) = held[level].take() else { continue };
            quiet[level] = Some(now + alerts.settings.every);
            if level == 1 {
                worst = worst.join(held[0].take());
                quiet[0] = quiet[1];
            }
            let threshold = Duration::from_micros(alerts.thresholds_us[kind as usize][level].into());
            raised.push(Raised { kind, level: Level::ALL[level], threshold, held: worst });
        }
        raised
    }

    fn look_for_stall(&mut self, alerts: &Alerts, progress: Progress, now: Instant) -> Option<Stall> {
        let Progress { open, ended } = progress;
        let since = match self.got_on {
            Some((before, since)) if before == ended && open > 0 => since,
            _ => {
                self.got_on = Some((ended, now));
                return None;
            }
        };
        let lasted = now.saturating_duration_since(since);
        // It is a critical alert about latency: the answers that come late once it ends are told of when this one is old.
        let quiet = &mut self.quiet_until[Kind::Latency as usize];
        if lasted < alerts.settings.stall || quiet[1].is_some_and(|until| now < until) {
            return None;
        }
        *quiet = [Some(now + alerts.settings.every); Level::ALL.len()];
        Some(Stall { open, lasted, threshold: alerts.settings.stall })
    }
}

/// The event's body. Fields are only added, never changed, as long as `version` is 1.
#[derive(Serialize)]
struct Event<'a> {
    version: u32,
    r#type: &'static str,
    at: String,
    level: &'static str,
    kind: &'static str,
    cause: &'static str,
    advice: &'static str,
    threshold_ms: u128,
    count: u64,
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    open: Option<u64>,
    worst: Option<&'a Slow>,
}

impl Raised {
    fn tell(&self, telemetry: &Telemetry) {
        let Self { kind, level, threshold, held } = self;
        let blame = match kind {
            Kind::Latency => cause::blame(&held.worst.spans),
            Kind::QueueWait => Blame { cause: Cause::QueueWait, span: Some(Span::Queue), us: held.worst_us },
        };
        telemetry.count_alert(*level, blame.cause);
        let worst = Slow::from(&held.worst);
        let span = blame.span.map_or("none", Span::name);
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    event = "latency_alert",
                    alert = level.name(),
                    kind = kind.name(),
                    cause = blame.cause.name(),
                    slowest_span = span,
                    slowest_span_us = blame.us,
                    worst_us = held.worst_us,
                    count = held.count,
                    threshold_ms = u64::try_from(threshold.as_millis()).unwrap_or(u64::MAX),
                    authorization_id = worst.authorization,
                    decision = worst.decision,
                    reason = worst.reason,
                    "{} decisions were slow; the worst spent its time {}",
                    held.count,
                    blame.cause.advice()
                )
            };
        }
        match level {
            Level::Warning => line!(warn),
            Level::Critical => line!(error),
        }
        publish(
            telemetry,
            &Event {
                version: 1,
                r#type: "latency.alert",
                at: clock::rfc3339(clock::now()),
                level: level.name(),
                kind: kind.name(),
                cause: blame.cause.name(),
                advice: blame.cause.advice(),
                threshold_ms: threshold.as_millis(),
                count: held.count,
                since: clock::rfc3339(held.since),
                open: None,
                worst: Some(&worst),
            },
        );
    }
}

impl Stall {
    fn tell(&self, telemetry: &Telemetry) {
        let (level, cause) = (Level::Critical, Cause::Stalled);
        let lasted_us = i64::try_from(self.lasted.as_micros()).unwrap_or(i64::MAX);
        telemetry.count_alert(level, cause);
        tracing::error!(
            event = "latency_alert",
            alert = level.name(),
            kind = "stall",
            cause = cause.name(),
            open = self.open,
            lasted_us,
            "{} requests are open and nothing was answered for {} ms; look at the store and the broker",
            self.open,
            self.lasted.as_millis()
        );
        let now = clock::now();
        publish(
            telemetry,
            &Event {
                version: 1,
                r#type: "latency.alert",
                at: clock::rfc3339(now),
                level: level.name(),
                kind: "stall",
                cause: cause.name(),
                advice: cause.advice(),
                threshold_ms: self.threshold.as_millis(),
                count: self.open,
                since: clock::rfc3339(Timestamp(now.0.saturating_sub(lasted_us))),
                open: Some(self.open),
                worst: None,
            },
        );
    }
}

fn publish(telemetry: &Telemetry, event: &Event<'_>) {
    let Ok(body) = serde_json::to_vec(event) else { return };
    // Nobody takes them, or they are published too slowly: the log has them all.
    drop(telemetry.alerts().sender.try_send(LatencyAlert { body }));
}

#[cfg(test)]
#[path = "alerts_tests.rs"]
mod tests;
