//! What the store answers, as values.

use crate::{
    domain::{
        decision::Decision,
        facts::Balance,
        ids::{AccountId, CardId, CardToken, LimitId, ProgramId, RequestId},
        limits::{CounterKey, Used},
    },
    ledger::{Commit, Known, Outcome, Positions, Report, Voided},
};
use sqlx::{Row as _, postgres::PgRow};

/// Reads the rows of `jit_commit`.
pub(super) fn read(commit: &Commit, rows: &[PgRow]) -> Result<Outcome, sqlx::Error> {
    let mut report = Report::default();
    for row in rows {
        let number = |name: &str| row.try_get::<i64, _>(name);
        match row.try_get::<&str, _>("kind")? {
            "C" => return Ok(Outcome::Committed),
            "D" => report.known.push(known(commit, row)?),
            "F" => report.cards.push(CardId(number("k1")?)),
            "N" => report.appeared.push(CardToken::new(row.try_get("name")?).map_err(|_| misread("a card token"))?),
            "P" => report.programs.push(ProgramId(number("k1")?)),
            "A" => report.accounts.push((AccountId(number("k1")?), balance(row, "v1", "v2", "v3")?)),
            "L" => {
                let key = CounterKey { limit: LimitId(number("k1")?), scope: number("k2")?, window: number("k3")? };
                report.counters.push((key, Used { amount: number("v1")?, count: number("v2")? }));
            }
            "B" => report.busy_accounts.push(AccountId(number("k1")?)),
            "G" => report.busy_programs.push(ProgramId(number("k1")?)),
            _ => return Err(misread("a kind of answer")),
        }
    }
    Ok(Outcome::Rejected(Box::new(report)))
}

/// Reads the row of `jit_commit_one`: whether it is committed.
pub(super) fn committed(rows: &[PgRow]) -> Result<bool, sqlx::Error> {
    rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get(0)
}

/// Reads accounts (their first two columns are null) and counters.
pub(super) fn positions(rows: &[PgRow]) -> Result<Positions, sqlx::Error> {
    let mut positions = Positions::default();
    for row in rows {
        let id = row.try_get::<i64, _>(2)?;
        match row.try_get::<Option<i64>, _>(0)? {
            None => {
                let balance = Balance { posted: row.try_get(3)?, held: row.try_get(4)?, floor: row.try_get(5)? };
                positions.accounts.insert(AccountId(id), balance);
            }
            Some(scope) => {
                let key = CounterKey { limit: LimitId(id), scope, window: row.try_get(1)? };
                positions.counters.insert(key, Used { amount: row.try_get(3)?, count: row.try_get(4)? });
            }
        }
    }
    Ok(positions)
}

/// Reads the row of `jit_void`.
pub(super) fn voided(rows: &[PgRow]) -> Result<Voided, sqlx::Error> {
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    Ok(if row.try_get(0)? { Voided::Done } else { Voided::Stands(row.try_get::<&[u8], _>(1)?.into()) })
}

fn known(commit: &Commit, row: &PgRow) -> Result<Known, sqlx::Error> {
    let id = RequestId::new(row.try_get("name")?).map_err(|_| misread("a request id"))?;
    let response = row.try_get::<&[u8], _>("b2")?;
    let digest = row.try_get::<&[u8], _>("b1")?.try_into().map_err(|_| misread("a digest"))?;
    let decision = row.try_get::<i64, _>("k1")?;
    let ours = commit.journal.binary_search_by(|entry| entry.id.as_str().as_bytes().cmp(id.as_str().as_bytes())).ok();
    let own = ours.and_then(|place| commit.journal.get(place)).is_some_and(|entry| entry.digest == digest && *entry.response == *response);
    Ok(Known {
        own,
        digest,
        response: response.into(),
        decision: Decision::ALL.iter().copied().find(|known| *known as i64 == decision).ok_or_else(|| misread("a decision"))?,
        id,
    })
}

fn balance(row: &PgRow, posted: &str, held: &str, floor: &str) -> Result<Balance, sqlx::Error> {
    Ok(Balance { posted: row.try_get(posted)?, held: row.try_get(held)?, floor: row.try_get(floor)? })
}

fn misread(what: &'static str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{what} is none of ours").into())
}
