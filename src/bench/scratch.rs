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
use std::{collections::BTreeMap, fmt, path::Path, time::Duration};
use tokio::{task::JoinHandle, time::timeout};
use url::Url;

/// How long a database may take to be dropped.
const DROP_MAX: Duration = Duration::from_secs(20);

/// How long the broker may take for one thing.
const STEP_MAX: Duration = Duration::from_secs(5);

/// What the databases of runs are called: nothing else is ever dropped.
pub const DATABASE_PREFIX: &str = "jitauth_bench_";

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
    /// A database of this name was there before the run.
    #[error("the database {0:?} is not this run's: it was left as it is")]
    Taken(String),
    /// The task that creates it broke.
    #[error("the store of the run was not made")]
    Unmade,
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

    /// Migrates a store that was just created and writes the cards of the scenario.
    async fn fill(&self, scenario: &Scenario) -> Result<(), ScratchError> {
        let target = match self {
            Self::Sqlite(settings) => {
                Sqlite::visit(settings).await?.migrate().await?;
                Target::Sqlite { path: settings.path.clone() }
            }
            Self::Postgres(settings) => {
                Postgres::connect(settings).await?.migrate().await?;
                Target::Postgres { url: settings.url.clone() }
            }
        };
        seed::write(Plan::new(scenario.cards, scenario.seed), &target, |_| ()).await?;
        if scenario.funds == Funds::Plenty {
            self.fund().await?;
        }
        self.tidy().await
    }

    /// Has PostgreSQL clear away what seeding and funding left behind now, and not in the measured minute.
    async fn tidy(&self) -> Result<(), ScratchError> {
        let Self::Postgres(settings) = self else { return Ok(()) };
        let options: PgConnectOptions = settings.url.parse().map_err(|_| ScratchError::Address)?;
        let mut store = PgConnection::connect_with(&options.disable_statement_logging()).await?;
        sqlx::raw_sql("vacuum (analyze) programs, users, accounts, cards, limits, entries").execute(&mut store).await?;
        Ok(store.close().await?)
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

/// A store of a run's own. Only what this run itself has created is filled, and taken away again.
#[derive(Debug)]
pub struct Scratch {
    location: Location,
    /// Goes on when nobody waits for it any more: what it creates must be known to be taken away.
    creating: Option<JoinHandle<Result<Option<String>, StoreError>>>,
    /// The database that was created.
    created: Option<String>,
}

impl Scratch {
    /// A store to be. Nothing is made yet.
    #[must_use]
    pub const fn new(location: Location) -> Self {
        Self { location, creating: None, created: None }
    }

    /// Makes the store, with its schema and the cards of the scenario.
    ///
    /// # Errors
    /// [`ScratchError`]. What was made by then is taken away by [`Scratch::remove`].
    pub async fn make(&mut self, scenario: &Scenario) -> Result<(), ScratchError> {
        if let Location::Postgres(settings) = &self.location {
            let (name, settings) = (database(settings)?, settings.clone());
            let creating = self.creating.insert(tokio::spawn(async move { postgres::create_database(&settings).await }));
            let created = creating.await;
            self.creating = None;
            self.created = created.map_err(|_| ScratchError::Unmade)??;
            if self.created.is_none() {
                return Err(ScratchError::Taken(name));
            }
        }
        self.location.fill(scenario).await
    }

    /// What has to be dropped, if it was made.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        let Location::Postgres(settings) = &self.location else { return None };
        if self.creating.is_none() && self.created.is_none() {
            return None;
        }
        database(settings).ok().map(|name| format!("database {name}"))
    }

    /// Takes the store away. A file goes with its directory; a database that this run has not created stays as it is.
    ///
    /// # Errors
    /// The server does not let us drop the database.
    pub async fn remove(&mut self) -> Result<(), ScratchError> {
        if let Some(creating) = &mut self.creating {
            self.created = creating.await.ok().and_then(Result::ok).flatten();
            self.creating = None;
        }
        let (Location::Postgres(settings), Some(name)) = (&self.location, &self.created) else { return Ok(()) };
        if database(settings)? != *name {
            return Err(ScratchError::Taken(name.clone()));
        }
        let options: PgConnectOptions = settings.url.parse().map_err(|_| ScratchError::Address)?;
        let dropping = async {
            let mut server = options.disable_statement_logging().database("postgres").connect().await?;
            let name = name.replace('"', "\"\"");
            sqlx::raw_sql(AssertSqlSafe(format!("drop database if exists \"{name}\" with (force)"))).execute(&mut server).await?;
            server.close().await
        };
        let dropped = timeout(DROP_MAX, dropping).await;
        dropped.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut)).map_err(ScratchError::Sql)
    }
}

