//! What reading ahead promises.

use super::*;

impl Rig {
    /// Cards whose facts are in memory, and whose money no lane has seen.
    async fn known_cards(&self, count: i64, posted: i64) -> Vec<CardToken> {
        let cards: Vec<_> = (1..=count).map(|number| self.card(number, posted)).collect();
        for card in &cards {
            self.facts.lookup(card).await.unwrap();
        }
        cards
    }

    fn reads(&self) -> u32 {
        self.model.0.lock().reads
    }
}

#[tokio::test(start_paused = true)]
async fn money_that_was_read_ahead_is_not_read_for_a_request() {
    let rig = rig();
    let cards = rig.known_cards(3, 100).await;
    rig.pipeline.read_ahead().await;
    sleep(MS(10)).await;
    assert_eq!(rig.reads(), 1, "one piece");
    for (card, id) in cards.iter().zip(["a", "b", "c"]) {
        assert_eq!(rig.ask(id, card, 30, MS(300)).answer().await.decision, Decision::Approved);
    }
    assert_eq!((rig.reads(), rig.held()), (1, 90));
}

#[tokio::test(start_paused = true)]
async fn what_has_moved_since_it_was_read_ahead_decides() {
    let rig = rig();
    let cards = rig.known_cards(2, 100).await;
    rig.pipeline.read_ahead().await;
    sleep(MS(10)).await;
    rig.model.0.lock().balances.values_mut().for_each(|balance| balance.posted = 20);
    let answer = rig.ask("spent-elsewhere", &cards[0], 30, MS(300)).answer().await;
    assert_eq!(answer.reason, Some(Reason::InsufficientFunds));
    rig.model.0.lock().balances.values_mut().for_each(|balance| balance.posted = 200);
    let answer = rig.ask("paid-in", &cards[1], 150, MS(300)).answer().await;
    assert_eq!((answer.decision, rig.held()), (Decision::Approved, 150));
}

#[tokio::test(start_paused = true)]
async fn a_book_without_room_is_left_as_it_is() {
    let rig = rig();
    let cards = rig.known_cards(300, 100).await;
    rig.pipeline.read_ahead().await;
    sleep(MS(10)).await;
    assert_eq!(rig.reads(), 0, "the book has room for 100 accounts, a piece is of more");
    assert_eq!(rig.ask("a", &cards[299], 30, MS(300)).answer().await.decision, Decision::Approved);
    assert_eq!(rig.reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_busy_lane_does_not_keep_the_others_from_reading_ahead() {
    let rig = rig_with(Settings { lanes: 2, book_accounts_max: 10_000, book_counters_max: 10_000, ..SETTINGS });
    let cards = rig.known_cards(2000, 100).await;
    rig.fault(&[Fault::Stall(MS(60_000))]);
    let mut stuck = rig.ask("stuck", &cards[0], 30, MS(300_000));
    sleep(MS(10)).await;
    let (before, began) = (rig.reads(), Instant::now());
    rig.pipeline.read_ahead().await;
    let took = began.elapsed();
    sleep(MS(10)).await;
    // The busy one has a piece in front of it, and is given up at the next; the other one has read about half of the sixteen.
    let read = rig.reads() - before;
    assert!((4..12).contains(&read) && took < MS(3000), "{read} pieces in {took:?}");
    assert_eq!(stuck.answer().await.decision, Decision::Approved);
    sleep(MS(10)).await;
    assert_eq!(rig.reads() - before, read + 1, "the piece in front of it");
}
