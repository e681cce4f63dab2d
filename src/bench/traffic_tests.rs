#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::{
    codec::request,
    domain::{decision::Decision, reason::Reason},
    seed::{Plan, simulation::Simulation},
};
use std::collections::BTreeMap;

fn scenario(mix: Mix) -> Scenario {
    Scenario { mix, cards: 10_000, ..Scenario::default() }
}

fn traffic(scenario: &Scenario, items: usize) -> Traffic {
    Traffic::new(scenario, Ids::new("bench-test"), items)
}

fn text(traffic: &Traffic, request: u32) -> String {
    String::from_utf8(traffic.body(Item { request, replay: false }, None, None).to_vec()).unwrap()
}

#[test]
fn the_same_scenario_makes_the_same_traffic() {
    let mix = Mix { replay: 20, test_card: 40, ..Mix::default() };
    assert_eq!(traffic(&scenario(mix), 5_000), traffic(&scenario(mix), 5_000));
    assert_ne!(traffic(&scenario(mix), 5_000), traffic(&Scenario { seed: 2, ..scenario(mix) }, 5_000));
}

#[test]
fn ids_are_found_again() {
    let ids = Ids::new("bench-0a1b");
    assert_eq!((ids.id(42).as_str(), ids.index("bench-0a1b-0000042")), ("bench-0a1b-0000042", Some(42)));
    assert_eq!(ids.prefix(), "bench-0a1b-");
    for other in ["bench-0a1c-0000042", "bench-0a1b", "bench-0a1b-x", "bench-0a1b0000042"] {
        assert_eq!(ids.index(other), None, "{other}");
    }
}

#[test]
fn the_mix_is_what_was_asked_for() {
    let mix = Mix { replay: 100, unknown_card: 50, wrong_user: 60, wrong_currency: 70, test_card: 80 };
    let traffic = traffic(&scenario(mix), 50_000);
    let replays = traffic.items.iter().filter(|item| item.replay).count();
    let mut kinds = BTreeMap::new();
    traffic.requests.iter().for_each(|ask| *kinds.entry(format!("{:?}", ask.kind())).or_insert(0_usize) += 1);
    for (what, count, permille) in [
        ("replays", replays, 100),
        ("unknown cards", kinds["UnknownCard"], 50),
        ("wrong users", kinds["WrongUser"], 60),
        ("wrong currencies", kinds["WrongCurrency"], 70),
        ("test cards", kinds["TestCard"], 80),
    ] {
        // 50,000 draws stay within a tenth of what is expected.
        assert!((count * 1_000 / 50_000).abs_diff(permille) <= permille / 10, "{what}: {count}");
    }
}

#[test]
fn replays_go_back_as_far_as_they_have_to() {
    let mix = Mix { replay: 400, ..Mix::default() };
    for back in [1, 500] {
        let traffic = traffic(&Scenario { replay_back_min: back, ..scenario(mix) }, 10_000);
        let mut sent = 0;
        for item in &traffic.items {
            assert!(if item.replay { item.request + back <= sent } else { item.request == sent }, "{item:?} after {sent}");
            sent += u32::from(!item.replay);
        }
        assert_eq!(sent as usize, traffic.requests.len());
        assert!(traffic.items.iter().filter(|item| item.replay).count() > 3_000);
    }
}

#[test]
fn every_rank_has_a_card_of_its_own() {
    for cards in [1, 2, 100, 7_907, 7_919, 15_838, 10_000] {
        let shoppers = Shoppers::new(&Scenario { cards, ..Scenario::default() });
        let numbers: std::collections::BTreeSet<u64> = (1..=cards).map(|rank| shoppers.number(rank as f64)).collect();
        assert_eq!((numbers.len() as u64, numbers.first(), numbers.last()), (cards, Some(&1), Some(&cards)));
    }
    assert!(STRIDES[0] * STRIDES[1] > crate::seed::ids::CARDS_MAX);
}

#[test]
fn zipf_makes_few_cards_busy_and_zero_makes_all_alike() {
    for (exponent, least, most) in [(0.0, 0, 3), (0.6, 10, 30), (1.1, 50, 100)] {
        let traffic = traffic(&Scenario { zipf_exponent: exponent, ..scenario(Mix::default()) }, 50_000);
        let mut uses: BTreeMap<u32, usize> = BTreeMap::new();
        traffic.requests.iter().for_each(|ask| *uses.entry(ask.card).or_default() += 1);
        let mut counts: Vec<usize> = uses.into_values().collect();
        counts.sort_unstable_by(|one, other| other.cmp(one));
        // The busiest hundredth of 10,000 cards.
        let percent = counts.iter().take(100).sum::<usize>() * 100 / traffic.requests.len();
        assert!((least..=most).contains(&percent), "{exponent}: {percent} %");
    }
}

#[test]
fn a_hot_account_gets_its_share() {
    let traffic = traffic(&Scenario { hot_percent: 90, ..scenario(Mix::default()) }, 10_000);
    let hot = traffic.requests.iter().filter(|ask| u64::from(ask.card) == HOT_CARD).count();
    assert!((88..=92).contains(&(hot * 100 / traffic.requests.len())), "{hot}");
}

#[test]
fn every_body_is_a_request_with_its_time() {
    let mix = Mix { unknown_card: 100, wrong_user: 100, wrong_currency: 100, test_card: 300, ..Mix::default() };
    let traffic = traffic(&scenario(mix), 2_000);
    let sent_at = Timestamp(1_772_619_307_114_321);
    for (index, item) in traffic.items.iter().enumerate() {
        let decoded = request::decode(&traffic.body(*item, Some(sent_at), Some(1_500))).unwrap();
        assert_eq!((decoded.sent_at, decoded.deadline_ms, decoded.unknown_fields), (Some(sent_at), Some(1_500), 0));
        assert_eq!(decoded.request.id.as_str(), traffic.ids.id(index));
    }
}

#[test]
fn what_is_special_about_a_request_is_what_it_is_declined_for() {
    let mix = Mix { unknown_card: 200, wrong_user: 200, wrong_currency: 200, ..Mix::default() };
    let traffic = traffic(&scenario(mix), 3_000);
    let mut simulation = Simulation::new(Plan::new(10_000, 1));
    for (request, ask) in (0..).zip(&traffic.requests) {
        let (decision, reason) = simulation.decide(&text(&traffic, request));
        // A lost card is told before a wrong user, so only the first is certain.
        match ask.kind() {
            Kind::UnknownCard => assert_eq!(reason, Some(Reason::CardNotFound)),
            Kind::WrongUser | Kind::WrongCurrency => assert_eq!(decision, Decision::Declined),
            Kind::Plain | Kind::TestCard => {}
        }
    }
}

#[test]
fn the_demos_mix_declines_one_in_ten_over_many_reasons() {
    let mix = Mix { replay: 20, unknown_card: 8, wrong_user: 6, wrong_currency: 6, test_card: 40 };
    let traffic = traffic(&scenario(mix), 50_000);
    let mut simulation = Simulation::new(Plan::new(10_000, 1));
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for request in 0..u32::try_from(traffic.requests.len()).unwrap() {
        let (decision, reason) = simulation.decide(&text(&traffic, request));
        *reasons.entry(reason.map_or(decision.name(), Reason::name)).or_default() += 1;
    }
    let approved = reasons[Decision::Approved.name()] + reasons[Decision::PartiallyApproved.name()];
    let declined = traffic.requests.len() - approved;
    assert!(reasons.len() >= 10, "{reasons:?}");
    assert!((10..=30).contains(&(declined * 100 / traffic.requests.len())), "{reasons:?}");
}