/// The database that a URL opens, which must have the name of a run.
fn database(settings: &postgres::Settings) -> Result<String, ScratchError> {
    let options: PgConnectOptions = settings.url.parse().map_err(|_| ScratchError::Address)?;
    let name = options.get_database().unwrap_or_default().to_owned();
    if name.starts_with(DATABASE_PREFIX) { Ok(name) } else { Err(ScratchError::Taken(name)) }
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
    // A database in the query would win over the path.
    let others: Vec<(String, String)> =
        url.query_pairs().filter(|(key, _)| key != "dbname").map(|(key, value)| (key.into(), value.into())).collect();
    url.set_query(None);
    if !others.is_empty() {
        url.query_pairs_mut().extend_pairs(others);
    }
    let settings = postgres::Settings { url: url.to_string(), ..settings.clone() };
    if database(&settings)? != name {
        return Err(ScratchError::Address);
    }
    Ok(Location::Postgres(settings))
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

/// Asks whether the broker is there at all.
///
/// # Errors
/// [`ScratchError::Broker`].
pub async fn reach(settings: &broker::Settings) -> Result<(), ScratchError> {
    let connection = dial(&settings.url, "jitauth bench").await?;
    // It ends with this process otherwise.
    let _closed = timeout(STEP_MAX, connection.close(200, "done".into())).await.is_ok();
    Ok(())
}

/// Declares the exchanges and queues.
///
/// # Errors
/// [`ScratchError`].
pub async fn declare(settings: &broker::Settings) -> Result<(), ScratchError> {
    Ok(topology::apply(settings).await?)
}

fn queues(settings: &broker::Settings) -> impl Iterator<Item = String> {
    objects(settings).filter_map(|object| match object {
        Object::Queue(name) => Some(name),
        Object::Exchange(_) => None,
    })
}

/// Messages in each of the queues that [`declare`] declared, where there are any. Nobody may consume any more.
///
/// # Errors
/// [`ScratchError::Broker`].
pub async fn remaining(settings: &broker::Settings) -> Result<BTreeMap<String, u64>, ScratchError> {
    let connection = dial(&settings.url, "jitauth bench").await?;
    let channel = connection.create_channel().await.map_err(AmqpError::Broker)?;
    let mut left = BTreeMap::new();
    for queue in queues(settings) {
        let passive = QueueDeclareOptions { passive: true, durable: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(amqp::short(&queue), passive, lapin::types::FieldTable::default()).await;
        let count = declared.map_err(AmqpError::Broker)?.message_count();
        if count > 0 {
            left.insert(queue, u64::from(count));
        }
    }
    connection.close(200, "done".into()).await.map_err(AmqpError::Broker)?;
    Ok(left)
}

/// An exchange or a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// An exchange.
    Exchange(String),
    /// A queue.
    Queue(String),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange(name) => write!(f, "exchange {name}"),
            Self::Queue(name) => write!(f, "queue {name}"),
        }
    }
}

/// What [`declare`] declares.
pub fn objects(settings: &broker::Settings) -> impl Iterator<Item = Object> {
    let work = [&settings.request_queue, &settings.transaction_queue, &settings.webhook_queue].map(String::clone);
    let dead = [&settings.transaction_queue, &settings.webhook_queue].map(|name| format!("{name}-dlq"));
    let others = [settings.response_queue.clone(), settings.dead_letter_queue.clone()];
    let exchanges = [settings.exchange.clone(), settings.events_exchange.clone()].map(Object::Exchange);
    work.into_iter().chain(dead).chain(others).map(Object::Queue).chain(exchanges)
}

/// Deletes what [`declare`] declared, and takes it out of `left`. What is not there is no fault; what cannot be deleted does not keep the
/// rest, but a broker that does not answer is not asked again.
pub async fn delete(settings: &broker::Settings, left: &mut Vec<String>) {
    let Ok(connection) = dial(&settings.url, "jitauth bench").await else { return };
    for object in objects(settings) {
        let deleting = async {
            // The broker closes a channel to say no.
            let channel = connection.create_channel().await?;
            match &object {
                Object::Queue(name) => channel.queue_delete(amqp::short(name), QueueDeleteOptions::default()).await.map(drop)?,
                Object::Exchange(name) => channel.exchange_delete(amqp::short(name), ExchangeDeleteOptions::default()).await?,
            }
            channel.close(200, "done".into()).await
        };
        match timeout(STEP_MAX, deleting).await {
            Ok(Ok(())) => left.retain(|name| *name != object.to_string()),
            Ok(Err(_)) => {}
            Err(_) => return,
        }
    }
    // It ends with this process otherwise.
    let _closed = timeout(STEP_MAX, connection.close(200, "done".into())).await.is_ok();
}

