//! What is measured of a request: its spans follow each other and do not overlap, however it ends.

use super::*;
use crate::telemetry::{Exposition, Span};

/// Checks the milliseconds of a span. The paused clock's timers are a millisecond coarse, and there are several in a row.
#[track_caller]
fn check(name: &str, answer: &Answer, span: Span, expected: u32) {
    let ms = answer.spans.get(span).map(|us| us / 1000);
    assert!(ms.is_some_and(|ms| ms.abs_diff(expected) <= 5), "{name}: {span:?} took {ms:?} ms, not {expected}");
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_the_lane_ends_where_its_work_begins() {
    let rig = rig();
    let card = rig.card(1, 1000);
    heard(rig.ask("warm", &card, 10, MS(1000)).answer().await);
    rig.fault(&[Fault::Stall(MS(200)), Fault::Stall(MS(30))]);
    let mut first = rig.ask("first", &card, 10, MS(1000));
    sleep(MS(50)).await;
    let mut behind = rig.ask("behind", &card, 10, MS(1000));
    // The same again, which is answered with it.
    let mut twin = rig.ask("behind", &card, 10, MS(1000));
    for (name, answer, lane, commit) in
        [("first", first.answer().await, 0, 200), ("behind", behind.answer().await, 150, 30), ("twin", twin.answer().await, 150, 30)]
    {
        check(name, &answer, Span::Lane, lane);
        check(name, &answer, Span::Commit, commit);
        heard(answer);
    }
    // All tries are the commit's.
    rig.fault(&[Fault::Locked(MS(60)), Fault::Locked(MS(60))]);
    let tried = heard(rig.ask("tried", &card, 10, MS(1000)).answer().await);
    check("tried", &tried, Span::Lane, 0);
    check("tried", &tried, Span::Commit, 120);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_before_it_is_decided_waited_for_the_lane() {
    let rig = rig();
    let card = rig.card(1, 1000);
    heard(rig.ask("warm", &card, 10, MS(1000)).answer().await);
    rig.fault(&[Fault::Stall(MS(5000))]);
    let _stuck = rig.ask("stuck", &card, 10, MS(300));
    sleep(MS(10)).await;
    let shed = rig.ask("behind", &card, 10, MS(300)).answer().await;
    assert_eq!(shed.reason, Some(Reason::SystemUnavailable));
    check("shed", &shed, Span::Lane, 280);
    assert_eq!(shed.spans.get(Span::Commit), None);
}

#[tokio::test(start_paused = true)]
async fn a_late_request_is_journaled_without_effect_and_without_facts() {
    let rig = rig();
    let card = rig.card(1, 1000);
    let answer = rig.ask("old", &card, 10, MS(0)).answer().await;
    assert_eq!((answer.reason, answer.journaled), (Some(Reason::DeadlineExceeded), true));
    {
        let world = rig.model.0.lock();
        assert_eq!((world.held(), world.fetches, world.journal.len()), (0, 0, 1));
    }
    let metrics = rig.telemetry.scrape(Exposition::Prometheus).unwrap();
    let late: Vec<_> =
        metrics.lines().filter(|line| line.starts_with("jitauth_deadline_exceeded_total") && !line.ends_with(" 0")).collect();
    assert_eq!(late, [r#"jitauth_deadline_exceeded_total{stage="queue"} 1"#], "it was late when it came");
}
