//! The command line, one file per subcommand.
//!
//! **Invariant**: whatever ends a command other than well is an [`Error`] that says what happened and what to do next, and the exit
//! code tells a supervisor which kind it is.

mod administration;
#[cfg(test)]
mod administration_tests;
mod authorize;
mod bench;
mod card;
mod config;
pub mod daemon;
pub mod demo;
mod dlq;
mod doctor;
mod error;
mod health;
mod limit;
mod manual;
mod migrate;
mod progress;
mod report;
pub mod seed;
mod serve;
mod table;
#[cfg(test)]
mod tests;
mod top;
mod topology;
mod user;
mod version;

pub use error::{Error, Exit};

use crate::{
    config::{Config, Flag, Sources, StoreKind},
    ledger::sqlite::Sqlite,
    seed::Target,
    telemetry::log::Speaker,
};
use administration::Order;
use clap::{Parser, Subcommand, ValueEnum, error::ErrorKind};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    thread,
};

const PROFILE_DEFAULT: &str = "embedded";

/// Decides card authorizations just in time: in memory, guarded in the store.
#[derive(Clone, Debug, Parser)]
#[command(name = "jitauth", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// File laid over the profile
    #[arg(long, global = true, env = "JITAUTH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Profile: embedded, services, production, or the path of a .toml file
    #[arg(long, global = true, env = "JITAUTH_PROFILE", value_name = "NAME|PATH", default_value = PROFILE_DEFAULT)]
    profile: String,
    /// How log lines look
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Pretty on a terminal, JSON otherwise
    Auto,
    /// One JSON object a line
    Json,
    /// For people
    Pretty,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Serve {
        /// Drain when the standard input ends: whoever started this is gone
        #[arg(long, hide = true)]
        leashed: bool,
    },
    /// See the whole thing work, with nothing installed
    Demo(demo::DemoArgs),
    /// Load, measured and proved
    #[command(subcommand)]
    Bench(Box<bench::BenchCommand>),
    /// Fill the store with test cards and load cards
    Seed(seed::SeedArgs),
    /// Create or update the store's schema
    Migrate,
    /// Freeze, unfreeze and show cards
    #[command(subcommand)]
    Card(card::CardCommand),
    /// Suspend and activate users
    #[command(subcommand)]
    User(user::UserCommand),
    /// Spending limits of cards, users, accounts and programs
    #[command(subcommand)]
    Limit(limit::LimitCommand),
    /// Exchanges and queues on the broker
    #[command(subcommand)]
    Topology(topology::TopologyCommand),
    /// The running daemon's latency, graded against the profile; exit 99 when a promise was broken
    Report(report::ReportArgs),
    /// The running daemon on one screen
    Top(top::TopArgs),
    /// The configuration that the other commands would run with
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Whether the running daemon is well: exit 0 or 1, for health checks
    Health(health::HealthArgs),
    /// Completions for a shell
    Completions(manual::CompletionsArgs),
    /// Manual pages
    Man(manual::ManArgs),
    /// Ask for an authorization, and show the decision
    Authorize(authorize::AuthorizeArgs),
    /// Say whether everything that a daemon needs is there and set up well; exit 1 when something is not
    Doctor(doctor::DoctorArgs),
    /// Dead letters: look at them, and send their messages again
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// What this binary is
    Version(version::VersionArgs),
}

impl Cli {
    /// Reads the arguments of the process. Where they ask for help, prints it and ends with [`Exit::Ok`].
    ///
    /// # Errors
    /// What clap found wrong has been printed then; the error carries the exit code only.
    pub fn from_arguments(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Error> {
        Self::try_parse_from(arguments).map_err(|error| {
            // Nobody is left to tell when the terminal is gone.
            drop(error.print());
            Error::told(match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Ok,
                ErrorKind::InvalidValue | ErrorKind::ValueValidation => Exit::BadFlagValue,
                _ => Exit::Usage,
            })
        })
    }

