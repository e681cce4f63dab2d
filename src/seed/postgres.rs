//! Batches into PostgreSQL: rows travel as one array a column, one statement a table.

use super::rows::{Account, Batch, Card, Counts, Funding, Limit, Program, User};
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};

const PROGRAMS: &str = "\
    insert into programs(id, token, kind, currency, time_zone, week_start, kyc_required, partial_approval, controls)
    select * from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::boolean[], $8::boolean[], $9::text[])
        as new(id, token, kind, currency, time_zone, week_start, kyc_required, partial_approval, controls)
     where not exists (select from programs old where old.id = new.id)
     order by id
    on conflict do nothing";
/// New accounts, the entries of their opening balances, and the funding accounts that pay for them, in one statement, so that
/// exactly the accounts that are new are paid.
const ACCOUNTS: &str = "\
    with fresh as (
      insert into accounts(id, token, program_id, kind, currency, status, posted, floor)
      select * from unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[])
          as new(id, token, program_id, kind, currency, status, posted, floor)
       where not exists (select from accounts old where old.id = new.id)
       order by id
      on conflict do nothing
      returning id, program_id, posted),
    funding as (select * from unnest($9::bigint[], $10::bigint[], $11::text[]) as f(program_id, account_id, transfer)),
    moved as (
      select transfer, account_id, sum(posted)::bigint as amount from fresh join funding using (program_id)
       group by transfer, account_id having sum(posted) <> 0),
    booked as (
      insert into entries(transfer, account_id, amount, posted_at)
      select transfer, account_id, -amount, $12 from moved
       union all
      select transfer, id, posted, $12 from fresh join funding using (program_id) where posted <> 0
       order by 1, 2),
    paid as (update accounts set posted = posted - amount from moved where accounts.id = moved.account_id)
    select count(*) from fresh";
const USERS: &str = "\
    insert into users(id, token, program_id, status, kyc)
    select * from unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::text[]) as new(id, token, program_id, status, kyc)
     where not exists (select from users old where old.id = new.id)
     order by id
    on conflict do nothing";
const LIMITS: &str = "\
    insert into limits(id, owner, owner_id, scope, period, filter, cap_amount, cap_count)
    select * from unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[])
        as new(id, owner, owner_id, scope, period, filter, cap_amount, cap_count)
     where not exists (select from limits old where old.id = new.id)
     order by id
    on conflict do nothing";
const CARDS: &str = "\
    insert into cards(id, token, user_id, account_id, program_id, status, expires_at, controls)
    select * from unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[], $8::text[])
        as new(id, token, user_id, account_id, program_id, status, expires_at, controls)
     where not exists (select from cards old where old.id = new.id)
     order by id
    on conflict do nothing";

/// Two connections: while one writes the cards of a batch, the other writes what the next batch's cards point at. Each step is a
/// transaction, and cards come after what they point at is committed, so whatever is there is whole.
pub(super) struct Writer {
    owners: PgConnection,
    cards: PgConnection,
    /// Cards whose owners are there already.
    waiting: Vec<Card>,
}

impl Writer {
    pub(super) async fn open(url: &str) -> sqlx::Result<Self> {
        let options: PgConnectOptions = url.parse()?;
        let options = options.application_name("jitauth seed").disable_statement_logging();
        let owners = PgConnection::connect_with(&options).await?;
        Ok(Self { owners, cards: PgConnection::connect_with(&options).await?, waiting: Vec::new() })
    }

    /// Writes a batch but for its cards, and the cards of the one before; counts what was not there before.
    pub(super) async fn write(&mut self, batch: Batch, posted_at: i64) -> sqlx::Result<Counts> {
        let waiting = std::mem::take(&mut self.waiting);
        let (mut counts, cards) =
            tokio::try_join!(write_owners(&mut self.owners, &batch, posted_at), write_cards(&mut self.cards, &waiting))?;
        self.waiting = batch.cards;
        counts.cards = cards;
        Ok(counts)
    }

    /// Writes the last cards, and lets the planner know the tables as they are now: they may have been empty when it last looked.
    pub(super) async fn finish(mut self) -> sqlx::Result<Counts> {
        let cards = write_cards(&mut self.cards, &self.waiting).await?;
        sqlx::query("analyze programs, accounts, users, limits, cards").execute(&mut self.cards).await?;
        Ok(Counts { cards, ..Counts::default() })
    }
}

