//! Sending on time. The load is an open loop: a request goes out when it is due, whatever has been answered by then.
//!
//! The pace is kept by a thread of its own: a timer of the runtime is only good to a millisecond, which is as long as an answer takes.
#![expect(clippy::disallowed_methods, reason = "a thread that keeps time, outside of the runtime")]

use super::{
    record::Record,
    scenario::{Arrival, Scenario},
    targets::{Parcel, Target},
};
use crate::domain::time::Timestamp;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};

/// How much longer than its deadline an answer is waited for.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How the sending went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// From the first moment that was due to the last request sent.
    pub sending: Duration,
    /// From there until everything was answered, or nothing more was expected.
    pub trailing: Duration,
    /// Requests that had to wait because too many were under way.
    pub held_back: u64,
    /// Requests that were not sent, because none of those under way came to an end.
    pub unsent: u64,
    /// Whether a closed loop ended early, because every request there was had been sent.
    pub ran_out: bool,
    /// When it began, by the wall clock: microseconds since 1970.
    pub began_us: i64,
}

/// When the run began, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Began {
    /// Monotonic.
    pub instant: Instant,
    /// Wall clock.
    pub wall: Timestamp,
}

/// Stops the thread when the run is abandoned.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Sends everything in `record` to `target`, and waits for the answers. `began` is told when it starts.
///
/// # Errors
/// The thread could not be started, or broke.
pub async fn run(scenario: &Scenario, record: &Arc<Record>, target: Arc<dyn Target>) -> std::io::Result<(Began, Pace)> {
    let stop = StopOnDrop(Arc::default());
    let (done, outcome) = oneshot::channel();
    let pacer = Pacer {
        record: Arc::clone(record),
        target,
        closed: scenario.arrival == Arrival::Closed,
        lasts: scenario.warm_up + scenario.duration,
        deadline: scenario.deadline,
        in_flight_max: scenario.in_flight_max,
        slots: Arc::new(Semaphore::new(scenario.in_flight_max as usize)),
        runtime: Handle::current(),
        stopped: Arc::clone(&stop.0),
    };
    std::thread::Builder::new().name("pacer".to_owned()).spawn(move || {
        // Nobody listens any more when the run was abandoned.
        let _told_or_abandoned = done.send(pacer.run()).is_ok();
    })?;
    outcome.await.map_err(|_| std::io::Error::other("the thread that sends ended early"))
}

struct Pacer {
    record: Arc<Record>,
    target: Arc<dyn Target>,
    closed: bool,
    /// Warm-up and measurement.
    lasts: Duration,
    deadline: Duration,
    in_flight_max: u32,
    slots: Arc<Semaphore>,
    runtime: Handle,
    stopped: Arc<AtomicBool>,
}

impl Pacer {
    fn run(&self) -> (Began, Pace) {
        let _context = self.runtime.enter();
        let began = Began { instant: Instant::now(), wall: wall_now() };
        let mut pace = Pace { ran_out: self.closed, began_us: began.wall.0, ..Pace::default() };
        let deadline_ms = u32::try_from(self.deadline.as_millis()).ok();
        for (nth, offset) in self.record.due().iter().enumerate() {
            if self.closed && began.instant.elapsed() >= self.lasts {
                pace.ran_out = false;
                break;
            }
            // Written before it is due, so that writing it does not make it late.
            let traffic = self.record.traffic();
            let sent_at = (!self.closed).then(|| after(began.wall, *offset));
            let body = traffic.body(traffic.items[nth], sent_at, deadline_ms);
            let due = began.instant + *offset;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let Some(slot) = self.slot(&mut pace.held_back) else {
                pace.unsent = (self.record.due().len() - nth) as u64;
                pace.ran_out = false;
                break;
            };
            let offset = if self.closed { began.instant.elapsed() } else { *offset };
            self.target.send(Parcel { body, seat: self.record.seat(nth, began.instant, offset, slot) });
        }
        pace.sending = began.instant.elapsed();
        // Every slot is free again when the last answer is in. Some may never be.
        let all = self.slots.acquire_many(self.in_flight_max);
        drop(self.runtime.block_on(async { timeout(self.deadline + PATIENCE, all).await }));
        pace.trailing = began.instant.elapsed().saturating_sub(pace.sending);
        (began, pace)
    }

    /// A place among the requests under way; `None` when none becomes free any more.
    fn slot(&self, held_back: &mut u64) -> Option<OwnedSemaphorePermit> {
        if self.stopped.load(Relaxed) {
            return None;
        }
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Some(slot);
        }
        *held_back += u64::from(!self.closed);
        let waiting = Arc::clone(&self.slots).acquire_owned();
        self.runtime.block_on(async { timeout(self.deadline + PATIENCE, waiting).await }).ok()?.ok()
    }
}

fn after(wall: Timestamp, offset: Duration) -> Timestamp {
    Timestamp(wall.0.saturating_add(i64::try_from(offset.as_micros()).unwrap_or(i64::MAX)))
}

/// Now, by the wall clock.
#[must_use]
pub fn wall_now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
#[path = "pacer_tests.rs"]
mod tests;
