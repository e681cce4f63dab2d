//! The wiring: every part is built on the ones behind it, from the store forward to the edges, and ended the other way round.

mod drain;
mod error;
mod news;
mod offline;
mod profiler;
mod systemd;
mod threads;
mod watch;

pub use error::AppError;
pub use offline::offline;

use self::{
    drain::{Http, Parts},
    profiler::Profiler,
    systemd::Systemd,
    threads::Threads,
    watch::{Commits, Watch},
};
use crate::{
    broker::{self, Broker, events::EventPorts, topology},
    config::{Config, StoreKind},
    domain::time::Timestamp,
    facts::{invalidator::Invalidator, memory::Memory, redis::Redis, tiered::FactTiers},
    http,
    ledger::{SchemaState, Store, postgres::Postgres, sqlite::Sqlite},
    pipeline::{self, Pipeline, WallClock},
    telemetry::{
        Readiness, Reports, Telemetry,
        events::{Dependency, Path},
    },
};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Duration, Instant, sleep},
};

/// The check that memory is warm.
const WARM: &str = "warm";
/// How often it is looked at, and for how long deliveries wait for it: less than a deadline. A cold decision is slow, and one that
/// comes too late is none.
const WARM_LOOK: Duration = Duration::from_millis(20);
const WARM_WAIT_MAX: Duration = Duration::from_secs(1);

/// Runs the daemon until `shutdown` is ready and everything in flight has ended.
///
/// # Errors
/// Why it could not start or go on.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), AppError> {
    match config.store {
        StoreKind::Sqlite => {
            let store = Sqlite::open(&config.sqlite).await?;
            // Embedded, nobody else would do it.
            store.migrate().await?;
            serve(store, config, shutdown).await
        }
        StoreKind::Postgres => serve(Postgres::connect(&config.postgres).await?, config, shutdown).await,
    }
}

async fn serve<S: Store>(store: S, config: Config, shutdown: impl Future<Output = ()>) -> Result<(), AppError> {
    let queue = config.broker.as_ref().map(|broker| broker.request_queue.as_str());
    let telemetry = Telemetry::new(queue, &config.telemetry);
    let readiness = telemetry.readiness();
    let wall: WallClock = Arc::new(wall_now);
    telemetry.promises(&config.promise);
    telemetry.in_flight_limit(config.pipeline.in_flight_max);
    telemetry.expects(Dependency::Store);

    // 1. The store owns the money: without the right schema nothing starts.
    schema_is_current(&store).await?;
    let durability = store.durability().await?;
    let profiler = Profiler::start(&config, S::NAME, &durability, &telemetry);

    // 2. Facts: memory, then Redis, then the store.
    if config.redis.is_some() {
        telemetry.expects(Dependency::Redis);
    }
    let pushes = config.freshness.listen_to.has(Path::Redis);
    let connected = config.redis.clone().map(|redis| Redis::connect(redis, pushes, &telemetry)).transpose();
    let (redis, tracking) = connected.map_err(misconfigured_redis)?.unzip();
    let facts = FactTiers::new(Memory::new(config.memory), redis, store.clone(), telemetry.clone());
    let invalidator = Invalidator::new(facts.clone(), config.freshness, wall.clone());
    let warm = config.freshness.warm.then(|| readiness.check(WARM));
    let mut fresh = invalidator.start(tracking.flatten(), warm);

    // 3. The pipeline, with a store connection for each lane and one for the late desk.
    let threads = Threads::start(config.pipeline.lanes).map_err(no_threads)?;
    if let Some(threads) = threads.handle() {
        telemetry.request_threads(threads);
    }
    let (pipeline, mut running) = {
        let _on = threads.enter();
        pipeline::start(config.pipeline, facts.clone(), || store.ledger(), &wall, &telemetry)
    };

    // 4. The port. It can be somebody else's, so it is taken before a delivery is: what is decided must not be left unsent.
    let server = bind_http(&config, &pipeline, &telemetry, &profiler.reports).await?;

    // 5. The broker, on a topology that is as it should be. From here on nothing can fail any more.
    let begin = warm_enough(readiness.clone());
    let broker = start_broker(&config, &pipeline, &telemetry, &wall, news::ports(invalidator, &telemetry), begin, &threads).await?;

    // Money follows the facts, at the lanes' leisure.
    let mut ahead = JoinSet::new();
    if config.freshness.warm {
        ahead.spawn(read_ahead(pipeline.clone(), readiness.clone()));
    }

    // 6. HTTP is served last: a port that answers means that the rest is there.
    let http = server.map(serve_http);

    let watch = Watch {
        store,
        facts: facts.clone(),
        telemetry: telemetry.clone(),
        readiness: readiness.clone(),
        pulse: running.pulse(),
        threads: threads.handle().cloned(),
        commits: Commits::default(),
    };
    let mut systemd = Systemd::from_environment();
    let address = http.as_ref().map_or_else(|| "off".to_owned(), |http| http.address.clone());
    tracing::info!(event = "started", http = address, store = S::NAME, durability, "waiting for the dependencies");
    let broken = tokio::select! {
        biased;
        () = shutdown => None,
        part = running.broken() => Some(part),
        _ = fresh.join_next() => Some("what keeps facts fresh"),
        part = watch.run(broker.as_ref(), http.as_ref(), &mut systemd) => Some(part),
    };
    if let Some(part) = broken {
        // The interval in which it broke is the one that is looked for.
        profiler.finish().await;
        return Err(ended_by_itself(part));
    }
    readiness.drain();
    // Nothing is read any more but for a request.
    ahead.shutdown().await;
    let drained = Parts { pipeline, running, broker, http, telemetry }.drain(config.pipeline.drain_timeout, systemd).await;
    profiler.finish().await;
    drained
}

