#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::telemetry::Span;

fn answered(body: &str, replayed: bool, journaled: bool) -> Answered {
    let stages = vec![(Span::User, 3), (Span::Card, 2), (Span::Limits, 4), (Span::Decision, 1), (Span::Commit, 640)];
    Answered { body: body.as_bytes().to_vec(), replayed, journaled, stages, took: Duration::from_micros(1_240) }
}

const APPROVED: &str = r#"{"version":1,"id":"auth-1","decision":"partially_approved","reason":null,"response_code":"10","approved_amount":"42.50","currency":"EUR","available":"0.00","hold":"hld_1","decided_at":"2026-03-04T10:15:07.114Z"}"#;
const DECLINED: &str = r#"{"version":1,"id":"auth-2","decision":"declined","reason":"card_not_found","response_code":"14","approved_amount":null,"currency":"EUR","available":null,"hold":null,"decided_at":"2026-03-04T10:15:07.114Z"}"#;

/// What a person reads, all of it, in one file.
#[test]
fn every_answer_reads_well() {
    let hostile = r#"{"decision":"declined","reason":"\u001b[2J","response_code":"14"}"#;
    let mut summary = Summary::default();
    for body in [APPROVED, DECLINED, DECLINED] {
        summary.add(&answered(body, false, true));
    }
    let text = [
        ("authorize", answered(APPROVED, false, true).text()),
        ("authorize, answered before", answered(DECLINED, true, true).text()),
        ("authorize, not journaled, hostile", Answered { stages: Vec::new(), ..answered(hostile, false, false) }.text()),
        ("authorize --repeat 3", summary.text()),
        ("authorize --repeat 3 --json", summary.json()),
        ("authorize --json", answered(DECLINED, true, true).json()),
        ("authorize, refused", format!("{}\n", refused("invalid_precision", Some("amount: has more digits than EUR")))),
    ]
    .map(|(title, text)| format!("--- {title}\n{text}\n"))
    .concat();
    assert_eq!(text, include_str!("snapshot.txt"), "\n{text}");
}

#[test]
fn each_status_has_its_exit_code() {
    let reply = |status: u16, body: &'static str| Reply {
        status: StatusCode::from_u16(status).unwrap(),
        body: body.into(),
        replayed: false,
        journaled: true,
        stages: Vec::new(),
        detail: Some("amount: has more digits than EUR".to_owned()),
    };
    for (status, body, expected) in [
        (200, APPROVED, None),
        (200, DECLINED, None),
        (409, DECLINED, None),
        (400, r#"{"reason":"malformed"}"#, Some((Exit::BadFlagValue, "(malformed): amount: has more"))),
        (422, r#"{"reason":"invalid_precision"}"#, Some((Exit::BadFlagValue, "(invalid_precision): amount: has more"))),
        (413, "", Some((Exit::BadFlagValue, "(malformed)"))),
        (500, "the outcome is not known\n", Some((Exit::Unavailable, "the outcome is not known"))),
        (404, "", Some((Exit::Failed, "no answer of jitauth"))),
    ] {
        let judged = judge(reply(status, body), Duration::ZERO);
        let failed = judged.err().map(|error| (error.exit(), error.to_string()));
        assert_eq!(failed.as_ref().map(|(exit, _)| *exit), expected.map(|(exit, _)| exit), "{status}");
        assert!(expected.is_none_or(|(_, part)| failed.unwrap().1.contains(part)), "{status}");
    }
}

#[test]
fn a_repeated_file_keeps_everything_but_its_id() {
    let body = br#"{"id":"old","amount":"1.00","x":1.10,"merchant":{"id":"old"}}"#;
    let renamed = with_id(body, "new").unwrap();
    assert_eq!(str::from_utf8(&renamed).unwrap(), r#"{"amount":"1.00","id":"new","merchant":{"id":"old"},"x":1.10}"#);
    assert_eq!(with_id(b"[]", "new").unwrap_err().exit(), Exit::BadFlagValue);
    assert!(request::decode(&body_of(&[])).is_ok() && fresh_id() != fresh_id());
    let all = body_of(&["--user", "usr_1", "--deadline-ms", "700", "--partial", "--channel", "atm"]);
    let decoded = request::decode(&all).unwrap();
    assert_eq!((decoded.deadline_ms, decoded.request.partial_approval, decoded.request.user.is_some()), (Some(700), true, true));
}

fn body_of(flags: &[&str]) -> Vec<u8> {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: AuthorizeArgs,
    }
    let line = ["authorize", "--card", "crd_1", "--amount", "1.00"].into_iter().chain(flags.iter().copied());
    let args = <Line as clap::Parser>::parse_from(line).args;
    body(&args, "a-1".to_owned())
}
