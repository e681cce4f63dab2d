//! What the PostgreSQL ledger promises, on a real server.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

mod races;
mod torture;
mod world;

use crate::{
    domain::{decision::Decision, facts::Balance, ids::AccountId, limits::Used, reason::Reason},
    facts::FactSource as _,
    ledger::{Commit, Ledger as _, LedgerError, Voided},
};
use world::{
    CARD_1, PROGRAM, SEED, approve, claim_counter, claim_funds, committed, decline, entry, failed, in_world, key, rejected, request,
    settings, token, void_of,
};

#[tokio::test]
async fn an_approval_holds_charges_and_is_journaled() {
    in_world(SEED, |world| async move {
        let mut ledger = world.store.ledger();
        let keys = [key(1, 1, 86_400), key(2, 1, 0), key(3, 1, 86_400)];
        let mut commit = world.approval("auth-1", 1, 700, &keys).await;
        approve(&mut commit, &world.file(5).await, "auth-2", 300, &keys[1..]);
        decline(&mut commit, Some(&world.file(2).await), "auth-3", 50, Reason::MccBlocked);
        committed(&mut ledger, &commit).await;
        let read = ledger.positions(&[AccountId(1), AccountId(2), AccountId(77)], &[keys[0], keys[1], key(2, 9, 9)]).await.unwrap();
        assert_eq!(read.accounts.len(), 2);
        assert_eq!(read.accounts[&AccountId(1)], Balance { posted: 10_000, held: 1000, floor: 0 });
        assert_eq!(read.counters.len(), 2);
        assert_eq!(read.counters[&keys[0]], Used { amount: 700, count: 1 });
        assert_eq!(read.counters[&keys[1]], Used { amount: 1000, count: 2 });
        for (count, expected) in [
            ("select count(*) from holds where status = 1", 2),
            ("select count(*) from authorizations where charges is not null and decision = 1 and reason is null", 2),
            ("select count(*) from authorizations where decision = 0 and reason = 210 and amount = 0 and requested = 50", 1),
            ("select count(*) from authorizations a join holds h on h.authorization_id = a.id and h.amount = a.amount", 2),
        ] {
            assert_eq!(world.number(count).await, expected, "{count}");
        }
        // The same again is our own; with other bytes it is a replay, with another digest a conflict, and only the replay is counted.
        let again = rejected(&mut ledger, &commit, true).await;
        assert!(again.known.len() == 3 && again.known.iter().all(|known| known.own));
        assert_eq!(world.number("select sum(replays) from authorizations").await, 0);
        let mut replay = world.approval("auth-1", 1, 700, &keys).await;
        replay.journal[0].response = b"decided again".as_slice().into();
        let known = rejected(&mut ledger, &replay, true).await.known.remove(0);
        assert!(!known.own && known.response == commit.journal[0].response && known.decision == Decision::Approved);
        replay.journal[0].digest[15] ^= 1;
        let known = rejected(&mut ledger, &replay, true).await.known.remove(0);
        assert!(!known.own && known.digest == commit.journal[0].digest);
        assert_eq!(world.number("select sum(replays)::bigint from authorizations").await, 1);
    })
    .await;
}

/// Every change of a fact by plain SQL refuses a commit decided before it, and nothing is applied.
#[tokio::test]
async fn stale_facts_refuse_whoever_changed_them() {
    in_world(SEED, |world| async move {
        let mut ledger = world.store.ledger();
        for (index, (change, card, program)) in [
            ("update cards set status = 'inactive' where id = 1", true, false),
            ("update cards set status = 'active' where id = 1", true, false),
            ("update users set status = 'suspended' where id = 1", true, false),
            ("update users set status = 'active', kyc = 'pending' where id = 1", true, false),
            ("update accounts set status = 'closed' where id = 1", true, false),
            ("update accounts set status = 'open' where id = 1", true, false),
            ("insert into limits (id, owner, owner_id, scope, period, cap_amount) values (10, 'card', 1, 'card', 'day', 5)", true, false),
            ("update limits set cap_amount = 50 where id = 10", true, false),
            ("update limits set owner = 'account' where id = 10", true, false),
            ("delete from limits where id = 10", true, false),
            ("update limits set cap_amount = 9000 where id = 3", true, false),
            ("insert into limits (id, owner, owner_id, scope, period, cap_amount) values (11, 'program', 1, 'card', 'day', 5)", false, true),
            ("update limits set owner = 'card', owner_id = 1 where id = 11", true, true),
            ("update programs set kyc_required = false", false, true),
            ("truncate limits", true, true),
            ("create temp table c as select * from cards where id = 1; delete from cards where id = 1; insert into cards select * from c; drop table c", true, false),
            ("delete from cards where id = 1", true, false),
        ]
        .into_iter()
        .enumerate()
        {
            let commit = world.approval(&format!("auth-{index}"), 1, 10, &[]).await;
            let other = world.approval(&format!("other-{index}"), 2, 10, &[]).await;
            world.sql(change).await;
            let report = rejected(&mut ledger, &commit, true).await;
            assert_eq!((report.cards == [CARD_1], report.programs == [PROGRAM]), (card, program), "{change}: {report:?}");
            if !program {
                committed(&mut ledger, &other).await;
            }
        }
        assert_eq!(world.held(1).await, 0);
        // Money is no fact.
        let commit = world.approval("money", 2, 10, &[]).await;
        world.sql("update accounts set posted = posted + 5, held = held + 5, floor = -5").await;
        committed(&mut ledger, &commit).await;
    })
    .await;
}

