//! From a checked request to a committed decision. Knows no broker, no store driver, no HTTP.
//!
//! **Invariant**: nothing is answered while a commit that could still approve it is in flight, and no approval leaves without a
//! durable hold.

pub mod deadline;
pub mod job;
mod settings;

pub use job::{Answer, FreshApproval, Intake, Job, Requester};
pub use settings::Settings;
