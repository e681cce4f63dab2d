//! From a checked request to a committed decision. Knows no broker, no store driver, no HTTP.
//!
//! | file | part of a request's way |
//! |---|---|
//! | [`gather`] | finds its facts, picks its lane |
//! | `queue` | waits for the lane; is declined from here when the lane is stuck |
//! | `lane`, `batch` | is decided with others, and committed with them |
//! | `book`, [`calendar`] | the money and the windows it is decided on |
//! | `ahead` | finds the money of its account in the book already |
//! | `late` | is taken back, when it was approved too late |
//! | [`decline`] | is declined without a decision in the journal, when the store is out |
//!
//! **Invariant**: nothing is answered while a commit that could still approve it is in flight, and no approval leaves without a
//! durable hold.

mod ahead;
mod batch;
mod book;
pub mod calendar;
pub mod deadline;
pub mod decline;
mod drain;
pub mod gather;
mod job;
mod lane;
mod late;
mod pulse;
mod queue;
mod running;
mod settings;

pub use decline::WallClock;
pub use gather::Pipeline;
#[cfg(test)]
pub(crate) use job::DeskOrder;
pub use job::{Answer, FreshApproval, Intake, Job, Requester};
pub use pulse::Pulse;
pub use running::Running;
pub use settings::Settings;

use crate::{
    facts::{FactSource, tiered::FactTiers},
    ledger::Ledger,
    telemetry::Telemetry,
};
use tokio::{sync::mpsc, task::JoinSet};

/// Starts the lanes and the late desk. `ledger` gives each of them a connection of its own.
pub fn start<L: Ledger, S: FactSource>(
    settings: Settings,
    facts: FactTiers<S>,
    ledger: impl Fn() -> L,
    wall: &WallClock,
    telemetry: &Telemetry,
) -> (Pipeline<S>, Running) {
    let declines = decline::Declines::new(wall.clone(), telemetry.clone(), settings.in_flight_max);
    // Room for what requests in flight may order while the store takes its time.
    let (desk_sender, orders) = mpsc::channel(settings.in_flight_max.saturating_mul(2).max(1));
    let desk = late::LateDesk::new(ledger(), orders, desk_sender.downgrade(), wall.clone(), telemetry.clone());
    let mut lanes = JoinSet::new();
    let mut senders = Vec::with_capacity(settings.lanes);
    let mut ahead = Vec::with_capacity(settings.lanes);
    let mut pulse = Pulse::default();
    for depth in telemetry.lane_queues(settings.lanes) {
        let (sender, arrivals) = mpsc::channel(settings.lane_queue_max.max(1));
        let taken = pulse::Taken::default();
        pulse.watch(&sender, taken.clone());
        senders.push(sender);
        let (pieces_sender, pieces) = mpsc::channel(ahead::PIECES_MAX);
        ahead.push(pieces_sender);
        let lane = lane::Lane {
            ledger: ledger(),
            facts: facts.clone(),
            queue: queue::Queue::new((arrivals, taken), settings.lane_queue_max, settings.shed_before, declines.clone(), depth),
            ahead: pieces,
            book: book::Book::new(settings.book_accounts_max, settings.book_counters_max),
            calendars: calendar::Calendars::default(),
            declines: declines.clone(),
            desk: desk_sender.clone(),
            wall: wall.clone(),
            settings,
            telemetry: telemetry.clone(),
            recorder: telemetry.recorder(),
        };
        lanes.spawn(lane.run());
    }
    let in_flight = drain::InFlight::new(settings.in_flight_max, telemetry.clone());
    let inner = gather::Inner { settings, facts, lanes: senders, ahead, declines, in_flight };
    (Pipeline::new(inner), Running::new(lanes, desk.run(), pulse))
}

#[cfg(test)]
mod tests;
