//! The HTTP edge: `POST /v1/authorizations`, `/livez`, `/ready`, `/metrics`.
//!
//! **Invariant**: a handler that is dropped because its client hung up never cancels the job it started.

mod settings;

pub use settings::Settings;
