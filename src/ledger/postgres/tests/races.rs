//! Two at once: who waits, who is told what, and that nothing is applied twice.

use super::world::{SEED, World, approve, committed, decline, failed, in_world, key, rejected, void_of};
use crate::{
    domain::{ids::AccountId, limits::Used, reason::Reason},
    ledger::{Commit, Ledger as _, LedgerError, Outcome, Voided, postgres::PgLedger},
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::time::Duration;
use tokio::time::sleep;

async fn run(connection: &mut PgConnection, sql: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(connection).await.unwrap();
}

/// Waits until some session of the database waits for a lock.
async fn until_somebody_waits(world: &World) {
    let waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    for _ in 0..2000 {
        if world.number(waiting).await > 0 {
            return;
        }
        sleep(Duration::from_millis(1)).await;
    }
    panic!("nobody waits");
}

async fn count(connection: &mut PgConnection, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(connection).await.unwrap()
}

/// Waits until the database has no more than so many sessions.
async fn until_sessions(connection: &mut PgConnection, wanted: i64) {
    let sessions = "select count(*) from pg_stat_activity where datname = current_database() and backend_type = 'client backend'";
    for _ in 0..2000 {
        if count(connection, sessions).await <= wanted {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
    panic!("the others stay");
}

fn patient(world: &World) -> PgLedger {
    let mut settings = super::settings(&world.url);
    settings.lock_timeout = Duration::from_millis(1400);
    PgLedger::new(std::sync::Arc::new(crate::ledger::postgres::connection::Server::new(&settings).unwrap()))
}

#[tokio::test]
async fn the_second_of_two_equal_ids_waits_and_learns_of_the_first() {
    in_world(SEED, |world| async move {
        for (index, first_commits) in [true, false].into_iter().enumerate() {
            let id = format!("auth-{index}");
            let (first, second) = (world.approval(&id, 1, 5, &[]).await, world.approval(&id, 2, 5, &[]).await);
            let mut stranger = world.stranger().await;
            run(&mut stranger, "begin").await;
            crate::ledger::postgres::commit::query(&first, true).fetch_all(&mut stranger).await.unwrap();
            let mut ledger = patient(&world);
            let before = world.held(2).await;
            let waiting = tokio::spawn(async move { (ledger.commit(&second, true).await, ledger) });
            until_somebody_waits(&world).await;
            run(&mut stranger, if first_commits { "commit" } else { "rollback" }).await;
            match waiting.await.unwrap().0.unwrap() {
                Outcome::Rejected(report) => {
                    assert!(first_commits);
                    // Same digest and same bytes here, so it counts as our own try.
                    assert_eq!((report.known.len(), report.known[0].response.clone()), (1, first.journal[0].response.clone()));
                    assert_eq!(world.held(2).await, before);
                }
                Outcome::Committed => assert!(!first_commits),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_lock_held_elsewhere_contends_and_is_named_without_waiting() {
    in_world(SEED, |world| async move {
        let mut ledger = world.store.ledger();
        let mut stranger = world.stranger().await;
        let mut commit = world.approval("auth-1", 1, 5, &[]).await;
        approve(&mut commit, &world.file(2).await, "auth-2", 5, &[]);
        let known = world.approval("known", 1, 7, &[]).await;
        committed(&mut ledger, &known).await;
        // A card being changed holds its account.
        run(&mut stranger, "begin; update cards set status = 'lost' where id = 5").await;
        assert!(matches!(failed(&mut ledger, &commit).await, LedgerError::Contended(_)));
        assert_eq!(rejected(&mut ledger, &commit, false).await.busy_accounts, [AccountId(1)]);
        // Neither a replay nor a decline waits for it.
        let mut replay = known.clone();
        replay.journal[0].response = b"again".as_slice().into();
        assert_eq!(rejected(&mut ledger, &replay, true).await.known.len(), 1);
        let mut declined = Commit::default();
        decline(&mut declined, Some(&world.file(1).await), "declined", 5, Reason::MccBlocked);
        committed(&mut ledger, &declined).await;
        run(&mut stranger, "rollback; begin; update programs set kyc_required = false").await;
        assert!(matches!(failed(&mut ledger, &commit).await, LedgerError::Contended(_)));
        let report = rejected(&mut ledger, &commit, false).await;
        assert!(report.busy_accounts.is_empty() && report.busy_programs.len() == 1, "{report:?}");
        run(&mut stranger, "rollback").await;
        assert_eq!(world.held(1).await, 7);
        assert!(matches!(ledger.commit(&commit, false).await, Ok(Outcome::Committed)));
        assert_eq!((world.held(1).await, world.held(2).await), (12, 5));
    })
    .await;
}

/// The freeze is acknowledged while the commit waits for the account: the commit must not approve on what it knew.
#[tokio::test]
async fn a_commit_that_waited_sees_the_change_it_waited_for() {
    in_world(SEED, |world| async move {
        for (index, change) in [
            "update cards set status = 'lost' where id = 1",
            "update users set status = 'suspended' where id = 1",
            "insert into limits (id, owner, owner_id, scope, period, cap_amount) values (9, 'account', 1, 'card', 'day', 1)",
            "delete from limits where id = 9",
            "update programs set kyc_required = not kyc_required",
        ]
        .into_iter()
        .enumerate()
        {
            let commit = world.approval(&format!("auth-{index}"), 1, 5, &[]).await;
            let mut stranger = world.stranger().await;
            run(&mut stranger, format!("begin; {change}")).await;
            let mut ledger = patient(&world);
            let waiting = tokio::spawn(async move { ledger.commit(&commit, true).await });
            until_somebody_waits(&world).await;
            run(&mut stranger, "commit").await;
            let Ok(Outcome::Rejected(report)) = waiting.await.unwrap() else { panic!("approved in spite of: {change}") };
            assert_eq!(report.cards.len() + report.programs.len(), 1, "{change}");
        }
        assert_eq!(world.held(1).await, 0);
    })
    .await;
}

/// A card whose insert is not committed yet cannot be seen by a change of its owners; the change has to wait for it.
#[tokio::test]
async fn a_change_of_owners_waits_for_cards_that_are_being_inserted() {
    in_world(SEED, |world| async move {
        for (card, change) in [
            (101, "update users set status = 'suspended' where id = 3"),
            (102, "update accounts set status = 'closed' where id = 3"),
            (103, "insert into limits (id, owner, owner_id, scope, period, cap_amount) values (20, 'user', 3, 'card', 'day', 1)"),
            (104, "insert into limits (id, owner, owner_id, scope, period, cap_amount) values (21, 'card', 104, 'card', 'day', 1)"),
            (105, "insert into limits (id, owner, owner_id, scope, period, cap_amount) select 100 + g, 'user', g, 'card', 'day', 1 from generate_series(1, 200) g"),
        ] {
            let mut stranger = world.stranger().await;
            run(&mut stranger, format!("begin; insert into cards (id, token, user_id, account_id, program_id, expires_at) values ({card}, 'crd_{card}', 3, 3, 1, 4000000000000000)")).await;
            let changer = world.clone();
            let waiting = tokio::spawn(async move { changer.sql(change).await });
            until_somebody_waits(&world).await;
            run(&mut stranger, "commit").await;
            let first = world.number(&format!("select max(version) from cards where id = {card}")).await;
            waiting.await.unwrap();
            let version = world.file(card).await.card.version;
            let latest = world.number("select max(version) from cards").await;
            assert!(version >= first && version > latest - 20, "{change}");
            let mut ledger = world.store.ledger();
            let mut stale = world.approval(&format!("auth-{card}"), card, 1, &[]).await;
            stale.cards[0].version = version - 1;
            stale.journal[0].card_version = version - 1;
            assert_eq!(rejected(&mut ledger, &stale, true).await.cards.len(), 1);
        }
    })
    .await;
}

#[tokio::test]
async fn a_counter_created_by_two_at_once_keeps_its_cap() {
    in_world(SEED, |world| async move {
        let mut tasks = Vec::new();
        for lane in 0..4i64 {
            let world = world.clone();
            tasks.push(tokio::spawn(async move {
                let mut ledger = patient(&world);
                let mut approved = 0;
                for round in 0..20i64 {
                    // Every round opens a new window of 5,000 for the whole program, and asks for 4 times 2,000.
                    let key = key(1, 1000 + round, 0);
                    let mut commit = world.approval(&format!("auth-{lane}-{round}"), lane + 1, 20, &[key]).await;
                    commit.counters[0].add = Used { amount: 2000, count: 1 };
                    loop {
                        match ledger.commit(&commit, true).await {
                            Ok(Outcome::Committed) => approved += 1,
                            Ok(Outcome::Rejected(report)) if report.is_empty() => continue,
                            Ok(Outcome::Rejected(report)) => assert_eq!(report.counters, [(key, Used { amount: 4000, count: 2 })]),
                            Err(LedgerError::Contended(_) | LedgerError::Transient(_)) => continue,
                            Err(error) => panic!("{error}"),
                        }
                        break;
                    }
                }
                approved
            }));
        }
        let mut approved = 0;
        for task in tasks {
            approved += task.await.unwrap();
        }
        assert_eq!(approved, 40);
        assert_eq!(world.number("select count(*) from counters where amount = 4000 and count = 2").await, 20);
    })
    .await;
}

#[tokio::test]
async fn a_replay_and_a_void_at_once_agree() {
    in_world(SEED, |world| async move {
        let mut lanes = (world.store.ledger(), world.store.ledger());
        let (mut stood, mut gone) = (0, 0);
        for round in 0..60 {
            let commit = world.approval(&format!("auth-{round}"), 1, 5, &[key(2, 1, 0)]).await;
            committed(&mut lanes.0, &commit).await;
            let (void, mut replay) = (void_of(&commit), commit.clone());
            replay.journal[0].response = b"again".as_slice().into();
            // Each side starts first in turn; in the first two rounds so early that both orders happen on any machine.
            let late = if round < 2 { 500 } else { round % 3 };
            let first = |yes: bool| Duration::from_millis(if yes { 0 } else { late });
            let (voided, replayed) = tokio::join!(
                async {
                    sleep(first(round % 2 == 0)).await;
                    lanes.0.void(&void).await
                },
                async {
                    sleep(first(round % 2 == 1)).await;
                    rejected(&mut lanes.1, &replay, true).await
                }
            );
            let sent = &replayed.known[0].response;
            match voided.unwrap() {
                Voided::Done => {
                    gone += 1;
                    assert_eq!(*sent, void.decline);
                }
                Voided::Stands(bytes) => {
                    stood += 1;
                    assert_eq!((sent, &bytes), (&commit.journal[0].response, &commit.journal[0].response));
                }
            }
            assert_eq!(world.held(1).await, stood * 5);
        }
        assert!(stood > 0 && gone > 0, "{stood} stood, {gone} voided");
        assert_eq!(world.number("select coalesce(sum(amount), 0)::bigint from counters").await, stood * 5);
    })
    .await;
}

/// The backend is stopped by a lock and killed. Whatever it was doing is over before the same group is sent again.
#[tokio::test]
async fn an_unknown_outcome_is_settled_by_sending_again() {
    in_world(SEED, |world| async move {
        let mut ledger = patient(&world);
        let commit = world.approval("auth-1", 1, 5, &[]).await;
        let mut stranger = world.stranger().await;
        run(&mut stranger, "begin; select 1 from accounts where id = 1 for update").await;
        let call = async {
            let lost = failed(&mut ledger, &commit).await;
            assert!(matches!(lost, LedgerError::Unknown(_)), "{lost}");
        };
        let kill = async {
            until_somebody_waits(&world).await;
            world.sql("select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()").await;
        };
        tokio::join!(call, kill);
        run(&mut stranger, "rollback").await;
        committed(&mut ledger, &commit).await;
        assert!(rejected(&mut ledger, &commit, true).await.known[0].own);
        assert_eq!(world.held(1).await, 5);
    })
    .await;
}

/// A call that is dropped half way leaves a backend at work: it is ended before the next call, and what it did is found.
#[tokio::test]
async fn a_dropped_call_cannot_be_applied_later() {
    in_world(SEED, |world| async move {
        let mut ledger = patient(&world);
        committed(&mut ledger, &world.approval("warm", 2, 5, &[]).await).await;
        let commit = world.approval("auth-1", 1, 5, &[]).await;
        let mut stranger = world.stranger().await;
        run(&mut stranger, "begin; select 1 from accounts where id = 1 for update").await;
        assert!(tokio::time::timeout(Duration::from_millis(100), ledger.commit(&commit, true)).await.is_err());
        assert_eq!(
            world.number("select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()").await,
            1
        );
        // Another group goes through at once: the zombie was ended although the lock is still held.
        committed(&mut ledger, &world.approval("auth-2", 2, 5, &[]).await).await;
        run(&mut stranger, "rollback").await;
        sleep(Duration::from_millis(100)).await;
        assert_eq!(world.number("select count(*) from authorizations where id = 'auth-1'").await, 0);
        assert_eq!(world.held(1).await, 0);
    })
    .await;
}

/// The group was applied, its answer was lost, and asking for it fails: that stays unknown, it is no definite "nothing applied".
#[tokio::test]
async fn a_lost_call_that_was_applied_is_never_denied() {
    in_world(SEED, |world| async move {
        let commit = world.approval("auth-1", 1, 5, &[]).await;
        // The commit waits inside its transaction's end, where a timeout cannot reach it: a deferred trigger that sleeps.
        world
            .sql(
                "create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.4); return null; end $$;
                 create constraint trigger slow after insert on authorizations deferrable initially deferred for each row execute function slow()",
            )
            .await;
        let mut ledger = patient(&world);
        committed(&mut ledger, &world.approval("warm", 2, 5, &[]).await).await;
        let dropped = tokio::time::timeout(Duration::from_millis(150), ledger.commit(&commit, true)).await;
        assert!(dropped.is_err());
        sleep(Duration::from_millis(600)).await;
        assert_eq!(world.number("select count(*) from authorizations where id = 'auth-1'").await, 1);
        let mut stranger = world.stranger().await;
        run(&mut stranger, "begin; lock table holds, counters; select 1 from authorizations where id = 'auth-1' for update").await;
        let mut other = commit.clone();
        other.journal[0].response = b"decided again".as_slice().into();
        assert!(matches!(failed(&mut ledger, &other).await, LedgerError::Unknown(_)));
        run(&mut stranger, "rollback").await;
        assert!(rejected(&mut ledger, &commit, true).await.known[0].own);
        assert!(stranger.ping().await.is_ok());
    })
    .await;
}

/// A plan made on empty tables and kept must not walk them when they have grown: counted by the server.
#[tokio::test]
async fn plans_made_on_empty_tables_stay_right() {
    in_world(SEED, |world| async move {
        // The server's own visits to a table that has grown are counted with ours.
        for table in ["accounts", "counters", "limits", "cards", "authorizations", "holds"] {
            world.sql(format!("alter table {table} set (autovacuum_enabled = off)")).await;
        }
        let mut ledger = world.store.ledger();
        let keys = [key(1, 5, 7), key(2, 9, 7), key(3, 70_000, 7)];
        for round in 0..8 {
            committed(&mut ledger, &world.approval(&format!("small-{round}"), 2, 1, &keys).await).await;
        }
        world
            .sql(
                "insert into counters select l, g, 7, 1, 1 from generate_series(1, 100000) g, generate_series(1, 3) l on conflict do nothing;
                 insert into accounts (id, token, program_id, currency) select g, 'acc_' || g, 1, 'USD' from generate_series(10, 50000) g;
                 insert into limits (id, owner, owner_id, scope, period) select g, 'user', 4, 'user', 'day' from generate_series(10, 50000) g",
            )
            .await;
        let walked = "select coalesce(sum(heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit), 0)::bigint from pg_statio_user_tables where relname in ('accounts', 'counters', 'limits', 'cards')";
        let scans = "select coalesce(sum(seq_scan), 0)::bigint from pg_stat_user_tables where relname in ('accounts', 'counters', 'limits', 'cards', 'authorizations', 'holds')";
        let mut commits = Vec::new();
        for round in 0..8 {
            commits.push(world.approval(&format!("large-{round}"), 2, 1, &keys).await);
        }
        // Sessions report what they did at their end at the latest.
        let mut stranger = world.stranger().await;
        drop(world);
        until_sessions(&mut stranger, 2).await;
        let before = (count(&mut stranger, walked).await, count(&mut stranger, scans).await);
        for commit in &commits {
            committed(&mut ledger, commit).await;
        }
        drop(ledger);
        until_sessions(&mut stranger, 1).await;
        let blocks = (count(&mut stranger, walked).await - before.0) / 8;
        assert!(blocks > 0 && blocks < 100, "{blocks} blocks a commit");
        assert_eq!(count(&mut stranger, scans).await - before.1, 0, "sequential scans");
    })
    .await;
}
