//! Making the database itself.

use super::Settings;
use crate::ledger::StoreError;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Error, PgConnection, postgres::PgConnectOptions};
use std::{future::Future, time::Duration};
use tokio::time::timeout;

/// SQLSTATE of connecting to a database that does not exist.
const NO_SUCH_DATABASE: &str = "3D000";
/// SQLSTATE of creating a database that exists, because somebody else was faster.
const DATABASE_EXISTS: &str = "42P04";

/// Creates the database of `settings.url` when the server has none of that name. Returns its name if it was created.
///
/// # Errors
/// [`StoreError::Unreachable`] or [`StoreError::Refused`] when the server cannot be used or does not let us create databases.
pub async fn create_database(settings: &Settings) -> Result<Option<String>, StoreError> {
    // The parser's message may quote the URL.
    let options: PgConnectOptions = settings.url.parse().map_err(|_| StoreError::Refused("postgres.url is not understood".to_owned()))?;
    let options = options.disable_statement_logging();
    match within(settings.connect_timeout, options.connect()).await {
        Ok(connection) => {
            close(connection).await;
            return Ok(None);
        }
        Err(Failure::Sql(error)) if state(&error).as_deref() == Some(NO_SUCH_DATABASE) => {}
        Err(failure) => return Err(failure.into()),
    }
    let name = options.get_database().unwrap_or_else(|| options.get_username()).to_owned();
    let mut server = within(settings.connect_timeout, options.database("postgres").connect()).await?;
    let statement = format!("create database \"{}\"", name.replace('"', "\"\""));
    let created = within(settings.query_timeout, sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut server)).await;
    close(server).await;
    match created {
        Ok(_) => Ok(Some(name)),
        Err(Failure::Sql(error)) if state(&error).as_deref() == Some(DATABASE_EXISTS) => Ok(None),
        Err(failure) => Err(failure.into()),
    }
}

enum Failure {
    Late,
    Sql(Error),
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Late => Self::Unreachable("no answer in time".to_owned()),
            Failure::Sql(error) => error.into(),
        }
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    timeout(limit, work).await.map_err(|_| Failure::Late)?.map_err(Failure::Sql)
}

/// Says goodbye, so that the server does not log a lost connection. It is of no use any more either way.
async fn close(connection: PgConnection) {
    if let Err(error) = connection.close().await {
        tracing::debug!(event = "close_failed", %error, "a connection that is done with did not close cleanly");
    }
}

fn state(error: &Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(Into::into)
}
