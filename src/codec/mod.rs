//! Bytes to domain and back. Pure: no I/O, no clock, no knowledge of the transport.
//!
//! **Invariant**: bytes that are not a valid request never become an [`AuthRequest`](crate::domain::request::AuthRequest), and no
//! bytes make this code panic.

pub mod dead_letter;
pub mod event;
pub mod money;
pub mod pan;
pub mod request;
pub mod response;
pub mod timestamp;
mod wire;
