#![expect(clippy::unwrap_used, reason = "tests")]

use super::{rows::Batch, simulation::Simulation, *};
use crate::domain::{
    decision::Decision,
    reason::{Reason, ReasonClass},
};
use std::collections::{BTreeMap, BTreeSet};

fn everything(plan: Plan) -> Batch {
    let mut all = Batch::default();
    for batch in plan.batches() {
        all.programs.extend(batch.programs);
        all.accounts.extend(batch.funding_accounts);
        all.accounts.extend(batch.accounts);
        all.funding.extend(batch.funding);
        all.users.extend(batch.users);
        all.limits.extend(batch.limits);
        all.cards.extend(batch.cards);
    }
    all
}

#[test]
fn the_same_plan_makes_the_same_rows_and_a_larger_one_only_adds() {
    let rows = everything(Plan::new(27, 1));
    assert_eq!(rows, everything(Plan::new(27, 1)));
    assert_ne!(rows.accounts, everything(Plan::new(27, 2)).accounts);
    let larger = everything(Plan::new(20_027, 1));
    assert_eq!(rows.cards, larger.cards[..rows.cards.len()]);
    assert_eq!(rows.users, larger.users[..rows.users.len()]);
    assert_eq!(rows.accounts, larger.accounts[..rows.accounts.len()]);
    assert_eq!(rows.limits, larger.limits[..rows.limits.len()]);
}

/// Values that must never change, or a second seeding of a store would add rows that differ from its first.
#[test]
fn a_load_card_is_what_it_always_was() {
    let draw = Plan::new(10, 1).draw();
    let posted: Vec<i64> = (1..=10).filter_map(|number| draw.account(number)).map(|account| account.posted).collect();
    assert_eq!(posted, [20_394, 19_194, 186_144, 141_530, 259_629, 3_502_800]);
}

#[test]
fn ids_lie_in_the_reserved_range_are_unique_and_leave_none_above_them() {
    let rows = everything(Plan::new(20_005, 7));
    for (table, ids) in [
        ("programs", rows.programs.iter().map(|row| row.id).collect::<Vec<_>>()),
        ("accounts", rows.accounts.iter().map(|row| row.id).collect()),
        ("users", rows.users.iter().map(|row| row.id).collect()),
        ("limits", rows.limits.iter().map(|row| row.id).collect()),
        ("cards", rows.cards.iter().map(|row| row.id).collect()),
    ] {
        let unique: BTreeSet<i64> = ids.iter().copied().collect();
        assert_eq!(unique.len(), ids.len(), "{table}");
        assert!(unique.iter().all(|id| ids::RESERVED.contains(id)), "{table}");
        assert_eq!(unique.last(), Some(ids::RESERVED.end()), "{table}");
    }
    assert!(ids::card_limit(ids::CARDS_MAX) < ids::of_program(10_000));
    assert_eq!(load::card_token(ids::CARDS_MAX).len(), load::card_token(1).len());
}

#[test]
fn every_row_points_at_rows_of_its_own_program() {
    let rows = everything(Plan::new(1_007, 1));
    let users: BTreeMap<i64, _> = rows.users.iter().map(|user| (user.id, user)).collect();
    let accounts: BTreeMap<i64, _> = rows.accounts.iter().map(|account| (account.id, account)).collect();
    for card in &rows.cards {
        assert_eq!(users[&card.user_id].program_id, card.program_id, "{}", card.token);
        assert_eq!(accounts[&card.account_id].program_id, card.program_id, "{}", card.token);
    }
    for limit in &rows.limits {
        let owned = match limit.owner {
            "card" => rows.cards.iter().any(|card| card.id == limit.owner_id),
            "user" => users.contains_key(&limit.owner_id),
            "account" => accounts.contains_key(&limit.owner_id),
            _ => rows.programs.iter().any(|program| program.id == limit.owner_id),
        };
        assert!(owned, "{limit:?}");
    }
    for funding in &rows.funding {
        assert_eq!(accounts[&funding.account_id].program_id, funding.program_id);
    }
}

