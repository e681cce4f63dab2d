//! What a run stands on: a store, a daemon and queues of its own, or a daemon that runs already. Taken away again however it ends.

use super::{
    Error, Kind, Request,
    record::Record,
    scenario::Start,
    scratch::{self, Location, Scratch},
    spawn::{Daemon, Launch},
    summary::Remains,
    targets::{
        Target,
        amqp::{Amqp, Route},
        http::Http,
        inproc::Inproc,
    },
};
use crate::{
    broker::{self, topology},
    ledger::{Store, postgres::Postgres, sqlite::Sqlite},
};
use futures_util::future::BoxFuture;
use std::{collections::BTreeMap, io, path::Path, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::time::timeout;

/// How much longer than a request's deadline a client waits for its answer.
const PATIENCE: std::time::Duration = super::pacer::PATIENCE;

/// How long a process may take to be gone once it is killed.
const KILL_MAX: Duration = Duration::from_secs(5);
/// How long a broker may take to put back what a daemon that ended had not acknowledged, and to know how much there is.
const COUNTED_WITHIN: Duration = Duration::from_secs(2);

/// Seconds that a daemon's report is kept beyond the load itself: floors take turns with it.
const REPORT_SPARE: Duration = Duration::from_secs(600);
/// As many intervals as a daemon keeps.
const REPORT_INTERVALS_MAX: u64 = 8_640;

/// How what decides has ended.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// Whether it ended in time: if not, the store may still change.
    pub in_time: bool,
    /// What is left of it.
    pub remains: Remains,
}

/// What a run stands on.
pub struct Stage {
    directory: TempDir,
    store: Location,
    /// The store, where it is the run's own.
    scratch: Option<Scratch>,
    broker: Option<broker::Settings>,
    daemon: Option<Daemon>,
    base: Option<String>,
    own: bool,
    /// Whether exchanges and queues of the run's own are there, all or some.
    declared: bool,
    /// What only echoes, and the names that it has.
    echo: Option<(Daemon, broker::Settings)>,
    run: String,
    /// Whether the store may be looked into.
    looked: bool,
    /// The pipeline of this process, while it runs: one for all turns, as there is one daemon.
    inproc: Option<Arc<dyn Target>>,
    /// Ends it.
    pipeline: Option<BoxFuture<'static, ()>>,
}

impl Stage {
    /// Decides where everything will be. Nothing is made yet.
    ///
    /// # Errors
    /// There is no temporary directory, or a URL is not understood.
    pub fn new(request: &Request, run: &str) -> Result<Self, Error> {
        let directory = directory(request)?;
        let own = request.running.is_none();
        if !own && request.scenario.start == Start::Cold {
            return Err(Error::Cold);
        }
        let name = format!("jitauth_{}", run.replace('-', "_"));
        let store = match &request.store {
            Location::Sqlite(settings) if own => scratch::sqlite_in(directory.path(), settings),
            Location::Postgres(settings) if own => scratch::postgres_named(&name, settings)?,
            theirs => theirs.clone(),
        };
        let broker = match (&request.broker, request.kind) {
            (Some(settings), Kind::Amqp) if own => Some(scratch::topology_named(run, settings)),
            (Some(settings), Kind::Amqp) => Some(settings.clone()),
            (None, Kind::Amqp) => return Err(Error::NoBroker),
            _ => None,
        };
        let base = request.running.as_ref().map(|running| running.url.clone());
        let scratch = own.then(|| Scratch::new(store.clone()));
        Ok(Self {
            looked: own || request.prove,
            directory,
            store,
            scratch,
            broker,
            daemon: None,
            base,
            own,
            declared: false,
            echo: None,
            run: run.to_owned(),
            inproc: None,
            pipeline: None,
        })
    }

    /// Makes the store and the queues, and starts the daemon.
    ///
    /// # Errors
    /// [`Error`]. [`Stage::strike`] takes away what was made by then.
    pub async fn set(&mut self, request: &Request) -> Result<(), Error> {
        let Some(scratch) = &mut self.scratch else { return Ok(()) };
        scratch.make(&request.scenario).await?;
        if let Some(broker) = &self.broker {
            scratch::reach(broker).await?;
            self.declared = true;
            scratch::declare(broker).await?;
        }
        if request.kind != Kind::Inproc {
            let mut daemon = Daemon::new(self.launch(request));
            let address = daemon.start().await?;
            self.base = Some(format!("http://{address}"));
            self.daemon = Some(daemon);
        }
        Ok(())
    }