#[tokio::test]
async fn a_decline_is_refused_when_it_is_not_true_any_more() {
    in_world(SEED, |world| async move {
        let mut ledger = world.store.ledger();
        let file = world.file(1).await;
        // A card that did not exist does.
        let mut absent = Commit { absent: vec![token(999)], ..Commit::default() };
        decline(&mut absent, None, "absent", 10, Reason::CardNotFound);
        world.sql("insert into cards (id, token, user_id, account_id, program_id, expires_at) values (999, 'crd_999', 1, 1, 1, 1)").await;
        assert_eq!(rejected(&mut ledger, &absent, true).await.appeared, [token(999)]);
        world.sql("delete from cards where id = 999").await;
        committed(&mut ledger, &absent).await;
        // Claims of funds and caps, each just true and just wrong. Each is relative to the values after its group.
        for (index, (need, holds)) in [(10_001, true), (10_000, false)].into_iter().enumerate() {
            let mut commit = Commit::default();
            decline(&mut commit, Some(&file), &format!("funds-{index}"), need, Reason::InsufficientFunds);
            claim_funds(&mut commit, 1, need);
            if holds {
                committed(&mut ledger, &commit).await;
            } else {
                let report = rejected(&mut ledger, &commit, true).await;
                assert_eq!(report.accounts, [(AccountId(1), Balance { posted: 10_000, held: 0, floor: 0 })]);
            }
        }
        world.sql("insert into counters values (1, 1, 0, 4000, 20)").await;
        for (index, (limit, amount, count, holds)) in [
            (1, Some(1001), None, true),
            (1, Some(1000), None, false),
            (1, None, Some(1), true),
            (1, Some(1001), Some(1), true),
            (1, Some(1000), Some(1), false),
            (2, Some(50_001), None, true),
            (2, None, Some(1), false), // no cap on the count
        ]
        .into_iter()
        .enumerate()
        {
            let mut commit = Commit::default();
            decline(&mut commit, Some(&file), &format!("cap-{index}"), 1, Reason::AmountLimit);
            claim_counter(&mut commit, key(limit, 1, 0), amount, count);
            if holds {
                committed(&mut ledger, &commit).await;
            } else {
                let report = rejected(&mut ledger, &commit, true).await;
                let used = if limit == 1 { Used { amount: 4000, count: 20 } } else { Used::default() };
                assert_eq!(report.counters, [(key(limit, 1, 0), used)], "{index}");
            }
        }
        // In one group: 9,000 held, so 1,001 more would not fit.
        let mut commit = world.approval("together", 1, 9000, &[]).await;
        decline(&mut commit, Some(&file), "together-2", 1001, Reason::InsufficientFunds);
        claim_funds(&mut commit, 1, 1001);
        committed(&mut ledger, &commit).await;
    })
    .await;
}

