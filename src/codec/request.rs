//! The request, JSON version 1.

use super::{
    money,
    pan::{self, Letters, Sensitive},
    timestamp::{self, TimestampError},
    wire::{Field, Key, Wire},
};
use crate::domain::{
    ids::{CardToken, MerchantId, RequestId, UserToken},
    money::{AMOUNT_MINOR_MAX, Currency, Money},
    reason::Reason,
    request::{AuthRequest, Channel, Country, Digest, Mcc, Merchant},
    time::Timestamp,
};
use rust_decimal::Decimal;
use sha2::{Digest as _, Sha256};
use std::{borrow::Cow, fmt::Display};

/// Largest body that is looked at, bytes.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// Deepest nesting of objects and arrays that is accepted.
pub const NESTING_MAX: usize = 16;
/// Shortest and longest `deadline_ms` that is accepted.
pub const DEADLINE_MS: std::ops::RangeInclusive<u32> = 100..=60_000;

/// The only `type` so far.
const TYPE: &str = "authorization";

/// A request and what travelled beside it.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The request.
    pub request: AuthRequest,
    /// When the processor says it sent it. `None` also when it says so without a time zone.
    pub sent_at: Option<Timestamp>,
    /// How long the processor waits, where it says so; within [`DEADLINE_MS`].
    pub deadline_ms: Option<u32>,
    /// Fields that this version does not know, at the top level or in `merchant`.
    pub unknown_fields: u32,
}

/// Why bytes are not a request, with what could be read for the answer.
///
/// A body that is dead-lettered for it must be [redacted](pan::redact) whenever [`pan::contains`] says so, not only for
/// `pan_present`: `malformed` comes first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.name())]
pub struct DecodeError {
    /// The reason of the decline that answers it.
    pub reason: Reason,
    /// What exactly is wrong, for a person; never quotes the body.
    pub detail: String,
    /// The id, where it was readable and holds no card number.
    pub id: Option<RequestId>,
    /// The currency, where it was readable.
    pub currency: Option<Currency>,
}

/// Reads a request. When several things are wrong, the reason that stands first in [`Reason`] is given.
///
/// # Errors
/// [`DecodeError`] says how to answer and what is wrong.
pub fn decode(body: &[u8]) -> Result<Decoded, DecodeError> {
    let mut problems = Problems::default();
    let mut wire = Wire::default();
    match readable(body) {
        Ok(text) => {
            if nests_too_deep(body) {
                problems.add(Reason::Malformed, "too_large: is nested deeper than 16 levels");
            }
            if let Err(error) = wire.read(text) {
                problems.add(Reason::Malformed, not_json(&error));
            }
        }
        Err(problem) => problems.add(Reason::Malformed, problem),
    }
    if let Some(key) = wire.duplicate {
        problems.add(Reason::Malformed, format!("duplicate_field: {}", key.name()));
    }
    if let Some((reason, detail)) = sensitive(body, &wire) {
        problems.add(reason, detail);
    }
    let currency = currency(&wire, &mut problems);
    let decoded = request(&wire, currency, &mut problems);
    match (problems.first, decoded) {
        (None, Some(decoded)) => Ok(decoded),
        (problem, _) => {
            let (reason, detail) = problem.unwrap_or((Reason::Malformed, "unreadable".into()));
            Err(DecodeError { reason, detail: detail.into_owned(), id: salvaged_id(&wire), currency })
        }
    }
}

/// What is wrong, as far as the answer goes: the first reason in order of precedence.
#[derive(Default)]
struct Problems {
    first: Option<(Reason, Cow<'static, str>)>,
}

impl Problems {
    fn add(&mut self, reason: Reason, detail: impl Into<Cow<'static, str>>) {
        if self.first.as_ref().is_none_or(|(first, _)| reason < *first) {
            self.first = Some((reason, detail.into()));
        }
    }

    /// A string that has to be there.
    fn required<T, E: Display>(&mut self, field: &Field<'_>, name: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let problem = match field {
            Field::Text(text) => match parse(text) {
                Ok(value) => return Some(value),
                Err(error) => format!("{name}: {error}"),
            },
            Field::Missing | Field::Null => format!("{name}: is missing"),
            _ => format!("{name}: is not a string"),
        };
        self.add(Reason::Malformed, problem);
        None
    }
}

fn readable(body: &[u8]) -> Result<&str, &'static str> {
    if body.len() > BODY_BYTES_MAX {
        return Err("too_large: is longer than 16 KiB");
    }
    match body.iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
        None => Err("not_json: is empty"),
        // A sequence would read as a struct, and a byte order mark as nothing.
        Some(first) if *first != b'{' => Err("not_json: does not begin with an object"),
        Some(_) => str::from_utf8(body).map_err(|_| "not_json: is not UTF-8"),
    }
}

