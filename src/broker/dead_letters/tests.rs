#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{judge::judge, *};
use std::time::Duration;

const NOW: Timestamp = Timestamp(1_772_619_307_000_000);
const SECOND_US: i64 = 1_000_000;

fn letter(reason: &str, failed_ago_s: Option<i64>, fields: &str) -> Letter {
    let body = format!(
        r#"{{"version":1,"type":"authorization","id":"a-1","card":"crd_1","amount":"1.00","currency":"USD",{fields}
        "merchant":{{"id":"m","mcc":"5411","country":"USA"}},"channel":"chip","x":1.10}}"#
    );
    Letter {
        id: "0123456789abcdef".to_owned(),
        reason: reason.to_owned(),
        detail: "it is so".to_owned(),
        failed_at: failed_ago_s.map(|ago| Timestamp(NOW.0 - ago * SECOND_US)),
        message_id: Some("a-1".to_owned()),
        attempts: Some(1),
        replays: 0,
        redacted: false,
        properties: Vec::new(),
        headers: Vec::new(),
        body: body.into_bytes(),
    }
}

fn judged(letter: &Letter, authorization: bool, deadline_ms: Option<u32>) -> Result<String, Refusal> {
    let rules = Rules { deadline_ms, deadline_default: Duration::from_secs(2), deadline_reserve: Duration::from_millis(50) };
    judge(letter, authorization, &rules, NOW).map(|body| String::from_utf8(body.into_owned()).unwrap())
}

#[test]
fn a_letter_is_stale_when_its_requester_stopped_listening() {
    let sent = |at: &str| format!(r#""sent_at":"{at}","#);
    let stale = |ms: u64| Some(Refusal::Stale(Duration::from_millis(ms)));
    for (failed_ago_s, fields, expected) in [
        // Two seconds by default, less the way back.
        (Some(1), String::new(), None),
        (Some(2), String::new(), stale(50)),
        (Some(1), r#""deadline_ms":500,"#.to_owned(), stale(550)),
        (Some(59), r#""deadline_ms":60000,"#.to_owned(), None),
        // What says when it was sent is believed, unless it failed before.
        (Some(0), sent("2026-03-04T10:15:00Z"), stale(5_050)),
        (Some(10), sent("2026-03-04T10:15:06Z"), stale(8_050)),
        (None, sent("2026-03-04T10:15:06Z"), None),
        (None, String::new(), Some(Refusal::NoDeadline)),
    ] {
        let letter = letter("reply_to_forbidden", failed_ago_s, &fields);
        assert_eq!(judged(&letter, true, None).err(), expected, "failed {failed_ago_s:?} s ago, {fields}");
        assert!(judged(&letter, true, Some(1_000)).is_ok(), "a new deadline helps: {fields}");
        assert_eq!(judged(&letter, false, None).err(), None, "what is no authorization has none");
    }
}

#[test]
fn a_new_deadline_changes_nothing_else() {
    let old = letter("reply_unroutable", Some(900), r#""sent_at":"2026-03-04T10:00:00Z","note":"\u0041","#);
    let new = judged(&old, true, Some(700)).unwrap();
    for part in [
        r#""sent_at":"2026-03-04T10:15:07.000Z""#,
        r#""deadline_ms":700"#,
        r#""note":"\u0041""#,
        r#""x":1.10"#,
        r#""merchant":{"id":"m","mcc":"5411","country":"USA"}"#,
    ] {
        assert_eq!(new.matches(part).count(), 1, "{part} in {new}");
    }
    let digest = |body: &str| crate::codec::request::decode(body.as_bytes()).unwrap().request.digest;
    assert!(digest(&new) == digest(str::from_utf8(&old.body).unwrap()), "the journal would take it for another request");
    assert_eq!(judged(&letter("reply_unroutable", Some(1), ""), true, None).unwrap().as_bytes(), letter("", None, "").body);
}

#[test]
fn what_cannot_go_better_stays() {
    let fresh = |reason: &str| letter(reason, Some(0), "");
    let input = |reason: &str| Some(Refusal::Input(reason.to_owned()));
    for (letter, expected) in [
        (fresh("reply_to_forbidden"), None),
        (fresh("reply_unroutable"), None),
        (fresh("no_reply_route"), None),
        (fresh("attempts_exhausted"), None),
        (fresh("delivery_limit"), None),
        (fresh(""), None),
        (fresh("malformed"), input("malformed")),
        (fresh("unsupported_version"), input("unsupported_version")),
        (fresh("invalid_precision"), input("invalid_precision")),
        (fresh("pan_present"), Some(Refusal::Redacted)),
        (Letter { redacted: true, ..fresh("reply_unroutable") }, Some(Refusal::Redacted)),
        (Letter { replays: 2, ..fresh("reply_unroutable") }, None),
        (Letter { replays: 3, ..fresh("reply_unroutable") }, Some(Refusal::TooOften)),
        (Letter { replays: u64::MAX, ..fresh("reply_unroutable") }, Some(Refusal::TooOften)),
    ] {
        for authorization in [true, false] {
            let (reason, deadline) = (&letter.reason, authorization.then_some(500));
            assert_eq!(judged(&letter, authorization, deadline).err(), expected, "{reason}, {} replays", letter.replays);
        }
    }
    let unreadable = Letter { body: b"[]".to_vec(), ..fresh("delivery_limit") };
    assert_eq!(judged(&unreadable, true, Some(500)).err(), input("malformed"));
    assert_eq!(judged(&unreadable, false, None).err(), None, "the life cycle has its own formats");
}

#[test]
fn every_refusal_says_what_to_do_or_why_nothing_can_be_done() {
    let second = Duration::from_secs(1);
    for (refusal, text) in [
        (Refusal::Stale(second / 2), "its deadline passed 500 ms ago; --deadline-ms gives it a new one"),
        (Refusal::Stale(second * 119), "its deadline passed 119 s ago; --deadline-ms gives it a new one"),
        (Refusal::Stale(second * 7_199), "its deadline passed 119 min ago; --deadline-ms gives it a new one"),
        (Refusal::Stale(second * 7_200), "its deadline passed 2 h ago; --deadline-ms gives it a new one"),
        (Refusal::Stale(second * 400_000), "its deadline passed 4 days ago; --deadline-ms gives it a new one"),
        (Refusal::Input("malformed".to_owned()), "malformed: its bytes would be refused again"),
        (Refusal::TooOften, "sent again 3 times already; mend the cause, then have its sender send it"),
    ] {
        assert_eq!(refusal.to_string(), text);
    }
}
