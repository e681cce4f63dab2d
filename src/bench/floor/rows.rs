//! What the store's disk and locks allow: rows as wide as a decision with its hold, inserted in groups, each group durable. This is less
//! work than a decision, so it bounds the other floors and no ratio is told against it.
#![expect(clippy::disallowed_methods, reason = "a store is measured on the real clock")]

use super::Rows;
use crate::bench::{
    Error,
    record::{histogram, micros},
    scratch::{Location, ScratchError},
    summary::{Latency, rounded},
};
use hdrhistogram::Histogram;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sqlx::{
    ConnectOptions, Connection, PgConnection, SqliteConnection,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Rows in a group.
pub(super) const BATCHES: [usize; 3] = [1, 16, 64];
/// Bytes beside the id: a decision with its response, charges and hold.
const ROW_BYTES: usize = 700;

const TABLE_POSTGRES: &str = "create table bench_floor (id text collate \"C\" primary key, payload bytea not null)";
const INSERT_POSTGRES: &str = "insert into bench_floor select id, $2 from unnest($1::text[]) id";
const TABLE_SQLITE: &str = "create table bench_floor (id text primary key, payload blob not null) strict";
const INSERT_SQLITE: &str = "insert into bench_floor select value, ?2 from json_each(?1)";

/// Connections that only insert.
pub(super) struct Writers {
    connections: Vec<Writer>,
    /// For each size: rows, seconds and single commits.
    sums: Vec<(u64, f64, Histogram<u64>)>,
    rounds: usize,
}

enum Writer {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

impl Writers {
    /// Connects as many as there are lanes, and makes the table: in the database of the run, or in a file of its own beside it.
    pub(super) async fn open(store: &Location, directory: &Path, lanes: usize) -> Result<Self, Error> {
        let mut connections = Vec::new();
        match store {
            Location::Postgres(settings) => {
                let options: PgConnectOptions = settings.url.parse().map_err(|_| ScratchError::Address)?;
                // What a commit of the ledger waits for, whatever the server's default is.
                let options = options.options([("synchronous_commit", "on")]).disable_statement_logging();
                for _ in 0..lanes.max(1) {
                    connections.push(PgConnection::connect_with(&options).await?);
                }
                if let Some(first) = connections.first_mut() {
                    sqlx::query(TABLE_POSTGRES).execute(first).await?;
                }
                Ok(Self::new(connections.into_iter().map(Writer::Postgres).collect()))
            }
            Location::Sqlite(settings) => {
                let options = SqliteConnectOptions::new()
                    .filename(directory.join("floor.db"))
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    .pragma("wal_autocheckpoint", settings.autocheckpoint_pages.to_string());
                let mut store = SqliteConnection::connect_with(&options.disable_statement_logging()).await?;
                sqlx::query(TABLE_SQLITE).execute(&mut store).await?;
                Ok(Self::new(vec![Writer::Sqlite(store)]))
            }
        }
    }

    fn new(connections: Vec<Writer>) -> Self {
        Self { connections, sums: BATCHES.map(|_| (0, 0.0, histogram())).into(), rounds: 0 }
    }

    /// Inserts groups of each size for so long.
    pub(super) async fn measure(&mut self, lasts: Duration) -> Result<(), Error> {
        self.rounds += 1;
        for turn in 0..BATCHES.len() {
            // Each size is first once: what ran before has left the disk something to do.
            let nth = (turn + self.rounds) % BATCHES.len();
            let batch = BATCHES[nth];
            let began = Instant::now();
            let mut writing = JoinSet::new();
            for (number, writer) in self.connections.drain(..).enumerate() {
                let prefix = format!("{}-{batch}-{number}", self.rounds);
                writing.spawn(writer.write(prefix, batch, lasts));
            }
            while let Some(written) = writing.join_next().await {
                let (writer, rows, times) = written.map_err(|error| Error::Floor(error.to_string()))??;
                self.connections.push(writer);
                self.sums[nth].0 += rows;
                self.sums[nth].2.add(&times).map_err(|error| Error::Floor(error.to_string()))?;
            }
            self.sums[nth].1 += began.elapsed().as_secs_f64();
        }
        Ok(())
    }

    /// What it came to.
    pub(super) fn finish(self) -> Vec<Rows> {
        let writers = self.connections.len();
        let told = BATCHES.into_iter().zip(self.sums);
        told.map(|(batch, (rows, seconds, times))| Rows {
            batch,
            writers,
            rows_per_s: rounded(rows as f64 / seconds.max(1e-9), 1),
            commit: Latency::figures(&times),
        })
        .collect()
    }
}

impl Writer {
    async fn write(mut self, prefix: String, batch: usize, lasts: Duration) -> Result<(Self, u64, Histogram<u64>), sqlx::Error> {
        // Nothing that a page compresses away.
        let mut payload = vec![0_u8; ROW_BYTES];
        StdRng::seed_from_u64(1).fill(payload.as_mut_slice());
        let (began, mut rows, mut times) = (Instant::now(), 0_u64, histogram());
        while began.elapsed() < lasts {
            let ids: Vec<String> = (0..batch).map(|nth| format!("floor-{prefix}-{:010}", rows + nth as u64)).collect();
            let start = Instant::now();
            rows += match &mut self {
                Self::Postgres(store) => sqlx::query(INSERT_POSTGRES).bind(&ids).bind(&payload).execute(store).await?.rows_affected(),
                Self::Sqlite(store) => {
                    let ids = serde_json::to_string(&ids).map_err(|error| sqlx::Error::Encode(error.into()))?;
                    sqlx::query(INSERT_SQLITE).bind(ids).bind(&payload).execute(store).await?.rows_affected()
                }
            };
            times.saturating_record(u64::from(micros(start.elapsed())));
        }
        Ok((self, rows, times))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::ledger::sqlite::Settings;

    #[tokio::test]
    async fn every_row_that_is_counted_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings { path: "unused".into(), readers: 1, busy_timeout: Duration::from_secs(1), autocheckpoint_pages: 1_000 };
        let mut writers = Writers::open(&Location::Sqlite(settings), directory.path(), 4).await.unwrap();
        for _ in 0..2 {
            writers.measure(Duration::from_millis(20)).await.unwrap();
        }
        let counted: u64 = writers.sums.iter().map(|sum| sum.0).sum();
        let rows = writers.finish();
        assert_eq!(rows.iter().map(|it| (it.batch, it.writers)).collect::<Vec<_>>(), [(1, 1), (16, 1), (64, 1)], "SQLite has one writer");
        let options = SqliteConnectOptions::new().filename(directory.path().join("floor.db"));
        let mut store = SqliteConnection::connect_with(&options).await.unwrap();
        let stored: i64 =
            sqlx::query_scalar("select count(*) from bench_floor where length(payload) = 700").fetch_one(&mut store).await.unwrap();
        assert_eq!(stored.cast_unsigned(), counted);
        assert!(rows.iter().all(|it| it.commit.count >= 2));
    }
}
