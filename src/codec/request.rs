//! The request, JSON version 1.

use crate::domain::{ids::RequestId, money::Currency, reason::Reason, request::AuthRequest, time::Timestamp};

/// Largest body that is looked at, bytes.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// Deepest nesting of objects and arrays that is accepted.
pub const NESTING_MAX: usize = 16;
/// Shortest and longest `deadline_ms` that is accepted.
pub const DEADLINE_MS: std::ops::RangeInclusive<u32> = 100..=60_000;

/// A request and what travelled beside it.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The request.
    pub request: AuthRequest,
    /// When the processor says it sent it.
    pub sent_at: Option<Timestamp>,
    /// How long the processor waits, where it says so; within [`DEADLINE_MS`].
    pub deadline_ms: Option<u32>,
    /// Top-level fields that this version does not know.
    pub unknown_fields: u32,
}

/// Why bytes are not a request, with what could be read for the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.name())]
pub struct DecodeError {
    /// The reason of the decline that answers it.
    pub reason: Reason,
    /// What exactly is wrong, for a person; never quotes the body.
    pub detail: String,
    /// The id, where it was readable.
    pub id: Option<RequestId>,
    /// The currency, where it was readable.
    pub currency: Option<Currency>,
}

/// Reads a request.
///
/// # Errors
/// [`DecodeError`] says how to answer and what is wrong.
pub fn decode(body: &[u8]) -> Result<Decoded, DecodeError> {
    let _ = body;
    unimplemented!()
}
