//! What the daemon says about itself: named events (one function is one log line and one metric), and latency histograms.
//!
//! **Invariant**: no card token, no body and no unbounded label leaves through here.

pub mod events;
mod exchange;
mod exposition;
mod freshness;
mod labels;
pub mod log;
mod metrics;
pub mod readiness;
pub mod recorder;
pub mod slow;
pub mod span;
mod throttle;

pub use events::Telemetry;
pub use exposition::Exposition;
pub use readiness::Readiness;
pub use recorder::{Recorder, SpanReport};
pub use span::{Span, Spans};
