//! SQLite for the suite, and what only SQLite promises.

use super::fixture::Fixture;
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
