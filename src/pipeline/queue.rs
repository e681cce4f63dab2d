//! What waits in front of a lane, and what becomes of it when the lane is stuck.

use super::{batch::Ready, decline::Declines, pulse::Taken};
use crate::domain::{ids::RequestId, reason::Reason};
use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};

/// A lane's queue. Bounded; requests whose deadline comes near while the lane waits for the store are declined from here.
pub(super) struct Queue {
    arrivals: mpsc::Receiver<Ready>,
    taken: Taken,
    waiting: VecDeque<Ready>,
    waiting_max: usize,
    shed_before: Duration,
    /// When the first of `waiting` must be shed; no later than that, possibly earlier.
    next_due: Option<Instant>,
    /// The ids of the batch that the lane works on.
    at_work: HashSet<RequestId>,
    declines: Declines,
    /// How many wait, for those who watch.
    depth: Arc<AtomicU64>,
}

impl Queue {
    /// A queue of what comes out of a channel, with the count of it. `depth` shows how many wait.
    pub(super) fn new(
        (arrivals, taken): (mpsc::Receiver<Ready>, Taken),
        waiting_max: usize,
        shed_before: Duration,
        declines: Declines,
        depth: Arc<AtomicU64>,
    ) -> Self {
        let (waiting, at_work) = (VecDeque::new(), HashSet::new());
        Self { arrivals, taken, waiting, waiting_max, shed_before, next_due: None, at_work, declines, depth }
    }

    /// The next batch: whatever has queued up, at most `batch_max`. Waits for the first; `None` once all senders are gone.
    pub(super) async fn batch(&mut self, batch_max: usize) -> Option<Vec<Ready>> {
        if self.waiting.is_empty() {
            let first = self.arrivals.recv().await?;
            self.push(first);
        }
        while self.waiting.len() < batch_max
            && let Ok(ready) = self.arrivals.try_recv()
        {
            self.push(ready);
        }
        let take = self.waiting.len().min(batch_max);
        let batch: Vec<Ready> = self.waiting.drain(..take).collect();
        self.at_work.clear();
        self.at_work.extend(batch.iter().map(|ready| ready.job.request.id.clone()));
        self.next_due = self.waiting.iter().map(|ready| self.due(ready)).min();
        self.tell_depth();
        Some(batch)
    }

    /// Waits for `work`, which holds up the lane, and meanwhile takes arrivals in and declines what would be answered too late.
    pub(super) async fn alongside<F: Future>(&mut self, work: F) -> F::Output {
        tokio::pin!(work);
        loop {
            let next_due = self.next_due;
            tokio::select! {
                biased;
                done = &mut work => return done,
                Some(ready) = self.arrivals.recv(), if self.waiting.len() < self.waiting_max => self.push(ready),
                () = tokio::time::sleep_until(next_due.unwrap_or_else(Instant::now)), if next_due.is_some() => self.shed(),
            }
        }
    }

    fn push(&mut self, ready: Ready) {
        self.taken.one();
        // Its id may have been shed while it was on its way here.
        let Ready { job, known, queued, slot } = ready;
        let Some(job) = self.declines.recall(job, Instant::now()) else { return };
        let ready = Ready { job, known, queued, slot };
        let due = self.due(&ready);
        self.next_due = Some(self.next_due.map_or(due, |known| known.min(due)));
        self.waiting.push_back(ready);
        self.tell_depth();
    }

    fn tell_depth(&self) {
        self.depth.store((self.waiting.len() + self.arrivals.len()) as u64, Relaxed);
    }

    /// When a request that still waits is declined. One that was late already when it came is not: it is journaled as such. One that
    /// was delivered before is not: the store may have its answer. One whose id is being decided is not: it would contradict that.
    fn due(&self, ready: &Ready) -> Instant {
        let job = &ready.job;
        if job.redelivered || job.deadline <= ready.queued || self.at_work.contains(&job.request.id) {
            job.deadline + FAR
        } else {
            job.deadline.checked_sub(self.shed_before).unwrap_or(job.deadline)
        }
    }

    fn shed(&mut self) {
        let now = Instant::now();
        let (due, keep): (VecDeque<_>, _) = std::mem::take(&mut self.waiting).into_iter().partition(|ready| self.due(ready) <= now);
        self.waiting = keep;
        self.next_due = self.waiting.iter().map(|ready| self.due(ready)).min();
        self.tell_depth();
        let ids = due.iter().map(|ready| ready.job.request.id.clone()).collect();
        for mut ready in due {
            ready.given_up(now);
            self.declines.shed(ready.job, Reason::SystemUnavailable, now);
        }
        self.shed_repeats(&ids, Reason::SystemUnavailable);
    }

    /// Declines what waits under ids that were shed: one id is not declined here and decided there.
    pub(super) fn shed_repeats(&mut self, ids: &HashSet<RequestId>, reason: Reason) {
        if ids.is_empty() || self.waiting.is_empty() {
            return;
        }
        let now = Instant::now();
        let repeats = |ready: &Ready| ids.contains(&ready.job.request.id) && !ready.job.redelivered;
        let (repeated, keep): (VecDeque<_>, _) = std::mem::take(&mut self.waiting).into_iter().partition(repeats);
        self.waiting = keep;
        self.tell_depth();
        for mut ready in repeated {
            ready.given_up(now);
            self.declines.shed(ready.job, reason, now);
        }
    }
}

/// Longer than any store is waited for: a late request is not shed, because nobody listens for its answer any more.
const FAR: Duration = Duration::from_secs(3600);
