//! Batches into SQLite: rows travel as JSON arrays, one statement a table.
//!
//! Known rows are left out before the insert, not by its conflict clause: `before insert` triggers run even for a row that then
//! conflicts, and would move the versions of facts that have not changed.

use super::rows::{Account, Batch, Counts, Funding};
use serde::Serialize;
use sqlx::{
    Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteSynchronous},
};
use std::{path::Path, time::Duration};

/// How long to wait for a daemon that is writing to the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const SCRATCH: &str = "\
    create temp table seed_accounts(id integer primary key, token text, program_id integer, kind text, currency text, status text,
      posted integer, floor integer) strict;
    create temp table seed_funding(program_id integer primary key, account_id integer, transfer text) strict";

const PROGRAMS: &str = "\
    insert into programs(id, token, kind, currency, time_zone, week_start, kyc_required, partial_approval, controls)
    select value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7, value->>8 from json_each(?)
     where not exists (select 1 from programs where id = value->>0)
    on conflict do nothing";
const NEW_ACCOUNTS: &str = "\
    insert into seed_accounts
    select value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7 from json_each(?)
     where not exists (select 1 from accounts where id = value->>0) and not exists (select 1 from accounts where token = value->>1)";
const ACCOUNTS: &str = "\
    insert into accounts(id, token, program_id, kind, currency, status, posted, floor) select * from seed_accounts order by id";
const FUNDING: &str = "insert into seed_funding select value->>0, value->>1, value->>2 from json_each(?)";
const ENTRIES: &str = "\
    insert into entries(transfer, account_id, amount, posted_at)
    select transfer, f.account_id, -sum(posted), ? from seed_accounts a join seed_funding f using (program_id)
     group by f.program_id having sum(posted) <> 0
     union all
    select transfer, a.id, posted, ? from seed_accounts a join seed_funding f using (program_id) where posted <> 0
     order by 1, 2";
const FUNDS: &str = "\
    update accounts set posted = accounts.posted - moved.amount
      from (select f.account_id, sum(a.posted) as amount from seed_accounts a join seed_funding f using (program_id) group by 1) moved
     where accounts.id = moved.account_id and moved.amount <> 0";
const USERS: &str = "\
    insert into users(id, token, program_id, status, kyc)
    select value->>0, value->>1, value->>2, value->>3, value->>4 from json_each(?)
     where not exists (select 1 from users where id = value->>0) and not exists (select 1 from users where token = value->>1)
    on conflict do nothing";
const LIMITS: &str = "\
    insert into limits(id, owner, owner_id, scope, period, filter, cap_amount, cap_count)
    select value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7 from json_each(?)
     where not exists (select 1 from limits where id = value->>0)
    on conflict do nothing";
const CARDS: &str = "\
    insert into cards(id, token, user_id, account_id, program_id, status, expires_at, controls)
    select value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7 from json_each(?)
     where not exists (select 1 from cards where id = value->>0)
    on conflict do nothing";

pub(super) async fn open(path: &Path) -> sqlx::Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("temp_store", "memory")
        // 64 MiB: the indexes of a million cards are written to in more places than the default 2 MB holds.
        .pragma("cache_size", "-65536");
    let mut connection = SqliteConnection::connect_with(&options).await?;
    sqlx::raw_sql(SCRATCH).execute(&mut connection).await?;
    Ok(connection)
}

/// Writes a batch in one transaction; counts what was not there before.
pub(super) async fn write(connection: &mut SqliteConnection, batch: &Batch, posted_at: i64) -> Result<Counts, super::Error> {
    let mut transaction = connection.begin_with("begin immediate").await?;
    let to = &mut *transaction;
    let programs = insert(
        to,
        PROGRAMS,
        batch
            .programs
            .iter()
            .map(|p| (p.id, p.token, p.kind, p.currency, p.time_zone, p.week_start, p.kyc_required, p.partial_approval, p.controls)),
    )
    .await?;
    let mut accounts = write_accounts(to, &batch.funding_accounts, &[], posted_at).await?;
    accounts += write_accounts(to, &batch.accounts, &batch.funding, posted_at).await?;
    let users = insert(to, USERS, batch.users.iter().map(|u| (u.id, &u.token, u.program_id, u.status, u.kyc))).await?;
    let limits = insert(
        to,
        LIMITS,
        batch.limits.iter().map(|l| (l.id, l.owner, l.owner_id, l.scope, l.period, l.filter, l.cap_amount, l.cap_count)),
    )
    .await?;
    let cards = insert(
        to,
        CARDS,
        batch.cards.iter().map(|c| (c.id, &c.token, c.user_id, c.account_id, c.program_id, c.status, c.expires_at, c.controls)),
    )
    .await?;
    transaction.commit().await?;
    Ok(Counts { programs, accounts, users, limits, cards })
}

async fn write_accounts(to: &mut SqliteConnection, accounts: &[Account], funding: &[Funding], posted_at: i64) -> Result<u64, super::Error> {
    sqlx::raw_sql("delete from seed_accounts; delete from seed_funding").execute(&mut *to).await?;
    let rows = accounts.iter().map(|a| (a.id, &a.token, a.program_id, a.kind, a.currency, a.status, a.posted, a.floor));
    if insert(to, NEW_ACCOUNTS, rows).await? == 0 {
        return Ok(0);
    }
    insert(to, FUNDING, funding.iter().map(|f| (f.program_id, f.account_id, &f.transfer))).await?;
    let written = sqlx::query(ACCOUNTS).execute(&mut *to).await?.rows_affected();
    sqlx::query(ENTRIES).bind(posted_at).bind(posted_at).execute(&mut *to).await?;
    sqlx::query(FUNDS).execute(&mut *to).await?;
    Ok(written)
}

async fn insert<R: Serialize>(to: &mut SqliteConnection, sql: &'static str, rows: impl Iterator<Item = R>) -> Result<u64, super::Error> {
    let rows: Vec<R> = rows.collect();
    if rows.is_empty() {
        return Ok(0);
    }
    let json = serde_json::to_string(&rows).map_err(|error| super::Error::Store(sqlx::Error::Encode(error.into())))?;
    Ok(sqlx::query(sql).bind(json).execute(to).await?.rows_affected())
}
