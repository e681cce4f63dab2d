//! How a command ends.

use super::demo;
use crate::{app::AppError, config::Problems, ledger::StoreError, seed};
use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};

/// Exit codes, as supervisors know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or drained and stopped as asked.
    Ok = 0,
    /// It failed; the message says how.
    Failed = 1,
    /// The command line is not understood.
    Usage = 2,
    /// A flag has a value that it cannot have.
    BadFlagValue = 64,
    /// A dependency is not there at the start, or the database file is in use. Trying again later is right.
    Unavailable = 69,
    /// A fault of ours: an invariant does not hold.
    Bug = 70,
    /// The drain took too long; what was in flight is decided again when it is delivered again.
    DrainTimedOut = 75,
    /// A dependency refuses us: credentials or permissions.
    Refused = 77,
    /// Configuration, topology or schema are wrong. Trying again will not help.
    Misconfigured = 78,
    /// A benchmark's figure is worse than it was, by more than is tolerated.
    Regression = 98,
    /// A promise of the profile, or a benchmark's threshold, was broken.
    PromiseBroken = 99,
    /// Interrupted a second time, while draining.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ended other than well, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    exit: Exit,
    what: String,
    next: String,
}

impl Error {
    /// An error with what happened and what to do next, both without a final stop.
    pub fn new(exit: Exit, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { exit, what: what.into(), next: next.into() }
    }

    /// The reason has been printed already.
    pub(super) fn told(exit: Exit) -> Self {
        Self::new(exit, "", "")
    }

    /// A fault of ours.
    pub fn bug(what: impl fmt::Display) -> Self {
        Self::new(Exit::Bug, what.to_string(), "this is a fault of jitauth: keep the log and report it")
    }

    /// The same, with another exit code.
    #[must_use]
    pub(super) fn with_exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Tells the person at the terminal.
    pub fn print(&self) {
        if !self.what.is_empty() {
            // Nobody is left to tell when the terminal is gone.
            drop(writeln!(io::stderr(), "{self}"));
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\n  next: {}", self.what, self.next)
    }
}

impl From<Problems> for Error {
    fn from(problems: Problems) -> Self {
        let (count, next) = match problems.list().len() {
            1 => ("1 problem".to_owned(), "mend it and start again"),
            many => (format!("{many} problems"), "mend them and start again"),
        };
        let listed = problems.to_string().replace('\n', "\n  ");
        let next = format!("{next}; config.toml of this release explains every key");
        Self::new(Exit::Misconfigured, format!("the configuration has {count}\n  {listed}"), next)
    }
}

impl From<AppError> for Error {
    fn from(error: AppError) -> Self {
        match error {
            AppError::Unavailable { what, next } => Self::new(Exit::Unavailable, what, next),
            AppError::Refused { what, next } => Self::new(Exit::Refused, what, next),
            AppError::Misconfigured { what, next } => Self::new(Exit::Misconfigured, what, next),
            AppError::DrainTimedOut { what } => {
                let next = "raise pipeline.drain_timeout_ms if the store was healthy; redelivered requests get the stored answers";
                Self::new(Exit::DrainTimedOut, what, next)
            }
            AppError::Broken { what } => Self::bug(what),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        AppError::from(error).into()
    }
}

impl From<demo::Error> for Error {
    fn from(error: demo::Error) -> Self {
        let next = match error {
            demo::Error::Seed(error) => return error.into(),
            demo::Error::Io(_) => "check free space and permissions in the temporary directory (TMPDIR), then run it again",
            demo::Error::Disproved => "report it with what `jitauth demo --keep` keeps: money may be wrong",
            demo::Error::Interrupted => "run it again; the daemon is stopped and its files are removed",
            demo::Error::Daemon(_) | demo::Error::Spawn(_) | demo::Error::Traffic(_) | demo::Error::Store(_) => {
                "run `jitauth demo --keep` and look at the daemon's log and file"
            }
        };
        Self::new(Exit::Failed, error.to_string(), next)
    }
}

impl From<seed::Error> for Error {
    fn from(error: seed::Error) -> Self {
        let exit = match &error {
            seed::Error::Unreachable(_) => Exit::Unavailable,
            seed::Error::Refused(_) => Exit::Refused,
            seed::Error::Schema(_) => Exit::Misconfigured,
            seed::Error::Store(_) | seed::Error::Output(_) => Exit::Failed,
        };
        // Its last sentence says what to do.
        let text = error.to_string();
        let (what, next) = text.rsplit_once(". ").unwrap_or((&text, "run the same command again"));
        Self::new(exit, what, next)
    }
}
