//! What a daemon may do wrong, planted into a store that a pipeline has written, on both stores.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use super::*;
use crate::{
    bench::{
        record::Outcome,
        run,
        scenario::{Arrival, Funds, Mix, Scenario},
        scratch::Scratch,
        targets::inproc::Inproc,
        traffic::Ids,
    },
    domain::reason::Reason,
    facts::memory,
    ledger::{Store, postgres, postgres::Postgres, sqlite, sqlite::Sqlite},
    pipeline,
};
use futures_util::FutureExt as _;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};
use std::{panic::AssertUnwindSafe, path::Path, sync::Arc, time::Duration};
use tempfile::TempDir;

const RUN: &str = "bench-proof";

/// A store after a run, and what the run's client knows.
struct World {
    store: Location,
    records: Vec<Arc<Record>>,
}

fn scenario(rate_per_s: u32) -> Scenario {
    Scenario {
        rate_per_s,
        duration: Duration::from_secs(1),
        warm_up: Duration::ZERO,
        arrival: Arrival::Constant,
        cards: 60,
        funds: Funds::AsSeeded,
        mix: Mix { replay: 50, unknown_card: 30, wrong_user: 30, wrong_currency: 30, test_card: 300 },
        replay_back_min: 20,
        deadline: Duration::from_secs(10),
        ..Scenario::default()
    }
}

fn pipeline_settings(lanes: usize) -> pipeline::Settings {
    pipeline::Settings {
        lanes,
        batch_max: 64,
        lane_queue_max: 4_096,
        in_flight_max: 4_096,
        book_accounts_max: 100_000,
        book_counters_max: 100_000,
        deadline_default: Duration::from_secs(2),
        deadline_reserve: Duration::from_millis(50),
        shed_before: Duration::from_millis(50),
        fact_tries: 3,
        drain_timeout: Duration::from_secs(10),
    }
}

fn memory_settings() -> memory::Settings {
    memory::Settings { bytes_max: 64 << 20, ttl: Duration::from_secs(60), absent_ttl: Duration::from_secs(1) }
}

/// One stretch of load, decided by a pipeline in this process.
async fn decided<S: Store>(scenario: &Scenario, name: &str, store: &S, settings: pipeline::Settings) -> Arc<Record> {
    let record = run::record(scenario, Ids::new(name));
    let (inproc, running) = Inproc::start(settings, memory_settings(), None, store).await;
    let target = Arc::new(inproc);
    run::send(scenario, &record, Arc::<Inproc<S>>::clone(&target) as _, &mut |_| ()).await.unwrap();
    target.idle().await;
    drop(target);
    running.finish().await;
    record
}

fn sqlite_at(directory: &Path, name: &str) -> sqlite::Settings {
    let path = directory.join(name);
    sqlite::Settings { path, readers: 1, busy_timeout: Duration::from_secs(5), autocheckpoint_pages: 1_000 }
}

async fn on_sqlite(directory: &Path) -> World {
    let settings = sqlite_at(directory, "sound.db");
    let (store, scenario) = (Location::Sqlite(settings.clone()), scenario(500));
    Scratch::new(store.clone()).make(&scenario).await.unwrap();
    let opened = Sqlite::open(&settings).await.unwrap();
    let records = vec![decided(&scenario, RUN, &opened, pipeline_settings(1)).await];
    World { store, records }
}

fn postgres_at(server: &str, name: &str) -> postgres::Settings {
    let (base, query) = server.split_once('?').unwrap_or((server, ""));
    postgres::Settings {
        url: format!("{}/{name}?{query}", base.rsplit_once('/').unwrap().0),
        pool_min: 0,
        pool_max: 4,
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(30),
        query_timeout: Duration::from_secs(30),
        commit_timeout: Duration::from_millis(1500),
        lock_timeout: Duration::from_millis(60),
    }
}

impl World {
    fn told(&self) -> Vec<Told<'_>> {
        self.records.iter().map(|record| Told::of(record)).collect()
    }

    async fn verdict(&self, store: &Location, owner: Owner) -> Proof {
        check(store, owner, RUN, &self.told()).await.unwrap()
    }
}

