//! The response, JSON version 1: the bytes that are stored and sent.

use super::{money, timestamp};
use crate::domain::{decision::Decision, hold::HoldId, ids::RequestId, money::Currency, reason::Reason, time::Timestamp};

/// Room for the longest response: ids of 64 bytes, amounts of 20 digits.
const BODY_BYTES: usize = 400;

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

/// Writes a response: all keys, always in the same order. A decline says neither amount nor hold, whatever the fields hold, and one
/// without a reason is a `system_error`.
#[must_use]
pub fn encode(response: &Response<'_>) -> Vec<u8> {
    let holds = response.decision.holds();
    let reason = if holds { None } else { Some(response.reason.unwrap_or(Reason::SystemError)) };
    let code = match (response.decision, reason) {
        (Decision::PartiallyApproved, _) => "10",
        (_, Some(reason)) => reason.response_code(),
        (_, None) => "00",
    };
    let mut out = Vec::with_capacity(BODY_BYTES);
    out.extend_from_slice(b"{\"version\":1,\"id\":");
    text(&mut out, response.id.map(RequestId::as_str));
    out.extend_from_slice(b",\"decision\":");
    text(&mut out, Some(response.decision.name()));
    out.extend_from_slice(b",\"reason\":");
    text(&mut out, reason.map(Reason::name));
    out.extend_from_slice(b",\"response_code\":");
    text(&mut out, Some(code));
    out.extend_from_slice(b",\"approved_amount\":");
    amount(&mut out, holds.then_some(response.approved), response.currency);
    out.extend_from_slice(b",\"currency\":");
    text(&mut out, response.currency.as_ref().map(Currency::code));
    out.extend_from_slice(b",\"available\":");
    amount(&mut out, response.available, response.currency);
    out.extend_from_slice(b",\"hold\":");
    text(&mut out, response.hold.filter(|_| holds).map(HoldId::as_str));
    out.extend_from_slice(b",\"decided_at\":\"");
    timestamp::write(&mut out, response.decided_at);
    out.extend_from_slice(b"\"}");
    out
}

/// Appends a string or null. All texts come from closed sets or from ids whose allow-list has nothing to escape.
fn text(out: &mut Vec<u8>, value: Option<&str>) {
    match value {
        Some(value) => {
            out.push(b'"');
            out.extend(value.bytes().filter(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f)));
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends a decimal string, or null: without a currency nobody knows where the point goes.
fn amount(out: &mut Vec<u8>, minor: Option<i64>, currency: Option<Currency>) {
    match (minor, currency) {
        (Some(minor), Some(currency)) => {
            out.push(b'"');
            money::write(out, minor, currency);
            out.push(b'"');
        }
        _ => out.extend_from_slice(b"null"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use proptest::prelude::*;

    fn base<'a>(id: &'a RequestId, hold: &'a HoldId) -> Response<'a> {
        Response {
            id: Some(id),
            decision: Decision::Approved,
            reason: None,
            approved: 4250,
            currency: Currency::from_code("EUR"),
            available: Some(43250),
            hold: Some(hold),
            decided_at: Timestamp(1_772_619_307_114_000),
        }
    }

    #[test]
    fn every_key_is_there_in_the_same_order() {
        let (id, hold) = (RequestId::new("auth-7a31c2f4").unwrap(), HoldId::new("hld_01J"));
        let base = base(&id, &hold);
        let declined = Response { decision: Decision::Declined, ..base };
        for (response, expected) in [
            (
                base,
                r#"{"version":1,"id":"auth-7a31c2f4","decision":"approved","reason":null,"response_code":"00","approved_amount":"42.50","currency":"EUR","available":"432.50","hold":"hld_01J","decided_at":"2026-03-04T10:15:07.114Z"}"#,
            ),
            (
                Response {
                    decision: Decision::PartiallyApproved,
                    approved: 100,
                    currency: Currency::from_code("JPY"),
                    available: Some(0),
                    ..base
                },
                r#"{"version":1,"id":"auth-7a31c2f4","decision":"partially_approved","reason":null,"response_code":"10","approved_amount":"100","currency":"JPY","available":"0","hold":"hld_01J","decided_at":"2026-03-04T10:15:07.114Z"}"#,
            ),
            (
                Response { reason: Some(Reason::InsufficientFunds), available: Some(-300), ..declined },
                r#"{"version":1,"id":"auth-7a31c2f4","decision":"declined","reason":"insufficient_funds","response_code":"51","approved_amount":null,"currency":"EUR","available":"-3.00","hold":null,"decided_at":"2026-03-04T10:15:07.114Z"}"#,
            ),
            (
                Response { id: None, reason: Some(Reason::Malformed), currency: None, available: None, ..declined },
                r#"{"version":1,"id":null,"decision":"declined","reason":"malformed","response_code":"30","approved_amount":null,"currency":null,"available":null,"hold":null,"decided_at":"2026-03-04T10:15:07.114Z"}"#,
            ),
            (
                Response { reason: None, available: None, ..declined },
                r#"{"version":1,"id":"auth-7a31c2f4","decision":"declined","reason":"system_error","response_code":"96","approved_amount":null,"currency":"EUR","available":null,"hold":null,"decided_at":"2026-03-04T10:15:07.114Z"}"#,
            ),
        ] {
            assert_eq!(String::from_utf8(encode(&response)).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn any_response_is_json_that_says_what_went_in(
            id in prop::option::of("[A-Za-z0-9_.:-]{1,64}"),
            decision in prop::sample::select(Decision::ALL),
            reason in prop::sample::select(Reason::ALL),
            approved in any::<i64>(),
            code in prop::option::of(prop::sample::select(vec!["EUR", "JPY", "KWD", "CLF"])),
            available in any::<Option<i64>>(),
            at in any::<i64>(),
        ) {
            let id = id.map(|id| RequestId::new(&id).unwrap());
            let (currency, hold) = (code.and_then(Currency::from_code), HoldId::new("hld_01J"));
            let body = encode(&Response {
                id: id.as_ref(), decision, reason: Some(reason), approved, currency, available, hold: Some(&hold), decided_at: Timestamp(at),
            });
            prop_assert!(body.len() <= BODY_BYTES);
            let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let minor = |key: &str| read[key].as_str().map(|text| money::parse(text, currency.unwrap()).unwrap());
            prop_assert_eq!(read["id"].as_str(), id.as_ref().map(RequestId::as_str));
            prop_assert_eq!(read["decision"].as_str(), Some(decision.name()));
            prop_assert_eq!(read["reason"].as_str(), (!decision.holds()).then_some(reason.name()));
            prop_assert_eq!(minor("approved_amount"), currency.filter(|_| decision.holds()).map(|_| approved));
            prop_assert_eq!(minor("available"), available.filter(|_| currency.is_some()));
            prop_assert_eq!(read["hold"].is_string(), decision.holds());
        }
    }
}
