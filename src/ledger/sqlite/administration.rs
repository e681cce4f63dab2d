//! Administration on SQLite, beside a daemon that may be running on the file.

use super::{
    Sqlite,
    error::{Fault, store_error},
};
use crate::ledger::administration::{Administration, AdministrationError, Record, Session, Value};
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};

/// A transaction of administration. It is the only writer until it ends; a connection that is dropped is rolled back.
#[derive(Debug)]
pub struct SqliteSession {
    connection: SqliteConnection,
}

impl Administration for Sqlite {
    type Session = SqliteSession;

    async fn begin(&self) -> Result<SqliteSession, AdministrationError> {
        let mut connection = self.writer().await?;
        sqlx::query("begin immediate").execute(&mut connection).await.map_err(|error| refusal(&error))?;
        Ok(SqliteSession { connection })
    }
}

impl Session for SqliteSession {
    const LOCKING: &'static str = "";
    const ALONE: &'static str = "select 'alone'";
    const LIMIT_ID: &'static str = "update limit_ids set last = last + 1 returning cast(last as text)";

    async fn rows(&mut self, sql: String, values: &[Value<'_>]) -> Result<Vec<Record>, AdministrationError> {
        let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
        for value in values {
            query = match *value {
                Value::Text(text) => query.bind(text.to_owned()),
                Value::Integer(number) => query.bind(number),
                Value::Optional(number) => query.bind(number),
            };
        }
        let rows = query.fetch_all(&mut self.connection).await.map_err(|error| refusal(&error))?;
        let texts = rows.iter().map(|row| (0..row.len()).map(|column| row.try_get(column)).collect::<Result<_, _>>().map(Record));
        texts.collect::<Result<_, _>>().map_err(|error| refusal(&error))
    }

    async fn commit(mut self) -> Result<(), AdministrationError> {
        sqlx::query("commit").execute(&mut self.connection).await.map_err(|error| refusal(&error))?;
        Ok(())
    }
}

fn refusal(error: &sqlx::Error) -> AdministrationError {
    match Fault::of(error) {
        Fault::Busy => AdministrationError::Busy(error.to_string()),
        _ => AdministrationError::Store(store_error(error)),
    }
}
