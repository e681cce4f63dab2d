//! What the store's group commit does without us: the very commits that lanes would send (journal rows, holds, accounts, counters and
//! all guards), made ready before the clock starts, one after the other on as many connections as there are lanes.
#![expect(clippy::disallowed_methods, reason = "a store is measured on the real clock")]

use super::Commits;
use crate::{
    bench::{
        Error,
        pacer::wall_now,
        record::{Record, Reply, histogram, micros},
        scenario::{Mix, Scenario},
        schedule::CLOSED_PER_S,
        scratch::Location,
        summary::{Latency, rounded},
        traffic::{Ids, Traffic},
    },
    codec::request,
    domain::{
        ids::{AccountId, RequestId},
        limits::CounterKey,
    },
    facts::{
        memory::{self, Memory},
        tiered::FactTiers,
    },
    ledger::{Commit, Ledger, LedgerError, Outcome, Positions, Store, Void, Voided, postgres::Postgres, sqlite::Sqlite},
    pipeline::{self, Answer, Intake, Job, Requester, WallClock},
    telemetry::{Spans, Telemetry},
};
use futures_util::{StreamExt, stream};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, sleep_until},
};

/// Decisions that are made ready at once for each connection: this many groups, but no fewer decisions than the second.
const GROUPS_READY: usize = 16;
const READY_MIN: usize = 512;
/// Nobody waits for these decisions.
const DEADLINE: Duration = Duration::from_secs(600);
/// Cards that are read at once.
const READS: usize = 16;
/// How often a group is sent again that the store neither took nor refused.
const TRIES: usize = 8;
/// The disk settles before each measurement.
const REST: Duration = Duration::from_millis(50);

/// Connections that commit, for either store.
pub(super) enum Committers {
    Sqlite(Groups<Sqlite>),
    Postgres(Groups<Postgres>),
}

/// Connections that commit, and what the lanes' work is made from.
pub(super) struct Groups<S: Store> {
    facts: FactTiers<S>,
    store: S,
    ledgers: Vec<S::Ledger>,
    settings: pipeline::Settings,
    tallies: Vec<(usize, Tally)>,
    alone: Histogram<u64>,
    turns: usize,
}

/// What was committed, and how long it took.
#[derive(Clone)]
struct Tally {
    decisions: u64,
    refused: u64,
    seconds: f64,
    times: Histogram<u64>,
}

/// The requests of a turn, and how many of them were made ready.
struct Supply {
    record: Arc<Record>,
    next: usize,
}

impl Committers {
    /// As many connections as there are lanes, to the store of the run.
    pub(super) async fn open(store: &Location, pipeline: pipeline::Settings, memory: memory::Settings) -> Result<Self, Error> {
        let memory = Memory::new(memory);
        Ok(match store {
            Location::Sqlite(settings) => Self::Sqlite(Groups::new(Sqlite::visit(settings).await?, memory, pipeline, 1)),
            Location::Postgres(settings) => {
                Self::Postgres(Groups::new(Postgres::connect(settings).await?, memory, pipeline, pipeline.lanes.max(1)))
            }
        })
    }

    /// Commits groups of each size for so long, with ids of this prefix. Gives what was committed, to be proved, and decisions a second
    /// for each size.
    pub(super) async fn turn(&mut self, scenario: &Scenario, ids: Ids, lasts: Duration) -> Result<(Arc<Record>, Vec<f64>), Error> {
        match self {
            Self::Sqlite(groups) => groups.turn(scenario, ids, lasts).await,
            Self::Postgres(groups) => groups.turn(scenario, ids, lasts).await,
        }
    }

    /// Groups by size, and one commit of one decision alone.
    pub(super) fn finish(&self) -> (Vec<Commits>, Latency) {
        match self {
            Self::Sqlite(groups) => groups.finish(),
            Self::Postgres(groups) => groups.finish(),
        }
    }
}