    /// Loads the configuration that the arguments and `environment` ask for. `demo` brings its own and some
    /// others need none, so that they work whatever is configured.
    ///
    /// # Errors
    /// [`Exit::Misconfigured`] with everything that is wrong.
    pub fn config(&self, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Config, Error> {
        let independent = matches!(self.command, Command::Demo(_) | Command::Version(_) | Command::Completions(_) | Command::Man(_));
        let environment = if independent { BTreeMap::new() } else { ours(environment)? };
        let format = self.log_format.and_then(|format| format.to_possible_value());
        let flags: Vec<Flag> = format
            .map(|format| Flag { name: "--log-format", key: "log.format", value: format.get_name().to_owned() })
            .into_iter()
            .collect();
        let profile = if independent || self.profile.is_empty() { PROFILE_DEFAULT } else { &self.profile };
        let file = self.config.as_deref().filter(|path| !independent && !path.as_os_str().is_empty());
        let sources = Sources { profile, file, environment: &environment, flags: &flags, cores: cores() };
        Ok(Config::load(&sources)?)
    }

    /// How this command logs.
    #[must_use]
    pub fn speaker(&self) -> Speaker {
        if matches!(self.command, Command::Serve { .. }) { Speaker::Daemon } else { Speaker::Command }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// What went wrong, and what to do next.
    pub async fn run(self, config: Config) -> Result<(), Error> {
        match self.command {
            Command::Serve { leashed } => serve::run(config, leashed).await,
            Command::Demo(args) => demo(&args).await,
            Command::Bench(command) => {
                let environment = ours(std::env::vars_os())?;
                let invocation =
                    bench::Invocation { binary: this_program()?, profile: config.profile.clone(), config: self.config, environment };
                bench::run(*command, &config, invocation).await
            }
            Command::Seed(args) => Ok(seed::run(&args, &target(&config).await?).await?),
            Command::Migrate => migrate::run(&config).await,
            Command::Card(command) => administration::run(Order::Card(command), &config).await,
            Command::User(command) => administration::run(Order::User(command), &config).await,
            Command::Limit(command) => administration::run(Order::Limit(command), &config).await,
            Command::Topology(command) => topology::run(command, &config).await,
            Command::Report(args) => report::run(&args, &config).await,
            Command::Top(args) => top::run(&args, &config).await,
            Command::Authorize(args) => authorize::run(&args, &config).await,
            Command::Doctor(args) => doctor::run(&args, &config).await,
            Command::Dlq(command) => dlq::run(command, &config).await,
            Command::Config(command) => config::run(command, &config),
            Command::Health(args) => health::run(&args, &config).await,
            Command::Completions(args) => manual::completions(args),
            Command::Man(args) => manual::pages(&args),
            Command::Version(args) => version::run(args),
        }
    }
}

/// Processor cores that this process may use; at least 1.
#[must_use]
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Writes a line for people to standard output.
///
/// # Errors
/// [`Exit::Failed`] when it cannot be written, unless the reader has gone away.
pub(crate) fn say(line: &str) -> Result<(), Error> {
    write_out(format!("{line}\n").as_bytes())
}

/// Writes bytes to standard output as they are.
///
/// # Errors
/// As for [`say`].
pub(crate) fn write_out(bytes: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::new(Exit::Failed, format!("cannot write to standard output: {error}"), "give it somewhere to go"))
        }
        _ => Ok(()),
    }
}

/// Adds the members of one JSON object to another.
fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

async fn demo(args: &demo::DemoArgs) -> Result<(), Error> {
    Ok(demo::run(args, &this_program()?).await?)
}

fn this_program() -> Result<PathBuf, Error> {
    std::env::current_exe()
        .map_err(|error| Error::new(Exit::Failed, format!("this program cannot be found again: {error}"), "run it by its full path"))
}

/// The store that `seed` fills. A SQLite file is made and migrated on the way, as `serve` does: there is nothing to set up.
async fn target(config: &Config) -> Result<Target, Error> {
    Ok(match config.store {
        StoreKind::Postgres => Target::Postgres { url: config.postgres.url.clone() },
        StoreKind::Sqlite => {
            Sqlite::visit(&config.sqlite).await?.migrate().await?;
            Target::Sqlite { path: config.sqlite.path.clone() }
        }
    })
}

/// The variables that begin with `JITAUTH_`.
fn ours(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<BTreeMap<String, String>, Error> {
    let named = environment.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    named
        .filter(|(name, _)| name.starts_with("JITAUTH_"))
        .map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(Error::new(Exit::Misconfigured, format!("{name} is not UTF-8"), format!("set {name} to readable text"))),
        })
        .collect()
}