#[tokio::test]
async fn guards_stop_at_floor_and_caps_and_name_fresh_values() {
    in_world(SEED, |world| async move {
        let mut ledger = world.store.ledger();
        let full = key(1, 1, 0);
        world.sql("insert into counters values (1, 1, 0, 4990, 19), (1, 2, 0, 0, 20)").await;
        for (index, (card, amount, keys, fits)) in [
            (1, 10_001, vec![], false),
            (1, 11, vec![full], false),
            (1, 5001, vec![key(1, 1, 5)], false), // the insert arm
            (2, 1, vec![key(1, 2, 0)], false),
            (1, 10, vec![full, key(1, 1, 5)], true),
            (1, 9990, vec![], true),
            (1, 1, vec![], false),
        ]
        .into_iter()
        .enumerate()
        {
            let before = world.held(card).await;
            let commit = world.approval(&format!("auth-{index}"), card, amount, &keys).await;
            if fits {
                committed(&mut ledger, &commit).await;
                continue;
            }
            let report = rejected(&mut ledger, &commit, true).await;
            assert_eq!(report.accounts.len() + report.counters.len(), 1, "{index} {report:?}");
            assert_eq!(world.held(card).await, before, "{index}");
        }
        let report = rejected(&mut ledger, &world.approval("fresh", 1, 5001, &[key(1, 1, 9)]).await, true).await;
        assert_eq!(report.counters, [(key(1, 1, 9), Used::default())]);
        assert_eq!(report.accounts, [(AccountId(1), Balance { posted: 10_000, held: 10_000, floor: 0 })]);
        // A limit that is gone without a trace sends the lane back to the facts.
        let commit = world.approval("gone", 2, 1, &[key(2, 1, 0)]).await;
        world.sql("set session_replication_role = replica; delete from limits where id = 2; set session_replication_role = origin").await;
        assert_eq!(rejected(&mut ledger, &commit, true).await.cards.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn extreme_sums_neither_raise_nor_wrap() {
    in_world(SEED, |world| async move {
        let mut ledger = world.store.ledger();
        let (most, least) = (i64::MAX, i64::MIN);
        for (index, (posted, held, floor, count, amount, fits)) in [
            (most, 0, least, 0, 999_999_999_999, true),
            (most, most - 5, least, 0, 6, false),
            (most, most - 5, least, 0, 5, true),
            (most, 0, 0, 0, most, true),
            (least, 0, 0, 0, 1, false),
            (least, most, most, 0, most, false),
            (least, 0, least, 0, 1, false),
            (most, 0, 0, most - 3, 4, false),
            (most, 0, 0, most - 3, 3, true),
        ]
        .into_iter()
        .enumerate()
        {
            world
                .sql(format!("update accounts set posted = {posted}, held = {held}, floor = {floor} where id = 1; truncate counters"))
                .await;
            world.sql("update limits set cap_amount = null, cap_count = null where id = 2").await;
            world.sql(format!("insert into counters values (2, 1, 0, {count}, {count})")).await;
            let commit = world.approval(&format!("auth-{index}"), 1, amount, &[key(2, 1, 0)]).await;
            if fits {
                committed(&mut ledger, &commit).await;
                assert_eq!(world.held(1).await, held + amount, "{index}");
            } else {
                let report = rejected(&mut ledger, &commit, true).await;
                assert_eq!(report.accounts.len() + report.counters.len(), 1, "{index} {report:?}");
            }
            let mut claim = Commit::default();
            decline(&mut claim, Some(&world.file(1).await), &format!("claim-{index}"), 1, Reason::InsufficientFunds);
            claim_funds(&mut claim, 1, most);
            claim_counter(&mut claim, key(2, 1, 0), Some(most), None);
            let report = rejected(&mut ledger, &claim, true).await;
            assert!(report.counters.len() == 1, "{index} {report:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_void_frees_everything_once_and_never_after_a_replay() {
    in_world(SEED, |world| async move {
        let mut ledger = world.store.ledger();
        let keys = [key(1, 1, 0), key(2, 1, 0)];
        let mut commit = world.approval("late", 1, 700, &keys).await;
        commit.journal[0].unheard = true;
        committed(&mut ledger, &commit).await;
        let void = void_of(&commit);
        for _ in 0..2 {
            assert!(matches!(ledger.void(&void).await, Ok(Voided::Done)));
            let read = ledger.positions(&[AccountId(1)], &keys).await.unwrap();
            assert_eq!(read.accounts[&AccountId(1)].held, 0);
            assert!(read.counters.values().all(|used| *used == Used::default()));
        }
        assert_eq!(
            world.number("select count(*) from authorizations a join holds h on h.authorization_id = a.id where h.status = 3 and a.decision = 0 and a.reason = 80 and a.amount = 0 and a.charges is null and not a.unheard").await,
            1
        );
        // A replay reads the decline from now on.
        let mut replay = commit.clone();
        replay.journal[0].response = b"again".as_slice().into();
        let known = rejected(&mut ledger, &replay, true).await.known.remove(0);
        assert!(known.response == void.decline && known.decision == Decision::Declined);
        // Replayed first: the approval stands, and the void says so for ever.
        let commit = world.approval("heard", 1, 700, &keys).await;
        committed(&mut ledger, &commit).await;
        let mut replay = commit.clone();
        replay.journal[0].response = b"again".as_slice().into();
        assert_eq!(rejected(&mut ledger, &replay, true).await.known.len(), 1);
        for replays in [2, 3] {
            let Ok(Voided::Stands(bytes)) = ledger.void(&void_of(&commit)).await else { panic!("voided after a replay") };
            assert_eq!(bytes, commit.journal[0].response);
            assert_eq!(world.number("select replays::bigint from authorizations where id = 'heard'").await, replays);
        }
        assert_eq!(world.held(1).await, 700);
        // A hold that somebody else has released is not given back twice.
        let commit = world.approval("released", 1, 5, &[]).await;
        committed(&mut ledger, &commit).await;
        world.sql("update holds set status = 2 where authorization_id = 'released'").await;
        assert!(matches!(ledger.void(&void_of(&commit)).await, Ok(Voided::Stands(_))));
        assert_eq!(world.held(1).await, 705);
        ledger.mark_unheard(&request("heard")).await.unwrap();
        ledger.mark_unheard(&request("late")).await.unwrap();
        assert_eq!(world.number("select count(*) from authorizations where unheard and id = 'heard'").await, 1);
        assert_eq!(world.number("select count(*) from authorizations where unheard").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_poisoned_group_is_refused_whole() {
    in_world(SEED, |world| async move {
        let mut ledger = world.store.ledger();
        let mut commit = world.approval("poison", 1, 5, &[]).await;
        commit.journal[0].charges = Some("not json".to_owned());
        assert!(matches!(failed(&mut ledger, &commit).await, LedgerError::Refused(_)));
        commit.journal[0].charges = None;
        committed(&mut ledger, &commit).await;
        assert_eq!(world.held(1).await, 5);
        // Sums and versions that do not fit the journal are never sent.
        let whole = world.approval("whole", 1, 5, &[]).await;
        for spoil in [
            |commit: &mut Commit| commit.accounts[0].held = 4,
            |commit: &mut Commit| commit.accounts.clear(),
            |commit: &mut Commit| commit.programs.clear(),
            |commit: &mut Commit| commit.journal.push(commit.journal[0].clone()),
        ] {
            let mut spoilt = whole.clone();
            spoil(&mut spoilt);
            assert!(matches!(failed(&mut ledger, &spoilt).await, LedgerError::Refused(text) if text.contains("contradicts")));
        }
        let mut serializable = world.stranger().await;
        sqlx::raw_sql("set default_transaction_isolation = 'repeatable read'").execute(&mut serializable).await.unwrap();
        let error = super::commit::query(&commit, true).fetch_all(&mut serializable).await.unwrap_err();
        assert!(error.to_string().contains("READ COMMITTED"), "{error}");
        // Nor may facts be changed on an old snapshot: cards that came since would be missed.
        for change in [
            "update users set status = 'suspended' where id = 1",
            "update cards set status = 'inactive' where id = 1",
            "update accounts set status = 'closed' where id = 1",
            "update programs set kyc_required = true",
            "delete from limits",
        ] {
            let error = sqlx::raw_sql(change).execute(&mut serializable).await.unwrap_err();
            assert!(error.to_string().contains("READ COMMITTED"), "{change}: {error}");
        }
        sqlx::raw_sql("update accounts set posted = posted + 1 where id = 1").execute(&mut serializable).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn rows_that_mean_nothing_are_refused_whoever_writes_them() {
    in_world(SEED, |world| async move {
        committed(&mut world.store.ledger(), &world.approval("held", 1, 5, &[key(1, 1, 0)]).await).await;
        let mut psql = world.stranger().await;
        for (change, named) in [
            ("update accounts set kind = 'savings' where id = 1", "acc_1"),
            ("update accounts set currency = 'usd' where id = 1", "acc_1"),
            ("update accounts set status = 'frozen' where id = 1", "acc_1"),
            ("insert into accounts (id, token, program_id, currency) values (9, 'acc_9', 1, 'US')", "acc_9"),
            ("update accounts set held = -1 where id = 1", "held"),
            ("update holds set amount = 0 where authorization_id = 'held'", "held"),
            ("update holds set status = 4 where authorization_id = 'held'", "held"),
            ("update counters set amount = -1", "counters"),
            ("update counters set count = -1", "counters"),
        ] {
            let error = sqlx::raw_sql(change).execute(&mut psql).await.unwrap_err();
            let text = error.to_string();
            let code = error.into_database_error().unwrap().code().unwrap().into_owned();
            assert!(code == "23514" && text.contains(named), "{change}: {code} {text}");
        }
        for change in ["update accounts set status = 'closed' where id = 2", "update holds set status = 2 where authorization_id = 'held'"]
        {
            sqlx::raw_sql(change).execute(&mut psql).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_version_never_repeats() {
    in_world(SEED, |world| async move {
        let mut seen = std::collections::HashSet::from([world.file(1).await.card.version]);
        let save = "create table saved as select * from cards where id = 1";
        world.sql(save).await;
        for change in [
            "update cards set status = status where id = 1",
            "update cards set version = 1 where id = 1",
            "delete from cards where id = 1; insert into cards select * from saved",
            "update users set kyc = kyc where id = 1",
        ] {
            world.sql(change).await;
            assert!(seen.insert(world.file(1).await.card.version), "{change}");
        }
    })
    .await;
}

#[tokio::test]
async fn facts_come_in_one_document() {
    in_world(SEED, |world| async move {
        world
            .sql("insert into limits (id, owner, owner_id, scope, period, filter, cap_amount) values (4, 'card', 1, 'card', 'transaction', '{\"mccs\": {\"only\": [\"5411\"]}}', 7), (5, 'account', 1, 'account', 'week', '{}', null)")
            .await;
        let file = world.file(1).await;
        assert_eq!(file.card.limits.iter().map(|limit| limit.id.0).collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(file.program.limits.iter().map(|limit| limit.id.0).collect::<Vec<_>>(), [1, 2]);
        assert!(file.user.active && file.card.account.open && file.program.kyc_required);
        assert!(world.store.fetch(&token(404)).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn bulk_inserts_are_fast() {
    in_world(SEED, |world| async move {
        let started = tokio::time::Instant::now();
        world
            .sql(
                "insert into users (id, token, program_id) select g, 'usr_' || g, 1 from generate_series(1001, 101000) g;
                 insert into accounts (id, token, program_id, currency) select g, 'acc_' || g, 1, 'USD' from generate_series(1001, 101000) g;
                 insert into limits (id, owner, owner_id, scope, period, cap_amount)
                   select g, 'user', g, 'user', 'day', 5 from generate_series(1001, 101000) g;
                 insert into cards (id, token, user_id, account_id, program_id, expires_at)
                   select g, 'crd_' || g, g, g, 1, 1 from generate_series(1001, 101000) g;",
            )
            .await;
        let inserted = started.elapsed();
        // No statistics yet: facts and commits must not scan.
        let started = tokio::time::Instant::now();
        let mut ledger = world.store.ledger();
        for card in 2000..2200 {
            committed(&mut ledger, &declined(&world, card).await).await;
        }
        let decided = started.elapsed();
        eprintln!("100,000 users, accounts, limits, cards: {inserted:?}; 200 facts and commits after it: {decided:?}");
        assert!(inserted.as_secs() < 30 && decided.as_secs() < 5, "{inserted:?} {decided:?}");
    })
    .await;
}

async fn declined(world: &world::World, card: i64) -> Commit {
    let file = world.file(card).await;
    let mut commit = Commit::default();
    commit.cards.clear();
    decline(&mut commit, Some(&file), &format!("auth-{card}"), 1, Reason::CardExpired);
    assert_eq!(commit.journal[0].id, entry(Some(&file), &format!("auth-{card}"), 1, None).id);
    commit
}

#[tokio::test]
async fn connecting_tells_unreachable_from_refused() {
    in_world("", |world| async move {
        let closed = world.url.replace(":5432/", ":1/");
        if closed != world.url {
            let error = super::Postgres::connect(&settings(&closed)).await.expect_err("nobody listens");
            assert!(matches!(error, super::StoreError::Unreachable(_)), "{error}");
        }
        let (base, _) = world.url.rsplit_once('/').unwrap();
        let error = super::Postgres::connect(&settings(&format!("{base}/jit_test_none"))).await.expect_err("no such database");
        assert!(matches!(error, super::StoreError::Refused(_)), "{error}");
        world.sql("do $$ begin execute 'alter database ' || current_database() || ' set default_transaction_read_only = on'; end $$").await;
        let error = super::Postgres::connect(&settings(&world.url)).await.expect_err("read-only");
        assert!(matches!(&error, super::StoreError::Unreachable(text) if text.contains("read-only")), "{error}");
        assert!(world.store.durability().synchronous_commit != "off" && world.store.server_version() >= 140_000);
    })
    .await;
}
