//! Stores and queues of a run's own: made, filled, and taken away again.

use super::{
    scenario::{Funds, Scenario},
    targets::amqp::{self, AmqpError, dial},
};
use crate::{
    broker::{self, BrokerError, topology},
    ledger::{StoreError, postgres, postgres::Postgres, sqlite, sqlite::Sqlite},
    seed::{self, Plan, Target},
};
use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, SqliteConnection, postgres::PgConnectOptions, sqlite::SqliteConnectOptions,
};
use std::{path::Path, time::Duration};
use tokio::time::timeout;
use url::Url;

/// How long a database may take to be dropped.
const DROP_MAX: Duration = Duration::from_secs(20);

/// Money for every account, minor units.
const PLENTY: i64 = 100_000_000_000;

/// Why there is no scratch.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// A store could not be made.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Sample cards could not be written.
    #[error(transparent)]
    Seed(#[from] seed::Error),
    /// A statement failed.
    #[error("the store of the run could not be made: {0}")]
    Sql(#[from] sqlx::Error),
    /// `postgres.url` is not understood.
    #[error("postgres.url is not understood")]
    Address,
    /// Exchanges and queues could not be declared.
    #[error(transparent)]
    Topology(#[from] BrokerError),
    /// RabbitMQ could not be used.
    #[error(transparent)]
    Broker(#[from] AmqpError),
}

/// Where a store is.
#[derive(Clone, Debug)]
pub enum Location {
    /// A file.
    Sqlite(sqlite::Settings),
    /// A database.
    Postgres(postgres::Settings),
}

impl Location {
    /// `postgresql` or `sqlite`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgresql",
        }
    }

    /// Makes the store, with its schema and the cards of the scenario. A PostgreSQL database gets the name of the run.
    ///
    /// # Errors
    /// [`ScratchError`]. What was made by then is taken away by [`Location::remove`].
    pub async fn make(&self, scenario: &Scenario) -> Result<(), ScratchError> {
        let target = match self {
            Self::Sqlite(settings) => {
                Sqlite::visit(settings).await?.migrate().await?;
                Target::Sqlite { path: settings.path.clone() }
            }
            Self::Postgres(settings) => {
                postgres::create_database(settings).await?;
                Postgres::connect(settings).await?.migrate().await?;
                Target::Postgres { url: settings.url.clone() }
            }
        };
        seed::write(Plan::new(scenario.cards, scenario.seed), &target, |_| ()).await?;
        if scenario.funds == Funds::Plenty {
            self.fund().await?;
        }
        Ok(())
    }

    /// Takes the store away. A file goes with its directory.
    ///
    /// # Errors
    /// The server does not let us drop the database.
    pub async fn remove(&self) -> Result<(), ScratchError> {
        let Self::Postgres(settings) = self else { return Ok(()) };
        let options: PgConnectOptions = settings.url.parse().map_err(|_| ScratchError::Address)?;
        let Some(name) = options.get_database().map(|name| name.replace('"', "\"\"")) else { return Ok(()) };
        let dropping = async {
            let mut server = options.disable_statement_logging().database("postgres").connect().await?;
            sqlx::raw_sql(AssertSqlSafe(format!("drop database if exists \"{name}\" with (force)"))).execute(&mut server).await?;
            server.close().await
        };
        let dropped = timeout(DROP_MAX, dropping).await;
        dropped.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut)).map_err(ScratchError::Sql)
    }

    /// Gives every account more than a run spends, and lifts the caps out of reach. The books stay right.
    async fn fund(&self) -> Result<(), ScratchError> {
        let moved =
            format!("{PLENTY} * (select count(*) from accounts a where a.program_id = accounts.program_id and a.kind = 'cardholder')");
        let sql = format!(
            "insert into entries(transfer, account_id, amount, posted_at)
             select 'bench:plenty', id, case kind when 'cardholder' then {PLENTY} else -{moved} end, 0 from accounts
              where kind = 'cardholder' or {moved} > 0;
             update accounts set posted = posted + case kind when 'cardholder' then {PLENTY} else -{moved} end;
             update limits set cap_amount = case when cap_amount is null then null else {PLENTY} end,
                               cap_count = case when cap_count is null then null else {PLENTY} end"
        );
        let statements = sqlx::raw_sql(AssertSqlSafe(sql));
        match self {
            Self::Sqlite(settings) => {
                let options = SqliteConnectOptions::new().filename(&settings.path).create_if_missing(false);
                let mut store = SqliteConnection::connect_with(&options.disable_statement_logging()).await?;
                statements.execute(&mut store).await?;
                store.close().await?;
            }
            Self::Postgres(settings) => {
                let options: PgConnectOptions = settings.url.parse().map_err(|_| ScratchError::Address)?;
                let mut store = PgConnection::connect_with(&options.disable_statement_logging()).await?;
                statements.execute(&mut store).await?;
                store.close().await?;
            }
        }
        Ok(())
    }
}

