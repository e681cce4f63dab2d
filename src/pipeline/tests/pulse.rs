//! A lane that takes nothing is told from one that waits for the store.

use super::{Fault, MS, rig};
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn a_lane_that_takes_nothing_is_stuck() {
    let rig = rig();
    let card = rig.card(1, 1000);
    rig.ask("warm", &card, 1, MS(1000)).answer().await;
    let mut pulse = rig.running.pulse();
    // No await: the lane has no turn in which to take anything.
    let mut first = rig.ask("first", &card, 1, MS(1000));
    assert_eq!(pulse.stuck(), None, "what has just come may wait for a moment");
    let mut second = rig.ask("second", &card, 1, MS(1000));
    assert_eq!(pulse.stuck(), Some(0), "nothing was taken since the look before");
    first.answer().await;
    assert_eq!(pulse.stuck(), None);
    second.answer().await;
    assert_eq!((pulse.stuck(), pulse.stuck()), (None, None), "an idle lane is not stuck");
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_waits_for_the_store_is_not_stuck() {
    let rig = rig();
    let card = rig.card(1, 1000);
    rig.ask("warm", &card, 1, MS(1000)).answer().await;
    let mut pulse = rig.running.pulse();
    rig.fault(&[Fault::Stall(MS(5000))]);
    let mut waiting = Vec::new();
    for number in 0..20 {
        waiting.push(rig.ask(&format!("id-{number}"), &card, 1, MS(60_000)));
        sleep(MS(200)).await;
        assert_eq!(pulse.stuck(), None, "request {number}");
    }
}
