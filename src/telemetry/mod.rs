//! What the daemon says about itself: named events (one function is one log line and one metric), and latency histograms.
//!
//! **Invariant**: no card token, no body and no unbounded label leaves through here.

pub mod events;
pub mod log;
pub mod recorder;
pub mod span;

pub use events::Telemetry;
pub use recorder::Recorder;
pub use span::{Span, Spans};
