//! A daemon of our own: the same binary, as a child process, with things of its own.
#![expect(clippy::disallowed_methods, reason = "a daemon is watched from outside, on the real clock")]

use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};
use tokio::{
    process::{Child, Command},
    sync::oneshot,
    time::timeout,
};

/// How long a daemon may take to be ready.
const READY_MAX: Duration = Duration::from_secs(60);
/// How often the log is looked at for that.
const POLL: Duration = Duration::from_millis(5);
/// How long a daemon may take to drain.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Lines of the log that are shown when the daemon does not start.
const TAIL_LINES: usize = 12;

/// How a daemon is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub binary: PathBuf,
    /// Arguments before the subcommand.
    pub arguments: Vec<String>,
    /// All of its `JITAUTH_` variables: what is configured for this user is about another daemon.
    pub environment: BTreeMap<String, String>,
    /// Its working directory, with its log and a SQLite file: nothing else may lie there.
    pub directory: PathBuf,
}

/// Why a daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// A file or a process.
    #[error("the daemon cannot be started: {0}")]
    Io(#[from] io::Error),
    /// It ended, or took too long; with the end of its log.
    #[error("{0}")]
    Daemon(String),
}

/// A daemon, and where it keeps its things. Dropped, it is killed.
#[derive(Debug)]
pub struct Daemon {
    launch: Launch,
    child: Option<Child>,
}

impl Launch {
    /// Sets a variable, over whatever was there: its `_FILE` as well.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.remove(&format!("{name}_FILE"));
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// With a port of its own on loopback, and a log that can be read.
    #[must_use]
    pub fn on_a_free_port(self) -> Self {
        self.with("JITAUTH_HTTP__ENABLED", "true").with("JITAUTH_HTTP__LISTEN", "127.0.0.1:0").with("JITAUTH_LOG__FORMAT", "json")
    }
}

impl Daemon {
    /// A daemon to be. Nothing is started yet.
    #[must_use]
    pub const fn new(launch: Launch) -> Self {
        Self { launch, child: None }
    }

    /// What the daemon logs, JSON.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.launch.directory.join("jitauth.log")
    }

    /// Where it keeps its things.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.launch.directory
    }

    /// Runs a subcommand to its end.
    ///
    /// # Errors
    /// [`SpawnError`], with what it said.
    pub async fn run(&self, subcommand: &str) -> Result<(), SpawnError> {
        let status = self.command(subcommand)?.status().await?;
        if status.success() { Ok(()) } else { Err(self.failed(&format!("`jitauth {subcommand}` ended with {status}"), 0)) }
    }

    /// Starts it and waits until it is ready. It ends with this process, however that ends. Gives the address that it listens on for HTTP.
    ///
    /// # Errors
    /// [`SpawnError`], with the end of its log.
    pub async fn start(&mut self) -> Result<SocketAddr, SpawnError> {
        self.start_as("serve --leashed", &address_when_ready).await
    }

    /// Starts the bench's echo in its place, which ends when we do, and waits until it is ready.
    ///
    /// # Errors
    /// [`SpawnError`], with the end of its log.
    pub async fn start_echo(&mut self) -> Result<(), SpawnError> {
        self.start_as("bench echo", &|line| (field(line, "event")?.as_str() == Some("ready")).then_some(())).await
    }

    async fn start_as<T>(&mut self, subcommand: &str, ready: &impl Fn(&Value) -> Option<T>) -> Result<T, SpawnError> {
        let began = Instant::now();
        let before = File::open(self.log()).and_then(|log| log.metadata()).map_or(0, |log| log.len());
        let mut child = self.command(subcommand)?.stdin(Stdio::piped()).spawn()?;
        loop {
            if let Some(status) = child.try_wait()? {
                return Err(self.failed(&format!("`jitauth {subcommand}` ended with {status}"), before));
            }
            if let Some(said) = logged(&self.log_from(before)?, ready) {
                self.child = Some(child);
                return Ok(said);
            }
            if began.elapsed() > READY_MAX {
                return Err(self.failed(&format!("`jitauth {subcommand}` was not ready within {READY_MAX:?}"), before));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Ends it with SIGKILL: no drain, no last words.
    ///
    /// # Errors
    /// It could not be killed.
    pub async fn kill(&mut self) -> Result<(), SpawnError> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Ends it with SIGTERM and waits until it has drained. Says how it ended if not well, with the end of its log.
    ///
    /// # Errors
    /// It could not be signalled or waited for.
    pub async fn stop(&mut self) -> Result<Option<String>, SpawnError> {
        let Some(mut child) = self.child.take() else { return Ok(None) };
        if let Some(id) = child.id() {
            Command::new("kill").args(["-TERM", &id.to_string()]).stderr(Stdio::null()).status().await?;
        }
        // To wait closes it, and a daemon whose starter is gone does not drain: it ends at once.
        let _leash = child.stdin.take();
        match timeout(DRAIN_MAX, child.wait()).await {
            Ok(status) => {
                let status = status?;
                Ok((!status.success()).then(|| self.failed(&format!("`jitauth serve` ended with {status}"), 0).to_string()))
            }
            Err(_) => {
                child.kill().await?;
                Ok(Some(self.failed(&format!("`jitauth serve` had not ended {DRAIN_MAX:?} after SIGTERM"), 0).to_string()))
            }
        }
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// How the daemon says it opened its store (`journal_mode=wal synchronous=full …`), from its log.
    #[must_use]
    pub fn stated_durability(&self) -> Option<String> {
        logged(&self.log_from(0).ok()?, &|line| field(line, "durability")?.as_str().map(str::to_owned))
    }

    fn command(&self, subcommand: &str) -> Result<Command, SpawnError> {
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = Command::new(&self.launch.binary);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("JITAUTH_")) {
            command.env_remove(name);
        }
        command
            .args(&self.launch.arguments)
            .args(subcommand.split(' '))
            .current_dir(&self.launch.directory)
            .env_remove("RUST_LOG")
            .env_remove("NOTIFY_SOCKET")
            .envs(&self.launch.environment)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        Ok(command)
    }

    fn log_from(&self, offset: u64) -> io::Result<String> {
        let mut log = File::open(self.log())?;
        log.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn failed(&self, what: &str, offset: u64) -> SpawnError {
        let log = self.log_from(offset).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n  ");
        SpawnError::Daemon(format!("{what}. The end of its log:\n  {tail}"))
    }
}

/// Resolves when whoever started this process is gone, however it ended: it holds the other end of the standard input.
#[must_use]
pub fn leash() -> oneshot::Receiver<()> {
    let (held, let_go) = oneshot::channel();
    // A thread that the runtime does not wait for when it ends.
    thread::spawn(move || {
        drop(io::stdin().read(&mut [0]));
        drop(held);
    });
    let_go
}

/// The first thing that `find` finds in the lines of a log.
fn logged<T>(log: &str, find: &impl Fn(&Value) -> Option<T>) -> Option<T> {
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).find_map(|line: Value| find(&line))
}

/// A field of a log line, on the line itself or among its `fields`.
fn field<'a>(line: &'a Value, name: &str) -> Option<&'a Value> {
    line.get(name).or_else(|| line.get("fields")?.get(name))
}

