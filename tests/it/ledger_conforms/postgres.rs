//! PostgreSQL for the suite: a database a case, on the server that `JITAUTH_TEST_POSTGRES` names.

use super::fixture::Fixture;
use jitauth::ledger::postgres::{PgLedger, Postgres, Settings};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// The variable with the URL of a server on which databases may be created: `postgres://postgres@127.0.0.1:5432/postgres`.
const SERVER: &str = "JITAUTH_TEST_POSTGRES";

/// Databases made by this process.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A database of its own.
pub(crate) struct PostgresFixture {
    server: PgConnectOptions,
    name: String,
    store: Postgres,
    outside: PgPool,
}

#[expect(clippy::print_stderr, reason = "whoever runs the tests has to see what was not run")]
fn skipped() {
    assert!(std::env::var("JITAUTH_TEST_REQUIRE").as_deref() != Ok("1"), "{SERVER} is not set, and nothing may be skipped");
    eprintln!("skipped: {SERVER} is not set; `make test` starts a server and sets it");
}

async fn administer(server: &PgConnectOptions, sql: String) {
    let mut connection = server.connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    PgConnection::close(connection).await.unwrap();
}

impl Fixture for PostgresFixture {
    type Ledger = PgLedger;
    type Facts = Postgres;

    async fn fresh() -> Option<Self> {
        let Ok(url) = std::env::var(SERVER) else {
            skipped();
            return None;
        };
        let server: PgConnectOptions = url.parse().unwrap();
        let name = format!("jitauth_conforms_{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        administer(&server, format!("create database {name}")).await;
        let database = server.clone().database(&name);
        let store = Postgres::connect(&Settings {
            url: database.to_url_lossy().into(),
            pool_min: 0,
            pool_max: 4,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            query_timeout: Duration::from_secs(30),
            commit_timeout: Duration::from_secs(2),
            lock_timeout: Duration::from_millis(100),
        })
        .await
        .unwrap();
        store.migrate().await.unwrap();
        let outside = PgPoolOptions::new().max_connections(1).connect_with(database).await.unwrap();
        Some(Self { server, name, store, outside })
    }

    fn ledger(&self) -> PgLedger {
        self.store.ledger()
    }

    fn facts(&self) -> Postgres {
        self.store.clone()
    }

    async fn try_sql(&self, sql: &str) -> Result<(), String> {
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&self.outside).await;
        done.map(drop).map_err(|error| error.to_string())
    }

    async fn rows(&self, sql: &str) -> Vec<String> {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(&self.outside).await.unwrap()
    }

    fn hex(column: &str) -> String {
        format!("encode({column}, 'hex')")
    }

    async fn remove(self) {
        self.outside.close().await;
        drop(self.store);
        administer(&self.server, format!("drop database {} with (force)", self.name)).await;
    }
}