#[test]
fn every_test_card_gets_the_outcome_it_is_for() {
    let mut simulation = Simulation::new(Plan::new(0, 1));
    for card in TEST_CARDS {
        for earlier in 0..card.sample.earlier {
            assert_eq!(simulation.decide(&card.request(&format!("{}-{earlier}", card.name))).0, Decision::Approved, "{}", card.name);
        }
        let outcome = simulation.decide(&card.request(card.name));
        assert_eq!(outcome, (card.sample.decision, card.sample.reason), "{}", card.name);
        if let Some(reason) = card.sample.reason {
            assert_eq!(reason.name(), card.name);
        }
    }
}

#[test]
fn every_business_reason_has_a_test_card_or_needs_none() {
    let mut missing: Vec<&str> = Vec::new();
    for reason in Reason::ALL.iter().filter(|reason| reason.class() == ReasonClass::Business) {
        if !TEST_CARDS.iter().any(|card| card.sample.reason == Some(*reason)) {
            missing.push(reason.name());
        }
    }
    // Any card shows these: an unknown token, somebody else's name, another currency.
    assert_eq!(missing, ["card_not_found", "user_not_found", "currency_mismatch"]);
}

#[test]
fn about_three_limits_bear_on_a_load_card() {
    let simulation = Simulation::new(Plan::new(2_000, 1));
    let counts: Vec<usize> = (1..=2_000).map(|number| simulation.limits_on(&load::card_token(number))).collect();
    let sum: usize = counts.iter().sum();
    assert!((6_000..7_000).contains(&sum), "{sum}");
    assert_eq!((counts.iter().min(), counts.iter().max()), (Some(&3), Some(&5)));
}

async fn scratch() -> (tempfile::TempDir, Target, SqliteConnection) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("scratch.db");
    std::fs::write(&path, "").unwrap();
    let mut connection = sqlite::open(&path).await.unwrap();
    sqlx::raw_sql(include_str!("scratch.sql")).execute(&mut connection).await.unwrap();
    (directory, Target::Sqlite { path }, connection)
}

async fn number(connection: &mut SqliteConnection, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn seeding_again_changes_nothing_and_a_larger_one_only_adds() {
    let (_directory, target, mut store) = scratch().await;
    let first = write(Plan::new(33, 1), &target, |_| ()).await.unwrap();
    assert_eq!(first.written, first.planned);
    let again = write(Plan::new(33, 1), &target, |_| ()).await.unwrap();
    assert_eq!((again.written, again.planned), (Counts::default(), first.planned));
    let larger = write(Plan::new(10_040, 1), &target, |_| ()).await.unwrap();
    assert_eq!(larger.written.cards, 10_007);

    for (sql, expected) in [
        ("select count(*) from cards", 10_040 + 19),
        ("select count(*) from (select transfer from entries group by 1 having sum(amount) <> 0)", 0),
        ("select count(*) from accounts a where posted <> (select coalesce(sum(amount), 0) from entries where account_id = a.id)", 0),
        ("select count(*) from accounts where kind = 'cardholder' and posted > 0 and id not in (select account_id from entries)", 0),
        ("select count(*) from accounts where posted < floor", 0),
        ("select count(*) from accounts where kind = 'funding' and posted < 0", 5),
    ] {
        assert_eq!(number(&mut store, sql).await, expected, "{sql}");
    }
}

#[tokio::test]
async fn rows_of_others_stay_as_they_are() {
    let (_directory, target, mut store) = scratch().await;
    write(Plan::new(10, 1), &target, |_| ()).await.unwrap();
    sqlx::raw_sql("update cards set status = 'lost' where token = 'crd_0000001'; update accounts set held = 7 where token = 'acc_0000001'")
        .execute(&mut store)
        .await
        .unwrap();
    write(Plan::new(20, 2), &target, |_| ()).await.unwrap();
    assert_eq!(number(&mut store, "select count(*) from cards where token = 'crd_0000001' and status = 'lost'").await, 1);
    assert_eq!(number(&mut store, "select held from accounts where token = 'acc_0000001'").await, 7);
}

#[tokio::test]
async fn a_store_without_schema_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("empty.db");
    let missing = write(Plan::new(1, 1), &Target::Sqlite { path: path.clone() }, |_| ()).await.unwrap_err();
    assert_eq!(missing.exit_code(), 69, "{missing}");
    std::fs::write(&path, "").unwrap();
    let empty = write(Plan::new(1, 1), &Target::Sqlite { path }, |_| ()).await.unwrap_err();
    assert_eq!(empty.exit_code(), 78, "{empty}");
    assert!(empty.to_string().contains("jitauth migrate"), "{empty}");
}
