//! A lane's ledger: one connection, calls that end in a definite answer or not at all.

use super::{
    commit,
    connection::{Backend, Server, Session},
    error::{after_sending, guard_failed},
    report, single,
};
use crate::{
    domain::{
        ids::{AccountId, RequestId},
        limits::CounterKey,
    },
    ledger::{Commit, Ledger, LedgerError, Outcome, Positions, Void, Voided},
};
use sqlx::{
    Postgres,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use std::sync::Arc;
use tokio::time::timeout;

const POSITIONS: &str = "\
select null::bigint, null::bigint, a.id, a.posted, a.held, a.floor
  from unnest($1::bigint[]) as u(id) cross join lateral (select * from accounts where id = u.id offset 0) as a
union all
select c.scope_id, c.window_start, c.limit_id, c.amount, c.count, null
  from unnest($2::bigint[], $3::bigint[], $4::bigint[]) as u(limit_id, scope_id, window_start)
 cross join lateral (select * from counters e
                      where e.limit_id = u.limit_id and e.scope_id = u.scope_id and e.window_start = u.window_start offset 0) as c";

const VOID: &str = "select done, response from jit_void($1, $2, $3, $4, $5, $6, $7, $8, $9)";

const MARK_UNHEARD: &str = "update authorizations set unheard = true where id = $1 and decision > 0 and not unheard";

const PROBE: &str = "select exists (select 1 from authorizations where id = $1 and response = $2)";

/// The ledger of one lane, on a connection of its own.
///
/// After [`LedgerError::Unknown`] the next call first ends the backend that may still be at work, and only then is sent. As long
/// as that is not possible, or as long as a call that was applied has not been answered, calls that write fail with `Unknown` too:
/// a definite error is given only when nothing of the lost call is left to be learnt.
#[derive(Debug)]
pub struct PgLedger {
    server: Arc<Server>,
    /// Taken out during a call, so that a call that is dropped half way takes its connection with it.
    session: Option<Session>,
    /// A call whose answer was never read.
    lost: Option<Lost>,
    /// The lost call turned out to have been applied; its caller has not heard so yet.
    untold: bool,
}

/// What is remembered of a call until its answer is read.
#[derive(Debug)]
struct Lost {
    backend: Backend,
    mark: Option<Mark>,
}

/// What the journal holds if, and only if, a call was applied: these bytes under this id.
#[derive(Clone, Debug)]
struct Mark {
    id: RequestId,
    response: Arc<[u8]>,
}

impl PgLedger {
    pub(super) const fn new(server: Arc<Server>) -> Self {
        Self { server, session: None, lost: None, untold: false }
    }

    /// A connection on which nothing of an earlier call is left.
    async fn session(&mut self) -> Result<Session, LedgerError> {
        let ready = match self.session.take() {
            Some(session) => Ok(session),
            None => self.open().await,
        };
        ready.map_err(|text| if self.lost.is_some() || self.untold { LedgerError::Unknown(text) } else { LedgerError::Unreachable(text) })
    }

    async fn open(&mut self) -> Result<Session, String> {
        let mut session = self.server.open().await.map_err(|error| error.to_string())?;
        if let Some(lost) = &self.lost {
            self.server.fence(&mut session, &lost.backend).await.map_err(|error| error.to_string())?;
            // The backend is gone: what it has not committed by now it never will, so a look at the journal is exact.
            if let Some(mark) = &lost.mark {
                let probe = sqlx::query_scalar(PROBE).bind(mark.id.as_str()).bind(&mark.response[..]);
                let applied = timeout(self.server.answer_timeout(), probe.fetch_one(&mut session.connection)).await;
                let applied: bool = applied.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
                self.untold |= applied;
            }
            self.lost = None;
        }
        Ok(session)
    }

    /// Sends one statement that writes, and reads its answer to the end. No rows at all, not even an empty answer: a guard failed.
    async fn write(&mut self, mark: Option<Mark>, query: Query<'_, Postgres, PgArguments>) -> Result<Option<Vec<PgRow>>, LedgerError> {
        let mut session = self.session().await?;
        self.lost = Some(Lost { backend: session.backend.clone(), mark });
        let error = match timeout(self.server.answer_timeout(), query.fetch_all(&mut session.connection)).await {
            Ok(Ok(answer)) => {
                self.lost = None;
                self.untold = false;
                self.session = Some(session);
                return Ok(Some(answer));
            }
            Ok(Err(error)) if !self.untold && guard_failed(&error) => {
                self.lost = None;
                self.session = Some(session);
                return Ok(None);
            }
            Ok(Err(error)) => after_sending(&error),
            Err(_) => LedgerError::Unknown(format!("no answer within {} ms", self.server.answer_timeout().as_millis())),
        };
        match error {
            LedgerError::Unknown(_) => return Err(error),
            // Nothing was applied, but this server is of no use any more.
            LedgerError::Unreachable(_) => self.lost = None,
            _ => {
                self.lost = None;
                self.session = Some(session);
            }
        }
        if self.untold {
            return Err(LedgerError::Unknown(format!("the lost call was applied, but its outcome cannot be had: {error}")));
        }
        Err(error)
    }

    /// Sends one statement that only reads. A connection that died while it was idle is replaced once.
    async fn read(&mut self, query: impl Fn() -> Query<'static, Postgres, PgArguments> + Send) -> Result<Vec<PgRow>, LedgerError> {
        let mut text = String::new();
        for _ in 0..2 {
            let mut session = self.session().await.map_err(|error| LedgerError::Unreachable(error.to_string()))?;
            match timeout(self.server.answer_timeout(), query().fetch_all(&mut session.connection)).await {
                Ok(Ok(answer)) => {
                    self.session = Some(session);
                    return Ok(answer);
                }
                Ok(Err(error)) => match after_sending(&error) {
                    LedgerError::Unknown(why) | LedgerError::Unreachable(why) => text = why,
                    definite => {
                        self.session = Some(session);
                        return Err(definite);
                    }
                },
                Err(_) => return Err(LedgerError::Unreachable("no answer in time".to_owned())),
            }
        }
        Err(LedgerError::Unreachable(text))
    }
}

impl Ledger for PgLedger {
    async fn commit(&mut self, commit: &Commit, wait: bool) -> Result<Outcome, LedgerError> {
        commit.check()?;
        if let Some(report) = commit.disagreements() {
            return Ok(Outcome::Rejected(Box::new(report)));
        }
        let mark = commit.journal.first().map(|entry| Mark { id: entry.id.clone(), response: Arc::clone(&entry.response) });
        // What a lost call has left to be learnt is in the report of the whole group only.
        let alone = single::only(commit).filter(|_| wait && self.lost.is_none() && !self.untold);
        if let Some(entry) = alone
            && let Some(rows) = self.write(mark.clone(), single::query(commit, entry)).await?
            && report::committed(&rows).map_err(misunderstood)?
        {
            return Ok(Outcome::Committed);
        }
        let rows = self.write(mark, commit::query(commit, wait)).await?.unwrap_or_default();
        report::read(commit, &rows).map_err(misunderstood)
    }

    async fn positions(&mut self, accounts: &[AccountId], counters: &[CounterKey]) -> Result<Positions, LedgerError> {
        let accounts: Vec<i64> = accounts.iter().map(|account| account.0).collect();
        let limits: Vec<i64> = counters.iter().map(|key| key.limit.0).collect();
        let scopes: Vec<i64> = counters.iter().map(|key| key.scope).collect();
        let windows: Vec<i64> = counters.iter().map(|key| key.window).collect();
        let query = || sqlx::query(POSITIONS).bind(accounts.clone()).bind(limits.clone()).bind(scopes.clone()).bind(windows.clone());
        let rows = self.read(query).await?;
        report::positions(&rows).map_err(misunderstood)
    }

    async fn void(&mut self, void: &Void) -> Result<Voided, LedgerError> {
        let mark = Mark { id: void.id.clone(), response: Arc::clone(&void.decline) };
        let query = sqlx::query(VOID)
            .bind(void.id.as_str())
            .bind(void.account.0)
            .bind(void.held)
            .bind(void.counters.iter().map(|key| key.limit.0).collect::<Vec<_>>())
            .bind(void.counters.iter().map(|key| key.scope).collect::<Vec<_>>())
            .bind(void.counters.iter().map(|key| key.window).collect::<Vec<_>>())
            .bind(&void.response[..])
            .bind(&void.decline[..])
            .bind(i16::try_from(void.reason.number()).unwrap_or(i16::MAX));
        let rows = self.write(Some(mark), query).await?.unwrap_or_default();
        report::voided(&rows).map_err(misunderstood)
    }

    async fn mark_unheard(&mut self, id: &RequestId) -> Result<(), LedgerError> {
        self.write(None, sqlx::query(MARK_UNHEARD).bind(id.as_str())).await.map(drop)
    }
}

fn misunderstood(error: sqlx::Error) -> LedgerError {
    LedgerError::Refused(format!("the answer is not understood: {error}"))
}
