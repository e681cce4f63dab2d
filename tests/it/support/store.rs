//! The store, by another way than the daemon's: plain SQL that PostgreSQL and SQLite both understand.

use sqlx::{
    AssertSqlSafe, Connection, Row,
    postgres::{PgConnection, PgPool, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions},
};
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// A pool on the test's own database.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

impl Store {
    pub(crate) async fn postgres(url: &str) -> Self {
        // Restarts of the server in the middle of a test are normal here: stale connections are tried before use.
        let options = PgPoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(30)).test_before_acquire(true);
        Self::Postgres(options.connect(url).await.expect("PostgreSQL answers"))
    }

    pub(crate) async fn sqlite(path: &str) -> Self {
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(30));
        Self::Sqlite(SqlitePoolOptions::new().max_connections(2).connect_with(options).await.expect("the file opens"))
    }

    /// A new database on the server at `url` (which names none), copied from `template` when there is one. Gives its name.
    pub(crate) async fn create_database(url: &str, template: Option<&str>) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let template = template.unwrap_or("template1");
        let mut connection = PgConnection::connect(&format!("{url}/postgres")).await.expect("PostgreSQL answers");
        // The server refuses to copy a database that somebody uses; autovacuum may, for a moment.
        for rest in (0..20).rev() {
            let created = sqlx::query(AssertSqlSafe(format!("create database {name} template {template}"))).execute(&mut connection).await;
            match created {
                Ok(_) => break,
                Err(error) => assert!(rest > 0, "create database {name} template {template}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        name
    }

    /// Runs statements and gives the number of rows the last one changed.
    pub(crate) async fn execute(&self, sql: &str) -> u64 {
        let statement = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        let done = match self {
            Self::Postgres(pool) => statement.execute(pool).await.map(|done| done.rows_affected()),
            Self::Sqlite(pool) => statement.execute(pool).await.map(|done| done.rows_affected()),
        };
        done.unwrap_or_else(|error| panic!("{error}\n{sql}"))
    }

    /// All rows of a query whose columns were all cast to text.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let statement = AssertSqlSafe(sql.to_owned());
        let rows = match self {
            Self::Postgres(pool) => sqlx::query(statement)
                .fetch_all(pool)
                .await
                .map(|rows| rows.iter().map(|row| (0..row.len()).map(|column| row.get(column)).collect()).collect()),
            Self::Sqlite(pool) => sqlx::query(statement)
                .fetch_all(pool)
                .await
                .map(|rows| rows.iter().map(|row| (0..row.len()).map(|column| row.get(column)).collect()).collect()),
        };
        rows.unwrap_or_else(|error| panic!("{error}\n{sql}"))
    }

    /// The one number that a query gives: `select count(*) from holds`.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let rows = self.rows(&format!("select cast(({sql}) as text)")).await;
        rows[0][0].as_deref().unwrap_or_else(|| panic!("null: {sql}")).parse().unwrap()
    }

    /// The first column of the first row, if there is one and it is not null.
    pub(crate) async fn text(&self, sql: &str) -> Option<String> {
        self.rows(sql).await.into_iter().next()?.into_iter().next()?
    }

    /// The response bytes in the journal.
    pub(crate) async fn response(&self, id: &str) -> Option<Vec<u8>> {
        let found = match self {
            Self::Postgres(pool) => {
                sqlx::query_scalar("select response from authorizations where id = $1").bind(id).fetch_optional(pool).await
            }
            Self::Sqlite(pool) => {
                sqlx::query_scalar("select response from authorizations where id = ?").bind(id).fetch_optional(pool).await
            }
        };
        found.expect("the journal can be read")
    }
}
