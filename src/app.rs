//! The wiring: every part is built on the ones behind it, from the store forward to the edges, and ended the other way round.

use crate::{
    broker::{self, Broker, BrokerError, topology},
    config::{Config, StoreKind},
    domain::time::Timestamp,
    facts::{memory::Memory, redis::Redis, tiered::FactTiers},
    http,
    ledger::{SchemaState, Store, StoreError, postgres::Postgres, sqlite::Sqlite},
    pipeline::{self, Pipeline, Running, WallClock},
    telemetry::{self, Readiness, Telemetry, events::Dependency, readiness::Check},
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};

/// How often dependencies are looked at for readiness, and slow decisions are told.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// After how long a store that says nothing counts as one that is out.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the daemon ended other than well. Each kind has its exit code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppError {
    /// A dependency is not there.
    #[error("{what}")]
    Unavailable {
        /// What happened.
        what: String,
        /// What to do.
        next: String,
    },
    /// A dependency refuses us.
    #[error("{what}")]
    Refused {
        /// What happened.
        what: String,
        /// What to do.
        next: String,
    },
    /// Configuration, topology or schema are wrong.
    #[error("{what}")]
    Misconfigured {
        /// What happened.
        what: String,
        /// What to do.
        next: String,
    },
    /// The drain took too long.
    #[error("{what}")]
    DrainTimedOut {
        /// What was left.
        what: String,
    },
    /// An invariant does not hold.
    #[error("{what}")]
    Broken {
        /// What happened.
        what: String,
    },
}

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
    let telemetry = config.broker.as_ref().map_or_else(Telemetry::default, |broker| Telemetry::for_queue(&broker.request_queue));
    let readiness = telemetry.readiness();
    let wall: WallClock = Arc::new(wall_now);
    telemetry.in_flight_limit(config.pipeline.in_flight_max);
    telemetry.expects(Dependency::Store);
    let slow = tokio::spawn(telemetry::slow::report(telemetry.clone()));

    // 1. The store owns the money: without the right schema nothing starts.
    schema_is_current(&store).await?;
    let durability = store.durability().await?;

    // 2. Facts: memory, then Redis, then the store.
    if config.redis.is_some() {
        telemetry.expects(Dependency::Redis);
    }
    let redis = config.redis.clone().map(Redis::connect).transpose().map_err(misconfigured_redis)?;
    let facts = FactTiers::new(Memory::new(config.memory), redis.clone(), store.clone(), telemetry.clone());

    // 3. The pipeline, with a store connection for each lane and one for the late desk.
    let (pipeline, mut running) = pipeline::start(config.pipeline, facts, || store.ledger(), &wall, &telemetry);

    // 4. The broker, on a topology that is as it should be.
    let broker = start_broker(&config, &pipeline, &telemetry, &wall).await?;

    // 5. HTTP last: a port that answers means that the rest is there.
    let http = start_http(&config, &pipeline, &telemetry, &readiness).await?;

    let watch = Watch { store, redis, telemetry: telemetry.clone(), readiness: readiness.clone() };
    let address = http.as_ref().map_or_else(|| "off".to_owned(), |http| http.address.clone());
    tracing::info!(event = "started", http = address, store = S::NAME, durability, "waiting for the dependencies");
    tokio::select! {
        biased;
        () = shutdown => {}
        () = running.broken() => return Err(AppError::Broken { what: "a lane ended by itself".to_owned() }),
        () = watch.run(broker.as_ref(), &address) => {}
    }
    readiness.drain();
    slow.abort();
    Parts { pipeline, running, broker, http, telemetry }.drain(config.pipeline.drain_timeout).await
}

/// What runs, and has to be ended in order.
struct Parts<S> {
    pipeline: Pipeline<S>,
    running: Running,
    broker: Option<Broker>,
    http: Option<Http>,
    telemetry: Telemetry,
}