/// Counts the opening brackets first, which is quicker than to follow them and settles it for every usual body.
fn nests_too_deep(body: &[u8]) -> bool {
    if body.iter().filter(|byte| matches!(byte, b'{' | b'[')).count() <= NESTING_MAX {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > NESTING_MAX {
            return true;
        }
    }
    false
}

/// The parser's words, where they cannot quote the body.
fn not_json(error: &serde_json::Error) -> String {
    if error.is_data() { "not_json: has an unreadable value".into() } else { format!("not_json: {error}") }
}

/// Whether there is what must not be there: by the name of a field, or a card number anywhere.
fn sensitive(body: &[u8], wire: &Wire<'_>) -> Option<(Reason, &'static str)> {
    let touching = [Key::MerchantId, Key::MerchantName, Key::MerchantCity]
        .into_iter()
        .any(|key| matches!(wire.get(key), Field::Text(text) if pan::number_in(text.as_bytes(), Letters::MayTouch)));
    match wire.sensitive {
        Some(Sensitive::Authentication) => Some((Reason::PanPresent, "sad_present: a field for security data")),
        Some(Sensitive::Pan) => Some((Reason::PanPresent, "pan_present: a field for a card number")),
        None if touching || pan::number_in(body, Letters::Apart) => Some((Reason::PanPresent, "pan_present: a card number")),
        None => None,
    }
}

fn request(wire: &Wire<'_>, currency: Option<Currency>, problems: &mut Problems) -> Option<Decoded> {
    version_and_type(wire, problems);
    let id = problems.required(wire.get(Key::Id), "invalid_id", RequestId::new);
    let card = problems.required(wire.get(Key::Card), "invalid_card", CardToken::new);
    let channel = problems
        .required(wire.get(Key::Channel), "invalid_channel", |name| Channel::from_name(name).ok_or("is not one of the known channels"));
    let merchant = merchant(wire, problems);
    let user = match wire.get(Key::User) {
        Field::Missing | Field::Null => None,
        field => problems.required(field, "invalid_user", UserToken::new),
    };
    let partial_approval = partial_approval(wire, problems);
    let sent_at = sent_at(wire, problems);
    let deadline_ms = deadline_ms(wire, problems);
    let minor = amount(wire, currency, problems);
    let (id, card, channel, merchant) = (id?, card?, channel?, merchant?);
    let amount = Money { minor: minor?, currency: currency? };
    let digest = digest(&card, amount, &merchant.id);
    let request = AuthRequest { id, digest, card, user, amount, merchant, channel, partial_approval };
    Some(Decoded { request, sent_at, deadline_ms, unknown_fields: wire.unknown })
}

fn version_and_type(wire: &Wire<'_>, problems: &mut Problems) {
    match wire.get(Key::Version) {
        Field::Integer(1) => {}
        Field::Missing | Field::Null => problems.add(Reason::Malformed, "missing_field: version"),
        _ => problems.add(Reason::UnsupportedVersion, "unsupported_version: only version 1 is spoken here"),
    }
    match wire.get(Key::Type) {
        Field::Text(text) if text == TYPE => {}
        Field::Missing | Field::Null => problems.add(Reason::Malformed, "missing_field: type"),
        _ => problems.add(Reason::Malformed, "unsupported_type: only authorization is known"),
    }
}

fn merchant(wire: &Wire<'_>, problems: &mut Problems) -> Option<Merchant> {
    match wire.get(Key::Merchant) {
        Field::Object => {}
        Field::Missing | Field::Null => problems.add(Reason::Malformed, "invalid_merchant: is missing"),
        _ => problems.add(Reason::Malformed, "invalid_merchant: is not an object"),
    }
    let id = problems.required(wire.get(Key::MerchantId), "invalid_merchant: id", MerchantId::new);
    let mcc =
        problems.required(wire.get(Key::MerchantMcc), "invalid_merchant: mcc", |code| Mcc::from_code(code).ok_or("is not four digits"));
    let country = problems.required(wire.get(Key::MerchantCountry), "invalid_merchant: country", |code| {
        Country::from_code(code).ok_or("is not a three-letter code of ISO 3166-1")
    });
    Some(Merchant { id: id?, mcc: mcc?, country: country? })
}

