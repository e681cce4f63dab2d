//! What the parts can do without us, measured in turn with the daemon in one run: on a shared machine only the ratio means something.
//!
//! | floor | what it is |
//! |---|---|
//! | echo | consume, publish with confirm, ack: the same broker, queue type, persistence and bodies, the same load, and nothing decided |
//! | commits | rows as wide as a decision's, inserted in groups like ours under the same durability, without guards |
//! | redis | one `GET` of a fact's size |
//! | fsync | 4 KiB written and synced |

mod cache;
mod commits;
pub mod disk;
mod echo;
pub mod turns;

use super::summary::Latency;
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
    /// Group commits, by size of the group.
    pub commits: Vec<Commits>,
    /// A Redis `GET`, where there is a Redis.
    pub redis: Option<Latency>,
    /// A write that is on the disk.
    pub fsync: Latency,
    /// The daemon over the floors.
    pub ratios: Vec<Ratio>,
}

/// The broker without a daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Echo {
    /// `quorum` or `classic`.
    pub queue_type: String,
    /// From the intended moment of sending.
    pub response_time: Latency,
    /// From the actual sending.
    pub service_time: Latency,
    /// The highest rate that it kept up with, where the rate grew.
    pub ceiling_per_s: Option<f64>,
    /// Requests that it lost. There should be none.
    pub lost: u64,
}

/// Group commits without a daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commits {
    /// Rows in a group.
    pub batch: usize,
    /// Connections that commit at once.
    pub writers: usize,
    /// Rows a second.
    pub rows_per_s: f64,
    /// One commit.
    pub commit: Latency,
}

/// A figure of the daemon over the same figure of a floor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// A word for machines.
    pub name: String,
    /// The quotient, or a difference in microseconds where the name ends in `_us`.
    pub value: f64,
    /// What it says, for people.
    pub meaning: String,
}
