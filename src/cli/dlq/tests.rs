use super::*;
use crate::broker::dead_letters::{Failure, Refusal};
use std::time::Duration;

const NOW: Timestamp = Timestamp(1_772_619_307_000_000);

fn letter(id: &str, reason: &str, ago_s: i64) -> Letter {
    Letter {
        id: format!("{id}9c04e1aa27d14cbb8f3f0d6c3b1e"),
        reason: reason.to_owned(),
        detail: "no queue took the answer until the deadline".to_owned(),
        failed_at: Some(Timestamp(NOW.0 - ago_s * 1_000_000)),
        message_id: Some(format!("auth-{id}")),
        attempts: Some(4),
        replays: 1,
        redacted: false,
        properties: vec![("message_id", format!("auth-{id}")), ("reply_to", "reply.acquirer-7".to_owned())],
        headers: vec![("x-reason".to_owned(), reason.to_owned()), ("x-tenant".to_owned(), "acme".to_owned())],
        body: br#"{"version": 1, "type": "authorization"}"#.to_vec(),
    }
}

fn letters() -> Vec<Letter> {
    let nameless = Letter { message_id: None, failed_at: None, attempts: None, replays: 0, ..letter("c3", "", 0) };
    let hostile = Letter { message_id: Some("\u{1b}[2Jgone\n".to_owned()), ..letter("d4", "malformed", 200_000) };
    vec![letter("a1", "reply_unroutable", 30), letter("b2", "reply_to_forbidden", 4_000), nameless, hostile]
}

/// What a person reads, all of it, in one file.
#[test]
fn every_answer_reads_well() {
    let visited = Visited { ready: 5, seen: 4 };
    let listed: Vec<_> = letters().into_iter().map(print::without_body).collect();
    let mut stats = Stats::new(NOW);
    letters().iter().for_each(|letter| stats.add(letter));
    let outcomes = [
        Outcome::Replayed(2),
        Outcome::WouldReplay(2),
        Outcome::Refused(Refusal::Stale(Duration::from_secs(11_000))),
        Outcome::Failed(Failure::Unroutable),
    ];
    let mut tally = print::Tally::default();
    let mut lines = String::new();
    for (letter, outcome) in letters().iter().zip(&outcomes) {
        tally.add(outcome);
        lines.push_str(&format!("{}\n", print::outcome(letter, outcome)));
    }
    let empty = Visited::default();
    let text = [
        ("dlq list", print::list("jit-funding-dlq", &listed, visited)),
        ("dlq list, nothing there", print::list("jit-funding-dlq", &[], empty)),
        ("dlq show", print::letter(&letters()[0])),
        ("dlq stats", stats.text("jit-funding-dlq", Visited { ready: 12_000, seen: VISITS_MAX })),
        ("dlq stats, nothing there", Stats::new(NOW).text("jit-funding-dlq", empty)),
        ("dlq replay", format!("{lines}{}\n", tally.text("jit-funding-dlq", visited, false))),
        ("dlq replay --dry-run", format!("{}\n", tally.text("jit-funding-dlq", visited, true))),
    ]
    .map(|(title, text)| format!("--- {title}\n{text}\n"))
    .concat();
    assert_eq!(text, include_str!("snapshot.txt"), "\n{text}");
}

#[test]
fn a_rate_is_messages_a_second() {
    for (text, expected) in [("50", Some(50)), ("1/s", Some(1)), ("10000/s", Some(10_000)), ("0", None), ("10001", None), ("5/m", None)] {
        assert_eq!(rate(text).ok().map(NonZeroU32::get), expected, "{text}");
    }
}
