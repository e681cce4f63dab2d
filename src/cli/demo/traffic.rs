//! Sending: first at a stated rate, then as fast as answers come.
#![expect(clippy::disallowed_methods, reason = "the demo measures the daemon from outside, on the real clock")]

use super::{
    Error,
    requests::{self, Item, Traffic},
    tally::{Tally, micros},
};
use crate::{bench::record::histogram, cli::daemon::Daemon as Link};
use hdrhistogram::Histogram;
use hyper::StatusCode;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinSet,
};

/// Requests in the open loop at once. Whoever needs more is not measuring any more, and it says so.
const IN_FLIGHT_MAX: usize = 1_000;
/// How long a request is sent again before the demo gives up on it. A restart takes well below this.
const GIVE_UP: Duration = Duration::from_secs(15);
/// Pause before a request is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// What every sender needs.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    pub(super) link: Link,
    pub(super) traffic: Arc<Traffic>,
    pub(super) tally: Arc<Tally>,
}

impl Sender {
    /// Sends a request until it is answered. Its time counts from `due`.
    async fn settle(&self, item: Item, due: Instant) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let failure = match self.link.authorize(self.traffic.bodies[item.body].clone()).await {
                Ok(reply) if reply.status == StatusCode::OK => {
                    self.tally.note(item.body, reply, due.elapsed(), tries);
                    return Ok(());
                }
                Ok(reply) if reply.status.is_client_error() => {
                    let text = String::from_utf8_lossy(&reply.body).into_owned();
                    return Err(Error::Traffic(format!("{} was refused with {}: {text}", requests::ids().id(item.body), reply.status)));
                }
                Ok(reply) => reply.status.to_string(),
                Err(error) => error.to_string(),
            };
            if due.elapsed() > GIVE_UP {
                return Err(Error::Traffic(format!("{} had no answer in {GIVE_UP:?}: {failure}", requests::ids().id(item.body))));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// How well the open loop kept its rate.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// Requests a second that were meant to be sent.
    pub(super) rate: u64,
    /// How late requests were sent, microseconds. Their latency counts from when they were due, so it includes this.
    pub(super) lag: Histogram<u64>,
    /// Requests that had to wait because too many were under way.
    pub(super) held_back: u64,
    /// How long it took.
    pub(super) took: Duration,
}

/// Stops a pacer thread when its phase is abandoned.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Open loop: request `n` is sent `n / rate` seconds after the start, whatever has been answered by then.
///
/// The pace is kept by a thread: a timer of the runtime is only good to a millisecond, which is as long as the answers take.
pub(super) async fn steady(sender: &Sender, rate: u64) -> Result<Pace, Error> {
    let stop = StopOnDrop(Arc::default());
    let (done, outcome) = oneshot::channel();
    let pacer = Pacer {
        sender: sender.clone(),
        rate,
        slots: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
        failure: Arc::default(),
        runtime: tokio::runtime::Handle::current(),
    };
    let stopped = Arc::clone(&stop.0);
    std::thread::Builder::new().name("pacer".to_owned()).spawn(move || {
        // Nobody listens any more when the phase was abandoned.
        drop(done.send(pacer.run(&stopped)));
    })?;
    outcome.await.unwrap_or_else(|_| Err(Error::Traffic("the pacer thread ended early".to_owned())))
}

struct Pacer {
    sender: Sender,
    rate: u64,
    slots: Arc<Semaphore>,
    failure: Arc<parking_lot::Mutex<Option<Error>>>,
    runtime: tokio::runtime::Handle,
}

impl Pacer {
    fn run(&self, stopped: &AtomicBool) -> Result<Pace, Error> {
        let start = Instant::now();
        let (mut lag, mut held_back) = (histogram(), 0);
        for (nth, item) in (0..).zip(&self.sender.traffic.steady) {
            let due = start + Duration::from_nanos(nth * 1_000_000_000 / self.rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if stopped.load(Relaxed) || self.failure.lock().is_some() {
                break;
            }
            held_back += u64::from(!self.launch(*item, due));
            lag.saturating_record(micros(due.elapsed()));
        }
        // Every slot is free again when the last answer is in.
        let all = u32::try_from(IN_FLIGHT_MAX).unwrap_or(u32::MAX);
        drop(self.runtime.block_on(self.slots.acquire_many(all)));
        match self.failure.lock().take() {
            Some(error) => Err(error),
            None => Ok(Pace { rate: self.rate, lag, held_back, took: start.elapsed() }),
        }
    }

    /// Sends one request in a task of its own. Says whether there was room for it at once.
    fn launch(&self, item: Item, due: Instant) -> bool {
        let slots = Arc::clone(&self.slots);
        let (slot, at_once) = match Arc::clone(&slots).try_acquire_owned() {
            Ok(slot) => (Ok(slot), true),
            Err(_) => (self.runtime.block_on(slots.acquire_owned()), false),
        };
        let (sender, failure) = (self.sender.clone(), Arc::clone(&self.failure));
        self.runtime.spawn(async move {
            if let Err(error) = sender.settle(item, due).await {
                failure.lock().get_or_insert(error);
            }
            drop(slot);
        });
        at_once
    }
}

/// Closed loop: each connection sends its next request when the last is answered.
pub(super) struct Burst {
    sender: Sender,
    next: Arc<AtomicUsize>,
    connections: JoinSet<Result<(), Error>>,
}

impl Burst {
    /// Starts sending over so many connections.
    pub(super) fn start(sender: &Sender, connections: usize) -> Self {
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let (sender, next) = (sender.clone(), Arc::clone(&next));
            tasks.spawn(async move {
                while let Some(item) = sender.traffic.burst.get(next.fetch_add(1, Relaxed)) {
                    sender.settle(*item, Instant::now()).await?;
                }
                Ok(())
            });
        }
        Self { sender: sender.clone(), next, connections: tasks }
    }

    /// Waits until `share` percent of the burst are sent or `longest` has passed.
    pub(super) async fn reach(&mut self, percent: usize, longest: Duration) -> Result<(), Error> {
        let goal = self.sender.traffic.burst.len() * percent / 100;
        let end = tokio::time::Instant::now() + longest;
        while self.next.load(Relaxed) < goal && tokio::time::Instant::now() < end {
            while let Some(ended) = self.connections.try_join_next() {
                joined(ended)?;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Sends no more, and waits for the answers under way.
    pub(super) async fn finish(mut self) -> Result<(), Error> {
        self.next.store(self.sender.traffic.burst.len(), Relaxed);
        while let Some(ended) = self.connections.join_next().await {
            joined(ended)?;
        }
        Ok(())
    }
}

fn joined(ended: Result<Result<(), Error>, tokio::task::JoinError>) -> Result<(), Error> {
    ended.unwrap_or_else(|error| Err(Error::Traffic(format!("a connection's task broke: {error}"))))
}
