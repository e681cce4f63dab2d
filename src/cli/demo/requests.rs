//! The traffic, made before it is sent: bodies, and the order they go out in.

use crate::{
    bench::{
        scenario::{Mix, Scenario},
        traffic::{self, Ids},
    },
    seed::Plan,
};
use bytes::Bytes;

/// One request to send: a body, for the first time or again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Index into [`Traffic::bodies`].
    pub(super) body: usize,
    /// Whether this id was sent before.
    pub(super) replay: bool,
}

/// All that will be sent. The same plan makes the same traffic.
#[derive(Debug)]
pub(super) struct Traffic {
    /// What the bodies ask.
    pub(super) asked: traffic::Traffic,
    /// One per id; the id is [`ids`]' of the index.
    pub(super) bodies: Vec<Bytes>,
    /// Sent at a stated rate.
    pub(super) steady: Vec<Item>,
    /// Sent as fast as answers come.
    pub(super) burst: Vec<Item>,
}

/// Most requests are what people do; a few in a hundred show the rest of the reasons, and one in fifty is a replay.
const MIX: Mix = Mix { replay: 20, unknown_card: 8, wrong_user: 6, wrong_currency: 6, test_card: 40 };

/// What the names of the requests begin with.
pub(super) const RUN: &str = "demo";

/// The names of the requests.
pub(super) fn ids() -> Ids {
    Ids::new(RUN)
}

impl Traffic {
    /// Traffic over the cards of `plan`.
    pub(super) fn new(plan: Plan, seed: u64, steady: usize, burst: usize) -> Self {
        let scenario = Scenario { cards: plan.cards(), seed, mix: MIX, ..Scenario::default() };
        let made = traffic::Traffic::new(&scenario, ids(), steady + burst);
        // Without a time of sending: the same bytes are sent again after the daemon was killed, and their time counts anew.
        let first = made.items.iter().filter(|item| !item.replay);
        let bodies = first.map(|item| made.body(*item, None, None)).collect();
        let items: Vec<Item> = made.items.iter().map(|item| Item { body: item.request as usize, replay: item.replay }).collect();
        let (steady, burst) = items.split_at(steady);
        Self { bodies, steady: steady.into(), burst: burst.into(), asked: made }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_plan_makes_the_same_traffic_and_one_in_fifty_is_a_replay() {
        let traffic = || Traffic::new(Plan::new(10_000, 1), 1, 10_000, 40_000);
        let (one, other) = (traffic(), traffic());
        assert_eq!((&one.bodies, &one.steady, &one.burst), (&other.bodies, &other.steady, &other.burst));
        let items: Vec<Item> = one.steady.iter().chain(&one.burst).copied().collect();
        let replays = items.iter().filter(|item| item.replay).count();
        assert!((900..=1_100).contains(&replays), "{replays}");
        let mut sent = 0;
        for item in items {
            assert!(if item.replay { item.body < sent } else { item.body == sent }, "{item:?} after {sent}");
            sent += usize::from(!item.replay);
        }
        assert_eq!(sent, one.bodies.len());
    }
}
