//! SQLite for the suite, and what only SQLite promises.

use super::{
    fixture::Fixture,
    news::{Ear, card, program, user},
    stage::Stage,
};
use jitauth::{
    facts::FactSource,
    ledger::{
        Ledger, LedgerError, SchemaState, StoreError,
        sqlite::{Settings, Sqlite, SqliteLedger},
    },
};
use sqlx::{AssertSqlSafe, ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{path::Path, time::Duration};
use tokio::sync::Mutex;

/// A database file in a directory of its own.
pub(crate) struct SqliteFixture {
    directory: tempfile::TempDir,
    store: Sqlite,
    outside: Mutex<SqliteConnection>,
}

fn settings(directory: &Path) -> Settings {
    Settings { path: directory.join("jitauth.db"), readers: 2, busy_timeout: Duration::from_secs(10), autocheckpoint_pages: 1000 }
}

async fn outside(directory: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(directory.join("jitauth.db")).busy_timeout(Duration::from_secs(10));
    options.disable_statement_logging().connect().await.unwrap()
}

impl Fixture for SqliteFixture {
    type Ledger = SqliteLedger;
    type Facts = Sqlite;

    async fn fresh() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&settings(directory.path())).await.unwrap();
        store.migrate().await.unwrap();
        let outside = Mutex::new(outside(directory.path()).await);
        Some(Self { directory, store, outside })
    }

    fn ledger(&self) -> SqliteLedger {
        self.store.ledger()
    }

    fn facts(&self) -> Sqlite {
        self.store.clone()
    }

    async fn try_sql(&self, sql: &str) -> Result<(), String> {
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut *self.outside.lock().await).await;
        done.map(drop).map_err(|error| error.to_string())
    }

    async fn rows(&self, sql: &str) -> Vec<String> {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(&mut *self.outside.lock().await).await.unwrap()
    }

    fn hex(column: &str) -> String {
        format!("lower(hex({column}))")
    }

    async fn remove(self) {
        drop(self.store);
        self.directory.close().unwrap();
    }
}

#[tokio::test]
async fn a_second_daemon_is_turned_away_with_the_holders_pid() {
    let directory = tempfile::tempdir().unwrap();
    let first = Sqlite::open(&settings(directory.path())).await.unwrap();
    let clone = first.clone();
    let again = settings(&directory.path().join("../").join(directory.path().file_name().unwrap()));
    for held_by in [first, clone] {
        let holder = match Sqlite::open(&again).await {
            Err(StoreError::Locked { holder }) => holder,
            other => panic!("a second daemon was let in: {other:?}"),
        };
        assert_eq!(holder, format!("process {}", std::process::id()));
        Sqlite::visit(&again).await.expect("tools may look in");
        drop(held_by);
    }
    Sqlite::open(&again).await.expect("the lock goes with its holder");
}

#[tokio::test]
async fn the_schema_and_the_durability_are_stated() {
    let directory = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&settings(directory.path())).await.unwrap();
    assert_eq!(store.schema().await.unwrap(), SchemaState::Missing);
    store.migrate().await.unwrap();
    store.migrate().await.expect("migrating twice is safe");
    assert_eq!(store.schema().await.unwrap(), SchemaState::Current);
    assert_eq!(store.durability().await.unwrap(), "journal_mode=wal synchronous=full wal_autocheckpoint=1000");
    let later =
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (99, 'later', true, x'00', 0)";
    sqlx::query(later).execute(&mut store.writer().await.unwrap()).await.unwrap();
    assert_eq!(store.schema().await.unwrap(), SchemaState::Newer);
}

