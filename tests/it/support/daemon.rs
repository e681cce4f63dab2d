//! The daemon as its users have it: a child process with an environment.

use super::{PATIENCE, eventually, http::Http};
use parking_lot::Mutex;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    env,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    time::timeout,
};

const LOG_LINES_SHOWN: usize = 60;
const LISTEN: &str = "JITAUTH_HTTP__LISTEN";

/// An environment to run `jitauth` in, and nothing inherited that could change what it does.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    directory: PathBuf,
    variables: BTreeMap<String, String>,
}

impl Settings {
    /// With `directory` as the working directory, which must outlive the daemon.
    pub(crate) fn new(directory: &Path) -> Self {
        let variables = BTreeMap::from([("JITAUTH_LOG__FORMAT".to_owned(), "json".to_owned())]);
        Self { directory: directory.to_owned(), variables }
    }

    /// `JITAUTH_<SECTION>__<KEY>` and its value.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Listens on a port that stays free across restarts: below those the kernel hands to clients.
    #[must_use]
    pub(crate) fn with_free_port(self) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let start = u16::try_from(std::process::id() % 1500).unwrap();
        let port = (0..2000)
            .map(|_| 10_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 2000)
            .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
            .expect("a free port");
        self.with(LISTEN, &format!("127.0.0.1:{port}"))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jitauth"));
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("JITAUTH_")) {
            command.env_remove(name);
        }
        command.args(arguments).current_dir(&self.directory).envs(&self.variables);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Starts a subcommand without waiting for its end.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().expect("jitauth starts")
    }

    /// Runs a subcommand to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        let output = timeout(PATIENCE, self.command(arguments).output()).await;
        output.unwrap_or_else(|_| panic!("jitauth {arguments:?} does not end")).expect("jitauth runs")
    }

    /// Runs a subcommand that must succeed.
    pub(crate) async fn run_well(&self, arguments: &[&str]) {
        let output = self.run(arguments).await;
        assert!(
            output.status.success(),
            "jitauth {arguments:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// `jitauth serve`. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// What it runs with; a change takes effect at the next restart.
    pub(crate) settings: Settings,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// Where in the log the present process begins.
    begins: usize,
}

impl Daemon {
    /// Starts it and waits until it is ready.
    pub(crate) async fn serve(settings: Settings) -> Self {
        let mut daemon = Self::launch(settings);
        daemon.ready().await;
        daemon
    }

    /// Starts it without waiting.
    pub(crate) fn launch(settings: Settings) -> Self {
        Self::launch_into(settings, Arc::default())
    }

    fn launch_into(settings: Settings, log: Arc<Mutex<Vec<String>>>) -> Self {
        let begins = log.lock().len();
        let mut child = settings.command(&["serve"]).spawn().expect("jitauth starts");
        collect(child.stdout.take().expect("a pipe"), &log);
        collect(child.stderr.take().expect("a pipe"), &log);
        Self { settings, child, log, begins }
    }

    /// Waits until this very process says that it listens and `/ready` answers 200; panics when it ends before, or takes too long.
    pub(crate) async fn ready(&mut self) {
        let http = self.http();
        let answered = timeout(PATIENCE, async {
            loop {
                if let Some(status) = self.child.try_wait().expect("a child") {
                    panic!("jitauth ended before it was ready: {status}");
                }
                // Its own word first: another process could have taken the port and answer in its place.
                if self.says_ready() && http.get("/ready").await.is_ok_and(|reply| reply.status == 200) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        });
        assert!(answered.await.is_ok(), "jitauth is not ready after {PATIENCE:?}");
    }

    fn says_ready(&self) -> bool {
        let lines = self.log.lock();
        let here = self.address().to_string();
        lines[self.begins..]
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .any(|line| line["event"] == "ready" && line["http"] == here.as_str())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.settings.get(LISTEN).expect("a listener").parse().expect("an address")
    }

    pub(crate) fn http(&self) -> Http {
        Http::new(self.address())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("a running daemon")
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.expect("a running daemon");
    }

    /// SIGTERM, and what the daemon ended with.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        let status = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().await.expect("kill runs");
        assert!(status.success(), "kill: {status}");
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("jitauth does not end on SIGTERM")).expect("a child")
    }

    /// Starts it again with its settings; the log goes on.
    pub(crate) async fn restart(&mut self) {
        *self = Self::launch_into(self.settings.clone(), Arc::clone(&self.log));
        self.ready().await;
    }

    /// Its log lines so far, those that are JSON.
    pub(crate) fn log(&self) -> Vec<Value> {
        self.log.lock().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for a log line with this `event`.
    pub(crate) async fn event(&self, name: &str) -> Value {
        eventually(&format!("the event {name:?} in the log"), async || self.log().into_iter().find(|line| line["event"] == name)).await
    }

    /// Everything it wrote, as it wrote it.
    pub(crate) fn text(&self) -> String {
        self.log.lock().join("\n")
    }
}

/// A test that fails shows what its daemons last said, and whether they still ran.
impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.log.lock();
            let tail = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
            eprintln!("jitauth at {:?}, {:?}, the end of its log:\n{tail}", self.settings.get(LISTEN), self.child.try_wait());
        }
    }
}

fn collect(pipe: impl AsyncRead + Send + Unpin + 'static, log: &Arc<Mutex<Vec<String>>>) {
    let log = Arc::clone(log);
    tokio::spawn(async move {
        let mut lines = BufReader::new(pipe).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            log.lock().push(line);
        }
    });
}
