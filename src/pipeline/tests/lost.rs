//! What is promised when a commit's answer is lost, and when it only looks like it.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_lost_commit_is_resolved_by_sending_it_again() {
    for fault in [Fault::LostAfter, Fault::LostBefore] {
        let rig = rig();
        let card = rig.card(1, 100);
        rig.fault(&[fault, Fault::Unreachable, Fault::Contended]);
        let answer = rig.ask("one", &card, 30, MS(2000)).answer().await;
        assert_eq!((answer.decision, answer.replayed, rig.held()), (Decision::Approved, false, 30), "{fault:?}");
        assert!(answer.fresh.is_some(), "{fault:?}: it is our own and nobody has seen it");
        // The working copy is right afterwards: 70 are left.
        let more = heard(rig.ask("two", &card, 71, MS(2000)).answer().await);
        assert_eq!(more.reason, Some(Reason::InsufficientFunds), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_twin_of_the_same_millisecond_is_a_replay_where_no_commit_was_lost() {
    let rig = rig();
    let card = rig.card(1, 10);
    // A commit that takes no time: the second one is decided in the same millisecond, on the same money, and its bytes are the same.
    rig.fault(&[Fault::Stall(Duration::ZERO)]);
    let first = rig.ask("one", &card, 11, MS(1000)).answer().await;
    assert_eq!((first.reason, first.replayed), (Some(Reason::InsufficientFunds), false));
    let again = rig.ask("one", &card, 11, MS(1000)).answer().await;
    assert_eq!((again.body, again.replayed), (first.body, true));
    rig.fault(&[Fault::LostAfter]);
    let lost = rig.ask("two", &card, 11, MS(1000)).answer().await;
    assert_eq!((lost.reason, lost.replayed), (Some(Reason::InsufficientFunds), false), "it is the first answer to it");
}

#[tokio::test(start_paused = true)]
async fn a_lost_commit_is_not_answered_before_it_is_resolved() {
    let rig = rig();
    let card = rig.card(1, 100);
    let mut faults = vec![Fault::LostAfter];
    faults.extend([Fault::Unreachable; 40]);
    rig.fault(&faults);
    let asked = Instant::now();
    let answer = rig.ask("one", &card, 30, MS(300)).answer().await;
    assert!(asked.elapsed() > MS(1000), "answered after {:?}", asked.elapsed());
    assert_eq!((answer.reason, rig.held()), (Some(Reason::DeadlineExceeded), 0));
}