/// Where versions of facts are what they were when it was decided: the change was there before.
const BEFORE: &str = "update authorizations set
    card_version = (select version from cards where cards.id = authorizations.card_id),
    program_version = (select version from programs where programs.id = authorizations.program_id) where card_id is not null";
const APPROVAL: &str = "(select min(id) from authorizations where decision = 1)";
const DECLINE: &str = "(select min(id) from authorizations where decision = 0 and card_id is not null)";
const COLUMNS: &str = "digest, card, card_id, account_id, program_id, requested, amount, currency, decision, reason, response, card_version,
    program_version, mcc, merchant, country, channel, charges, queue_us, user_us, card_us, limits_us, decision_us, decided_at, replays, unheard";
/// Takes an approval out of every book, as if nothing had been held for it.
const UNBOOKED: &str = "\
    update accounts set held = held - (select amount from holds where authorization_id = {approval})
     where id = (select account_id from holds where authorization_id = {approval});
    delete from holds where authorization_id = {approval}";

type Found = fn(&Proof) -> u64;

/// What is done to the store, and what has to see it.
#[rustfmt::skip]
const FAULTS: &[(&str, Found)] = &[
    ("delete from authorizations where id = {decline}", |it| it.lost),
    ("update authorizations set response = (select response from authorizations where id = {decline}) where id = {approval}", |it| it.altered),
    ("insert into authorizations(id, {columns}) select 'other', {columns} from authorizations where id = {decline}", |it| it.untold),
    ("insert into authorizations(id, {columns}) select 'bench-proof-9999999', {columns} from authorizations where id = {decline}", |it| it.untold),
    // An approval that is told, and is none in the books, or one over less.
    ("{unbooked}; update authorizations set decision = 0, amount = 0, charges = null, reason = 260 where id = {approval}", |it| it.unlike),
    ("{unbooked}; update authorizations set decision = 0, amount = 0, charges = null, reason = 260 where id = {approval}", |it| it.held_off),
    ("update authorizations set decision = 2 where id = {approval}", |it| it.unlike),
    ("update authorizations set amount = 1, decision = 2 where id = {approval};
      update accounts set held = held + 1 - (select amount from holds where authorization_id = {approval})
       where id = (select account_id from holds where authorization_id = {approval});
      update holds set amount = 1 where authorization_id = {approval}", |it| it.unlike),
    ("update authorizations set reason = 260 where id = {decline}", |it| it.unlike),
    ("update holds set id = 'hld_other' where authorization_id = {approval}", |it| it.unlike),
    ("update authorizations set requested = requested + 1 where id = {decline}", |it| it.unasked),
    ("update authorizations set requested = requested - 1 where id = {approval}", |it| it.unasked),
    ("update authorizations set merchant = 'mrc_other' where id = {decline}", |it| it.unasked),
    ("update authorizations set card = 'crd_test_approve' where id = {decline}", |it| it.unasked),
    ("update authorizations set mcc = mcc + 1 where id = {decline}", |it| it.unasked),
    // Decided on facts that say something else.
    ("update cards set status = 'lost' where status = 'active'; {before}", |it| it.wrong),
    ("update cards set status = 'active' where status = 'lost'; {before}", |it| it.wrong),
    ("update cards set expires_at = 1; {before}", |it| it.wrong),
    ("update cards set controls = '{}'; {before}", |it| it.wrong),
    ("update programs set controls = '{\"mccs\":{\"except\":[\"5400-5499\"]}}'; {before}", |it| it.wrong),
    ("update users set status = 'suspended' where status = 'active'; {before}", |it| it.wrong),
    ("update users set kyc = 'pending' where kyc = 'verified'; {before}", |it| it.wrong),
    ("update accounts set status = 'closed' where status = 'open'; {before}", |it| it.wrong),
    ("update accounts set currency = 'EUR'; {before}", |it| it.wrong),
    ("update cards set controls = '{\"merchants\":{\"only\":[\"mrc_other\"]}}'", |it| it.wrong),
    // Declined, or cut short, for want of what was there.
    ("update accounts set floor = -1000000000000000000", |it| it.wrong),
    ("update limits set cap_amount = 1000000000000 where period = 'transaction'; {before}", |it| it.wrong),
    ("update limits set cap_amount = 1000000000000 where period <> 'transaction'; {before}", |it| it.wrong),
    ("update limits set cap_count = 1000000 where cap_count is not null; {before}", |it| it.wrong),
    // Limits that were forgotten.
    ("update authorizations set charges = null; delete from counters", |it| it.uncharged),
    ("update authorizations set charges = null; delete from counters", |it| it.counters_off),
    ("update authorizations set charges = '[]' where id = {charged}", |it| it.uncharged),
    ("update authorizations set charges = (select charges from authorizations where id = {charged}) where id = {decline}", |it| it.uncharged),
    ("insert into limits(id, owner, owner_id, scope, period, cap_amount) select 7, 'user', user_id, 'user', 'day', 1000000000000 from cards
       where id = (select card_id from authorizations where id = {approval}); {before}", |it| it.uncharged),
    ("update limits set cap_amount = 1 where period = 'day' and cap_amount is not null; {before}", |it| it.limits_passed),
    ("update limits set cap_count = 0 where cap_count is not null; {before}", |it| it.limits_passed),
    ("update limits set cap_amount = 1 where period = 'transaction'; {before}", |it| it.limits_passed),
    ("update counters set amount = amount - 1", |it| it.counters_off),
    ("update counters set count = count + 1", |it| it.counters_off),
    ("delete from counters", |it| it.counters_off),
    ("insert into counters values (1, 1, 1, 1, 1)", |it| it.counters_off),
    // Holds and money.
    ("alter table authorizations rename to was; create table authorizations as select * from was;
      insert into authorizations select * from was where id = {decline}", |it| it.doubled),
    ("alter table holds rename to was; create table holds as select * from was; insert into holds select * from was", |it| it.doubled),
    ("delete from holds where authorization_id = {approval}", |it| it.doubled),
    ("update holds set amount = amount + 1 where authorization_id = {approval}", |it| it.doubled),
    ("update holds set account_id = account_id + 1 where authorization_id = {approval}", |it| it.doubled),
    ("update holds set status = 2 where authorization_id = {approval}", |it| it.doubled),
    ("update holds set account_id = 3 where authorization_id = {approval}", |it| it.doubled),
    ("update holds set authorization_id = 'bench-proof-x' where authorization_id = {approval}", |it| it.doubled),
    ("update holds set authorization_id = {decline} where authorization_id = {approval}", |it| it.doubled),
    ("update accounts set floor = posted where held > 0", |it| it.below_floor),
    ("update accounts set held = held + 1 where held > 0", |it| it.held_off),
    ("insert into holds(authorization_id, id, account_id, amount, status, placed_at) select 'other', 'hld', account_id, 5, 1, 1 from holds limit 1;
      update accounts set held = held + 5 where id = (select account_id from holds where id = 'hld')", |it| it.held_off),
    ("update accounts set posted = posted + 1 where token = 'acc_0000001'", |it| it.entries_off),
    ("insert into entries(transfer, account_id, amount, posted_at) values ('x', 1, 1, 1)", |it| it.entries_off),
    ("update authorizations set unheard = true where id = {approval}", |it| it.unheard),
];

fn planted(fault: &str) -> String {
    let charged = "(select min(id) from authorizations where decision = 1 and length(cast(charges as text)) > 4)";
    let filled = fault.replace("{unbooked}", UNBOOKED).replace("{before}", BEFORE).replace("{columns}", COLUMNS);
    filled.replace("{approval}", APPROVAL).replace("{decline}", DECLINE).replace("{charged}", charged)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_planted_fault_is_found_on_sqlite() {
    let directory = TempDir::new().unwrap();
    let world = on_sqlite(directory.path()).await;
    sound(&world).await;
    for (nth, (fault, found)) in FAULTS.iter().enumerate() {
        let settings = sqlite_at(directory.path(), &format!("{nth}.db"));
        for end in ["", "-wal"] {
            let from = directory.path().join(format!("sound.db{end}"));
            if from.exists() {
                std::fs::copy(from, format!("{}{end}", settings.path.display())).unwrap();
            }
        }
        let mut store = SqliteConnection::connect(&format!("sqlite://{}", settings.path.display())).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(planted(fault))).execute(&mut store).await.unwrap();
        let proof = world.verdict(&Location::Sqlite(settings), Owner::Run).await;
        assert!(found(&proof) > 0 && !proof.holds_good(), "{fault}: {proof:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_planted_fault_is_found_on_postgresql() {
    let Ok(server) = std::env::var("JITAUTH_TEST_POSTGRES") else {
        assert!(
            std::env::var("JITAUTH_TEST_REQUIRE").as_deref() != Ok("1"),
            "JITAUTH_TEST_POSTGRES is not set, and nothing may be skipped"
        );
        eprintln!("skipped: set JITAUTH_TEST_POSTGRES to the URL of a server on which databases may be created");
        return;
    };
    let name = format!("jitauth_bench_proof_{:016x}", rand::random::<u64>());
    let mut admin = PgConnection::connect(&server).await.unwrap();
    let ended = AssertUnwindSafe(planted_on_postgresql(&server, &name)).catch_unwind().await;
    for made in [name.clone(), format!("{name}_x")] {
        sqlx::raw_sql(AssertSqlSafe(format!("drop database if exists {made} with (force)"))).execute(&mut admin).await.unwrap();
    }
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

async fn planted_on_postgresql(server: &str, name: &str) {
    let settings = postgres_at(server, name);
    let (store, scenario) = (Location::Postgres(settings.clone()), scenario(500));
    let mut admin = PgConnection::connect(server).await.unwrap();
    Scratch::new(store.clone()).make(&scenario).await.unwrap();
    let opened = Postgres::connect(&settings).await.unwrap();
    let records = vec![decided(&scenario, RUN, &opened, pipeline_settings(2)).await];
    drop(opened);
    let world = World { store, records };
    sound(&world).await;
    for (fault, found) in FAULTS {
        let copy = format!("{name}_x");
        // Connections of the pool take a moment to be gone, and a template has none.
        let gone = format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'");
        for sql in [gone, format!("drop database if exists {copy} with (force)"), format!("create database {copy} template {name}")] {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.unwrap();
        }
        let settings = postgres_at(server, &copy);
        let mut store = PgConnection::connect(&settings.url).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(planted(fault))).execute(&mut store).await.unwrap();
        let proof = world.verdict(&Location::Postgres(settings), Owner::Run).await;
        assert!(found(&proof) > 0 && !proof.holds_good(), "{fault}: {proof:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decline_for_want_of_time_needs_no_facts() {
    let directory = TempDir::new().unwrap();
    let settings = sqlite_at(directory.path(), "late.db");
    let (store, scenario) = (Location::Sqlite(settings.clone()), Scenario { deadline: Duration::from_millis(100), ..scenario(200) });
    Scratch::new(store.clone()).make(&scenario).await.unwrap();
    // As a visitor: the lock of the first run goes with its last task, which may not have ended yet.
    let opened = Sqlite::visit(&settings).await.unwrap();
    // So little time is reserved for the way back that none is left.
    let patient = pipeline_settings(1);
    let settings = pipeline::Settings { deadline_reserve: Duration::from_millis(100), ..patient };
    let records = vec![decided(&scenario, RUN, &opened, settings).await];
    let late = records[0].seen().filter(|seen| seen.outcome.and_then(Outcome::reason) == Some(Reason::DeadlineExceeded)).count();
    let world = World { store, records };
    let proof = world.verdict(&world.store, Owner::Run).await;
    assert!(late > 100 && proof.holds_good(), "{late} late: {proof:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_told_as_not_decided_is_no_approval() {
    let directory = TempDir::new().unwrap();
    let world = on_sqlite(directory.path()).await;
    let told = |body: &[u8], holds| {
        let mut told = world.told();
        let approved = told[0].answers.iter().position(|(_, known)| known.holds()).unwrap();
        told[0].answers[approved].1 = Known::new(body, false, holds);
        told
    };
    let (told_out, told_approved) = (told(b"unavailable", false), told(b"approved", true));
    let verdict = async |told: &[Told<'_>]| check(&world.store, Owner::Run, RUN, told).await.unwrap();
    assert_eq!(verdict(&told_out).await.untold, 1, "its money is held, and nobody knows");
    assert_eq!(verdict(&told_approved).await.altered, 1);
    let mut more = world.told();
    let (declined, _) = *more[0].answers.iter().find(|(_, known)| !known.holds()).unwrap();
    more[0].answers[declined].1 = Known::new(b"unavailable", false, false);
    assert!(verdict(&more).await.holds_good(), "declined since, and nothing is held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_stretches_of_a_run_are_proved_at_once() {
    let directory = TempDir::new().unwrap();
    let mut world = on_sqlite(directory.path()).await;
    let Location::Sqlite(settings) = world.store.clone() else { return };
    let opened = Sqlite::visit(&settings).await.unwrap();
    let second = decided(&Scenario { seed: 2, ..scenario(200) }, &format!("{RUN}.1"), &opened, pipeline_settings(1)).await;
    assert!(world.verdict(&world.store, Owner::Run).await.untold > 100, "a stretch that is not told of");
    let first = world.records[0].traffic().requests.len() as u64;
    world.records.push(second);
    let proof = world.verdict(&world.store, Owner::Run).await;
    assert!(proof.holds_good() && proof.decisions > first + 100, "{proof:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_store_that_others_use_too_their_decisions_are_theirs() {
    let directory = TempDir::new().unwrap();
    let world = on_sqlite(directory.path()).await;
    let Location::Sqlite(settings) = &world.store else { return };
    let opened = Sqlite::visit(settings).await.unwrap();
    for name in ["bench-proo", "bench-proofs", "auth"] {
        decided(&Scenario { seed: 2, ..scenario(60) }, name, &opened, pipeline_settings(1)).await;
    }
    let mut store = SqliteConnection::connect(&format!("sqlite://{}", settings.path.display())).await.unwrap();
    // What an operator did to accounts and counters that the run has not touched.
    let elsewhere = "update counters set amount = 9 where limit_id not in (select id from limits where owner = 'program');
        update accounts set posted = posted + 1";
    sqlx::raw_sql(elsewhere).execute(&mut store).await.unwrap();
    let (theirs, ours) = (world.verdict(&world.store, Owner::Everybody).await, world.verdict(&world.store, Owner::Run).await);
    assert!(theirs.untold == 0 && theirs.entries_off == 0, "{theirs:#?}");
    assert!(ours.untold > 100 && ours.entries_off > 0 && ours.held_off > 0, "{ours:#?}");
}

/// The run has everything that the faults are about, and nothing is wrong with it.
async fn sound(world: &World) {
    let began = tokio::time::Instant::now();
    for owner in [Owner::Run, Owner::Everybody] {
        let proof = world.verdict(&world.store, owner).await;
        assert!(proof.holds_good(), "{owner:?}: {proof:#?}");
        assert_eq!(proof.decisions, world.records.iter().map(|record| record.traffic().requests.len() as u64).sum::<u64>());
        assert!(proof.holds > 100 && proof.counters > 50 && proof.approved.len() == 3, "{proof:#?}");
    }
    eprintln!("two proofs took {:?}", began.elapsed());
    let mut reasons = std::collections::BTreeSet::new();
    for seen in world.records.iter().flat_map(|record| record.seen()) {
        reasons.extend(seen.outcome.and_then(Outcome::reason).map(Reason::name));
    }
    for reason in ["amount_limit", "count_limit", "transaction_limit", "insufficient_funds", "card_lost", "channel_blocked"] {
        assert!(reasons.contains(reason), "{reasons:?} without {reason}");
    }
    assert_eq!(world.records[0].totals().unexpected, 0, "{:?}", world.records[0].examples());
}
