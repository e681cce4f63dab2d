//! Whether the lanes turn: what a watchdog wants to know before it says that the daemon is alive.

use super::batch::Ready;
use crossbeam::utils::CachePadded;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};
use tokio::sync::mpsc;

/// Counts what a lane takes out of its channel. Written by its lane only.
#[derive(Clone, Default)]
pub(super) struct Taken(Arc<CachePadded<AtomicU64>>);

/// Watches the lanes from outside. Looking costs them nothing.
#[derive(Clone, Default)]
pub struct Pulse {
    lanes: Vec<Watched>,
}

#[derive(Clone)]
struct Watched {
    /// Weak, so that a lane that nobody can send to any more ends.
    arrivals: mpsc::WeakSender<Ready>,
    taken: Taken,
    /// What the last look saw: how much waited, how much had been taken.
    last: (usize, u64),
}

impl Taken {
    pub(super) fn one(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

impl Pulse {
    pub(super) fn watch(&mut self, arrivals: &mpsc::Sender<Ready>, taken: Taken) {
        self.lanes.push(Watched { arrivals: arrivals.downgrade(), taken, last: (0, 0) });
    }

    /// The number of a lane that has taken nothing since the look before, though requests waited for it all the time. A lane that
    /// waits for the store takes requests in meanwhile, so a store that is out makes no lane stuck; a lane that spins or blocks its
    /// thread is.
    pub fn stuck(&mut self) -> Option<usize> {
        // Every lane is looked at, whatever the first ones show.
        let stuck: Vec<bool> = self.lanes.iter_mut().map(Watched::stuck).collect();
        stuck.iter().position(|stuck| *stuck)
    }
}

impl Watched {
    fn stuck(&mut self) -> bool {
        let waiting = self.arrivals.upgrade().map_or(0, |arrivals| arrivals.max_capacity() - arrivals.capacity());
        let before = std::mem::replace(&mut self.last, (waiting, self.taken.0.load(Relaxed)));
        waiting > 0 && before.0 > 0 && before.1 == self.last.1
    }
}
