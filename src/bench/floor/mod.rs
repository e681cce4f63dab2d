//! What the parts can do without us, measured in turn with the daemon in one run: on a shared machine only the ratio means something.
//!
//! | floor | what it is |
//! |---|---|
//! | echo | consume, publish with confirm, ack, in a process of its own: the same broker, queue, persistence and bodies, the same load, and nothing decided |
//! | commit | the store's own group commit of the same work: the commits that lanes would send, made ready before the clock starts |
//! | rows | plain rows as wide as a decision, inserted in groups under the same durability: what disk and locks allow |
//! | redis | one `GET` of a fact's size |
//! | fsync | 4 KiB written and synced in the directory of the run |

mod cache;
pub mod disk;
pub mod echo;
mod groups;
pub mod ratios;
mod rows;
pub mod turns;

use super::summary::{Latency, Rate};
use serde::{Deserialize, Serialize};

/// The floors, and the ratios of the daemon to them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FloorReport {
    /// How often daemon and floors took turns.
    pub rounds: u32,
    /// How long each was measured in a round, seconds.
    pub slice_s: f64,
    /// The broker's echo, where the target is behind a broker.
    pub echo: Option<Echo>,
    /// The store's group commit of the same work, by decisions in a group.
    pub commit: Vec<Commits>,
    /// One decision alone in a commit, on one connection at a lane's pace.
    pub commit_alone: Option<Latency>,
    /// Plain rows in groups, by rows in a group.
    pub rows: Vec<Rows>,
    /// A Redis `GET`, where there is a Redis.
    pub redis: Option<Latency>,
    /// A write that is on the disk.
    pub fsync: Option<Latency>,
    /// The daemon over the floors.
    pub ratios: Vec<Ratio>,
}

/// The broker without a daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Echo {
    /// `quorum` or `classic`.
    pub queue_type: String,
    /// How fast, and how late the generator was.
    pub rate: Rate,
    /// From the intended moment of sending.
    pub response_time: Latency,
    /// From the actual sending.
    pub service_time: Latency,
    /// The highest rate that it kept up with, where the rate grew: the median of the rounds.
    pub ceiling_per_s: Option<f64>,
    /// Whether it did not keep up with more in any round: if not, the ceiling is higher.
    pub ceiling_reached: bool,
    /// Requests that it lost. There should be none.
    pub lost: u64,
}

/// Group commits without a daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commits {
    /// Decisions in a group.
    pub batch: usize,
    /// Connections that commit at once: as many as there are lanes.
    pub writers: usize,
    /// Decisions a second, of all connections together.
    pub decisions_per_s: f64,
    /// Decisions whose group was refused, because what it was decided on had changed. They are not in the rate.
    pub refused: u64,
    /// One commit of a group.
    pub commit: Latency,
}

/// Plain inserts without a daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    /// Rows in a group.
    pub batch: usize,
    /// Connections that insert at once.
    pub writers: usize,
    /// Rows a second, of all connections together.
    pub rows_per_s: f64,
    /// One insert of a group.
    pub commit: Latency,
}

/// A figure of the daemon over the same figure of a floor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// A word for machines.
    pub name: String,
    /// The quotient, or a difference in microseconds where the name ends in `_us`: the median of the rounds.
    pub value: f64,
    /// The smallest of a round.
    pub lowest: f64,
    /// The largest of a round.
    pub highest: f64,
    /// What it says, for people.
    pub meaning: String,
}