/// Decisions in a group: alone, as many as gather at a middling rate, many, and as many as a lane takes at once.
fn sizes(batch_max: usize) -> Vec<usize> {
    let mut sizes = vec![1, 16, 64, batch_max.max(1)];
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

impl Tally {
    fn new() -> Self {
        Self { decisions: 0, refused: 0, seconds: 0.0, times: histogram() }
    }

    fn per_s(&self) -> f64 {
        self.decisions as f64 / self.seconds.max(1e-9)
    }

    fn add(&mut self, more: &Self) -> Result<(), Error> {
        self.decisions += more.decisions;
        self.refused += more.refused;
        self.seconds += more.seconds;
        self.times.add(&more.times).map_err(|error| Error::Floor(error.to_string()))
    }
}

impl<S: Store> Groups<S> {
    fn new(store: S, memory: Memory, settings: pipeline::Settings, lanes: usize) -> Self {
        let facts = FactTiers::new(memory, None, store.clone(), Telemetry::default());
        let ledgers = std::iter::repeat_with(|| store.ledger()).take(lanes).collect();
        let tallies = sizes(settings.batch_max).into_iter().map(|size| (size, Tally::new())).collect();
        Self { facts, store, ledgers, settings, tallies, alone: histogram(), turns: 0 }
    }

    async fn turn(&mut self, scenario: &Scenario, ids: Ids, lasts: Duration) -> Result<(Arc<Record>, Vec<f64>), Error> {
        let mut supply = Supply::new(scenario, ids, lasts * (self.tallies.len() as u32 + 1));
        self.turns += 1;
        self.commit_alone(scenario, &mut supply, lasts).await?;
        let mut rates = vec![0.0; self.tallies.len()];
        for turn in 0..self.tallies.len() {
            // Each size is first once: what ran before has left the disk something to do.
            let nth = (turn + self.turns) % self.tallies.len();
            let size = self.tallies[nth].0;
            let mut tally = Tally::new();
            sleep(REST).await;
            while tally.seconds < lasts.as_secs_f64() {
                let ready = supply.take(self.ledgers.len() * READY_MIN.max(GROUPS_READY * size));
                if ready.is_empty() {
                    break;
                }
                let left = lasts.saturating_sub(Duration::from_secs_f64(tally.seconds));
                let groups = self.prepare(size, &supply.record, ready).await?;
                tally.add(&self.commit(groups, left, &supply.record).await?)?;
            }
            rates[nth] = tally.per_s();
            self.tallies[nth].1.add(&tally)?;
        }
        Ok((supply.record, rates))
    }

    /// One decision at a time on one connection, at the pace of a lane: what a commit takes when nothing else is going on.
    async fn commit_alone(&mut self, scenario: &Scenario, supply: &mut Supply, lasts: Duration) -> Result<(), Error> {
        let per_s = (scenario.rate_per_s as usize / self.ledgers.len()).clamp(1, 2_000);
        let count = (per_s as f64 * lasts.as_secs_f64()).ceil() as usize;
        let ready = supply.take(count.max(self.ledgers.len()));
        let groups = self.prepare(1, &supply.record, ready).await?;
        let Some(mut ledger) = self.ledgers.pop() else { return Ok(()) };
        let began = tokio::time::Instant::now();
        let mut committed = Vec::new();
        for (nth, group) in groups.into_iter().flatten().enumerate() {
            sleep_until(began + Duration::from_secs_f64(nth as f64 / per_s as f64)).await;
            let start = Instant::now();
            if send(&mut ledger, &group).await? {
                self.alone.saturating_record(u64::from(micros(start.elapsed())));
                committed.push(group);
            }
        }
        self.ledgers.push(ledger);
        tell(&supply.record, &committed);
        Ok(())
    }

    /// Has lanes decide these requests, and keeps the groups they would commit. What does not fill a group is left out.
    async fn prepare(&self, size: usize, record: &Record, ready: Range<usize>) -> Result<Vec<Vec<Commit>>, Error> {
        let settings = pipeline::Settings {
            lanes: self.ledgers.len(),
            batch_max: size,
            in_flight_max: ready.len() + 1,
            lane_queue_max: ready.len() + 1,
            ..self.settings
        };
        let mut jobs = Vec::with_capacity(ready.len());
        for nth in ready {
            let traffic = record.traffic();
            let body = traffic.body(traffic.items[nth], None, None);
            jobs.push(request::decode(&body).map_err(|error| Error::Floor(error.to_string()))?.request);
        }
        let cold = jobs.iter().map(|job| &job.card).filter(|card| self.facts.peek(card, &mut Spans::default()).is_none());
        let facts = &self.facts;
        // Whoever finds nothing asks again itself.
        stream::iter(cold).for_each_concurrent(READS, |card| async move { drop(facts.lookup(card).await) }).await;
        let (open, gate) = watch::channel(false);
        let (written, wall): (_, WallClock) = (Mutex::new(Vec::new()), Arc::new(wall_now));
        let (pipeline, running) = pipeline::start(
            settings,
            self.facts.clone(),
            || {
                let groups = Arc::default();
                written.lock().push(Arc::clone(&groups));
                Scribe { ledger: self.store.ledger(), size, gate: gate.clone(), groups }
            },
            &wall,
            &Telemetry::default(),
        );
        let received = tokio::time::Instant::now();
        for request in jobs {
            let (spans, requester) = (Spans::default(), Box::new(Nobody));
            let deadline = received + DEADLINE;
            pipeline.submit(Job { request, received, deadline, spans, lossy_reply: false, redelivered: false, requester });
        }
        // Nothing was committed before all had come, so that the groups are full.
        open.send_replace(true);
        pipeline.idle().await;
        running.finish().await;
        // The first ledger is the late desk's.
        let groups = written.into_inner().into_iter().skip(1);
        Ok(groups.map(|groups| std::mem::take(&mut *groups.lock())).collect())
    }

    /// Commits all connections' groups at once, for so long or until one of them has no more.
    async fn commit(&mut self, groups: Vec<Vec<Commit>>, lasts: Duration, record: &Arc<Record>) -> Result<Tally, Error> {
        let (began, over) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let mut committing = JoinSet::new();
        for (ledger, groups) in self.ledgers.drain(..).zip(groups) {
            committing.spawn(work(ledger, groups, began + lasts, Arc::clone(&over)));
        }
        let (mut tally, mut all) = (Tally::new(), Vec::new());
        while let Some(worked) = committing.join_next().await {
            let (ledger, committed, its) = worked.map_err(|error| Error::Floor(error.to_string()))??;
            self.ledgers.push(ledger);
            tally.add(&its)?;
            all.push(committed);
        }
        tally.seconds = began.elapsed().as_secs_f64();
        all.iter().for_each(|committed| tell(record, committed));
        Ok(tally)
    }

    fn finish(&self) -> (Vec<Commits>, Latency) {
        let writers = self.ledgers.len();
        let line = |(batch, tally): &(usize, Tally)| Commits {
            batch: *batch,
            writers,
            decisions_per_s: rounded(tally.per_s(), 1),
            refused: tally.refused,
            commit: Latency::figures(&tally.times),
        };
        (self.tallies.iter().map(line).collect(), Latency::figures(&self.alone))
    }
}

impl Supply {
    /// More requests than can be committed in the time; none of them twice.
    fn new(scenario: &Scenario, ids: Ids, lasts: Duration) -> Self {
        let count = (lasts.as_secs_f64() * CLOSED_PER_S).ceil() as usize;
        let scenario = Scenario { mix: Mix { replay: 0, ..scenario.mix }, ..scenario.clone() };
        let traffic = Arc::new(Traffic::new(&scenario, ids, count));
        Self { record: Arc::new(Record::new(traffic, vec![Duration::ZERO; count], Duration::ZERO)), next: 0 }
    }

    fn take(&mut self, count: usize) -> Range<usize> {
        let from = self.next;
        self.next = (from + count).min(self.record.due().len());
        from..self.next
    }
}

/// Notes decisions that are durable as answers, so that they are proved like all others.
fn tell(record: &Arc<Record>, committed: &[Commit]) {
    let places = Arc::new(Semaphore::new(1));
    for entry in committed.iter().flat_map(|group| &group.journal) {
        let place = Arc::clone(&places).try_acquire_owned();
        let (Some(nth), Ok(place)) = (record.traffic().ids.index(entry.id.as_str()), place) else { continue };
        let now = Instant::now();
        let seat = record.seat(nth, now, Duration::ZERO, place);
        seat.sent(now);
        seat.answered(now, Reply { body: &entry.response, journaled: true, spans: Spans::default() });
    }
}

/// One connection's groups, one after the other.
async fn work<L: Ledger>(
    mut ledger: L,
    groups: Vec<Commit>,
    ends: Instant,
    over: Arc<AtomicBool>,
) -> Result<(L, Vec<Commit>, Tally), Error> {
    let (mut tally, mut committed) = (Tally::new(), Vec::with_capacity(groups.len()));
    for group in groups {
        let start = Instant::now();
        if over.load(Relaxed) || start >= ends {
            return Ok((ledger, committed, tally));
        }
        if send(&mut ledger, &group).await? {
            tally.times.saturating_record(u64::from(micros(start.elapsed())));
            tally.decisions += group.journal.len() as u64;
            committed.push(group);
        } else {
            tally.refused += group.journal.len() as u64;
        }
    }
    // From here on fewer connections would be at work than there are lanes.
    over.store(true, Relaxed);
    Ok((ledger, committed, tally))
}

/// Commits a group. `false` when it is not true any more, as where accounts run dry.
async fn send(ledger: &mut impl Ledger, group: &Commit) -> Result<bool, Error> {
    let mut said = String::new();
    for _ in 0..TRIES {
        match ledger.commit(group, true).await {
            Ok(Outcome::Committed) => return Ok(true),
            // An earlier try went through after all.
            Ok(Outcome::Rejected(report)) if !report.known.is_empty() && report.known.iter().all(|known| known.own) => return Ok(true),
            Ok(Outcome::Rejected(report)) if !report.is_empty() => return Ok(false),
            Ok(Outcome::Rejected(_)) => {}
            Err(LedgerError::Refused(error)) => return Err(Error::Floor(error)),
            Err(error) => said = error.to_string(),
        }
    }
    Err(Error::Floor(format!("a group was not committed in {TRIES} tries: {said}")))
}

/// Listens to nothing.
struct Nobody;

impl Requester for Nobody {
    fn answer(self: Box<Self>, answer: Answer) {
        if let Some(fresh) = answer.fresh {
            fresh.heard();
        }
    }
}

/// Writes down what a lane would commit, and says that it is done.
struct Scribe<L> {
    ledger: L,
    size: usize,
    gate: watch::Receiver<bool>,
    groups: Arc<Mutex<Vec<Commit>>>,
}

impl<L: Ledger> Ledger for Scribe<L> {
    async fn commit(&mut self, commit: &Commit, _wait: bool) -> Result<Outcome, LedgerError> {
        let open = self.gate.wait_for(|open| *open).await.is_ok();
        if open && commit.journal.len() == self.size {
            self.groups.lock().push(commit.clone());
        }
        Ok(Outcome::Committed)
    }

    async fn positions(&mut self, accounts: &[AccountId], counters: &[CounterKey]) -> Result<Positions, LedgerError> {
        self.ledger.positions(accounts, counters).await
    }

    async fn void(&mut self, _: &Void) -> Result<Voided, LedgerError> {
        Ok(Voided::Done)
    }

    async fn mark_unheard(&mut self, _: &RequestId) -> Result<(), LedgerError> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "groups_tests.rs"]
mod tests;