/// Messages ready in a queue.
///
/// # Errors
/// [`ScratchError::Broker`].
pub async fn depth(settings: &broker::Settings, queue: &str) -> Result<u32, ScratchError> {
    let connection = dial(&settings.url, "jitauth bench").await?;
    let passive = QueueDeclareOptions { passive: true, durable: true, ..QueueDeclareOptions::default() };
    let asking = async {
        let channel = connection.create_channel().await?;
        let declared = channel.queue_declare(amqp::short(queue), passive, lapin::types::FieldTable::default()).await?;
        connection.close(200, "done".into()).await?;
        Ok(declared.message_count())
    };
    Ok(timeout(STEP_MAX, asking).await.map_err(|_| AmqpError::Silent)?.map_err(AmqpError::Broker)?)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn settings(url: &str) -> postgres::Settings {
        let second = Duration::from_secs(1);
        postgres::Settings {
            url: url.to_owned(),
            pool_min: 0,
            pool_max: 1,
            connect_timeout: second,
            idle_timeout: second,
            query_timeout: second,
            commit_timeout: second,
            lock_timeout: second,
        }
    }

    /// The database that a run named `jitauth_bench_1` opens when this is the configuration's URL.
    fn check(url: &str, expected: &str) {
        let Location::Postgres(settings) = postgres_named("jitauth_bench_1", &settings(url)).unwrap() else { unreachable!("asked for") };
        assert_eq!(settings.url, expected);
        let options: PgConnectOptions = settings.url.parse().unwrap();
        assert_eq!(options.get_database(), Some("jitauth_bench_1"), "{url}");
    }

    #[test]
    fn a_run_opens_a_database_of_its_own_whatever_the_url_says() {
        check("postgres://u:p@host:1/theirs", "postgres://u:p@host:1/jitauth_bench_1");
        check("postgres://host", "postgres://host/jitauth_bench_1");
        check("postgres://host/theirs?dbname=precious", "postgres://host/jitauth_bench_1");
        check("postgres:///?host=%2Frun%2Fpg&dbname=precious", "postgres:///jitauth_bench_1?host=%2Frun%2Fpg");
        check("postgres://host/a?dbname=b&sslmode=disable&dbname=c", "postgres://host/jitauth_bench_1?sslmode=disable");
        check("postgres://host/a?%64bname=b", "postgres://host/jitauth_bench_1");
    }

    #[tokio::test]
    async fn what_a_broker_that_is_gone_keeps_is_told_by_name() {
        let (second, empty) = (Duration::from_secs(1), String::new);
        let settings = broker::Settings {
            url: "amqp://127.0.0.1:1".to_owned(),
            queue_type: broker::QueueType::Classic,
            exchange: empty(),
            events_exchange: empty(),
            request_queue: empty(),
            response_queue: empty(),
            dead_letter_queue: empty(),
            transaction_queue: empty(),
            webhook_queue: empty(),
            reply_to_allowed: Vec::new(),
            prefetch: 1,
            confirms_max: 1,
            confirm_timeout: second,
            connect_timeout: second,
            heartbeat: second,
            ack_within: second,
            reconnect_max: second,
        };
        let settings = topology_named("bench-1", &settings);
        let mut left: Vec<String> = objects(&settings).map(|object| object.to_string()).collect();
        assert_eq!((left.len(), left[0].as_str(), left[8].as_str()), (9, "queue bench-1.requests", "exchange bench-1.events"));
        delete(&settings, &mut left).await;
        assert_eq!(left.len(), 9, "{left:?}");
    }

    #[tokio::test]
    async fn a_database_with_another_name_is_neither_made_nor_dropped() {
        for url in ["postgres://127.0.0.1:1/precious", "postgres://127.0.0.1:1/jitauth_bench_1?dbname=precious"] {
            let scratch = || Scratch::new(Location::Postgres(settings(url)));
            let made = scratch().make(&Scenario::default()).await;
            assert!(matches!(&made, Err(ScratchError::Taken(name)) if name == "precious"), "{made:?}");
            let created = Some("precious".to_owned());
            let mut foreign = Scratch { created, ..scratch() };
            let removed = foreign.remove().await;
            assert!(matches!(&removed, Err(ScratchError::Taken(name)) if name == "precious"), "{removed:?}");
        }
    }
}
