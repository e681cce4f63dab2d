//! The HTTP edge: `POST /v1/authorizations`, `/livez`, `/ready`, `/health`, `/metrics`, `/report`.
//!
//! **Invariant**: a handler that is dropped because its client hung up never cancels the job it started, and an approval that never
//! reached the socket is handed back to be voided.

mod auth;
mod body;
mod health;
mod ingress;
mod reply;
mod report;
mod server;
mod settings;
mod wire;

pub use server::{BindError, Parts, Server};
pub use settings::Settings;

#[cfg(test)]
mod tests;
