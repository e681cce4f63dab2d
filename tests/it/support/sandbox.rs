//! What one test has to itself: a store, a vhost, a Redis database, and the settings that point a daemon there.

use super::{
    amqp::Amqp,
    daemon::{Daemon, Settings},
    services::{Services, Slot, Turn},
    store::Store,
};
use tempfile::TempDir;

/// A place for one test.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// What the daemons of this test are started with.
    pub(crate) settings: Settings,
    /// In the services, when they are used.
    pub(crate) external: Option<External>,
    _directory: TempDir,
}

/// The part of a sandbox that lies in the services.
#[derive(Debug)]
pub(crate) struct External {
    /// To stop, kill and pause them.
    pub(crate) services: &'static Services,
    /// PostgreSQL, with the test's database.
    pub(crate) postgres_url: String,
    /// Redis, with the test's database number.
    pub(crate) redis_url: String,
    /// RabbitMQ, with the test's vhost.
    pub(crate) broker_url: String,
    _turn: Turn,
}

impl Sandbox {
    /// SQLite in a fresh directory, HTTP, and nothing else. The store is empty until a daemon has been started.
    pub(crate) fn embedded() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("jitauth.db");
        let settings = Settings::new(directory.path())
            .with("JITAUTH_PROFILE", "embedded")
            .with("JITAUTH_SQLITE__PATH", path.to_str().unwrap())
            .with_free_port();
        Self { settings, external: None, _directory: directory }
    }

    /// All services, beside other tests: schema and topology are in place. `None` when there are no services.
    pub(crate) async fn services() -> Option<Self> {
        let services = Services::get()?;
        Some(Self::ready(services, Turn::shared().await).await)
    }

    /// As [`Sandbox::services`], with no other test running meanwhile: for those that disturb a service or count what it does.
    pub(crate) async fn alone() -> Option<Self> {
        let services = Services::get()?;
        Some(Self::ready(services, Turn::alone().await).await)
    }

    /// As [`Sandbox::services`], without schema and topology: an empty database and an empty vhost.
    pub(crate) async fn bare(turn: Turn) -> Option<Self> {
        let services = Services::get()?;
        let slot = services.claim().await;
        let database = Store::create_database(&services.postgres, None).await;
        Some(Self::at(services, slot, &database, turn))
    }

    async fn ready(services: &'static Services, turn: Turn) -> Self {
        let slot = services.claim().await;
        let template = services
            .template(async || {
                let database = Store::create_database(&services.postgres, None).await;
                let directory = TempDir::new().unwrap();
                let settings = Settings::new(directory.path())
                    .with("JITAUTH_PROFILE", "services")
                    .with("JITAUTH_POSTGRES__URL", &format!("{}/{database}", services.postgres));
                settings.run_well(&["migrate"]).await;
                database
            })
            .await;
        let database = Store::create_database(&services.postgres, Some(template)).await;
        let sandbox = Self::at(services, slot, &database, turn);
        sandbox.settings.run_well(&["topology", "apply"]).await;
        sandbox
    }

    fn at(services: &'static Services, slot: Slot, database: &str, turn: Turn) -> Self {
        let directory = TempDir::new().unwrap();
        let external = External {
            services,
            postgres_url: format!("{}/{database}", services.postgres),
            redis_url: format!("{}/{}", services.redis, slot.0),
            broker_url: format!("{}/{}", services.broker, slot.vhost()),
            _turn: turn,
        };
        let settings = Settings::new(directory.path())
            .with("JITAUTH_PROFILE", "services")
            .with("JITAUTH_POSTGRES__URL", &external.postgres_url)
            .with("JITAUTH_REDIS__URL", &external.redis_url)
            .with("JITAUTH_BROKER__URL", &external.broker_url)
            .with_free_port();
        Self { settings, external: Some(external), _directory: directory }
    }

    /// Starts a daemon and waits until it is ready.
    pub(crate) async fn daemon(&self) -> Daemon {
        Daemon::serve(self.settings.clone()).await
    }

    /// A second daemon on the same services, on a port of its own.
    pub(crate) async fn another_daemon(&self) -> Daemon {
        Daemon::serve(self.settings.clone().with_free_port()).await
    }

    /// The part that lies in the services.
    pub(crate) fn external(&self) -> &External {
        self.external.as_ref().expect("a sandbox with services")
    }

    /// The store, by another way than the daemon's.
    pub(crate) async fn store(&self) -> Store {
        match &self.external {
            Some(external) => Store::postgres(&external.postgres_url).await,
            None => Store::sqlite(self.settings.get("JITAUTH_SQLITE__PATH").expect("a path")).await,
        }
    }

    /// A client of the broker, with a connection of its own.
    pub(crate) async fn amqp(&self) -> Amqp {
        Amqp::connect(&self.external().broker_url).await
    }
}
