//! A session of somebody else in the store, who holds a lock for as long as a test wants.

use super::{eventually, store::Store};
use sqlx::{AssertSqlSafe, Postgres, Sqlite, pool::PoolConnection};

/// An open transaction. Dropping it ends it at some time soon; [`Outside::release`] waits for that.
#[derive(Debug)]
pub(crate) enum Outside {
    Postgres(PoolConnection<Postgres>),
    Sqlite(PoolConnection<Sqlite>),
}

impl Outside {
    /// Holds the row of an account on PostgreSQL, all of the database on SQLite.
    pub(crate) async fn holding_account(store: &Store, account: i64) -> Self {
        Self::holding(store, &format!("select 1 from accounts where id = {account} for update")).await
    }

    /// Holds what a statement locks on PostgreSQL, all of the database on SQLite.
    pub(crate) async fn holding(store: &Store, lock: &str) -> Self {
        match store {
            Store::Postgres(pool) => {
                let mut session = pool.acquire().await.expect("PostgreSQL answers");
                sqlx::raw_sql(AssertSqlSafe(format!("begin; {lock}"))).execute(&mut *session).await.expect("a lock");
                Self::Postgres(session)
            }
            Store::Sqlite(pool) => {
                let mut session = pool.acquire().await.expect("the file opens");
                sqlx::raw_sql("begin immediate").execute(&mut *session).await.expect("a lock");
                Self::Sqlite(session)
            }
        }
    }

    pub(crate) async fn release(self) {
        let released = match self {
            Self::Postgres(mut session) => sqlx::raw_sql("rollback").execute(&mut *session).await.map(drop),
            Self::Sqlite(mut session) => sqlx::raw_sql("rollback").execute(&mut *session).await.map(drop),
        };
        released.expect("a rollback");
    }
}

/// Waits until a statement of a daemon, told by a piece of its text, waits for a lock of somebody else on PostgreSQL, or until
/// `otherwise` says that it never will.
pub(crate) async fn waits_for_lock(store: &Store, text: &str, mut otherwise: impl AsyncFnMut() -> bool) -> bool {
    let waiting = format!(
        "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'jitauth'
            and wait_event_type = 'Lock' and query like '%{text}%'"
    );
    eventually(&format!("{text} to wait for a lock"), async || {
        if store.number(&waiting).await > 0 {
            return Some(true);
        }
        otherwise().await.then_some(false)
    })
    .await
}
