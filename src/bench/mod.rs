//! Makes load, measures it from outside, and proves afterwards that nothing was lost.
//!
//! ```text
//! scenario ─► schedule ─► pacer ─► target ─► (daemon, pipeline) ─► record ─► measure ─► summary ─► print, files
//!             traffic  ─┘                                            └────► proof (asked of the store) ─┘
//! ```
//!
//! | file | what it does |
//! |---|---|
//! | [`scenario`] | what is asked: the files in `load/` |
//! | [`schedule`], [`traffic`] | when and what, drawn before the first request goes out |
//! | [`pacer`] | sends on time, and knows when it was late |
//! | [`targets`] | HTTP, RabbitMQ, or the pipeline in this process |
//! | [`stage`], [`scratch`], [`spawn`] | a store, queues and a daemon of the run's own, taken away however it ends |
//! | [`record`] | what came back, sending by sending |
//! | [`measure`], [`stages`] | figures |
//! | [`environment`], [`versions`] | where it was, and what ran |
//! | [`proof`] | the store's books against the answers, the requests, and the facts as they were seeded |
//! | [`threshold`], [`warning`] | what had to be true, and what speaks against the figures |
//! | [`summary`], [`output`], [`mod@print`], [`page`] | the result, for machines and people |
//! | [`floor`] | what the parts can do without us |
//! | [`ceiling`] | the highest rate that is kept up with |
//! | [`figures`] | the table of what has to be reached |
//! | [`compare`] | two states of the program, held against each other |
//!
//! **Invariant**: every request is accounted for. A run in which one was lost, answered twice or answered wrongly has failed, however
//! fast it was.

pub mod ceiling;
pub mod compare;
pub mod environment;
pub mod figures;
pub mod floor;
pub mod measure;
pub mod output;
pub mod pacer;
pub mod page;
pub mod print;
pub mod proof;
pub mod record;
pub mod run;
pub mod scenario;
pub mod schedule;
pub mod scratch;
pub mod spawn;
pub mod stage;
pub mod stages;
pub mod summary;
pub mod targets;
pub mod threshold;
pub mod traffic;
pub mod versions;
pub mod warning;

use crate::{
    broker,
    facts::{invalidator, memory},
    ledger::StoreError,
    pipeline,
    telemetry::promise::Promise,
};
use scenario::Scenario;
use scratch::{Location, ScratchError};
use spawn::{Launch, SpawnError};
use std::{io, path::PathBuf};
use targets::amqp::AmqpError;

/// How requests reach what decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A daemon's HTTP edge.
    Http,
    /// A daemon behind RabbitMQ.
    Amqp,
    /// The pipeline in this process.
    Inproc,
}

impl Kind {
    /// The name in flags and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Amqp => "amqp",
            Self::Inproc => "inproc",
        }
    }
}

/// What a run needs to know. `Debug` would show tokens and URLs, so there is none.
#[derive(Clone)]
pub struct Request {
    /// What is asked.
    pub scenario: Scenario,
    /// How.
    pub kind: Kind,
    /// The daemon that runs already; `None` starts one with a store of its own.
    pub running: Option<Running>,
    /// The kind of store, and how it is opened; its place only when the daemon runs already.
    pub store: Location,
    /// The broker, when there is one.
    pub broker: Option<broker::Settings>,
    /// Of the pipeline in this process, and told in the result.
    pub pipeline: pipeline::Settings,
    /// Of the pipeline in this process.
    pub memory: memory::Settings,
    /// Of the pipeline in this process: how memory is kept warm.
    pub freshness: invalidator::Settings,
    /// What latency is promised.
    pub promise: Promise,
    /// By which profile.
    pub profile: String,
    /// Digest of the configuration.
    pub configuration: String,
    /// The token that a daemon of our own asks for.
    pub token: Option<String>,
    /// How a daemon of our own is started.
    pub launch: Launch,
    /// Whether the store is looked at afterwards.
    pub prove: bool,
    /// Where the run's own directory is made; `None` chooses.
    pub scratch: Option<PathBuf>,
}

/// A daemon that runs already.
#[derive(Clone)]
pub struct Running {
    /// Where it listens, as in `http://127.0.0.1:8080`.
    pub url: String,
    /// What it asks for at the door.
    pub token: Option<String>,
}

/// A run's result, and the histograms behind it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The result.
    pub summary: summary::Summary,
    /// What it was made from.
    pub measured: measure::Measured,
}

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// Something that cannot be counted is under way.
    Note(&'a str),
    /// So many requests will be sent.
    Began {
        /// What is done with them.
        what: &'static str,
        /// Requests.
        total: u64,
    },
    /// So many are answered.
    At {
        /// Answers so far.
        done: u64,
        /// The latest figures.
        message: &'a str,
    },
    /// Nothing more comes.
    Done,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, a thread or a signal.
    #[error("the run could not go on: {0}")]
    Io(#[from] io::Error),
    /// A store, queues or cards of the run's own could not be made or taken away.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store could not be asked.
    #[error("the store could not be checked: {0}")]
    Proof(#[from] sqlx::Error),
    /// The daemon did not start.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The broker cannot be used.
    #[error(transparent)]
    Broker(#[from] AmqpError),
    /// The configuration has no broker, and the target is one.
    #[error("the target is amqp, and the configuration has no broker")]
    NoBroker,
    /// A daemon that runs already has what it has in memory.
    #[error("the scenario asks for a daemon that has just started, and this one runs already")]
    Cold,
    /// A URL that is none.
    #[error("{0} is no URL of a daemon")]
    Url(String),
    /// A floor could not be measured.
    #[error("the floor could not be measured: {0}")]
    Floor(String),
    /// A ceiling could not be searched for.
    #[error("the ceiling could not be searched for: {0}")]
    Ceiling(String),
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
    /// There is no result, and something that the run had made is still there.
    #[error("{error}; left behind: {}", left.join(", "))]
    Left {
        /// Why there is no result.
        error: Box<Error>,
        /// What is left, by name.
        left: Vec<String>,
    },
}
