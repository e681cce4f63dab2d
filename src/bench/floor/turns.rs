//! Daemon and floors in turn, so that whatever else the machine does meets both.

use super::{Echo as EchoLine, FloorReport, Ratio, cache::Cache, commits::Writers, disk::sync_cost, echo::Echo};
use crate::bench::{
    Error, Kind, Request, Seen, Step,
    environment::Environment,
    measure::{Measured, measure},
    proof::{self, Owner, Proof},
    record::{Record, histogram},
    run::{self, Around, interrupted},
    scenario::{Arrival, Scenario},
    stage::Stage,
    stages,
    summary::{Latency, Summary, rounded},
    targets::{
        Target,
        amqp::{Amqp, Route},
    },
    traffic::Ids,
    versions,
};
use hdrhistogram::Histogram;
use std::{sync::Arc, time::Duration};

/// Unmeasured time at the start of each turn: caches and connections have gone cold meanwhile.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long groups of one size are committed in a round.
const COMMITS_LAST: Duration = Duration::from_millis(700);
/// How long Redis is asked in a round.
const CACHE_LASTS: Duration = Duration::from_millis(500);
/// Writes that are synced in a round.
const SYNCS: usize = 100;

/// Measures daemon and floors in so many rounds. The scenario's duration is divided among them.
///
/// # Errors
/// [`Error`] when there is no result.
pub async fn run(request: &Request, rounds: u32, redis: Option<String>, mut step: impl FnMut(Step<'_>)) -> Result<Seen, Error> {
    let name = run::name_of_a_run();
    let mut stage = Stage::new(request, &name)?;
    let outcome = tokio::select! {
        outcome = perform(request, rounds, redis.as_deref(), &mut stage, &name, &mut step) => outcome,
        interrupted = interrupted() => Err(interrupted),
    };
    step(Step::Done);
    let struck = stage.strike().await;
    let seen = outcome?;
    struck?;
    Ok(seen)
}

async fn perform(
    request: &Request,
    rounds: u32,
    redis: Option<&str>,
    stage: &mut Stage,
    name: &str,
    step: &mut impl FnMut(Step<'_>),
) -> Result<Seen, Error> {
    let environment = Environment::look();
    step(Step::Note("making a store and starting what decides"));
    stage.set(request).await?;
    let slice = slice(&request.scenario, rounds);
    let mut floors = Floors::open(request, stage, name, redis).await?;
    let mut daemon = Turns::default();
    let mut began = None;
    for round in 0..rounds {
        let scenario = Scenario { seed: slice.seed.wrapping_add(u64::from(round)), ..slice.clone() };
        let record = run::record(&scenario, Ids::new(&format!("{name}.{round}")));
        let target = stage.target(request, &record).await?;
        let (at, pace) = run::send(&scenario, &record, target, step).await?;
        began.get_or_insert(at);
        if request.kind == Kind::Inproc {
            stage.settle().await?;
        }
        daemon.add(measure(&scenario, &record, &pace), record)?;
        floors.turn(request, &scenario, step).await?;
    }
    let Some(began) = began else { return Err(Error::Floor("there was no round".to_owned())) };
    let told = stages::ask(stage.base(), request, began.wall, slice.warm_up).await;
    let queue_depth = stage.queue_depth().await?;
    let target = run::target_line(request, stage).await?;
    let settled = stage.settle().await?;
    let proof = if request.prove { Some(daemon.prove(stage).await?) } else { None };
    let environment = versions::versions(environment, stage, told.as_ref()).await;
    let spans = stages::merge(&daemon.stages()?, told.as_ref(), &request.promise);
    let Some(measured) = daemon.measured else { return Err(Error::Floor("there was no round".to_owned())) };
    let around = Around { environment, began, queue_depth, settled, target, stages: spans };
    let mut summary = run::summarise(request, &measured, proof, around);
    summary.floor = Some(floors.finish(request, rounds, slice.duration, &summary).await);
    run::judge(&mut summary, &request.scenario);
    Ok(Seen { summary, measured })
}

/// One turn of a scenario.
fn slice(scenario: &Scenario, rounds: u32) -> Scenario {
    let seconds = (scenario.duration.as_secs() / u64::from(rounds.max(1))).max(1);
    let warm_up = scenario.warm_up.min(WARM_UP);
    Scenario { duration: Duration::from_secs(seconds), warm_up, ..scenario.clone() }
}

/// What several turns came to together.
#[derive(Default)]
struct Turns {
    measured: Option<Measured>,
    records: Vec<Arc<Record>>,
}

impl Turns {
    fn add(&mut self, measured: Measured, record: Arc<Record>) -> Result<(), Error> {
        self.records.push(record);
        match &mut self.measured {
            Some(sum) => sum.join(&measured).map_err(|error| Error::Floor(error.to_string())),
            none => {
                *none = Some(measured);
                Ok(())
            }
        }
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

    /// Each turn's answers against the journal; the rest of the books once.
    async fn prove(&self, stage: &Stage) -> Result<Proof, Error> {
        let mut sum = Proof::default();
        for record in &self.records {
            let proof = proof::check(stage.store(), Owner::Everybody, &record.traffic().ids, record.answers()).await?;
            let (decisions, lost, altered, untold) = (sum.decisions, sum.lost, sum.altered, sum.untold);
            sum = Proof {
                decisions: decisions + proof.decisions,
                lost: lost + proof.lost,
                altered: altered + proof.altered,
                untold: untold + proof.untold,
                ..proof
            };
        }
        Ok(sum)
    }
}

/// The floors that can be measured here.
struct Floors {
    echo: Option<(Echo, String)>,
    echoes: Turns,
    writers: Option<Writers>,
    cache: Option<(Cache, Histogram<u64>)>,
    fsync: Histogram<u64>,
    directory: std::path::PathBuf,
    name: String,
    round: u32,
}

impl Floors {
    async fn open(request: &Request, stage: &mut Stage, name: &str, redis: Option<&str>) -> Result<Self, Error> {
        let echo = match stage.broker().cloned() {
            Some(settings) => {
                let queue = format!("{name}.echo");
                stage.owe_queue(queue.clone());
                Some((Echo::start(&settings, &queue).await?, queue))
            }
            None => None,
        };
        // A table of ours has no place in a database of theirs.
        let writers = match stage.is_own() {
            true => Some(Writers::open(stage.store(), stage.directory(), request.pipeline.lanes).await?),
            false => None,
        };
        let cache = match redis {
            Some(url) => Some((Cache::connect(url, name).await?, histogram())),
            None => None,
        };
        let directory = stage.directory().to_owned();
        Ok(Self { echo, echoes: Turns::default(), writers, cache, fsync: histogram(), directory, name: name.to_owned(), round: 0 })
    }

    /// One turn of each.
    async fn turn(&mut self, request: &Request, scenario: &Scenario, step: &mut impl FnMut(Step<'_>)) -> Result<(), Error> {
        self.round += 1;
        if let (Some((_, queue)), Some(broker)) = (&self.echo, &request.broker) {
            let record = run::record(scenario, Ids::new(&format!("{}.echo{}", self.name, self.round)));
            let route = Route { exchange: String::new(), key: queue.clone() };
            let target: Arc<dyn Target> = Arc::new(Amqp::connect(&broker.url, route, Arc::clone(&record), scenario.in_flight_max).await?);
            let (_, pace) = run::send(scenario, &record, target, step).await?;
            self.echoes.add(measure(scenario, &record, &pace), record)?;
        }
        if let Some(writers) = &mut self.writers {
            writers.measure(COMMITS_LAST).await?;
        }
        if let Some((cache, times)) = &mut self.cache {
            cache.measure(CACHE_LASTS, times).await?;
        }
        let (directory, mut times) = (self.directory.clone(), histogram());
        let synced = tokio::task::spawn_blocking(move || sync_cost(&directory, SYNCS, &mut times).map(|()| times)).await;
        let times = synced.map_err(|error| Error::Floor(error.to_string()))??;
        self.fsync.add(times).map_err(|error| Error::Floor(error.to_string()))
    }

    async fn finish(self, request: &Request, rounds: u32, slice: Duration, daemon: &Summary) -> FloorReport {
        let queue_type = daemon.target.queue_type.clone().unwrap_or_default();
        let echo = self.echoes.measured.map(|measured| EchoLine {
            queue_type,
            response_time: Latency::figures(&measured.response),
            service_time: Latency::figures(&measured.service),
            ceiling_per_s: measured.ceiling.map(|ceiling| ceiling.rate_per_s),
            lost: measured.requests.lost,
        });
        let redis = match self.cache {
            Some((cache, times)) => {
                cache.close().await;
                Some(Latency::figures(&times))
            }
            None => None,
        };
        let commits = self.writers.map(Writers::finish).unwrap_or_default();
        let mut report = FloorReport {
            rounds,
            slice_s: slice.as_secs_f64(),
            echo,
            commits,
            redis,
            fsync: Latency::figures(&self.fsync),
            ratios: Vec::new(),
        };
        report.ratios = ratios(&report, daemon, request.scenario.arrival);
        report
    }
}

/// The daemon over the floors; only what was measured on both sides.
fn ratios(floor: &FloorReport, daemon: &Summary, arrival: Arrival) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    let mut add = |name: &str, value: f64, digits: i32, meaning: &str| {
        if value.is_finite() {
            ratios.push(Ratio { name: name.to_owned(), value: rounded(value, digits), meaning: meaning.to_owned() });
        }
    };
    let at = |latency: &Latency, percentile: &str| latency.percentile(percentile) as f64;
    if let Some(echo) = &floor.echo {
        let over = at(&daemon.response_time, "p50") - at(&echo.response_time, "p50");
        add("p50_over_echo_us", over, 0, "response time p50, microseconds over the broker's echo");
        let ratio = at(&daemon.response_time, "p99") / at(&echo.response_time, "p99");
        add("p99_to_echo", ratio, 3, "response time p99, to that of the broker's echo");
        if let (Some(ours), Some(theirs)) = (&daemon.ceiling, echo.ceiling_per_s) {
            add("ceiling_to_echo", ours.rate_per_s / theirs, 3, "ceiling, to that of the broker's echo");
        }
    }
    let commit = daemon.stages.iter().find(|stage| stage.span == "commit");
    if let (Some(commit), Some(alone)) = (commit, floor.commits.first()) {
        let ratio = at(&commit.latency, "p50") / at(&alone.commit, "p50");
        add("commit_p50_to_floor", ratio, 3, "commit p50, to that of one plain row");
    }
    let most = floor.commits.iter().map(|commits| commits.rows_per_s).fold(0.0, f64::max);
    if arrival == Arrival::Closed {
        add("decisions_to_rows", daemon.rate.achieved_per_s / most, 3, "decisions a second, to plain rows a second in groups");
    }
    ratios
}

#[cfg(test)]
pub(in crate::bench) mod tests {
    use super::*;
    use crate::bench::{floor::Commits, summary::tests::example};

    /// Floors that all took as long.
    pub(in crate::bench) fn floor(p50: u64, p99: u64) -> FloorReport {
        let percentiles = [("p50".to_owned(), p50), ("p99".to_owned(), p99)];
        let latency = Latency { count: 100, percentiles_us: percentiles.into(), ..Latency::default() };
        let echo = EchoLine {
            queue_type: "quorum".to_owned(),
            response_time: latency.clone(),
            service_time: latency.clone(),
            ceiling_per_s: None,
            lost: 0,
        };
        let commits =
            [(1, 900.0), (64, 199.0)].map(|(batch, rows_per_s)| Commits { batch, writers: 1, rows_per_s, commit: latency.clone() });
        let (echo, commits) = (Some(echo), commits.into());
        FloorReport { rounds: 1, slice_s: 1.0, echo, commits, redis: None, fsync: latency, ratios: Vec::new() }
    }

    #[test]
    fn ratios_are_the_daemons_figure_over_the_floors() {
        let told = |arrival| -> Vec<(String, f64)> {
            ratios(&floor(600, 6_000), &example(), arrival).into_iter().map(|ratio| (ratio.name, ratio.value)).collect()
        };
        let open =
            [("p50_over_echo_us", 400.0), ("p99_to_echo", 1.5), ("commit_p50_to_floor", 0.5)].map(|(name, value)| (name.to_owned(), value));
        assert_eq!(told(Arrival::Poisson), open);
        assert_eq!(told(Arrival::Closed).last(), Some(&("decisions_to_rows".to_owned(), 0.111)));
        assert_eq!(ratios(&floor(0, 0), &example(), Arrival::Poisson).len(), 1, "a floor of nothing is no floor");
    }
}
