//! Connections: what they are set to, who serves them, and how a lost one is made sure to be over.

use super::{Durability, Settings};
use crate::ledger::StoreError;
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, Row as _,
    postgres::{PgConnectOptions, PgRow, PgSslMode},
};
use std::{str::FromStr as _, time::Duration};
use tokio::time::timeout;

/// The oldest server whose `pg_terminate_backend` waits for the end.
const SERVER_VERSION_MIN: u32 = 140_000;

/// How long the end of a lost backend is waited for before the call is given up as still unknown.
const FENCE_TIMEOUT: Duration = Duration::from_secs(2);

/// On top of the server's own timeout, how long an answer is waited for.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);

/// Says who we are, and makes the session one that a commit may rely on: READ COMMITTED, and durable although the server's default
/// may be otherwise. An operator's stronger choice (`remote_apply`) stays.
const INTRODUCE: &str = "select pg_backend_pid() as pid, \
    (select backend_start::text from pg_stat_activity where pid = pg_backend_pid()) as started, \
    current_setting('server_version_num')::int as version, \
    pg_is_in_recovery() as standby, \
    current_setting('transaction_read_only') = 'on' as read_only, \
    set_config('default_transaction_isolation', 'read committed', false) as isolation, \
    set_config('synchronous_commit', case current_setting('synchronous_commit') when 'off' then 'on' when 'local' then 'on' \
        else current_setting('synchronous_commit') end, false) as synchronous_commit, \
    current_setting('fsync') as fsync, \
    current_setting('full_page_writes') as full_page_writes";

/// Ends a backend and waits for it, if it is still the one that was meant. No row: it is gone already.
const TERMINATE: &str = "select pg_terminate_backend(pid, $3) as gone from pg_stat_activity where pid = $1 and backend_start::text = $2";

/// Where the server is and how to talk to it.
#[derive(Debug)]
pub(super) struct Server {
    options: PgConnectOptions,
    settings: Settings,
}

/// A server process, by an identity that does not come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backend {
    pid: i32,
    started: String,
}

/// A connection that was introduced.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) connection: PgConnection,
    pub(super) backend: Backend,
    pub(super) durability: Durability,
    pub(super) version: u32,
}

