//! The response, JSON version 1: the bytes that are stored and sent.

use crate::domain::{decision::Decision, hold::HoldId, ids::RequestId, money::Currency, reason::Reason, time::Timestamp};

/// What a response says. Encoded once; the bytes are stored, sent and replayed as they are.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// The request's id; `None` when it was unreadable.
    pub id: Option<&'a RequestId>,
    /// What was decided.
    pub decision: Decision,
    /// Why not; `Some` exactly for a decline.
    pub reason: Option<Reason>,
    /// Minor units approved; ignored for a decline.
    pub approved: i64,
    /// Of all amounts; `None` when it was unreadable.
    pub currency: Option<Currency>,
    /// The account's available balance after this decision, minor units; `None` when no account is known.
    pub available: Option<i64>,
    /// The hold; `None` for a decline.
    pub hold: Option<&'a HoldId>,
    /// When it was decided.
    pub decided_at: Timestamp,
}

/// Writes a response: all keys, always in the same order.
#[must_use]
pub fn encode(response: &Response<'_>) -> Vec<u8> {
    let _ = response;
    unimplemented!()
}
