//! The daemon under demonstration: the same binary, as a child process.
#![expect(clippy::disallowed_methods, reason = "the demo measures the daemon from outside, on the real clock")]

use super::Error;
use serde_json::Value;
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::process::{Child, Command};

/// How long the daemon may take to be ready.
const READY_MAX: Duration = Duration::from_secs(15);
/// How often the log is looked at for that.
const POLL: Duration = Duration::from_millis(5);
/// Lines of the log that are shown when the daemon does not start.
const TAIL_LINES: usize = 12;

/// The daemon and where it keeps its things.
#[derive(Debug)]
pub(super) struct Daemon {
    binary: PathBuf,
    directory: PathBuf,
    child: Option<Child>,
}

/// A daemon that answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) address: SocketAddr,
}

impl Daemon {
    /// A daemon of this binary that keeps everything in this directory. Nothing is started yet.
    pub(super) fn new(binary: &Path, directory: &Path) -> Self {
        Self { binary: binary.to_owned(), directory: directory.to_owned(), child: None }
    }

    /// The SQLite file.
    pub(super) fn store(&self) -> PathBuf {
        self.directory.join("jitauth.db")
    }

    /// What the daemon logs, JSON.
    pub(super) fn log(&self) -> PathBuf {
        self.directory.join("jitauth.log")
    }

    /// Creates the schema, with the daemon's own subcommand.
    pub(super) async fn migrate(&self) -> Result<(), Error> {
        let status = self.command("migrate")?.status().await?;
        if status.success() { Ok(()) } else { Err(self.failed(&format!("`jitauth migrate` ended with {status}"), 0)) }
    }

    /// Starts it and waits until it is ready.
    pub(super) async fn start(&mut self) -> Result<Ready, Error> {
        let began = Instant::now();
        let before = File::open(self.log()).and_then(|log| log.metadata()).map_or(0, |log| log.len());
        let mut child = self.command("serve")?.spawn()?;
        loop {
            if let Some(status) = child.try_wait()? {
                return Err(self.failed(&format!("`jitauth serve` ended with {status}"), before));
            }
            if let Some(address) = logged(&self.log_from(before)?, &address_when_ready) {
                self.child = Some(child);
                return Ok(Ready { address });
            }
            if began.elapsed() > READY_MAX {
                return Err(self.failed(&format!("`jitauth serve` was not ready within {READY_MAX:?}"), before));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Ends it with SIGKILL: no drain, no last words.
    pub(super) async fn kill(&mut self) -> Result<(), Error> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// How the daemon says it opened its store (`journal_mode=wal synchronous=full …`), from its log.
    pub(super) fn stated_durability(&self) -> Option<String> {
        logged(&self.log_from(0).ok()?, &|line| field(line, "durability")?.as_str().map(str::to_owned))
    }

    fn command(&self, subcommand: &str) -> Result<Command, Error> {
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = Command::new(&self.binary);
        // Whatever is configured for this user is about another daemon; the working directory may hold its configuration, too.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("JITAUTH_")) {
            command.env_remove(name);
        }
        command
            .arg(subcommand)
            .current_dir(&self.directory)
            .env_remove("RUST_LOG")
            .env("JITAUTH_PROFILE", "embedded")
            .env("JITAUTH_STORE__KIND", "sqlite")
            .env("JITAUTH_SQLITE__PATH", self.store())
            .env("JITAUTH_HTTP__ENABLED", "true")
            .env("JITAUTH_HTTP__LISTEN", "127.0.0.1:0")
            .env("JITAUTH_BROKER__ENABLED", "false")
            .env("JITAUTH_REDIS__ENABLED", "false")
            .env("JITAUTH_LOG__FORMAT", "json")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        Ok(command)
    }

    fn log_from(&self, offset: u64) -> Result<String, Error> {
        let mut log = File::open(self.log())?;
        log.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn failed(&self, what: &str, offset: u64) -> Error {
        let log = self.log_from(offset).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n  ");
        Error::Daemon(format!("{what}. The end of its log:\n  {tail}"))
    }
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
}