async fn write_owners(connection: &mut PgConnection, batch: &Batch, posted_at: i64) -> sqlx::Result<Counts> {
    let mut transaction = connection.begin().await?;
    let to = &mut *transaction;
    let programs = write_programs(to, &batch.programs).await?;
    let mut accounts = write_accounts(to, &batch.funding_accounts, &[], posted_at).await?;
    accounts += write_accounts(to, &batch.accounts, &batch.funding, posted_at).await?;
    let users = write_users(to, &batch.users).await?;
    let limits = write_limits(to, &batch.limits).await?;
    transaction.commit().await?;
    Ok(Counts { programs, accounts, users, limits, cards: 0 })
}

/// One column of the rows.
fn column<'r, R, T>(rows: &'r [R], value: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

async fn write_programs(to: &mut PgConnection, rows: &[Program]) -> sqlx::Result<u64> {
    if rows.is_empty() {
        return Ok(0);
    }
    let query = sqlx::query(PROGRAMS)
        .bind(column(rows, |p| p.id))
        .bind(column(rows, |p| p.token))
        .bind(column(rows, |p| p.kind))
        .bind(column(rows, |p| p.currency))
        .bind(column(rows, |p| p.time_zone))
        .bind(column(rows, |p| p.week_start))
        .bind(column(rows, |p| p.kyc_required))
        .bind(column(rows, |p| p.partial_approval))
        .bind(column(rows, |p| p.controls));
    Ok(query.execute(to).await?.rows_affected())
}

async fn write_accounts(to: &mut PgConnection, rows: &[Account], funding: &[Funding], posted_at: i64) -> sqlx::Result<u64> {
    if rows.is_empty() {
        return Ok(0);
    }
    let query = sqlx::query_scalar::<_, i64>(ACCOUNTS)
        .bind(column(rows, |a| a.id))
        .bind(column(rows, |a| a.token.as_str()))
        .bind(column(rows, |a| a.program_id))
        .bind(column(rows, |a| a.kind))
        .bind(column(rows, |a| a.currency))
        .bind(column(rows, |a| a.status))
        .bind(column(rows, |a| a.posted))
        .bind(column(rows, |a| a.floor))
        .bind(column(funding, |f| f.program_id))
        .bind(column(funding, |f| f.account_id))
        .bind(column(funding, |f| f.transfer.as_str()))
        .bind(posted_at);
    Ok(query.fetch_one(to).await?.cast_unsigned())
}

async fn write_users(to: &mut PgConnection, rows: &[User]) -> sqlx::Result<u64> {
    if rows.is_empty() {
        return Ok(0);
    }
    let query = sqlx::query(USERS)
        .bind(column(rows, |u| u.id))
        .bind(column(rows, |u| u.token.as_str()))
        .bind(column(rows, |u| u.program_id))
        .bind(column(rows, |u| u.status))
        .bind(column(rows, |u| u.kyc));
    Ok(query.execute(to).await?.rows_affected())
}

async fn write_limits(to: &mut PgConnection, rows: &[Limit]) -> sqlx::Result<u64> {
    if rows.is_empty() {
        return Ok(0);
    }
    let query = sqlx::query(LIMITS)
        .bind(column(rows, |l| l.id))
        .bind(column(rows, |l| l.owner))
        .bind(column(rows, |l| l.owner_id))
        .bind(column(rows, |l| l.scope))
        .bind(column(rows, |l| l.period))
        .bind(column(rows, |l| l.filter))
        .bind(column(rows, |l| l.cap_amount))
        .bind(column(rows, |l| l.cap_count));
    Ok(query.execute(to).await?.rows_affected())
}

async fn write_cards(to: &mut PgConnection, rows: &[Card]) -> sqlx::Result<u64> {
    if rows.is_empty() {
        return Ok(0);
    }
    let query = sqlx::query(CARDS)
        .bind(column(rows, |c| c.id))
        .bind(column(rows, |c| c.token.as_str()))
        .bind(column(rows, |c| c.user_id))
        .bind(column(rows, |c| c.account_id))
        .bind(column(rows, |c| c.program_id))
        .bind(column(rows, |c| c.status))
        .bind(column(rows, |c| c.expires_at))
        .bind(column(rows, |c| c.controls));
    Ok(query.execute(to).await?.rows_affected())
}