/// The HTTP edge at work.
struct Http {
    address: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl<S: Store> Parts<S> {
    /// Stops intake, lets everything in flight be answered, confirmed and acked, and says what became of it all.
    async fn drain(self, drain_timeout: Duration) -> Result<(), AppError> {
        let Self { pipeline, running, broker, http, telemetry } = self;
        tracing::info!(event = "draining", in_flight = pipeline.in_flight(), "no new requests are taken");
        let until = Instant::now() + drain_timeout;
        let watched = pipeline.clone();
        let drained = timeout_at(until, async {
            if let Some(broker) = &broker {
                broker.stop_intake().await;
            }
            if let Some(Http { stop, task, .. }) = http {
                // The server may have ended by itself; then there is nothing to stop.
                let _ended_before = stop.send(()).is_err();
                drop(task.await);
            }
            pipeline.idle().await;
            if let Some(broker) = broker {
                broker.drained().await;
                broker.close().await;
            }
            running.finish().await;
        })
        .await;
        let tally = telemetry.tally();
        tracing::info!(event = "drained", complete = drained.is_ok(), in_flight = watched.in_flight(), %tally, "ended");
        drained.map_err(|_| AppError::DrainTimedOut {
            what: format!(
                "{} requests were still in flight after {} ms; what was not acked is delivered again",
                watched.in_flight(),
                drain_timeout.as_millis()
            ),
        })
    }
}

/// Looks at the dependencies and keeps readiness true to them.
struct Watch<S> {
    store: S,
    redis: Option<Redis>,
    telemetry: Telemetry,
    readiness: Readiness,
}

impl<S: Store> Watch<S> {
    async fn run(self, broker: Option<&Broker>, address: &str) {
        let store = self.readiness.check("store");
        let broker = broker.map(|broker| (broker, self.readiness.check("broker")));
        let mut tick = interval(WATCH_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut announced = false;
        loop {
            tick.tick().await;
            self.look_at_store(&store).await;
            if let Some((broker, check)) = &broker {
                let failed = (!broker.ready()).then(|| "not consuming, or not able to publish".to_owned());
                self.note(check, Dependency::Broker, failed);
            }
            if let Some(redis) = &self.redis {
                let answer = redis.ping().await;
                self.telemetry.dependency(
                    Dependency::Redis,
                    answer.is_ok(),
                    &answer.err().map(|error| error.to_string()).unwrap_or_default(),
                );
            }
            if self.readiness.is_ready() && !announced {
                announced = true;
                tracing::info!(event = "ready", http = address, "taking requests");
            }
        }
    }

    async fn look_at_store(&self, check: &Check) {
        // A store that hangs does not fail by itself.
        let answer = timeout(PING_TIMEOUT, self.store.ping()).await;
        let failed = match answer {
            Ok(answer) => answer.err().map(|error| error.to_string()),
            Err(_) => Some(format!("no answer within {} ms", PING_TIMEOUT.as_millis())),
        };
        self.note(check, Dependency::Store, failed);
    }

    fn note(&self, check: &Check, dependency: Dependency, failed: Option<String>) {
        self.telemetry.dependency(dependency, failed.is_none(), failed.as_deref().unwrap_or_default());
        match failed {
            None => check.pass(),
            Some(detail) => check.fail(detail),
        }
    }
}

async fn schema_is_current<S: Store>(store: &S) -> Result<(), AppError> {
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

async fn start_broker<S: Store>(
    config: &Config,
    pipeline: &Pipeline<S>,
    telemetry: &Telemetry,
    wall: &WallClock,
) -> Result<Option<Broker>, AppError> {
    let Some(settings) = &config.broker else { return Ok(None) };
    telemetry.expects(Dependency::Broker);
    let findings = topology::check(settings).await?;
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
    };
    Ok(Some(Broker::start(settings, wiring)?))
}

async fn start_http<S: Store>(
    config: &Config,
    pipeline: &Pipeline<S>,
    telemetry: &Telemetry,
    readiness: &Readiness,
) -> Result<Option<Http>, AppError> {
    let Some(settings) = config.http.clone() else { return Ok(None) };
    let parts = http::Parts {
        intake: pipeline.clone(),
        telemetry: telemetry.clone(),
        readiness: readiness.clone(),
        deadline_default: config.pipeline.deadline_default,
        deadline_reserve: config.pipeline.deadline_reserve,
    };
    let server = http::Server::bind(settings, parts).await.map_err(|error| AppError::Misconfigured {
        what: error.to_string(),
        next: "set `http.listen` (JITAUTH_HTTP__LISTEN) to an address that is free and safe".to_owned(),
    })?;
    let address = server.local_addr().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(server.run(async { drop(stopped.await) }));
    Ok(Some(Http { address, stop, task }))
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

impl From<BrokerError> for AppError {
    fn from(error: BrokerError) -> Self {
        let what = error.to_string();
        match error {
            BrokerError::Unreachable(_) => {
                Self::Unavailable { what, next: "start RabbitMQ, or mend `broker.url` (JITAUTH_BROKER__URL)".to_owned() }
            }
            BrokerError::Refused(_) => {
                Self::Refused { what, next: "mend the user, its password or its permissions on the vhost".to_owned() }
            }
            BrokerError::Address | BrokerError::Topology(_) => {
                Self::Misconfigured { what, next: "mend the broker section of the configuration".to_owned() }
            }
        }
    }
}

impl From<StoreError> for AppError {
    fn from(error: StoreError) -> Self {
        let what = error.to_string();
        match error {
            StoreError::Unreachable(_) => {
                Self::Unavailable { what, next: "start the store, or mend JITAUTH_POSTGRES__URL or JITAUTH_SQLITE__PATH".to_owned() }
            }
            StoreError::Locked { .. } => {
                Self::Unavailable { what, next: "stop that daemon, or give this one its own `sqlite.path`".to_owned() }
            }
            StoreError::Refused(_) => Self::Refused { what, next: "mend the user's password or permissions".to_owned() },
            StoreError::Broken(_) => {
                Self::Misconfigured { what, next: "restore the store from a backup, or migrate a fresh one".to_owned() }
            }
        }
    }
}
