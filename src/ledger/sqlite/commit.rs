//! The ledger's calls on SQLite.

use super::{
    arguments::Parameters,
    connect::Door,
    error::{Fault, guard, no_connection},
    group::{self, Group},
    statements,
};
use crate::{
    domain::{
        decision::Decision,
        facts::Balance,
        ids::{AccountId, CardId, CardToken, LimitId, ProgramId, RequestId},
        limits::{CounterKey, Used},
        request::Digest,
    },
    ledger::{Commit, Known, Ledger, LedgerError, Outcome, Positions, Report, Void, Voided},
};
use futures_util::TryStreamExt;
use sqlx::{Either, Executor, Row, SqliteConnection, sqlite::SqliteRow};
use std::sync::Arc;

/// A writing connection to the file, opened on first use and again after a failure.
#[derive(Debug)]
pub struct SqliteLedger {
    door: Arc<Door>,
    /// Only while no call is under way: a call that is dropped half-way takes the connection, and what it had open, with it.
    idle: Option<SqliteConnection>,
}

/// A string of statements that did not finish, and whose doing it was.
pub(super) enum Stopped {
    /// A guard of ours, by name. Nothing was applied and the connection is idle again.
    By(String),
    /// Something else.
    For(LedgerError),
}

impl SqliteLedger {
    pub(super) fn new(door: Arc<Door>) -> Self {
        Self { door, idle: None }
    }

    /// Runs a string of statements and gives back all their rows.
    pub(super) async fn run(&mut self, parameters: Parameters) -> Result<Vec<SqliteRow>, Stopped> {
        let (statements, arguments) = parameters.done().map_err(Stopped::For)?;
        let mut connection = match self.idle.take() {
            Some(connection) => connection,
            None => self.door.writer().await.map_err(|error| Stopped::For(no_connection(&error)))?,
        };
        let (mut rows, mut finished) = (Vec::new(), 0_usize);
        let error = {
            let mut results = (&mut connection).fetch_many(sqlx::query_with(statements.sql, arguments));
            loop {
                match results.try_next().await {
                    Ok(Some(Either::Left(_))) => finished += 1,
                    Ok(Some(Either::Right(row))) => rows.push(row),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            }
        };
        match error {
            None if finished == statements.count => {
                self.idle = Some(connection);
                Ok(rows)
            }
            // The connection's thread ended without a word.
            None => {
                self.door.close(connection).await;
                Err(Stopped::For(LedgerError::Unknown("the connection ended".to_owned())))
            }
            Some(error) => Err(self.stopped(connection, &error, finished, statements.count).await),
        }
    }

    /// Leaves no transaction behind, and tells what is known.
    async fn stopped(&mut self, mut connection: SqliteConnection, error: &sqlx::Error, finished: usize, count: usize) -> Stopped {
        let fault = Fault::of(error);
        let outside = match fault {
            Fault::Guard => true,
            Fault::Busy => finished == 0,
            // A single statement is its own transaction.
            Fault::Unacceptable => count == 1 || sqlx::query("rollback").execute(&mut connection).await.is_ok(),
            Fault::Broken => false,
        };
        if outside {
            self.idle = Some(connection);
        } else {
            self.door.close(connection).await;
        }
        match fault {
            Fault::Guard => Stopped::By(guard(error).unwrap_or_default().to_owned()),
            // The last statement commits: when the disk fails in it, the log may have the transaction or not. When it is not the
            // database that tells of a failure, nothing is known about where it happened.
            Fault::Broken if finished + 1 >= count || error.as_database_error().is_none() => {
                Stopped::For(LedgerError::Unknown(error.to_string()))
            }
            _ => Stopped::For(fault.nothing_applied(error)),
        }
    }

    async fn report(&mut self, commit: &Commit, group: &Group) -> Result<Report, LedgerError> {
        let rows = self.run(group.report(commit)?).await.map_err(Stopped::into_error)?;
        let mut report = Report::default();
        let mut bereft = Vec::new();
        for row in &rows {
            read_report(&mut report, &mut bereft, commit, row).map_err(|error| LedgerError::Transient(error.to_string()))?;
        }
        if report.is_empty() {
            // A row can vanish without a version moving, when foreign keys and triggers are off. Then fetching the cards again
            // shows it; an empty report would only bring the same group back.
            report.cards = bereft;
        }
        report.cards.sort_unstable();
        report.cards.dedup();
        report.accounts.sort_unstable_by_key(|account| account.0);
        report.accounts.dedup_by_key(|account| account.0);
        report.counters.sort_unstable_by_key(|counter| counter.0);
        report.counters.dedup_by_key(|counter| counter.0);
        Ok(report)
    }
}

impl Stopped {
    /// For calls that no guard of ours is to stop.
    pub(super) fn into_error(self) -> LedgerError {
        match self {
            Self::By(guard) => LedgerError::Refused(format!("guard {guard}")),
            Self::For(error) => error,
        }
    }
}

impl Ledger for SqliteLedger {
    async fn commit(&mut self, commit: &Commit, _wait: bool) -> Result<Outcome, LedgerError> {
        commit.check()?;
        if let Some(report) = commit.disagreements() {
            return Ok(Outcome::Rejected(Box::new(report)));
        }
        let group = Group::new(commit)?;
        match self.run(group.commit(commit)?).await {
            Ok(_) => Ok(Outcome::Committed),
            // What stands against it is read after it was rolled back: another process may have changed it again by then.
            Err(Stopped::By(_)) => Ok(Outcome::Rejected(Box::new(self.report(commit, &group).await?))),
            Err(Stopped::For(error)) => Err(error),
        }
    }

