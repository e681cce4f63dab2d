//! Daemon and floors in turn, so that whatever else the machine does meets both. Every other round goes backwards: whoever came after
//! the bulk of the store's floors in one round comes before it in the next.

use super::{
    Echo as EchoLine, FloorReport,
    cache::Cache,
    disk::sync_cost,
    groups::Committers,
    ratios::{self, Figures, Round},
    rows::Writers,
};
use crate::{
    bench::{
        Error, Request, Seen, Step,
        environment::{Environment, file_system},
        measure::{Measured, measure},
        pacer::Began,
        record::{Record, histogram},
        run::{self, Around, or_trouble},
        scenario::Scenario,
        stage::Stage,
        stages,
        summary::Latency,
        targets::{
            Target,
            amqp::{Amqp, Route},
        },
        traffic::Ids,
        versions,
    },
    broker::topology,
};
use hdrhistogram::Histogram;
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

/// Unmeasured time at the start of each turn: caches and connections have gone cold meanwhile.
const WARM_UP: Duration = Duration::from_secs(1);
/// The shortest turn that says anything.
const SLICE_MIN: Duration = Duration::from_millis(500);
/// The disk and the broker settle between two turns.
const REST: Duration = Duration::from_millis(200);
/// How long groups of one size are committed in a round, at most; and the share of a turn.
const COMMITS_LAST: Duration = Duration::from_millis(700);
const COMMITS_SHARE: u32 = 4;
/// How long Redis is asked in a round.
const CACHE_LASTS: Duration = Duration::from_millis(500);
/// Writes that are synced in a round.
const SYNCS: usize = 100;

/// What takes turns, in the order of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Daemon,
    Echo,
    Commit,
    Rows,
    Redis,
    Fsync,
}

const ORDER: [Turn; 6] = [Turn::Daemon, Turn::Echo, Turn::Commit, Turn::Rows, Turn::Redis, Turn::Fsync];