impl Server {
    pub(super) fn new(settings: &Settings) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(&settings.url)
            .map_err(|error| StoreError::Broken(format!("the URL is not understood: {error}")))?
            .application_name("jitauth")
            .disable_statement_logging();
        // TLS that the URL only prefers is left out on this machine. It would protect nothing, and its records reach the socket in
        // several writes, which without TCP_NODELAY (the driver cannot set it) wait for each other: 40 ms for a large group.
        let here = matches!(options.get_host(), "localhost" | "127.0.0.1" | "::1" | "[::1]");
        let options = match options.get_ssl_mode() {
            PgSslMode::Prefer if here => options.ssl_mode(PgSslMode::Disable),
            _ => options,
        };
        Ok(Self { options, settings: settings.clone() })
    }

    /// How long an answer to a call may take before the connection is given up.
    pub(super) fn answer_timeout(&self) -> Duration {
        self.settings.commit_timeout + ANSWER_MARGIN
    }

    /// How long a connection attempt may take.
    pub(super) const fn connect_timeout(&self) -> Duration {
        self.settings.connect_timeout
    }

    /// Single-row lookups only: by index, whatever the statistics say.
    pub(super) fn facts_options(&self) -> PgConnectOptions {
        pinned(self.options.clone()).options([("statement_timeout", milliseconds(self.settings.query_timeout))])
    }

    pub(super) fn administration_options(&self) -> PgConnectOptions {
        self.options.clone().options([("statement_timeout", milliseconds(self.settings.query_timeout))])
    }

    /// For reading the whole store: a statement may take as long as its rows are taken, and sorting in memory is worth it.
    pub(super) fn reading_options(&self) -> PgConnectOptions {
        self.options.clone().options([("statement_timeout", "0"), ("work_mem", "128MB")])
    }

    /// For announcements; named, so that an operator sees which connection it is.
    pub(super) fn listening_options(&self) -> PgConnectOptions {
        self.administration_options().application_name("jitauth news")
    }

    /// For migrations: a statement may take as long as it needs, another migrator is waited for within bounds.
    pub(super) fn migration_options(&self) -> PgConnectOptions {
        self.options.clone().options([("lock_timeout", milliseconds(self.settings.query_timeout))])
    }

    fn ledger_options(&self) -> PgConnectOptions {
        pinned(self.options.clone()).options([
            ("statement_timeout", milliseconds(self.settings.commit_timeout)),
            ("lock_timeout", milliseconds(self.settings.lock_timeout)),
        ])
    }

    /// Opens a plain connection within the connect timeout.
    pub(super) async fn open_with(&self, options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
        timeout(self.settings.connect_timeout, PgConnection::connect_with(options)).await.map_err(|_| self.silent())?.map_err(Into::into)
    }

    /// Opens a connection for a ledger.
    pub(super) async fn open(&self) -> Result<Session, StoreError> {
        let mut connection = self.open_with(&self.ledger_options()).await?;
        let row = timeout(self.settings.connect_timeout, sqlx::query(INTRODUCE).fetch_one(&mut connection))
            .await
            .map_err(|_| self.silent())??;
        let version = u32::try_from(row.try_get::<i32, _>("version")?).unwrap_or(0);
        if version < SERVER_VERSION_MIN {
            return Err(StoreError::Broken(format!("the server has version {version}, at least {SERVER_VERSION_MIN} is needed")));
        }
        if row.try_get("standby")? {
            return Err(StoreError::Unreachable("the server is a hot standby and takes no writes; connect to the primary".to_owned()));
        }
        if row.try_get("read_only")? {
            return Err(StoreError::Unreachable("the server or role is set to read-only transactions".to_owned()));
        }
        Ok(Session { backend: Backend::read(&row)?, durability: Durability::read(&row)?, version, connection })
    }

    /// Makes sure that a backend is gone, and with it whatever it was still doing for us.
    pub(super) async fn fence(&self, session: &mut Session, lost: &Backend) -> Result<(), StoreError> {
        // Each wait must end before the statement timeout of the session does it.
        let wait_ms = i64::try_from(self.settings.commit_timeout.as_millis() / 2).unwrap_or(i64::MAX).max(1);
        let ended = async {
            loop {
                let query = sqlx::query_scalar(TERMINATE).bind(lost.pid).bind(&lost.started).bind(wait_ms);
                match query.fetch_optional(&mut session.connection).await? {
                    None | Some(true) => return Ok::<(), sqlx::Error>(()),
                    Some(false) => tokio::task::yield_now().await,
                }
            }
        };
        match timeout(FENCE_TIMEOUT, ended).await {
            Ok(done) => done.map_err(Into::into),
            Err(_) => Err(StoreError::Unreachable(format!("the backend {} of a lost call does not end", lost.pid))),
        }
    }

    fn silent(&self) -> StoreError {
        StoreError::Unreachable(format!("no answer within {} ms", self.settings.connect_timeout.as_millis()))
    }
}

impl Backend {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self { pid: row.try_get("pid")?, started: row.try_get("started")? })
    }
}

impl Durability {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            fsync: row.try_get("fsync")?,
            synchronous_commit: row.try_get("synchronous_commit")?,
            full_page_writes: row.try_get("full_page_writes")?,
        })
    }
}

/// Leaves the planner nothing but nested loops over indexes, which lock rows in the order we ask for. A generic plan is then as good
/// as any, and saves planning on every commit.
fn pinned(options: PgConnectOptions) -> PgConnectOptions {
    options.options([
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("enable_seqscan", "off"),
        ("enable_bitmapscan", "off"),
        ("jit", "off"),
        ("plan_cache_mode", "force_generic_plan"),
    ])
}

fn milliseconds(duration: Duration) -> String {
    // 0 would mean no timeout at all.
    duration.as_millis().max(1).to_string()
}
