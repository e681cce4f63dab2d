#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use super::*;
use crate::{
    bench::{
        record::Reply,
        traffic::{Ids, Traffic},
    },
    telemetry::Spans,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// What happened to a request due at a moment: how late it went out and when it was answered, microseconds; and what was said.
type Story = (u64, Option<u32>, Option<u32>, &'static str);

const APPROVED: &str = r#"{"version":1,"id":"ID","decision":"approved","reason":null}"#;
const LATE: &str = r#"{"version":1,"id":"ID","decision":"declined","reason":"deadline_exceeded"}"#;

fn run(scenario: &Scenario, stories: &[Story]) -> Measured {
    // What a target drops is not sent either, and the pacer does not know.
    told(scenario, stories, &Pace::default())
}

fn told(scenario: &Scenario, stories: &[Story], pace: &Pace) -> Measured {
    let traffic = Arc::new(Traffic::new(scenario, Ids::new("bench"), stories.len()));
    let due: Vec<Duration> = stories.iter().map(|(due_ms, ..)| Duration::from_millis(*due_ms)).collect();
    let record = Arc::new(Record::new(traffic, due, scenario.warm_up));
    let began = Instant::now();
    for (nth, (due_ms, lag_us, response_us, body)) in stories.iter().enumerate() {
        let Some(lag_us) = lag_us else { continue };
        let slot = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let seat = record.seat(nth, began, Duration::from_millis(*due_ms), slot);
        let due = seat.due();
        seat.sent(due + Duration::from_micros(u64::from(*lag_us)));
        if let Some(response_us) = response_us {
            let body = body.replace("ID", &record.traffic().ids.id(record.traffic().items[nth].request as usize));
            let reply = Reply { body: body.as_bytes(), journaled: true, spans: Spans::default() };
            seat.answered(due + Duration::from_micros(u64::from(*response_us)), reply);
        }
    }
    measure(scenario, &record, pace)
}

fn scenario() -> Scenario {
    let second = Duration::from_secs(1);
    Scenario { warm_up: second, duration: 2 * second, mix: crate::bench::scenario::Mix::default(), ..Scenario::default() }
}

#[test]
fn response_time_counts_from_the_intended_moment_and_service_time_from_the_actual_one() {
    let measured = run(&scenario(), &[(1_000, Some(400), Some(1_000), APPROVED), (1_500, Some(100_000), Some(102_000), APPROVED)]);
    assert_eq!((measured.response.min(), measured.service.min()), (1_000, 600));
    assert!(measured.response.max().abs_diff(102_000) < 100 && measured.service.max().abs_diff(2_000) < 3);
    assert_eq!(measured.rate.lag.count, 2);
}

#[test]
fn an_approval_after_the_requester_hung_up_is_counted() {
    let deadline = scenario().deadline;
    let after = |us: i64| Some(u32::try_from(deadline.as_micros()).unwrap().saturating_add_signed(i32::try_from(us).unwrap()));
    let late = |scenario: &Scenario, stories: &[Story]| run(scenario, stories).requests.late_approvals;
    let (closed, replays) = (
        Scenario { arrival: Arrival::Closed, ..scenario() },
        Scenario { mix: crate::bench::scenario::Mix { replay: 1_000, ..Default::default() }, replay_back_min: 1, ..scenario() },
    );
    assert_eq!(late(&scenario(), &[(1_000, Some(0), after(0), APPROVED), (1_000, Some(0), after(1), LATE)]), 0);
    assert_eq!(late(&scenario(), &[(0, Some(0), after(1), APPROVED), (1_000, Some(400), after(1), APPROVED)]), 2, "the warm-up's too");
    assert_eq!(late(&closed, &[(1_000, Some(400), after(400), APPROVED), (1_000, Some(400), after(401), APPROVED)]), 1);
    assert_eq!(late(&replays, &[(1_000, Some(0), Some(9), APPROVED), (1_001, Some(0), after(1), APPROVED)]), 0, "the same bytes again");
}

#[test]
fn the_warm_up_counts_for_correctness_only() {
    let measured = run(&scenario(), &[(0, Some(0), Some(9_000), APPROVED), (500, Some(0), None, ""), (1_000, Some(0), Some(1_000), LATE)]);
    assert_eq!((measured.response.len(), measured.requests.measured), (1, 1));
    assert_eq!((measured.requests.sent, measured.requests.answered, measured.requests.lost), (3, 2, 1));
    assert_eq!(measured.decisions, BTreeMap::from([("declined".to_owned(), 1)]));
    assert_eq!((measured.reasons["deadline_exceeded"], measured.requests.errors), (1, 1));
    assert_eq!(measured.rate.offered_per_s, 0.5);
}

#[test]
fn each_second_tells_what_was_due_and_what_was_answered_in_it() {
    let measured = run(
        &scenario(),
        &[
            (1_100, Some(0), Some(1_000), APPROVED),
            (1_900, Some(0), Some(600_000), APPROVED),
            (2_100, Some(0), None, ""),
            (2_900, None, None, ""),
        ],
    );
    let told: Vec<_> = measured.seconds.iter().map(|it| (it.second, it.measured, it.offered, it.answered, it.lost)).collect();
    assert_eq!(told, [(0, false, 0, 0, 0), (1, true, 2, 1, 0), (2, true, 2, 1, 1)]);
    assert_eq!((measured.requests.unsent, measured.requests.lost), (1, 1));
    assert_eq!(measured.heatmap.rows.iter().map(|row| row.iter().sum::<u64>()).collect::<Vec<_>>(), [0, 2, 0]);
    assert!(measured.heatmap.rows.iter().all(|row| row.len() == measured.heatmap.bounds_us.len() + 1));
    let slow = measured.heatmap.rows[1].iter().rposition(|count| *count > 0).unwrap();
    assert!(measured.heatmap.bounds_us[slow - 1] < 600_000 && measured.heatmap.bounds_us[slow] >= 600_000);
}

#[test]
fn falling_behind_is_saturation() {
    // A hundred requests a second for three, of which the first is the warm-up.
    let rate = |answer_us: fn(u64) -> u32| {
        let stories: Vec<Story> = (0..300).map(|nth| (nth * 10, Some(0), Some(answer_us(nth)), APPROVED)).collect();
        run(&scenario(), &stories).rate
    };
    for (what, answer_us, achieved, saturated) in [
        ("quick", (|_| 1_000) as fn(u64) -> u32, 100.0, false),
        ("slow, and always as slow", |_| 700_000, 100.0, false),
        ("one straggler", |nth| if nth == 299 { 60_000_000 } else { 1_000 }, 99.5, false),
        ("slower by a quarter with each", |nth| u32::try_from(nth * 2_500).unwrap(), 80.0, true),
        ("nothing after the middle", |nth| if nth < 200 { 1_000 } else { 5_000_000 }, 50.0, true),
    ] {
        let rate = rate(answer_us);
        assert_eq!((rate.achieved_per_s, rate.saturated), (achieved, saturated), "{what}: {rate:?}");
    }
}

#[test]
fn the_ceiling_is_the_last_rate_before_the_bound_was_passed() {
    let bound = Duration::from_millis(100);
    let scenario = Scenario { ceiling_p99: bound, ..Scenario::default() };
    let second = |answered, p99_ms: u64, lost| Second { measured: true, answered, p99_us: p99_ms * 1_000, lost, ..Second::default() };
    for (seconds, rate, reached) in [
        (vec![second(100, 5, 0), second(200, 6, 0), second(300, 7, 0), second(400, 8, 0)], 300.0, false),
        (vec![second(100, 5, 0), second(200, 6, 0), second(300, 7, 0), second(400, 500, 0), second(420, 900, 0)], 300.0, true),
        (vec![second(100, 5, 0), second(200, 300, 0), second(300, 7, 0), second(400, 8, 0)], 300.0, false),
        (vec![second(100, 200, 0), second(200, 300, 0), second(300, 7, 0), second(400, 8, 0)], 0.0, true),
        (vec![second(100, 5, 0), second(200, 6, 1), second(300, 7, 0)], 0.0, true),
        (vec![second(100, 5, 0), second(200, 6, 0), second(300, 7, 0), second(400, 8, 1), second(500, 9, 0)], 200.0, true),
    ] {
        let found = ceiling(&scenario, &seconds).unwrap();
        assert_eq!((found.rate_per_s, found.reached), (rate, reached), "{seconds:?}");
    }
    assert_eq!(ceiling(&scenario, &[second(100, 5, 0)]), None);
}

#[test]
fn the_ceiling_of_several_stretches_is_the_middle_one_and_reached_when_all_were() {
    let ceiling = |(rate_per_s, reached)| Ceiling { rate_per_s, p99_bound_us: 1, reached, search: None };
    let stretch = |found: Option<(f64, bool)>| Stretch { first_second: 0, began_us: 0, ceiling: found.map(ceiling) };
    for (found, expected) in [
        (vec![Some((100.0, true))], Some((100.0, true))),
        (vec![Some((900.0, true)), Some((100.0, true)), Some((200.0, true))], Some((200.0, true))),
        (vec![Some((100.0, true)), Some((200.0, false)), Some((900.0, true))], Some((200.0, false))),
        (vec![Some((100.0, true)), Some((200.0, true))], Some((150.0, true))),
        (vec![Some((100.0, true)), None], None),
    ] {
        let stretches: Vec<Stretch> = found.iter().copied().map(stretch).collect();
        assert_eq!(middle(&stretches), expected.map(ceiling), "{found:?}");
    }
}

#[test]
fn a_closed_loop_that_ran_out_is_measured_until_then() {
    let scenario = Scenario { arrival: Arrival::Closed, ..scenario() };
    let measured = |ran_out, sending_ms| {
        let stories =
            [(500, Some(0), Some(1_000), APPROVED), (1_100, Some(0), Some(1_000), APPROVED), (1_400, Some(0), Some(1_000), APPROVED)];
        let pace = Pace { ran_out, sending: Duration::from_millis(sending_ms), ..Pace::default() };
        told(&scenario, &stories, &pace).rate
    };
    assert_eq!((measured(false, 3_000).achieved_per_s, measured(false, 3_000).measured_s), (1.0, 2.0));
    let early = measured(true, 1_500);
    assert_eq!((early.achieved_per_s, early.offered_per_s, early.measured_s, early.ran_out), (4.0, 4.0, 0.5, true));
    assert!(measured(true, 900).achieved_per_s.is_finite());
}

#[test]
fn a_packed_second_is_what_it_was() {
    let mut times = histogram();
    [5, 70, 900, 4_000_000].iter().for_each(|us| times.saturating_record(*us));
    let packed = Packed::new(&times);
    assert_eq!((packed.unpack(), packed.is_empty()), (times, false));
    assert!(packed.0.len() < 2_000, "{} bytes", packed.0.len());
    assert_eq!((Packed::default().unpack(), Packed::new(&histogram()).is_empty()), (histogram(), true));
}

#[test]
fn stretches_are_joined_one_after_the_other() {
    let mut sum = run(&scenario(), &[(1_000, Some(0), Some(1_000), APPROVED), (2_500, Some(100), Some(2_000), LATE)]);
    let later = run(&scenario(), &[(1_500, Some(300), Some(4_000), APPROVED), (2_000, Some(0), None, "")]);
    sum.join(&later).unwrap();
    assert_eq!((sum.response.len(), sum.service.len(), sum.rate.lag.count), (3, 3, 4));
    assert_eq!((sum.requests.sent, sum.requests.answered, sum.requests.lost, sum.requests.errors), (4, 3, 1, 1));
    assert_eq!((sum.decisions["approved"], sum.decisions["declined"]), (2, 1));
    assert_eq!((sum.rate.measured_s, sum.rate.offered_per_s), (4.0, 1.0));
    let seconds: Vec<(u64, u64)> = sum.seconds.iter().map(|second| (second.second, second.offered)).collect();
    assert_eq!(seconds, [(0, 0), (1, 1), (2, 1), (3, 0), (4, 1), (5, 1)]);
    assert_eq!((sum.by_second.len(), sum.heatmap.rows.len()), (6, 6));
    assert_eq!(sum.stretches.iter().map(|stretch| stretch.first_second).collect::<Vec<_>>(), [0, 3]);
    assert_eq!(sum.by_second.iter().map(|packed| packed.unpack().len()).collect::<Vec<_>>(), [0, 1, 1, 0, 1, 0]);
}
