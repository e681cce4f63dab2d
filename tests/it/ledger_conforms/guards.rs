//! The guards over money, to the last unit, and the claims of declines.

use super::{draft::Draft, fixture::Fixture, stage::Stage};
use jitauth::{
    domain::{
        decision::Claim,
        facts::Balance,
        ids::{AccountId, LimitId},
        limits::{CounterKey, Used},
        reason::Reason,
    },
    ledger::{CounterClaim, Ledger, Outcome, Report},
};

const TEN: CounterKey = CounterKey { limit: LimitId(10), scope: 1, window: 3_000 };
const ELEVEN: CounterKey = CounterKey { limit: LimitId(11), scope: 1, window: 1_000 };
const TWELVE: CounterKey = CounterKey { limit: LimitId(12), scope: 1, window: 0 };

type Add = fn(Draft) -> Draft;

fn accounts(report: &Report) -> Vec<(i64, Balance)> {
    let mut found: Vec<_> = report.accounts.iter().map(|(account, balance)| (account.0, *balance)).collect();
    found.sort_by_key(|account| account.0);
    found
}

fn counters(report: &Report) -> Vec<(CounterKey, Used)> {
    let mut found = report.counters.clone();
    found.sort_by_key(|counter| counter.0);
    found
}

pub(crate) async fn money_fits_to_the_last_unit_and_no_further<F: Fixture>(stage: &mut Stage<F>) {
    let no_limits = "delete from counters; delete from holds; delete from authorizations; update accounts set held = 0; delete from limits";
    let limit = |caps: &str| {
        format!(
            "{no_limits}; insert into limits (id, owner, owner_id, scope, period, cap_amount, cap_count) values (10, 'card', 1, 'card', 'day', {caps})"
        )
    };
    let balance = |held| Balance { posted: 10_000, held, floor: 0 };
    let credit_line = Balance { posted: 10_000, held: 0, floor: -500 };
    let used = |amount, count| Used { amount, count };
    // What is there, a group that just fits, one that does not, and what the latter is told.
    type Case = (&'static str, String, Add, Add, Add, Vec<(i64, Balance)>, Vec<(CounterKey, Used)>);
    let nothing: Add = |draft| draft;
    let cases: Vec<Case> = vec![
        (
            "an account",
            no_limits.to_owned(),
            nothing,
            |d| d.approve("f", "crd_1", 10_000),
            |d| d.approve("x", "crd_1", 10_001),
            vec![(1, balance(0))],
            vec![],
        ),
        (
            "an account in use",
            no_limits.to_owned(),
            |d| d.approve("p", "crd_1", 9_000),
            |d| d.approve("f", "crd_4", 1_000),
            |d| d.approve("x", "crd_4", 1_001),
            vec![(1, balance(9_000))],
            vec![],
        ),
        (
            "an account by two cards",
            no_limits.to_owned(),
            nothing,
            |d| d.approve("f", "crd_1", 6_000).approve("g", "crd_4", 4_000),
            |d| d.approve("x", "crd_1", 6_000).approve("y", "crd_4", 4_001),
            vec![(1, balance(0))],
            vec![],
        ),
        (
            "a credit line",
            format!("{no_limits}; update accounts set floor = -500 where id = 3"),
            nothing,
            |d| d.approve("f", "crd_3", 10_500),
            |d| d.approve("x", "crd_3", 10_501),
            vec![(3, credit_line)],
            vec![],
        ),
        (
            "an amount cap, no row yet",
            limit("5000, null"),
            nothing,
            |d| d.approve("f", "crd_1", 5_000),
            |d| d.approve("x", "crd_1", 5_001),
            vec![],
            vec![(TEN, used(0, 0))],
        ),
        (
            "an amount cap, summed",
            limit("5000, null"),
            nothing,
            |d| d.approve("f", "crd_1", 2_000).approve("g", "crd_1", 3_000),
            |d| d.approve("x", "crd_1", 2_000).approve("y", "crd_1", 3_001),
            vec![],
            vec![(TEN, used(0, 0))],
        ),
        (
            "an amount cap in use",
            limit("5000, null"),
            |d| d.approve("p", "crd_1", 4_000),
            |d| d.approve("f", "crd_1", 1_000),
            |d| d.approve("x", "crd_1", 1_001),
            vec![],
            vec![(TEN, used(4_000, 1))],
        ),
        (
            "a count cap, no row yet",
            limit("null, 1"),
            nothing,
            |d| d.approve("f", "crd_1", 1),
            |d| d.approve("x", "crd_1", 1).approve("y", "crd_1", 1),
            vec![],
            vec![(TEN, used(0, 0))],
        ),
        (
            "a count cap in use",
            limit("null, 3"),
            |d| d.approve("p", "crd_1", 1).approve("q", "crd_1", 1),
            |d| d.approve("f", "crd_1", 1),
            |d| d.approve("x", "crd_1", 1).approve("y", "crd_1", 1),
            vec![],
            vec![(TEN, used(2, 2))],
        ),
        (
            "a cap of zero",
            limit("0, null"),
            nothing,
            |d| d.absent("f", "crd_none"),
            |d| d.approve("x", "crd_1", 1),
            vec![],
            vec![(TEN, used(0, 0))],
        ),
        (
            "a sum past what can be counted",
            format!("{}; update limits set cap_amount = 9223372036854775807", limit("0, null")),
            |d| d.approve("p", "crd_1", 1),
            |d| d.approve("f", "crd_1", 1),
            |d| d.approve("x", "crd_1", i64::MAX),
            vec![(1, balance(1))],
            vec![(TEN, used(1, 1))],
        ),
    ];
    for (what, world, before, fits, passes, on_accounts, on_counters) in cases {
        stage.sql(&world).await;
        let group = before(stage.draft().await).absent("0", "crd_none").close();
        stage.committed(&group).await;
        let draft = stage.draft().await;
        let report = stage.rejected(&passes(draft.clone()).close()).await;
        assert_eq!(accounts(&report), on_accounts, "{what}");
        assert_eq!(counters(&report), on_counters, "{what}");
        stage.committed(&fits(draft).close()).await;
        stage.sql("update accounts set floor = 0 where id = 3 and posted >= held").await;
    }
    stage.sql(no_limits).await;
}

pub(crate) async fn a_claim_about_money_is_true_or_refused<F: Fixture>(stage: &mut Stage<F>) {
    let prepared = stage.draft().await.approve("p", "crd_1", 4_000).approve("q", "crd_1", 500).close();
    stage.committed(&prepared).await;
    // Account 1 has 5500 left, limit 10 has 500 and one approval left.
    let account = |need| Some(Claim::Account { need });
    let amount = |need| Some(Claim::Amount { key: TEN, need });
    let decline = |draft: Draft, card: &str, claim| draft.decline("c", card, 1, Reason::InsufficientFunds, claim);
    for (what, card, claim, true_claim) in [
        ("funds, just short", "crd_4", account(5_501), true),
        ("funds, just enough", "crd_4", account(5_500), false),
        ("amount, just over", "crd_1", amount(501), true),
        ("amount, just under", "crd_1", amount(500), false),
        ("count", "crd_1", Some(Claim::Count { key: TEN }), false),
        ("a counter that has no row, over", "crd_3", Some(Claim::Amount { key: CounterKey { window: 9, ..ELEVEN }, need: 8_001 }), true),
        ("a counter that has no row, under", "crd_3", Some(Claim::Amount { key: CounterKey { window: 9, ..ELEVEN }, need: 8_000 }), false),
        ("a count that has no cap", "crd_3", Some(Claim::Count { key: ELEVEN }), false),
        ("a need beyond counting", "crd_4", account(i64::MAX), true),
    ] {
        let group = decline(stage.draft().await, card, claim).close();
        if true_claim {
            let Ok(Outcome::Committed) = stage.ledger.commit(&group, true).await else { panic!("a true claim was refused: {what}") };
            stage.sql("delete from authorizations where id = 'c'").await;
        } else {
            let report = stage.rejected(&group).await;
            let told = (report.accounts.len(), report.counters.len());
            assert_eq!(told, if matches!(claim, Some(Claim::Account { .. })) { (1, 0) } else { (0, 1) }, "{what}: {report:?}");
        }
    }
    // Within a group a claim rests on what the group took before: 400 more do not fit after 200 did, and nothing of it fits
    // if the 200 are counted twice or not at all.
    let draft = stage.draft().await.approve("d", "crd_1", 200).decline("e", "crd_1", 301, Reason::AmountLimit, amount(301));
    let draft = draft.decline("f", "crd_1", 1, Reason::CountLimit, Some(Claim::Count { key: TEN }));
    let group = draft.close();
    assert_eq!(group.counter_claims, [CounterClaim { key: TEN, amount: Some(301), count: Some(1) }]);
    stage.committed(&group).await;
}

/// The test draft's claim of an amount is on top of what the group took before it.
pub(crate) async fn a_claim_that_turned_wrong_comes_back_with_fresh_values<F: Fixture>(stage: &mut Stage<F>) {
    let prepared = stage.draft().await.approve("p", "crd_1", 4_900).approve("q", "crd_3", 9_900).close();
    stage.committed(&prepared).await;
    let short = |draft: Draft| {
        draft.decline("x", "crd_3", 200, Reason::InsufficientFunds, Some(Claim::Account { need: 200 })).approve("y", "crd_3", 50)
    };
    let over = |draft: Draft| draft.decline("x", "crd_1", 200, Reason::AmountLimit, Some(Claim::Amount { key: TEN, need: 200 }));
    let draft = stage.draft().await;

    stage.credit(3, 150).await;
    let report = stage.rejected(&short(draft.clone()).close()).await;
    assert_eq!(accounts(&report), [(3, Balance { posted: 10_150, held: 9_900, floor: 0 })], "a credit");

    let released = "update holds set status = 2 where authorization_id = 'q'; update accounts set held = held - 9900 where id = 3";
    stage.sql(&format!("begin; {released}; commit")).await;
    let report = stage.rejected(&short(draft.clone()).close()).await;
    assert_eq!(accounts(&report), [(3, Balance { posted: 10_150, held: 0, floor: 0 })], "a released hold");

    // A raised cap is a changed fact as well, so the claim is looked at by itself with the facts of now.
    stage.sql("update limits set cap_amount = 5100 where id = 10").await;
    let draft = stage.draft().await;
    let report = stage.rejected(&over(draft).close()).await;
    assert_eq!(counters(&report), [(TEN, Used { amount: 4_900, count: 1 })], "a raised cap");
    assert!(report.cards.is_empty());

    // And in the other direction: an approval that fitted no longer does.
    let draft = stage.draft().await.approve("z", "crd_4", 5_000);
    let spent = stage.draft().await.approve("r", "crd_4", 200).close();
    let Ok(Outcome::Committed) = stage.other.commit(&spent, true).await else { panic!("the other lane could not spend") };
    let report = stage.rejected(&draft.close()).await;
    assert_eq!(accounts(&report), [(1, Balance { posted: 10_000, held: 5_100, floor: 0 })]);
}

pub(crate) async fn limits_shared_by_accounts_hold_for_two_ledgers<F: Fixture>(stage: &mut Stage<F>) {
    // Limit 11 caps what usr_1 spends on acc_1 and acc_2 together at 8000, limit 12 the program at 20000.
    let draft = stage.draft().await;
    stage.committed(&draft.clone().approve("a", "crd_1", 5_000).close()).await;
    let second = draft.clone().approve("b", "crd_2", 3_001).close();
    let Ok(Outcome::Rejected(report)) = stage.other.commit(&second, true).await else { panic!("limit 11 was passed") };
    assert_eq!(counters(&report), [(ELEVEN, Used { amount: 5_000, count: 1 })]);
    let Ok(Outcome::Committed) = stage.other.commit(&draft.clone().approve("b", "crd_2", 3_000).close(), true).await else {
        panic!("limit 11 was not used up")
    };
    stage.committed(&draft.clone().approve("c", "crd_3", 10_000).close()).await;
    let report = stage.rejected(&draft.clone().approve("d", "crd_4", 2_001).close()).await;
    assert_eq!(counters(&report), [(TWELVE, Used { amount: 18_000, count: 3 })]);
    stage.committed(&draft.approve("d", "crd_4", 2_000).close()).await;
}

pub(crate) async fn a_cap_of_null_caps_nothing<F: Fixture>(stage: &mut Stage<F>) {
    stage.sql("update limits set cap_amount = null, cap_count = null").await;
    stage.credit(1, 1_000_000).await;
    let draft = stage.draft().await;
    let group = (0..9).fold(draft, |draft, at| draft.approve(&format!("a{at}"), "crd_1", 100_000)).close();
    stage.committed(&group).await;
    let positions = stage.ledger.positions(&[AccountId(1)], &[TEN]).await.unwrap();
    assert_eq!(positions.counters[&TEN], Used { amount: 900_000, count: 9 });
}