/// Measures daemon and floors in so many rounds. The scenario's duration is divided among them.
///
/// # Errors
/// [`Error`] when there is no result.
pub async fn run(request: &Request, rounds: u32, redis: Option<String>, mut step: impl FnMut(Step<'_>)) -> Result<Seen, Error> {
    let redis = redis.as_deref();
    let seen = run::on_a_stage(request, async |stage, name| perform(request, rounds, redis, stage, name, &mut step).await).await;
    step(Step::Done);
    seen
}

async fn perform(
    request: &Request,
    rounds: u32,
    redis: Option<&str>,
    stage: &mut Stage,
    name: &str,
    step: &mut impl FnMut(Step<'_>),
) -> Result<Seen, Error> {
    let slice = slice(&request.scenario, rounds)?;
    let environment = Environment { disk: file_system(stage.directory()), ..Environment::look() };
    step(Step::Note("making a store and starting what decides"));
    stage.set(request).await?;
    let target = run::target_line(request, stage).await?;
    let mut floors = Floors::open(request, stage, name, redis).await?;
    let (mut daemon, mut all, mut troubles) = (Turns::default(), Vec::new(), Vec::new());
    for number in 0..rounds {
        let scenario = Scenario { seed: slice.seed.wrapping_add(u64::from(number)), ..slice.clone() };
        match round(request, stage, (&mut daemon, &mut floors), &scenario, number, step).await {
            Ok(round) => all.push(round),
            Err(error) if daemon.records.is_empty() => return Err(error),
            // What was measured until now is a result all the same.
            Err(error) => {
                troubles.push(format!("round {} broke off: {error}", number + 1));
                break;
            }
        }
    }
    let Some(began) = daemon.began else { return Err(Error::Floor("there was no round".to_owned())) };
    // Between the rounds were warm-ups: the last one is told without its own.
    let told = stages::ask(stage.base(), request, daemon.latest.unwrap_or(began).wall, slice.warm_up).await;
    let queue_depth = or_trouble(&mut troubles, "the queue could not be looked at", stage.queue_depth().await).unwrap_or(0);
    let settled = or_trouble(&mut troubles, "what decides could not be ended", stage.settle().await).unwrap_or_default();
    let records: Vec<&Record> = daemon.records.iter().chain(&floors.committed).map(AsRef::as_ref).collect();
    let proved = run::prove(request, stage, name, &records).await;
    let proof = or_trouble(&mut troubles, "nothing could be proved", proved).flatten();
    let environment = versions::versions(environment, stage, told.as_ref()).await;
    let spans = stages::merge(&daemon.stages()?, told.as_ref(), &request.promise);
    let Some(measured) = daemon.measured else { return Err(Error::Floor("there was no round".to_owned())) };
    let around = Around { environment, began, queue_depth, settled, troubles, target, stages: spans };
    let turns = run::Turns { command: "floor", rounds };
    let mut summary = run::summarise(&slice, turns, &measured, proof, around);
    summary.environment.redis = match &floors.cache {
        Some((cache, _)) => cache.version().await,
        None => None,
    };
    let mut floor = floors.finish(rounds, slice.duration, summary.target.queue_type.clone().unwrap_or_default()).await;
    floor.ratios = ratios::ratios(&floor, &all, &measured, slice.arrival);
    summary.warnings.extend(ratios::warnings(&floor));
    summary.floor = Some(floor);
    run::judge(&mut summary, &request.scenario);
    Ok(Seen { summary, measured })
}

/// Everybody's turn.
async fn round(
    request: &Request,
    stage: &mut Stage,
    (daemon, floors): (&mut Turns, &mut Floors),
    scenario: &Scenario,
    number: u32,
    step: &mut impl FnMut(Step<'_>),
) -> Result<Round, Error> {
    let mut round = Round::default();
    for turn in order(number) {
        sleep(REST).await;
        if turn != Turn::Daemon {
            floors.turn(turn, scenario, number, &mut round, step).await?;
            continue;
        }
        let record = run::record(scenario, Ids::new(&format!("{}.{number}", floors.name)));
        let target = stage.target(request, &record).await?;
        let (began, pace) = run::send(scenario, &record, target, step).await?;
        daemon.began.get_or_insert(began);
        daemon.latest = Some(began);
        round.daemon = daemon.add(measure(scenario, &record, &pace), record)?;
    }
    Ok(round)
}

/// Forwards, then backwards, and so on.
fn order(round: u32) -> [Turn; ORDER.len()] {
    let mut order = ORDER;
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// One turn of a scenario: its share of the duration.
fn slice(scenario: &Scenario, rounds: u32) -> Result<Scenario, Error> {
    let duration = scenario.duration / rounds.max(1);
    if duration < SLICE_MIN || scenario.burst.is_some_and(|burst| burst.every > duration) {
        let what = format!("{rounds} rounds leave {duration:?} for each, which is too short: lengthen --duration or take fewer --rounds");
        return Err(Error::Floor(what));
    }
    Ok(Scenario { duration, warm_up: scenario.warm_up.min(WARM_UP), ..scenario.clone() })
}

/// The broker's echo as a target, a process behind exchanges and queues of its own.
pub(in crate::bench) struct Echoes {
    route: Route,
    url: String,
    name: String,
    turns: u32,
}

impl Echoes {
    /// Starts the echo; `None` where no broker is between.
    pub(in crate::bench) async fn open(request: &Request, stage: &mut Stage, name: &str) -> Result<Option<Self>, Error> {
        let Some(broker) = stage.echo(request).await? else { return Ok(None) };
        let route = Route { exchange: broker.exchange, key: topology::CREATED.to_owned() };
        Ok(Some(Self { route, url: broker.url, name: name.to_owned(), turns: 0 }))
    }

    /// Sends it the load of a scenario.
    pub(in crate::bench) async fn turn(
        &mut self,
        scenario: &Scenario,
        step: &mut impl FnMut(Step<'_>),
    ) -> Result<(Measured, Arc<Record>), Error> {
        self.turns += 1;
        let record = run::echo_record(scenario, Ids::new(&format!("{}.echo{}", self.name, self.turns)));
        let connected = Amqp::connect(&self.url, self.route.clone(), Arc::clone(&record)).await?;
        let target: Arc<dyn Target> = Arc::new(connected);
        let (_, pace) = run::send(scenario, &record, target, step).await?;
        Ok((measure(scenario, &record, &pace), record))
    }
}

/// What several turns came to together.
#[derive(Default)]
struct Turns {
    began: Option<Began>,
    /// When the latest one began.
    latest: Option<Began>,
    measured: Option<Measured>,
    records: Vec<Arc<Record>>,
}

impl Turns {
    fn add(&mut self, measured: Measured, record: Arc<Record>) -> Result<Figures, Error> {
        let figures = Figures::new(&measured, &record);
        self.records.push(record);
        match &mut self.measured {
            Some(sum) => sum.join(&measured).map_err(|error| Error::Floor(error.to_string()))?,
            none => *none = Some(measured),
        }
        Ok(figures)
    }

    fn stages(&self) -> Result<Vec<(crate::telemetry::Span, Histogram<u64>)>, Error> {
        let mut sums: Vec<_> = crate::telemetry::Span::ALL.map(|span| (span, histogram())).into();
        for record in &self.records {
            for (sum, (_, times)) in sums.iter_mut().zip(record.stages()) {
                sum.1.add(times).map_err(|error| Error::Floor(error.to_string()))?;
            }
        }
        Ok(sums)
    }
}

/// The floors that can be measured here.
struct Floors {
    echo: Option<Echoes>,
    echoes: Turns,
    committers: Option<Committers>,
    /// What they committed, to be proved with the rest.
    committed: Vec<Arc<Record>>,
    writers: Option<Writers>,
    cache: Option<(Cache, Histogram<u64>)>,
    fsync: Histogram<u64>,
    directory: std::path::PathBuf,
    name: String,
}

impl Floors {
    async fn open(request: &Request, stage: &mut Stage, name: &str, redis: Option<&str>) -> Result<Self, Error> {
        let echo = Echoes::open(request, stage, name).await?;
        // Tables and decisions of ours have no place in a database of theirs.
        let (committers, writers) = match stage.is_own() {
            true => (
                Some(Committers::open(stage.store(), request.pipeline, request.memory).await?),
                Some(Writers::open(stage.store(), stage.directory(), request.pipeline.lanes).await?),
            ),
            false => (None, None),
        };
        let cache = match redis {
            Some(url) => Some((Cache::connect(url, name).await?, histogram())),
            None => None,
        };
        let (directory, name, fsync) = (stage.directory().to_owned(), name.to_owned(), histogram());
        Ok(Self { echo, echoes: Turns::default(), committers, committed: Vec::new(), writers, cache, fsync, directory, name })
    }

    /// One turn of one of them.
    async fn turn(
        &mut self,
        turn: Turn,
        scenario: &Scenario,
        number: u32,
        round: &mut Round,
        step: &mut impl FnMut(Step<'_>),
    ) -> Result<(), Error> {
        let lasts = COMMITS_LAST.min(scenario.duration / COMMITS_SHARE);
        match turn {
            Turn::Daemon => {}
            Turn::Echo => {
                let Some(echo) = &mut self.echo else { return Ok(()) };
                let (measured, record) = echo.turn(scenario, step).await?;
                round.echo = Some(self.echoes.add(measured, record)?);
            }
            Turn::Commit => {
                let Some(committers) = &mut self.committers else { return Ok(()) };
                step(Step::Note("committing what lanes would commit"));
                let (record, per_s) = committers.turn(scenario, Ids::new(&format!("{}.commit{number}", self.name)), lasts).await?;
                self.committed.push(record);
                round.commits_per_s = per_s;
            }
            Turn::Rows => {
                if let Some(writers) = &mut self.writers {
                    writers.measure(lasts).await?;
                }
            }
            Turn::Redis => {
                if let Some((cache, times)) = &mut self.cache {
                    cache.measure(CACHE_LASTS, times).await?;
                }
            }
            Turn::Fsync => {
                let (directory, mut times) = (self.directory.clone(), histogram());
                let synced = tokio::task::spawn_blocking(move || sync_cost(&directory, SYNCS, &mut times).map(|()| times)).await;
                let times = synced.map_err(|error| Error::Floor(error.to_string()))??;
                self.fsync.add(times).map_err(|error| Error::Floor(error.to_string()))?;
            }
        }
        Ok(())
    }

    async fn finish(self, rounds: u32, slice: Duration, queue_type: String) -> FloorReport {
        let echo = self.echoes.measured.map(|measured| EchoLine {
            queue_type,
            response_time: Latency::figures(&measured.response),
            service_time: Latency::figures(&measured.service),
            ceiling_per_s: measured.ceiling.as_ref().map(|ceiling| ceiling.rate_per_s),
            ceiling_reached: measured.ceiling.as_ref().is_some_and(|ceiling| ceiling.reached),
            lost: measured.requests.lost,
            rate: measured.rate,
        });
        let redis = match self.cache {
            Some((cache, times)) => {
                cache.close().await;
                Some(Latency::figures(&times))
            }
            None => None,
        };
        let (commit, alone) = self.committers.as_ref().map(Committers::finish).unwrap_or_default();
        FloorReport {
            rounds,
            slice_s: slice.as_secs_f64(),
            echo,
            commit,
            commit_alone: Some(alone).filter(|alone| alone.count > 0),
            rows: self.writers.map(Writers::finish).unwrap_or_default(),
            redis,
            fsync: Some(Latency::figures(&self.fsync)).filter(|fsync| fsync.count > 0),
            ratios: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_turns_are_as_long_as_the_scenario_together() {
        let scenario = |seconds| Scenario { duration: Duration::from_secs(seconds), ..Scenario::default() };
        let length = |seconds, rounds| slice(&scenario(seconds), rounds).ok().map(|slice| slice.duration.as_millis());
        assert_eq!([length(60, 3), length(60, 7), length(2, 4), length(10, 100)], [Some(20_000), Some(8_571), Some(500), None]);
    }

    #[test]
    fn every_other_round_goes_backwards() {
        assert_eq!((order(0)[0], order(0)[5], order(1)[0], order(1)[5]), (Turn::Daemon, Turn::Fsync, Turn::Fsync, Turn::Daemon));
        assert_eq!(order(0), order(2));
    }
}