fn partial_approval(wire: &Wire<'_>, problems: &mut Problems) -> bool {
    match wire.get(Key::PartialApproval) {
        Field::Bool(value) => *value,
        Field::Missing | Field::Null => false,
        _ => {
            problems.add(Reason::Malformed, "invalid_partial_approval: is neither true nor false");
            false
        }
    }
}

/// An instant without a zone is as good as none: the caller counts from receipt then.
fn sent_at(wire: &Wire<'_>, problems: &mut Problems) -> Option<Timestamp> {
    let field = wire.get(Key::SentAt);
    if matches!(field, Field::Missing | Field::Null) {
        return None;
    }
    problems
        .required(field, "invalid_sent_at", |text| match timestamp::parse(text) {
            Ok(at) => Ok(Some(at)),
            Err(TimestampError::NoZone) => Ok(None),
            Err(error @ TimestampError::Malformed) => Err(error),
        })
        .flatten()
}

fn deadline_ms(wire: &Wire<'_>, problems: &mut Problems) -> Option<u32> {
    match wire.get(Key::DeadlineMs) {
        Field::Missing | Field::Null => return None,
        Field::Integer(value) => {
            if let Some(value) = u32::try_from(*value).ok().filter(|value| DEADLINE_MS.contains(value)) {
                return Some(value);
            }
        }
        _ => {}
    }
    problems.add(Reason::Malformed, "invalid_deadline: is not a whole number from 100 to 60000");
    None
}

fn currency(wire: &Wire<'_>, problems: &mut Problems) -> Option<Currency> {
    let currency = match wire.get(Key::Currency) {
        Field::Text(code) => Currency::from_code(code),
        Field::Missing | Field::Null => {
            problems.add(Reason::Malformed, "missing_field: currency");
            return None;
        }
        _ => None,
    };
    if currency.is_none() {
        problems.add(Reason::InvalidCurrency, "invalid_currency: is not a three-letter code of ISO 4217 in use");
    }
    currency
}

/// The range is looked at before the precision, because it stands first.
fn amount(wire: &Wire<'_>, currency: Option<Currency>, problems: &mut Problems) -> Option<i64> {
    let decimal = match wire.get(Key::Amount) {
        Field::Text(text) => money::decimal(text),
        Field::Missing | Field::Null => {
            problems.add(Reason::InvalidAmount, "invalid_amount: is missing");
            return None;
        }
        _ => {
            problems.add(Reason::InvalidAmount, "invalid_amount: is not a string");
            return None;
        }
    };
    let max = currency.map_or(Decimal::MAX, |currency| Decimal::new(AMOUNT_MINOR_MAX, u32::from(currency.exponent())));
    match decimal {
        Ok(decimal) if decimal <= Decimal::ZERO => problems.add(Reason::InvalidAmount, "invalid_amount: is not above zero"),
        Ok(decimal) if decimal > max => problems.add(Reason::InvalidAmount, "invalid_amount: is more than 999999999999 minor units"),
        Ok(decimal) => match money::to_minor(decimal, currency?) {
            Ok(minor) => return Some(minor),
            Err(error) => problems.add(reason_of(error), format!("{}: {error}", reason_of(error).name())),
        },
        Err(error) => problems.add(reason_of(error), format!("{}: {error}", reason_of(error).name())),
    }
    None
}

fn reason_of(error: money::MoneyError) -> Reason {
    match error {
        money::MoneyError::NotDecimal | money::MoneyError::OutOfRange => Reason::InvalidAmount,
        money::MoneyError::Precision => Reason::InvalidPrecision,
    }
}

/// The first half of SHA-256 over the material fields: type, card, amount (minor units, eight bytes, big-endian), currency and
/// merchant, a zero byte after each. No field but the amount can hold a zero byte, and the amount has a fixed length.
fn digest(card: &CardToken, amount: Money, merchant: &MerchantId) -> Digest {
    let mut hash = Sha256::new();
    for part in [
        TYPE.as_bytes(),
        card.as_str().as_bytes(),
        &amount.minor.to_be_bytes(),
        amount.currency.code().as_bytes(),
        merchant.as_str().as_bytes(),
    ] {
        hash.update(part);
        hash.update([0]);
    }
    let mut digest = Digest::default();
    digest.iter_mut().zip(hash.finalize()).for_each(|(place, byte)| *place = byte);
    digest
}

/// The id for an answer. One that holds a card number is not repeated in any byte of ours.
fn salvaged_id(wire: &Wire<'_>) -> Option<RequestId> {
    match wire.get(Key::Id) {
        Field::Text(text) if !pan::number_in(text.as_bytes(), Letters::Apart) => RequestId::new(text).ok(),
        _ => None,
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