/// Once memory is warm, has lanes read the money of the cards that are in it.
async fn read_ahead<S: Store>(pipeline: Pipeline<S>, readiness: Readiness) {
    while is_warming(&readiness) {
        sleep(WARM_LOOK).await;
    }
    pipeline.read_ahead().await;
}

fn is_warming(readiness: &Readiness) -> bool {
    readiness.checks().iter().any(|check| check.name == WARM && !check.ok)
}

/// Waits until memory is warm, or for a moment: what has queued up would all be read from the store one by one.
async fn warm_enough(readiness: Readiness) {
    let until = Instant::now() + WARM_WAIT_MAX;
    while Instant::now() < until && is_warming(&readiness) {
        sleep(WARM_LOOK).await;
    }
}

/// Refuses a store whose schema is not that of this build.
pub(crate) async fn schema_is_current<S: Store>(store: &S) -> Result<(), AppError> {
    let what = match store.schema().await? {
        SchemaState::Current => return Ok(()),
        SchemaState::Missing => "the store has no schema yet",
        SchemaState::Older => "the store's schema is older than this build",
        SchemaState::Newer => {
            return Err(AppError::Misconfigured {
                what: "the store's schema is newer than this build".to_owned(),
                next: "run the build that migrated it, or a newer one".to_owned(),
            });
        }
    };
    Err(AppError::Misconfigured { what: what.to_owned(), next: "run `jitauth migrate`".to_owned() })
}

fn no_threads(error: std::io::Error) -> AppError {
    let next = "raise the limits on threads and open files".to_owned();
    AppError::Unavailable { what: format!("no threads can be started: {error}"), next }
}

async fn start_broker<S: Store>(
    config: &Config,
    pipeline: &Pipeline<S>,
    telemetry: &Telemetry,
    wall: &WallClock,
    events: EventPorts,
    begin: impl Future<Output = ()> + Send + 'static,
    threads: &Threads,
) -> Result<Option<Broker>, AppError> {
    let Some(settings) = &config.broker else { return Ok(None) };
    telemetry.expects(Dependency::Broker);
    let mut findings = topology::check(settings).await?;
    // What this user may not look at is no fault of the topology.
    findings.retain(|finding| !matches!(finding.problem, topology::Problem::Unverified(_)));
    if !findings.is_empty() {
        let what = findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        return Err(AppError::Misconfigured { what, next: "run `jitauth topology apply`".to_owned() });
    }
    let wiring = broker::Wiring {
        intake: pipeline.clone(),
        telemetry: telemetry.clone(),
        wall: wall.clone(),
        deadline_default: config.pipeline.deadline_default,
        deadline_reserve: config.pipeline.deadline_reserve,
        events,
        begin: Box::pin(begin),
    };
    let _on = threads.enter();
    Ok(Some(Broker::start(settings, wiring)?))
}

async fn bind_http<S: Store>(
    config: &Config,
    pipeline: &Pipeline<S>,
    telemetry: &Telemetry,
    reports: &Reports,
) -> Result<Option<http::Server<Pipeline<S>>>, AppError> {
    let Some(settings) = config.http.clone() else { return Ok(None) };
    let parts = http::Parts {
        intake: pipeline.clone(),
        telemetry: telemetry.clone(),
        readiness: telemetry.readiness(),
        reports: reports.clone(),
        deadline_default: config.pipeline.deadline_default,
        deadline_reserve: config.pipeline.deadline_reserve,
    };
    let server = http::Server::bind(settings, parts).await.map_err(|error| AppError::Misconfigured {
        what: error.to_string(),
        next: "set `http.listen` (JITAUTH_HTTP__LISTEN) to an address that is free and safe".to_owned(),
    })?;
    Ok(Some(server))
}

fn serve_http<S: Store>(server: http::Server<Pipeline<S>>) -> Http {
    let address = server.local_addr().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(server.run(async { drop(stopped.await) }));
    Http { address, stop, task }
}

/// What serves for ever has ended, which nothing does but by a panic: what it had in hand is decided anew when it is sent again.
fn ended_by_itself(part: &str) -> AppError {
    AppError::Broken { what: format!("{part} ended by itself") }
}

#[expect(clippy::disallowed_methods, reason = "the one place where the pipeline's wall clock comes from")]
fn wall_now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn misconfigured_redis(error: crate::facts::FactError) -> AppError {
    AppError::Misconfigured { what: error.to_string(), next: "mend `redis.url` (JITAUTH_REDIS__URL)".to_owned() }
}
