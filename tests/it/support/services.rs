//! The private services that `scripts/services` runs, as its exports name them.

use std::{
    env, fmt,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
};
use tokio::{
    process::Command,
    sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// One of the three.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Service {
    Postgres,
    Redis,
    Rabbitmq,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Rabbitmq => "rabbitmq",
        })
    }
}

/// All three, running.
#[derive(Debug)]
pub(crate) struct Services {
    state: PathBuf,
    /// Without a database: append `/name`.
    pub(crate) postgres: String,
    /// Without a database number: append `/number`.
    pub(crate) redis: String,
    /// Without a vhost: append `/name`.
    pub(crate) broker: String,
    vhosts_made: u32,
    template: OnceCell<String>,
}

/// A place in the services that no other test uses: a vhost, and a Redis database of the same number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot(pub(crate) u32);

impl Slot {
    pub(crate) fn vhost(self) -> String {
        format!("test-{}", self.0)
    }
}

/// Ordinary tests run side by side; one that stops or slows a service runs alone.
static TURNS: RwLock<()> = RwLock::const_new(());

/// Held for the length of a test.
#[derive(Debug)]
#[expect(dead_code, reason = "held, not read")]
pub(crate) enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
    /// Of a test that has its turn and wants another place: taking a second turn could wait for ever behind one that waits.
    Taken,
}

impl Turn {
    pub(crate) async fn shared() -> Self {
        Self::Shared(TURNS.read().await)
    }

    pub(crate) async fn alone() -> Self {
        Self::Alone(TURNS.write().await)
    }
}

impl Services {
    /// The services, or `None` with a line that says what was skipped. `JITAUTH_TEST_REQUIRE=1` makes that a failure.
    pub(crate) fn get() -> Option<&'static Self> {
        static SERVICES: OnceLock<Option<Services>> = OnceLock::new();
        let services = SERVICES.get_or_init(Self::from_env).as_ref();
        if services.is_none() {
            let line = "skipped: needs PostgreSQL, Redis and RabbitMQ; run `make test`";
            assert!(env::var_os("JITAUTH_TEST_REQUIRE").is_none_or(|value| value != "1"), "{line}");
            let thread = std::thread::current();
            // Past the test runner's capture, which would swallow it: a test that did not run must show.
            let mut stderr = std::io::stderr();
            writeln!(stderr, "{}: {line}", thread.name().unwrap_or("a test")).unwrap();
        }
        services
    }

    fn from_env() -> Option<Self> {
        Some(Self {
            state: env::var_os("JITAUTH_TEST_SERVICES")?.into(),
            postgres: env::var("JITAUTH_TEST_POSTGRES").ok()?.rsplit_once('/')?.0.to_owned(),
            redis: env::var("JITAUTH_TEST_REDIS").ok()?,
            broker: env::var("JITAUTH_TEST_BROKER").ok()?,
            vhosts_made: env::var("JITAUTH_TEST_SLOTS").ok()?.parse().ok()?,
            template: OnceCell::new(),
        })
    }

    /// Takes a slot that was never used since the services started, by this process or another.
    pub(crate) async fn claim(&self) -> Slot {
        let directory = self.state.join("slots");
        let free = |number: &u32| match std::fs::create_dir(directory.join(number.to_string())) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
            Err(error) => panic!("cannot claim a slot in {}: {error}", directory.display()),
        };
        let slot = Slot((1..4096).find(free).expect("a free slot"));
        if slot.0 > self.vhosts_made {
            self.script(&["slots", &slot.0.to_string(), &slot.0.to_string()]).await;
        }
        slot
    }

    /// The name of a database with the schema in it, made once by `prepare` and copied for every test.
    pub(crate) async fn template(&self, prepare: impl AsyncFnOnce() -> String) -> &str {
        self.template.get_or_init(|| prepare()).await
    }

    pub(crate) async fn stop(&self, service: Service) {
        self.script(&["stop", &service.to_string()]).await;
    }

    pub(crate) async fn start(&self, service: Service) {
        self.script(&["start", &service.to_string()]).await;
    }

    /// SIGKILL, children included.
    pub(crate) async fn kill(&self, service: Service) {
        self.script(&["kill", &service.to_string()]).await;
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub(crate) async fn pause(&self, service: Service) {
        self.script(&["pause", &service.to_string()]).await;
    }

    pub(crate) async fn resume(&self, service: Service) {
        self.script(&["resume", &service.to_string()]).await;
    }

    /// `rabbitmqctl` on the private node.
    pub(crate) async fn rabbitmqctl(&self, arguments: &[&str]) -> String {
        self.script(&[&["rabbitmqctl"], arguments].concat()).await
    }

    async fn script(&self, arguments: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/services");
        let output = Command::new(script)
            .args(arguments)
            .env("JITAUTH_TEST_SERVICES", &self.state)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .expect("scripts/services runs");
        assert!(output.status.success(), "services {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
