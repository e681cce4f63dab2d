//! What a run stands on: a store, a daemon and queues of its own, or a daemon that runs already. Taken away again however it ends.

use super::{
    Error, Kind, Request,
    record::Record,
    scenario::{Scenario, Start},
    scratch::{self, Location},
    spawn::{Daemon, Launch},
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
use std::sync::Arc;
use tempfile::TempDir;

/// How much longer than a request's deadline a client waits for its answer.
const PATIENCE: std::time::Duration = super::pacer::PATIENCE;

/// What a run stands on.
pub struct Stage {
    directory: TempDir,
    store: Location,
    broker: Option<broker::Settings>,
    daemon: Option<Daemon>,
    base: Option<String>,
    own: bool,
    /// Queues that were declared beside the topology.
    owed: Vec<String>,
    /// Ends the pipeline of this process.
    pipeline: Option<BoxFuture<'static, ()>>,
}

impl Stage {
    /// Decides where everything will be. Nothing is made yet.
    ///
    /// # Errors
    /// There is no temporary directory, or a URL is not understood.
    pub fn new(request: &Request, run: &str) -> Result<Self, Error> {
        let directory = tempfile::Builder::new().prefix("jitauth-bench-").tempdir()?;
        let own = request.running.is_none();
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
        Ok(Self { directory, store, broker, daemon: None, base, own, owed: Vec::new(), pipeline: None })
    }

    /// Makes the store and the queues, and starts the daemon.
    ///
    /// # Errors
    /// [`Error`]. [`Stage::strike`] takes away what was made by then.
    pub async fn set(&mut self, request: &Request) -> Result<(), Error> {
        if !self.own {
            return Ok(());
        }
        self.store.make(&request.scenario).await?;
        if let Some(broker) = &self.broker {
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
        let Scenario { deadline, in_flight_max, .. } = request.scenario;
        match (request.kind, &self.broker, &self.base) {
            (Kind::Amqp, Some(broker), _) => {
                let route = Route { exchange: broker.exchange.clone(), key: topology::CREATED.to_owned() };
                Ok(Arc::new(Amqp::connect(&broker.url, route, Arc::clone(record), in_flight_max).await?))
            }
            (Kind::Http, _, Some(base)) => {
                let token = request.running.as_ref().map_or(request.token.as_deref(), |running| running.token.as_deref());
                Ok(Arc::new(Http::new(base, token, deadline + PATIENCE).map_err(|_| Error::Url(base.clone()))?))
            }
            (Kind::Inproc, ..) => match self.store.clone() {
                Location::Sqlite(settings) => Ok(self.pipeline(request, &Sqlite::open(&settings).await?).await),
                Location::Postgres(settings) => Ok(self.pipeline(request, &Postgres::connect(&settings).await?).await),
            },
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
    /// is left alone. Says whether it ended well.
    ///
    /// # Errors
    /// The daemon cannot be signalled.
    pub async fn settle(&mut self) -> Result<bool, Error> {
        if let Some(ending) = self.pipeline.take() {
            return Ok(tokio::time::timeout(PATIENCE * 4, ending).await.is_ok());
        }
        match &mut self.daemon {
            Some(daemon) => Ok(daemon.stop().await?),
            None => Ok(true),
        }
    }

    /// Takes away everything that was made.
    ///
    /// # Errors
    /// The first thing that could not be taken away; the rest was tried all the same.
    pub async fn strike(mut self) -> Result<(), Error> {
        let killed = match &mut self.daemon {
            Some(daemon) => daemon.kill().await.map_err(Error::from),
            None => Ok(()),
        };
        // Connections to the store go with it.
        self.pipeline = None;
        let mut deleted = match &self.broker {
            Some(broker) if !self.owed.is_empty() => scratch::delete_queues(broker, &self.owed).await.map_err(Error::from),
            _ => Ok(()),
        };
        if !self.own {
            return killed.and(deleted);
        }
        if let Some(broker) = &self.broker {
            deleted = deleted.and(scratch::delete(broker).await.map_err(Error::from));
        }
        let removed = self.store.remove().await.map_err(Error::from);
        killed.and(deleted).and(removed)
    }

    /// Has a queue deleted in the end.
    pub fn owe_queue(&mut self, queue: String) {
        self.owed.push(queue);
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

    /// Whether everything here is the run's own.
    #[must_use]
    pub const fn is_own(&self) -> bool {
        self.own
    }

    /// A directory of the run's own.
    #[must_use]
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    fn launch(&self, request: &Request) -> Launch {
        let launch = Launch { directory: self.directory.path().to_owned(), ..request.launch.clone() }.on_a_free_port();
        let launch = match &self.store {
            Location::Sqlite(settings) => {
                launch.with("JITAUTH_STORE__KIND", "sqlite").with("JITAUTH_SQLITE__PATH", settings.path.to_string_lossy())
            }
            Location::Postgres(settings) => launch.with("JITAUTH_STORE__KIND", "postgres").with("JITAUTH_POSTGRES__URL", &settings.url),
        };
        // A daemon of ours must not write into a cache that others read.
        let launch = launch.with("JITAUTH_REDIS__ENABLED", "false").with("JITAUTH_REPORT__DIRECTORY", "");
        let launch = if request.scenario.start == Start::Cold { launch.with("JITAUTH_MEMORY__WARM", "false") } else { launch };
        let Some(broker) = &self.broker else { return launch.with("JITAUTH_BROKER__ENABLED", "false") };
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
}