#[tokio::test]
async fn what_cannot_be_opened_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = Settings { path: directory.path().join("missing/jitauth.db"), ..settings(directory.path()) };
    assert!(matches!(Sqlite::open(&nowhere).await, Err(StoreError::Unreachable(_))));
    std::fs::write(directory.path().join("jitauth.db"), vec![b'x'; 8192]).unwrap();
    assert!(matches!(Sqlite::open(&settings(directory.path())).await, Err(StoreError::Broken(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_held_from_outside_is_contention_and_readers_do_not_care() {
    let stage = super::stage::Stage::<SqliteFixture>::new().await.unwrap();
    let impatient = Settings { busy_timeout: Duration::from_millis(50), ..settings(stage.fixture.directory.path()) };
    let mut ledger = Sqlite::visit(&impatient).await.unwrap().ledger();
    let group = stage.draft().await.approve("a", "crd_1", 100).close();
    let before = stage.dump().await;
    let mut holder = outside(stage.fixture.directory.path()).await;
    sqlx::raw_sql("begin immediate; update cards set status = 'lost' where token = 'crd_2'").execute(&mut holder).await.unwrap();
    assert!(matches!(ledger.commit(&group, true).await, Err(LedgerError::Contended(_))));
    let card = jitauth::domain::ids::CardToken::new("crd_2").unwrap();
    let file = stage.fixture.facts().fetch(&card).await.unwrap().unwrap();
    assert_eq!(file.card.status, jitauth::domain::facts::CardStatus::Active, "not committed, so not seen");
    assert_eq!(stage.dump().await, before);
    sqlx::raw_sql("rollback").execute(&mut holder).await.unwrap();
    assert!(matches!(ledger.commit(&group, true).await, Ok(jitauth::ledger::Outcome::Committed)), "the connection is as good as new");
    stage.finish().await;
}

/// Other tools do not check foreign keys by default, so rows can vanish from under a card. That must not end in a circle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vanished_account_or_limit_makes_the_card_stale() {
    for (what, vanish) in [
        ("account", "pragma foreign_keys = off; drop trigger accounts_delete; delete from accounts where token = 'acc_1'"),
        ("limit", "drop trigger limits_delete; delete from limits where id = 11"),
    ] {
        let mut stage = super::stage::Stage::<SqliteFixture>::new().await.unwrap();
        let group = stage.draft().await.approve("a", "crd_1", 100).approve("b", "crd_3", 100).close();
        stage.sql(vanish).await;
        let report = stage.rejected(&group).await;
        assert!(report.cards.contains(&stage.file("crd_1").await.map_or(jitauth::domain::ids::CardId(1), |file| file.card.id)), "{what}");
    }
    let mut stage = super::stage::Stage::<SqliteFixture>::new().await.unwrap();
    stage.sql("pragma foreign_keys = off; delete from accounts where token = 'acc_2'").await;
    assert!(stage.file("crd_2").await.is_none(), "a card without its account is no card");
    let group = stage.draft().await.absent("a", "crd_2").close();
    stage.committed(&group).await;
}

/// `insert or replace` deletes without firing delete triggers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_row_counts_as_a_change() {
    for (replace, card) in [
        ("insert or replace into users (id, token, program_id, status) values (1, 'usr_1', 1, 'suspended')", "crd_1"),
        ("insert or replace into users (id, token, program_id) values (77, 'usr_1', 1)", "crd_1"),
        ("insert or replace into accounts (id, token, program_id, currency, status) values (1, 'acc_1', 1, 'USD', 'closed')", "crd_1"),
        (
            "insert or replace into limits (id, owner, owner_id, scope, period, cap_amount) values (10, 'card', 3, 'card', 'day', 1)",
            "crd_1",
        ),
        (
            "insert or replace into limits (id, owner, owner_id, scope, period, cap_amount) values (10, 'card', 3, 'card', 'day', 1)",
            "crd_3",
        ),
        (
            "insert or replace into cards (id, token, user_id, account_id, program_id, expires_at, version) select id, token, user_id, \
             account_id, program_id, 0, version from cards where id = 1",
            "crd_1",
        ),
    ] {
        let mut stage = super::stage::Stage::<SqliteFixture>::new().await.unwrap();
        let group = stage.draft().await.approve("a", card, 100).close();
        let id = stage.file(card).await.unwrap().card.id;
        stage.sql(&format!("pragma foreign_keys = off; {replace}")).await;
        assert!(stage.rejected(&group).await.cards.contains(&id), "{card} after {replace}");
    }
}

/// With one writer at a time the order of the journal is the order of the commits, so every decision can be held against the
/// facts of its moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_decision_rests_on_the_facts_of_its_moment() {
    let mut stage = super::stage::Stage::<SqliteFixture>::new().await.unwrap();
    stage
        .sql(
            "create table fact_log (card_id, version, usable, after_seq);
             create view cards_now as select c.id, c.version, c.status = 'active' and u.status = 'active' as usable
               from cards c join users u on u.id = c.user_id;
             create trigger log_moved after update of version on cards begin
               insert into fact_log select id, version, usable, (select ifnull(max(seq), 0) from authorizations) from cards_now where id = new.id;
             end;
             create trigger log_gone after delete on cards begin
               insert into fact_log select old.id, 0, false, ifnull(max(seq), 0) from authorizations;
             end;
             insert into fact_log select id, version, usable, 0 from cards_now",
        )
        .await;
    super::torture::lanes_and_administrators_keep_the_books(&mut stage).await;
    let wrong = "
        with moment as (
          select a.id, a.decision, a.reason, a.card_version,
                 (select l.version from fact_log l where l.card_id = a.card_id and l.after_seq < a.seq order by l.rowid desc limit 1) as version,
                 (select l.usable from fact_log l where l.card_id = a.card_id and l.after_seq < a.seq order by l.rowid desc limit 1) as usable
            from authorizations a where a.card_id is not null)
        select id || ': ' || decision || ' on ' || card_version || ', but it was ' || ifnull(version, 'gone') from moment
         where card_version is not version or (decision > 0 and not usable) or (reason in (130, 150) and usable)";
    assert_eq!(stage.fixture.rows(wrong).await, Vec::<String>::new());
    let unfounded = "select a.id from authorizations a where a.card_id is null and
        (select l.version from fact_log l where l.card_id = 5 and l.after_seq < a.seq order by l.rowid desc limit 1) > 0";
    assert_eq!(stage.fixture.rows(unfounded).await, Vec::<String>::new(), "declined as unknown, but it was there");
    let told = "select cast(count(*) as text) from authorizations where reason in (130, 150)";
    assert_ne!(stage.fixture.rows(told).await, ["0"]);
    stage.finish().await;
}

#[tokio::test]
async fn what_a_replacing_insert_takes_away_is_heard() {
    let Some(stage) = Stage::<SqliteFixture>::new().await else { return };
    stage.sql("insert into programs (id, token, kind, currency, time_zone) values (2, 'prg_2', 'personal', 'USD', 'UTC')").await;
    let mut ear = Ear::new(&stage.fixture.store).await;
    let card_values = "(id, token, user_id, account_id, program_id, expires_at) values (1, 'crd_other', 1, 1, 1, 5)";
    for (change, gone) in [
        (format!("insert or replace into cards {card_values}"), card("crd_1", None)),
        ("insert or replace into users (id, token, program_id) values (1, 'usr_other', 1)".to_owned(), user(1, "usr_1", None)),
        ("insert or replace into users (id, token, program_id) values (7, 'usr_2', 1)".to_owned(), user(2, "usr_2", None)),
        (
            "insert or replace into programs (id, token, kind, currency, time_zone) values (3, 'prg_2', 'personal', 'USD', 'UTC')"
                .to_owned(),
            program(2, None),
        ),
    ] {
        stage.sql(&format!("pragma foreign_keys = off; {change}")).await;
        ear.until(|told| told.change == gone).await;
    }
    drop(ear);
}

#[tokio::test]
async fn removals_are_remembered_within_bounds() {
    let Some(stage) = Stage::<SqliteFixture>::new().await else { return };
    stage
        .sql(
            "with recursive n(i) as (select 100 union all select i + 1 from n where i < 1099)
               insert into cards (id, token, user_id, account_id, program_id, expires_at) select i, 'crd_' || i, 1, 1, 1, 5 from n",
        )
        .await;
    let mut ear = Ear::new(&stage.fixture.store).await;
    stage.sql("delete from cards where id >= 100").await;
    ear.until(|told| told.change == jitauth::facts::change::Change::Everything).await;
    assert_eq!(stage.number("select count(*) from fact_removals").await, 256);
    drop(ear);
    stage.finish().await;
}

#[tokio::test]
async fn a_cap_below_zero_is_refused() {
    let Some(stage) = Stage::<SqliteFixture>::new().await else { return };
    for statement in [
        "insert into limits (id, owner, owner_id, scope, period, cap_amount) values (50, 'card', 1, 'card', 'day', -1)",
        "insert into limits (id, owner, owner_id, scope, period, cap_count) values (50, 'card', 1, 'card', 'day', -1)",
        "update limits set cap_amount = -1 where id = 10",
        "update limits set cap_count = -1 where id = 10",
    ] {
        assert!(stage.fixture.try_sql(statement).await.is_err_and(|error| error.contains("below zero")), "{statement}");
    }
    stage.sql("update limits set cap_amount = 0, cap_count = null where id = 10").await;
    stage.finish().await;
}
