//! Administration on PostgreSQL.

use super::{Postgres, error::after_sending};
use crate::ledger::{
    LedgerError,
    administration::{Administration, AdministrationError, Record, Session, Value},
};
use sqlx::{AssertSqlSafe, Row as _, Transaction};

/// As in `connection`: an order that was acknowledged stays, whatever the server's default is.
const DURABLE: &str = "select set_config('synchronous_commit', case current_setting('synchronous_commit') when 'off' then 'on' \
                       when 'local' then 'on' else current_setting('synchronous_commit') end, true)";

/// A transaction of administration.
#[derive(Debug)]
pub struct PgSession {
    transaction: Transaction<'static, sqlx::Postgres>,
}

impl Administration for Postgres {
    type Session = PgSession;

    async fn begin(&self) -> Result<PgSession, AdministrationError> {
        // Facts change in this isolation only.
        let transaction = self.administration.begin_with("begin isolation level read committed").await.map_err(refusal)?;
        let mut session = PgSession { transaction };
        session.rows(DURABLE.to_owned(), &[]).await?;
        Ok(session)
    }
}

impl Session for PgSession {
    const LOCKING: &'static str = " for no key update";
    const ALONE: &'static str = "select 'alone' from pg_advisory_xact_lock(hashtextextended('jitauth limits', 0))";
    const LIMIT_ID: &'static str = "select cast(nextval('limit_ids') as text)";

    async fn rows(&mut self, sql: String, values: &[Value<'_>]) -> Result<Vec<Record>, AdministrationError> {
        let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
        for value in values {
            query = match *value {
                Value::Text(text) => query.bind(text.to_owned()),
                Value::Integer(number) => query.bind(number),
                Value::Optional(number) => query.bind(number),
            };
        }
        let rows = query.fetch_all(&mut *self.transaction).await.map_err(refusal)?;
        let texts = rows.iter().map(|row| (0..row.len()).map(|column| row.try_get(column)).collect::<Result<_, _>>().map(Record));
        texts.collect::<Result<_, _>>().map_err(refusal)
    }

    async fn commit(self) -> Result<(), AdministrationError> {
        self.transaction.commit().await.map_err(refusal)
    }
}

fn refusal(error: sqlx::Error) -> AdministrationError {
    match after_sending(&error) {
        LedgerError::Contended(text) | LedgerError::Transient(text) => AdministrationError::Busy(text),
        _ => AdministrationError::Store(error.into()),
    }
}