    /// The target of a record's sendings.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn target(&mut self, request: &Request, record: &Arc<Record>) -> Result<Arc<dyn Target>, Error> {
        let deadline = request.scenario.deadline;
        match (request.kind, &self.broker, &self.base) {
            (Kind::Amqp, Some(broker), _) => {
                let route = Route { exchange: broker.exchange.clone(), key: topology::CREATED.to_owned() };
                Ok(Arc::new(Amqp::connect(&broker.url, route, Arc::clone(record)).await?))
            }
            (Kind::Http, _, Some(base)) => {
                let token = request.running.as_ref().map_or(request.token.as_deref(), |running| running.token.as_deref());
                Ok(Arc::new(Http::new(base, token, deadline + PATIENCE).map_err(|_| Error::Url(base.clone()))?))
            }
            (Kind::Inproc, ..) => {
                if let Some(running) = &self.inproc {
                    return Ok(Arc::clone(running));
                }
                let started = match self.store.clone() {
                    Location::Sqlite(settings) => self.pipeline(request, &Sqlite::open(&settings).await?).await,
                    Location::Postgres(settings) => self.pipeline(request, &Postgres::connect(&settings).await?).await,
                };
                Ok(Arc::clone(self.inproc.insert(started)))
            }
            (Kind::Amqp | Kind::Http, ..) => Err(Error::NoBroker),
        }
    }

    async fn pipeline<S: Store>(&mut self, request: &Request, store: &S) -> Arc<dyn Target> {
        let mut settings = request.pipeline;
        if S::NAME == "sqlite" {
            settings.lanes = 1;
        }
        // What the generator holds under way is bounded by itself: nothing may be shed for it.
        settings.in_flight_max = settings.in_flight_max.max(request.scenario.in_flight_max as usize);
        settings.lane_queue_max = settings.lane_queue_max.max(settings.in_flight_max);
        let freshness = (request.scenario.start == Start::Warm).then_some(request.freshness);
        let (inproc, running) = Inproc::start(settings, request.memory, freshness, store).await;
        let inproc = Arc::new(inproc);
        let ending = Arc::clone(&inproc);
        self.pipeline = Some(Box::pin(async move {
            ending.idle().await;
            drop(ending);
            running.finish().await;
        }));
        inproc
    }

    /// Ends what decides, so that the store stands still: a daemon of our own drains, a pipeline finishes. A daemon that runs already
    /// is left alone. Says whether it ended well, and what is left in queues that are the run's own.
    ///
    /// # Errors
    /// The daemon cannot be signalled, or the broker cannot be asked.
    pub async fn settle(&mut self) -> Result<Settled, Error> {
        self.inproc = None;
        if let Some(ending) = self.pipeline.take() {
            let in_time = tokio::time::timeout(PATIENCE * 4, ending).await.is_ok();
            return Ok(Settled { in_time, remains: Remains::default() });
        }
        let Some(daemon) = &mut self.daemon else { return Ok(Settled { in_time: true, remains: Remains::default() }) };
        let ended = daemon.stop().await?;
        let queues = match &self.broker {
            // There is enough to say, and what it left behind follows from that.
            _ if ended.is_some() => BTreeMap::new(),
            Some(broker) => remaining(broker).await?,
            None => BTreeMap::new(),
        };
        Ok(Settled { in_time: true, remains: Remains { queues, ended } })
    }

    /// What was made, or may have been, and has to be taken away: by name, for whoever has to do it by hand.
    #[must_use]
    pub fn belongings(&self) -> Vec<String> {
        let daemons = [self.daemon.as_ref(), self.echo.as_ref().map(|(echo, _)| echo)];
        let mut names: Vec<String> = daemons.into_iter().flatten().filter_map(process).collect();
        if let Some((_, settings)) = &self.echo {
            names.extend(scratch::objects(settings).map(|object| object.to_string()));
        }
        if let (Some(settings), true) = (&self.broker, self.declared) {
            names.extend(scratch::objects(settings).map(|object| object.to_string()));
        }
        names.extend(self.scratch.as_ref().and_then(Scratch::name));
        names
    }

    /// Takes away everything that was made, and it out of `left`. Each step has an end, and what comes after one that failed is tried all
    /// the same.
    pub async fn strike(&mut self, left: &mut Vec<String>) {
        for daemon in [self.daemon.as_mut(), self.echo.as_mut().map(|(echo, _)| echo)].into_iter().flatten() {
            let process = process(daemon);
            if matches!(timeout(KILL_MAX, daemon.kill()).await, Ok(Ok(()))) {
                left.retain(|name| Some(name) != process.as_ref());
            }
        }
        // Connections to the store go with it.
        (self.inproc, self.pipeline) = (None, None);
        let names = self.echo.as_ref().map(|(_, settings)| settings).into_iter().chain(self.broker.as_ref().filter(|_| self.declared));
        for settings in names {
            scratch::delete(settings, left).await;
        }
        if let Some(scratch) = &mut self.scratch
            && let (name, Ok(())) = (scratch.name(), scratch.remove().await)
        {
            left.retain(|left| Some(left) != name.as_ref());
        }
    }

    /// Starts an echo beside the daemon: a process like it, behind exchanges and queues like its own. `None` without a broker.
    ///
    /// # Errors
    /// [`Error`]. [`Stage::strike`] takes away what was made by then.
    pub async fn echo(&mut self, request: &Request) -> Result<Option<broker::Settings>, Error> {
        let Some(broker) = &self.broker else { return Ok(None) };
        let settings = scratch::topology_named(&format!("{}.echo", self.run), broker);
        let directory = self.directory.path().join("echo");
        std::fs::create_dir(&directory)?;
        scratch::reach(&settings).await?;
        let echo = Daemon::new(behind(Launch { directory, ..request.launch.clone() }, &settings));
        let (echo, _) = self.echo.insert((echo, settings.clone()));
        scratch::declare(&settings).await?;
        echo.start_echo().await?;
        Ok(Some(settings))
    }

    /// Requests left in the queue; 0 without one.
    ///
    /// # Errors
    /// The broker cannot be asked.
    pub async fn queue_depth(&self) -> Result<u32, Error> {
        match &self.broker {
            Some(broker) => Ok(scratch::depth(broker, &broker.request_queue).await?),
            None => Ok(0),
        }
    }

    /// The store that the decisions are in.
    #[must_use]
    pub const fn store(&self) -> &Location {
        &self.store
    }

    /// The broker between, with the names that are used.
    #[must_use]
    pub const fn broker(&self) -> Option<&broker::Settings> {
        self.broker.as_ref()
    }

    /// Where the daemon listens for HTTP.
    #[must_use]
    pub fn base(&self) -> Option<&str> {
        self.base.as_deref()
    }

    /// The daemon of our own.
    #[must_use]
    pub const fn daemon(&self) -> Option<&Daemon> {
        self.daemon.as_ref()
    }

    /// Whether the store is the run's own, or may be looked into all the same.
    #[must_use]
    pub const fn may_look(&self) -> bool {
        self.looked
    }

    /// Whether everything here is the run's own.
    #[must_use]
    pub const fn is_own(&self) -> bool {
        self.own
    }

    /// A directory of the run's own.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// How a daemon on this store is started.
    pub(super) fn launch(&self, request: &Request) -> Launch {
        let launch = Launch { directory: self.directory.path().to_owned(), ..request.launch.clone() }.on_a_free_port();
        let launch = match &self.store {
            Location::Sqlite(settings) => {
                launch.with("JITAUTH_STORE__KIND", "sqlite").with("JITAUTH_SQLITE__PATH", settings.path.to_string_lossy())
            }
            Location::Postgres(settings) => launch.with("JITAUTH_STORE__KIND", "postgres").with("JITAUTH_POSTGRES__URL", &settings.url),
        };
        // A daemon of ours must not write into a cache that others read.
        let launch = launch.with("JITAUTH_REDIS__ENABLED", "false").with("JITAUTH_REPORT__DIRECTORY", "");
        // As fine as can be told, so that the report can leave out the warm-up, and kept for as long as the run.
        let lasts = request.scenario.warm_up + request.scenario.duration * 2 + REPORT_SPARE;
        let kept = lasts.as_secs().min(REPORT_INTERVALS_MAX).to_string();
        let launch = launch.with("JITAUTH_REPORT__INTERVAL_S", "1").with("JITAUTH_REPORT__KEPT_MAX", kept);
        let launch = if request.scenario.start == Start::Cold { launch.with("JITAUTH_MEMORY__WARM", "false") } else { launch };
        match &self.broker {
            Some(broker) => behind(launch, broker),
            None => launch.with("JITAUTH_BROKER__ENABLED", "false"),
        }
    }
}

