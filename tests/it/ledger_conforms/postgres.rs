//! PostgreSQL for the suite: a database a case, on the server that `JITAUTH_TEST_POSTGRES` names.

use super::{
    fixture::Fixture,
    news::{Ear, card},
    stage::Stage,
};
use jitauth::{
    facts::change::Heard,
    ledger::{
        Store as _,
        postgres::{PgLedger, Postgres, Settings},
    },
};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep, timeout},
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

fn settings(database: &PgConnectOptions) -> Settings {
    Settings {
        url: database.to_url_lossy().into(),
        pool_min: 0,
        pool_max: 4,
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(30),
        query_timeout: Duration::from_secs(30),
        commit_timeout: Duration::from_secs(2),
        lock_timeout: Duration::from_millis(100),
    }
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
        let store = Postgres::connect(&settings(&database)).await.unwrap();
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

/// Waits until it is said that something may have been missed, and then until it is not so any more.
async fn gap(ear: &mut Ear<Postgres>, begun: Instant) -> String {
    let Heard::Lost(why) = ear.next().await else { panic!("the gap is not told") };
    let noticed = begun.elapsed();
    assert_eq!(ear.next().await, Heard::Listening);
    eprintln!("a gap ({why}) was told after {} ms and was over after {} ms", noticed.as_millis(), begun.elapsed().as_millis());
    why
}

async fn hears(ear: &mut Ear<Postgres>, stage: &Stage<PostgresFixture>) {
    stage.sql("update cards set expires_at = expires_at - 1 where id = 1").await;
    let version = stage.number("select version from cards where id = 1").await;
    ear.until(|told| told.change == card("crd_1", Some(version))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_heard_when_the_backend_was_terminated() {
    let Some(stage) = Stage::<PostgresFixture>::new().await else { return };
    let mut ear = Ear::new(&stage.fixture.store).await;
    hears(&mut ear, &stage).await;
    let begun = Instant::now();
    let terminate = "select cast(pg_terminate_backend(pid) as text) from pg_stat_activity \
                      where datname = current_database() and application_name = 'jitauth news'";
    assert_eq!(stage.fixture.rows(terminate).await, ["true"], "one listener, ended");
    gap(&mut ear, begun).await;
    hears(&mut ear, &stage).await;
    drop(ear);
    stage.finish().await;
}

/// Connections to the server through a wire that can be cut without anybody being told.
struct Wire {
    options: PgConnectOptions,
    cut: watch::Sender<bool>,
}

impl Wire {
    async fn to(server: &PgConnectOptions) -> Self {
        let (host, port) = (server.get_host().to_owned(), server.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = server.clone().host("127.0.0.1").port(listener.local_addr().unwrap().port());
        let (cut, is_cut) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut far = TcpStream::connect((host.as_str(), port)).await.unwrap();
                let mut is_cut = is_cut.clone();
                // A connection of before the cut goes silent; one of after it is sound.
                is_cut.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = is_cut.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { options, cut }
    }
}

/// Who asks for readiness does not wait as long as the store would, and comes again however often the link goes dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_that_were_given_up_do_not_keep_the_next_from_an_answer() {
    let Some(stage) = Stage::<PostgresFixture>::new().await else { return };
    let wire = Wire::to(&stage.fixture.server).await;
    let store = Postgres::connect(&settings(&wire.options.clone().database(&stage.fixture.name))).await.unwrap();
    for cut in 0..6 {
        store.ping().await.unwrap_or_else(|error| panic!("after {cut} cuts: {error}"));
        // A pool would take its connection back in its own time.
        sleep(Duration::from_millis(100)).await;
        wire.cut.send(true).unwrap();
        assert!(timeout(Duration::from_millis(200), store.ping()).await.is_err(), "cut {cut} is silent");
    }
    drop(store);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_heard_when_the_link_went_dead_without_a_word() {
    let Some(stage) = Stage::<PostgresFixture>::new().await else { return };
    let wire = Wire::to(&stage.fixture.server).await;
    let store = Postgres::connect(&settings(&wire.options.clone().database(&stage.fixture.name))).await.unwrap();
    let mut ear = Ear::new(&store).await;
    hears(&mut ear, &stage).await;
    let begun = Instant::now();
    wire.cut.send(true).unwrap();
    let why = gap(&mut ear, begun).await;
    assert!(why.starts_with("no answer within"), "{why}");
    hears(&mut ear, &stage).await;
    drop((ear, store));
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_announced_and_cannot_be_read_is_everything() {
    let Some(stage) = Stage::<PostgresFixture>::new().await else { return };
    let mut ear = Ear::new(&stage.fixture.store).await;
    let long = "x".repeat(9_000);
    // Nobody can ask for these; their old tokens are told of.
    stage.sql("update cards set token = 'crd 1' where id = 1").await;
    stage.sql(&format!("update cards set token = '{long}' where id = 2")).await;
    for change in ["notify facts, 'card:1'", "truncate cards cascade"] {
        stage.sql(change).await;
        ear.until(|told| told.change == jitauth::facts::change::Change::Everything).await;
    }
    drop(ear);
    stage.finish().await;
}
