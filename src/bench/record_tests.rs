#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use super::*;
use crate::bench::{
    scenario::{Mix, Scenario},
    traffic::Ids,
};
use tokio::sync::Semaphore;

const APPROVED: &str = r#"{"version":1,"id":"ID","decision":"approved","reason":null}"#;
const PARTIAL: &str = r#"{"version":1,"id":"ID","decision":"partially_approved","reason":null}"#;
const DECLINED: &str = r#"{"version":1,"id":"ID","decision":"declined","reason":"amount_limit"}"#;

/// What a daemon says without a store.
const OUT: &str = r#"{"version":1,"id":"ID","decision":"declined","reason":"system_unavailable"}"#;

fn record(mix: Mix, items: usize) -> Arc<Record> {
    let scenario = Scenario { mix, replay_back_min: 1, ..Scenario::default() };
    let traffic = Traffic::new(&scenario, Ids::new("bench"), items);
    let due = (0..items as u64).map(Duration::from_millis).collect();
    Arc::new(Record::new(Arc::new(traffic), due, Duration::from_millis(2)))
}

fn seat(record: &Arc<Record>, nth: usize) -> Seat {
    let slot = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    record.seat(nth, Instant::now(), record.due()[nth], slot)
}

/// The body with the id of a sending's request.
fn to(record: &Record, nth: usize, body: &str) -> String {
    body.replace("ID", &record.traffic().ids.id(record.traffic().items[nth].request as usize))
}

fn declined(reason: &str) -> String {
    DECLINED.replace("amount_limit", reason)
}

fn reply(body: &str, journaled: bool) -> Reply<'_> {
    let mut spans = Spans::default();
    spans.set(Span::Commit, Duration::from_micros(640));
    Reply { body: body.as_bytes(), journaled, spans }
}

fn answer(record: &Arc<Record>, nth: usize, us: u64, body: &str, journaled: bool) {
    let (seat, body) = (seat(record, nth), to(record, nth, body));
    let due = seat.due();
    seat.sent(due + Duration::from_micros(50));
    seat.answered(due + Duration::from_micros(us), reply(&body, journaled));
}

#[test]
fn what_was_heard_is_there_afterwards() {
    let record = record(Mix::default(), 4);
    answer(&record, 1, 900, APPROVED, true);
    answer(&record, 2, 1_900, DECLINED, true);
    seat(&record, 3).sent(Instant::now());
    let seen: Vec<Seen> = record.seen().collect();
    assert_eq!((seen[0].lag_us, seen[0].response_us, seen[0].measured), (None, None, false), "never sent");
    assert_eq!((seen[1].lag_us, seen[1].response_us, seen[1].measured), (Some(50), Some(900), false), "in the warm-up");
    assert_eq!((seen[1].outcome.unwrap().decision(), seen[1].outcome.unwrap().reason()), (Decision::Approved, None));
    assert_eq!((seen[2].response_us, seen[2].measured), (Some(1_900), true));
    assert_eq!((seen[2].outcome.unwrap().decision(), seen[2].outcome.unwrap().reason()), (Decision::Declined, Some(Reason::AmountLimit)));
    assert!(seen[3].lag_us.is_some() && seen[3].response_us.is_none(), "sent and not answered");
    let totals = record.totals();
    assert_eq!((totals.sent, totals.answered, totals.unexpected), (3, 2, 0));
    let stages = record.stages();
    assert_eq!(stages[Span::Commit as usize].1.len(), 1, "the warm-up's are left out");
    assert_eq!(record.recent().1, 1_900);
    assert_eq!(record.recent().1, 0, "asked for twice");
}

#[test]
fn a_second_answer_to_an_id_is_held_against_the_first() {
    for (first, first_journaled, second, second_journaled, identical, differing) in [
        (APPROVED, true, APPROVED, true, 1, 0),
        (APPROVED, true, DECLINED, true, 0, 1),
        (OUT, false, APPROVED, true, 0, 0),
        (APPROVED, true, OUT, false, 0, 0),
    ] {
        // The second sending is a replay of the first: there is no other request to repeat.
        let record = record(Mix { replay: 1_000, ..Mix::default() }, 2);
        assert_eq!(record.traffic().items.iter().map(|item| item.request).collect::<Vec<_>>(), [0, 0]);
        answer(&record, 0, 900, first, first_journaled);
        answer(&record, 1, 900, second, second_journaled);
        let totals = record.totals();
        assert_eq!((totals.identical, totals.differing, totals.unexpected), (identical, differing, differing), "{first} then {second}");
        let (_, known) = record.answers().next().unwrap();
        assert!(known.journaled(), "what the journal has is what counts");
    }
}