/// A directory of the run's own: where it was asked for, or beside the configuration's SQLite file, whose disk is what counts.
fn directory(request: &Request) -> io::Result<TempDir> {
    let mut named = tempfile::Builder::new();
    let named = named.prefix("jitauth-bench-");
    match (&request.scratch, &request.store) {
        (Some(chosen), _) => named.tempdir_in(chosen),
        (None, Location::Sqlite(settings)) => {
            let beside = settings.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            named.tempdir_in(beside).or_else(|_| named.tempdir())
        }
        (None, Location::Postgres(_)) => named.tempdir(),
    }
}

fn process(daemon: &Daemon) -> Option<String> {
    daemon.pid().map(|pid| format!("process {pid}"))
}

/// Behind a broker, with these names.
fn behind(launch: Launch, broker: &broker::Settings) -> Launch {
    launch
        .with("JITAUTH_BROKER__ENABLED", "true")
        .with("JITAUTH_BROKER__URL", &broker.url)
        .with("JITAUTH_BROKER__EXCHANGE", &broker.exchange)
        .with("JITAUTH_BROKER__EVENTS_EXCHANGE", &broker.events_exchange)
        .with("JITAUTH_BROKER__REQUEST_QUEUE", &broker.request_queue)
        .with("JITAUTH_BROKER__RESPONSE_QUEUE", &broker.response_queue)
        .with("JITAUTH_BROKER__DEAD_LETTER_QUEUE", &broker.dead_letter_queue)
        .with("JITAUTH_BROKER__TRANSACTION_QUEUE", &broker.transaction_queue)
        .with("JITAUTH_BROKER__WEBHOOK_QUEUE", &broker.webhook_queue)
        .with("JITAUTH_BROKER__REPLY_TO_ALLOWED", broker.reply_to_allowed.join(","))
}
/// What is left in the queues once the broker has counted.
async fn remaining(broker: &broker::Settings) -> Result<BTreeMap<String, u64>, Error> {
    let began = tokio::time::Instant::now();
    loop {
        let left = scratch::remaining(broker).await?;
        if left.is_empty() || began.elapsed() > COUNTED_WITHIN {
            return Ok(left);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
