//! What the daemon says about itself: named events (one function is one log line and one metric), and latency histograms.
//!
//! **Invariant**: no card token, no body and no unbounded label leaves through here.

pub mod alerts;
mod cause;
mod clock;
pub mod events;
mod exchange;
mod exposition;
mod freshness;
pub mod heat;
mod labels;
pub mod log;
mod metrics;
mod process;
pub mod promise;
pub mod readiness;
mod reading;
pub mod recorder;
pub mod report;
mod settings;
mod slowest;
pub mod span;
mod throttle;

pub use alerts::LatencyAlert;
pub use events::Telemetry;
pub use exposition::Exposition;
pub use promise::{Budget, Promise};
pub use readiness::Readiness;
pub use reading::{CommitCounts, Tally};
pub use recorder::{Recorder, SpanReport};
pub use report::Reports;
pub use settings::Settings;
pub use slowest::{Answered, Slow};
pub use span::{Span, Spans};
