#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use super::*;
use crate::bench::{
    scenario::{Mix, Scenario},
    traffic::Ids,
};
use tokio::sync::Semaphore;

const APPROVED: &str = r#"{"version":1,"decision":"approved","reason":null}"#;
const DECLINED: &str = r#"{"version":1,"decision":"declined","reason":"amount_limit"}"#;

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

fn reply(body: &str, journaled: bool) -> Reply<'_> {
    let mut spans = Spans::default();
    spans.set(Span::Commit, Duration::from_micros(640));
    Reply { body: body.as_bytes(), journaled, spans }
}

fn answer(record: &Arc<Record>, nth: usize, us: u64, body: &str, journaled: bool) {
    let seat = seat(record, nth);
    let due = seat.due();
    seat.sent(due + Duration::from_micros(50));
    seat.answered(due + Duration::from_micros(us), reply(body, journaled));
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
        (DECLINED, false, APPROVED, true, 0, 0),
        (APPROVED, true, DECLINED, false, 0, 0),
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
    record.answered_again(Some(0), reply(APPROVED, true));
    record.answered_again(Some(0), reply(DECLINED, true));
    assert_eq!((record.totals().duplicated, record.totals().differing, record.totals().unexpected), (2, 1, 1));
    record.answered_again(None, reply(APPROVED, true));
    record.answered_again(Some(17), reply(APPROVED, true));
    answer(&record, 1, 900, "not JSON", true);
    seat(&record, 2).refused(|| "400".to_owned());
    assert_eq!(record.totals().unexpected, 5);
    assert_eq!(record.examples().len(), 5);
}

#[test]
fn a_card_that_nobody_has_is_not_approved() {
    let record = record(Mix { unknown_card: 1_000, ..Mix::default() }, 2);
    answer(&record, 0, 900, DECLINED, true);
    assert_eq!(record.totals().unexpected, 0);
    answer(&record, 1, 900, APPROVED, true);
    assert_eq!(record.totals().unexpected, 1);
}

#[test]
fn times_are_recorded_as_they_are_up_to_a_minute() {
    for us in [0, 1, 2_047, 2_048, 50_000, 3_000_000, 60_000_000] {
        let mut times = histogram();
        times.saturating_record(us);
        assert!(times.max().abs_diff(us) <= us / 1_000, "{us} became {}", times.max());
    }
}