fn address_when_ready(line: &Value) -> Option<SocketAddr> {
    if field(line, "event")?.as_str() != Some("ready") {
        return None;
    }
    let address = field(line, "http")?.as_str()?;
    address.strip_prefix("http://").unwrap_or(address).parse().ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_ready_line_is_found_among_others() {
        let address = |log: &str| logged(log, &address_when_ready).map(|address| address.to_string());
        for (log, expected) in [
            ("", None),
            ("not json\n{\"event\":\"starting\"}\n", None),
            ("{\"event\":\"ready\"}", None),
            ("{\"a\":1}\n{\"event\":\"ready\",\"http\":\"127.0.0.1:4711\"}\n", Some("127.0.0.1:4711")),
            ("{\"fields\":{\"event\":\"ready\",\"http\":\"http://127.0.0.1:4712\"}}", Some("127.0.0.1:4712")),
            ("{\"event\":\"ready\",\"http\":\"127.0.", None),
        ] {
            assert_eq!(address(log).as_deref(), expected, "{log}");
        }
    }

    fn launch(binary: &str, directory: &Path) -> Launch {
        let (arguments, environment) = (Vec::new(), BTreeMap::new());
        Launch { binary: binary.into(), arguments, environment, directory: directory.to_owned() }
    }

    #[tokio::test]
    async fn a_daemon_that_does_not_start_is_shown_with_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let error = Daemon::new(launch("/bin/ls", directory.path())).run("migrate").await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("`jitauth migrate` ended with") && text.contains("cannot access"), "{text}");
    }

    /// What is told of a daemon that does this when it is asked to end.
    async fn ended(last: &str) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jitauth");
        let ready = r#"{"event":"ready","http":"127.0.0.1:1"}"#;
        std::fs::write(&path, format!("#!/bin/sh\ntrap '{last}' TERM\necho '{ready}'\nwhile :; do sleep 0.05; done\n")).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut daemon = Daemon::new(launch(path.to_str().unwrap(), directory.path()));
        daemon.start().await.unwrap();
        daemon.stop().await.unwrap()
    }

    #[tokio::test]
    async fn a_daemon_that_does_not_end_well_is_shown_with_its_log() {
        assert_eq!(ended("exit 0").await, None);
        // It still has its starter while it drains: nothing can be read, but there is no end either.
        assert_eq!(ended("if timeout 0.3 cat; then exit 130; else exit 0; fi").await, None);
        let told = ended("echo drained badly; exit 75").await.unwrap();
        assert!(told.contains("`jitauth serve` ended with exit status: 75") && told.ends_with("drained badly"), "{told}");
    }

    #[test]
    fn a_variable_replaces_its_file() {
        let mut launch = launch("x", Path::new("."));
        launch.environment.insert("JITAUTH_POSTGRES__URL_FILE".to_owned(), "/run/secret".to_owned());
        let launch = launch.with("JITAUTH_POSTGRES__URL", "postgres://x");
        assert_eq!(launch.environment.into_iter().collect::<Vec<_>>(), [("JITAUTH_POSTGRES__URL".to_owned(), "postgres://x".to_owned())]);
    }
}
