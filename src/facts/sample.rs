//! Facts for tests.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use super::document::CardDocument;
use crate::domain::{facts::CardFile, ids::CardToken};

pub(crate) fn token(number: i64) -> CardToken {
    CardToken::new(&format!("crd_{number:07}")).unwrap()
}

/// A card of a user of its own with one limit, all in this version, in program 1.
pub(crate) fn file(number: i64, version: i64) -> CardFile {
    of_user(number, version, number)
}

/// As [`file`], of some user.
pub(crate) fn of_user(number: i64, version: i64, user: i64) -> CardFile {
    let json = format!(
        r#"{{"card": {{"id": {number}, "token": "crd_{number:07}", "version": {version}, "user_id": {user}, "user": "usr_{user:07}",
                "user_version": {version}, "account_id": {number}, "currency": "EUR", "account_open": true, "program_id": 1, "status": "active",
                "expires_at": 4102444800000000, "controls": {{"channels": {{"except": ["atm"]}}}}}},
             "user": {{"id": {user}, "token": "usr_{user:07}", "version": {version}, "active": true, "kyc_verified": true}},
             "limits": {{"card_version": {version}, "limits": [
                {{"id": {number}, "scope": "card", "window": "day", "cap_amount": 5000000, "cap_count": null}}]}},
             "program": {{"id": 1, "version": 4, "kind": "personal", "time_zone": "UTC", "week_start": "monday", "kyc_required": true,
                "partial_approval": true, "limits": [
                {{"id": 900000, "scope": "card", "window": "transaction", "cap_amount": 500000, "cap_count": null}}]}}}}"#
    );
    CardDocument::parse(json.as_bytes()).unwrap()
}