#[test]
fn what_nobody_asked_for_is_noticed() {
    let record = record(Mix::default(), 3);
    answer(&record, 0, 900, APPROVED, true);
    record.answered_again(Some(0), reply(&to(&record, 0, APPROVED), true));
    record.answered_again(Some(0), reply(&to(&record, 0, DECLINED), true));
    assert_eq!((record.totals().duplicated, record.totals().differing, record.totals().unexpected), (2, 1, 1));
    record.answered_again(None, reply(APPROVED, true));
    record.answered_again(Some(17), reply(APPROVED, true));
    answer(&record, 1, 900, "not JSON", true);
    seat(&record, 2).refused(|| "400".to_owned());
    assert_eq!(record.totals().unexpected, 5);
    assert_eq!(record.examples().len(), 5);
}

/// Whether an answer to a request of this kind is noticed as wrong.
fn check(mix: Mix, pick: impl Fn(&Record, usize) -> bool, body: &str, journaled: bool, wrong: bool) {
    let record = record(mix, 400);
    let nth = (0..400).find(|nth| pick(&record, *nth)).unwrap();
    answer(&record, nth, 900, body, journaled);
    assert_eq!(record.totals().unexpected, u64::from(wrong), "{body} to {mix:?}: {:?}", record.examples());
}

#[test]
fn an_answer_that_cannot_be_right_is_noticed_without_the_store() {
    let plain = Mix::default();
    let (unknown, user) = (Mix { unknown_card: 1_000, ..plain }, Mix { wrong_user: 1_000, ..plain });
    let (currency, test) = (Mix { wrong_currency: 1_000, ..plain }, Mix { test_card: 1_000, ..plain });
    let any = |_: &Record, _: usize| true;
    let partial = |may: bool| move |record: &Record, nth: usize| record.traffic().requests[nth].may_be_partial() == may;
    let lost = |record: &Record, nth: usize| record.traffic().requests[nth].asked().card == "crd_test_card_lost";
    for (mix, body, journaled, wrong) in [
        (plain, APPROVED, true, false),
        (plain, APPROVED, false, true),
        (plain, DECLINED, true, false),
        (plain, DECLINED, false, true),
        (plain, OUT, false, false),
        (plain, OUT, true, false),
        (plain, &declined("malformed"), false, true),
        (plain, &declined("duplicate_conflict"), false, true),
        (plain, &declined("card_not_found"), true, true),
        (plain, &APPROVED.replace("ID", "other-0000000"), true, true),
        (plain, &APPROVED.replace("ID", "bench-0000399"), true, true),
        (plain, &APPROVED.replace("1,", "2,"), true, true),
        (unknown, &declined("card_not_found"), true, false),
        (unknown, &declined("insufficient_funds"), true, true),
        (unknown, APPROVED, true, true),
        (unknown, OUT, false, false),
        (user, &declined("user_not_found"), true, false),
        (user, APPROVED, true, true),
        (currency, &declined("card_lost"), true, false),
        (currency, APPROVED, true, true),
    ] {
        check(mix, any, body, journaled, wrong);
    }
    check(plain, partial(true), PARTIAL, true, false);
    check(plain, partial(false), PARTIAL, true, true);
    for (body, wrong) in [(declined("card_lost"), false), (declined("card_stolen"), true), (APPROVED.to_owned(), true)] {
        check(test, lost, &body, true, wrong);
    }
}

#[test]
fn an_echo_decides_nothing() {
    let scenario = Scenario { mix: Mix { unknown_card: 1_000, ..Mix::default() }, ..Scenario::default() };
    let traffic = Arc::new(Traffic::new(&scenario, Ids::new("bench"), 1));
    let record = Arc::new(Record::new(traffic, vec![Duration::ZERO], Duration::ZERO).of_an_echo());
    answer(&record, 0, 900, &APPROVED.replace("ID", "always-the-same"), true);
    assert_eq!((record.totals().answered, record.totals().unexpected), (1, 0));
}

#[test]
fn an_example_is_short_and_harmless() {
    let record = record(Mix::default(), 1);
    record.unexpected(|| format!("\u{1b}[31m{}", "x".repeat(100_000)));
    let example = record.examples().remove(0);
    assert!(example.starts_with("\\u{1b}[31mxxx") && example.ends_with("x ...") && example.len() < 500, "{example}");
    assert_eq!(shown("é\u{7}\u{202e} {\"a\": 1}".as_bytes()), "\\u{e9}\\u{7}\\u{202e} {\"a\": 1}");
}

#[test]
fn what_was_sent_before_is_known_of_each_sending() {
    let record = record(Mix { replay: 1_000, ..Mix::default() }, 3);
    answer(&record, 0, 900, APPROVED, true);
    answer(&record, 1, 900, APPROVED, true);
    let seat = seat(&record, 2);
    seat.retried();
    let again: Vec<bool> = record.seen().map(|seen| seen.again).collect();
    assert_eq!(again, [false, true, true]);
}

#[test]
fn times_are_recorded_as_they_are_up_to_a_minute() {
    for us in [0, 1, 2_047, 2_048, 50_000, 3_000_000, 60_000_000] {
        let mut times = histogram();
        times.saturating_record(us);
        assert!(times.max().abs_diff(us) <= us / 1_000, "{us} became {}", times.max());
    }
}