/// A file of a run's own, opened as the configuration says.
#[must_use]
pub fn sqlite_in(directory: &Path, settings: &sqlite::Settings) -> Location {
    Location::Sqlite(sqlite::Settings { path: directory.join("jitauth.db"), ..settings.clone() })
}

/// A database of a run's own on the server of the configuration.
///
/// # Errors
/// [`ScratchError::Address`].
pub fn postgres_named(name: &str, settings: &postgres::Settings) -> Result<Location, ScratchError> {
    let mut url: Url = settings.url.parse().map_err(|_| ScratchError::Address)?;
    url.set_path(name);
    Ok(Location::Postgres(postgres::Settings { url: url.to_string(), ..settings.clone() }))
}

/// The same broker with names of a run's own.
#[must_use]
pub fn topology_named(name: &str, settings: &broker::Settings) -> broker::Settings {
    let named = |what: &str| format!("{name}.{what}");
    broker::Settings {
        exchange: named("transactions"),
        events_exchange: named("events"),
        request_queue: named("requests"),
        response_queue: named("responses"),
        dead_letter_queue: named("dead-letters"),
        transaction_queue: named("transactions"),
        webhook_queue: named("webhooks"),
        reply_to_allowed: vec!["amq.gen-".to_owned()],
        ..settings.clone()
    }
}

/// Declares the exchanges and queues.
///
/// # Errors
/// [`ScratchError`].
pub async fn declare(settings: &broker::Settings) -> Result<(), ScratchError> {
    Ok(topology::apply(settings).await?)
}

/// Deletes what [`declare`] declared.
///
/// # Errors
/// [`ScratchError`].
pub async fn delete(settings: &broker::Settings) -> Result<(), ScratchError> {
    let work = [&settings.request_queue, &settings.transaction_queue, &settings.webhook_queue];
    let dead = [&settings.transaction_queue, &settings.webhook_queue].map(|name| format!("{name}-dlq"));
    let others = [settings.response_queue.clone(), settings.dead_letter_queue.clone()];
    let queues: Vec<String> = work.into_iter().cloned().chain(dead).chain(others).collect();
    delete_queues(settings, &queues).await?;
    let connection = dial(&settings.url, "jitauth bench").await?;
    let channel = connection.create_channel().await.map_err(AmqpError::Broker)?;
    for exchange in [&settings.exchange, &settings.events_exchange] {
        channel.exchange_delete(amqp::short(exchange), ExchangeDeleteOptions::default()).await.map_err(AmqpError::Broker)?;
    }
    connection.close(200, "done".into()).await.map_err(AmqpError::Broker)?;
    Ok(())
}

/// Deletes queues, with whatever is in them. Those that are not there are no fault.
///
/// # Errors
/// [`ScratchError::Broker`].
pub async fn delete_queues(settings: &broker::Settings, queues: &[String]) -> Result<(), ScratchError> {
    let connection = dial(&settings.url, "jitauth bench").await?;
    let channel = connection.create_channel().await.map_err(AmqpError::Broker)?;
    for queue in queues {
        channel.queue_delete(amqp::short(queue), QueueDeleteOptions::default()).await.map_err(AmqpError::Broker)?;
    }
    connection.close(200, "done".into()).await.map_err(AmqpError::Broker)?;
    Ok(())
}

/// Messages ready in a queue.
///
/// # Errors
/// [`ScratchError::Broker`].
pub async fn depth(settings: &broker::Settings, queue: &str) -> Result<u32, ScratchError> {
    let connection = dial(&settings.url, "jitauth bench").await?;
    let channel = connection.create_channel().await.map_err(AmqpError::Broker)?;
    let passive = QueueDeclareOptions { passive: true, durable: true, ..QueueDeclareOptions::default() };
    let declared =
        channel.queue_declare(amqp::short(queue), passive, lapin::types::FieldTable::default()).await.map_err(AmqpError::Broker)?;
    let count = declared.message_count();
    connection.close(200, "done".into()).await.map_err(AmqpError::Broker)?;
    Ok(count)
}