    async fn positions(&mut self, accounts: &[AccountId], counters: &[CounterKey]) -> Result<Positions, LedgerError> {
        let accounts = group::list(accounts, |account, out| write!(out, "{}", account.0));
        let parameters = Parameters::of(statements::POSITIONS).text(&accounts)?.text(&group::keys(counters))?;
        let rows = self.run(parameters).await.map_err(Stopped::into_error)?;
        let mut positions = Positions::default();
        for row in &rows {
            read_position(&mut positions, row).map_err(|error| LedgerError::Transient(error.to_string()))?;
        }
        Ok(positions)
    }

    async fn void(&mut self, void: &Void) -> Result<Voided, LedgerError> {
        self.take_back(void).await
    }

    async fn mark_unheard(&mut self, id: &RequestId) -> Result<(), LedgerError> {
        let parameters = Parameters::of(statements::MARK_UNHEARD).text(id.as_str())?;
        self.run(parameters).await.map(drop).map_err(Stopped::into_error)
    }
}

fn read_report(report: &mut Report, bereft: &mut Vec<CardId>, commit: &Commit, row: &SqliteRow) -> Result<(), sqlx::Error> {
    match row.try_get::<&str, _>(0)? {
        "known" => report.known.push(read_known(commit, row)?),
        "card" => report.cards.push(CardId(row.try_get(1)?)),
        "bereft" => bereft.push(CardId(row.try_get(1)?)),
        "appeared" => report.appeared.push(CardToken::new(row.try_get(1)?).map_err(|error| misread("token", &error))?),
        "program" => report.programs.push(ProgramId(row.try_get(1)?)),
        "account" => report.accounts.push(read_account(row)?),
        "counter" => report.counters.push(read_counter(row)?),
        kind => return Err(misread("kind", &kind)),
    }
    Ok(())
}

fn read_position(positions: &mut Positions, row: &SqliteRow) -> Result<(), sqlx::Error> {
    match row.try_get::<&str, _>(0)? {
        "account" => {
            positions.accounts.extend([read_account(row)?]);
        }
        "counter" => {
            positions.counters.extend([read_counter(row)?]);
        }
        kind => return Err(misread("kind", &kind)),
    }
    Ok(())
}

fn read_known(commit: &Commit, row: &SqliteRow) -> Result<Known, sqlx::Error> {
    let id = RequestId::new(row.try_get(1)?).map_err(|error| misread("id", &error))?;
    let digest: Digest = row.try_get::<&[u8], _>(2)?.try_into().map_err(|error| misread("digest", &error))?;
    let response: Arc<[u8]> = row.try_get::<&[u8], _>(3)?.into();
    let number: i64 = row.try_get(4)?;
    let decision = Decision::ALL.iter().copied().find(|decision| *decision as i64 == number);
    let ours = commit.journal.binary_search_by(|entry| entry.id.as_str().cmp(id.as_str())).ok().map(|at| &commit.journal[at]);
    let own = ours.is_some_and(|entry| entry.digest == digest && entry.response == response);
    Ok(Known { id, digest, response, decision: decision.ok_or_else(|| misread("decision", &number))?, own })
}

fn read_account(row: &SqliteRow) -> Result<(AccountId, Balance), sqlx::Error> {
    Ok((AccountId(row.try_get(1)?), Balance { posted: row.try_get(2)?, held: row.try_get(3)?, floor: row.try_get(4)? }))
}

fn read_counter(row: &SqliteRow) -> Result<(CounterKey, Used), sqlx::Error> {
    let key = CounterKey { limit: LimitId(row.try_get(1)?), scope: row.try_get(2)?, window: row.try_get(3)? };
    Ok((key, Used { amount: row.try_get(4)?, count: row.try_get(5)? }))
}

fn misread(what: &str, why: &dyn std::fmt::Display) -> sqlx::Error {
    sqlx::Error::Protocol(format!("a {what} that is none of ours: {why}"))
}
