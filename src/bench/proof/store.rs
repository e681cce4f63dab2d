//! The questions to the store. Every statement is understood by both stores.
//!
//! All are asked in one read-only transaction. A store that others use too is asked about the run's decisions and about what they
//! touched, by index, and not for longer than [`ASKED_MAX`]; in a store of the run's own nothing else may have happened.

use super::{
    Owner,
    facts::{Card, Facts, Limit, Program},
    journal::{Held, Row},
};
use crate::{bench::scratch::Location, facts::document::FilterFacts};
use futures_util::TryStreamExt;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Error, PgConnection, Row as _, SqliteConnection,
    postgres::{PgConnectOptions, PgRow},
    sqlite::{SqliteConnectOptions, SqliteRow},
};
use std::time::Duration;

/// How long a statement waits for a daemon that is still writing.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a statement may take in a database that others use too.
const ASKED_MAX: Duration = Duration::from_secs(60);

/// The run's decisions: of all its rounds.
const OWN: &str = "(a.id >= '{from}' and a.id < '{to}')";
/// What stands in for `{touched}`: the accounts that the run's decisions are about.
const TOUCHED: &str = "select a.account_id from authorizations a where {own}";
/// Every card that was asked about, with whom it belongs to.
const USED: &str = "used as (select c.id, c.user_id, c.account_id, c.program_id from cards c
    where c.token in (select a.card from authorizations a where {own}))";
const CARDS: &str = "\
    select c.token, c.id, c.user_id, c.account_id, c.program_id, c.status, c.expires_at, c.controls, c.version,
           u.token, u.status, u.kyc, a.currency, a.status
      from cards c join users u on u.id = c.user_id join accounts a on a.id = c.account_id
     where c.token in (select a.card from authorizations a where {own})";
const PROGRAMS: &str = "\
    select id, time_zone, week_start, cast(case when kyc_required then 1 else 0 end as bigint),
           cast(case when partial_approval then 1 else 0 end as bigint), controls, version from programs";
const LIMITS: &str = "\
    with {used}, owners as (select id from used union select user_id from used union select account_id from used
                            union select program_id from used)
    select id, owner, owner_id, scope, period, filter, cap_amount, cap_count from limits where owner_id in (select id from owners)";
const JOURNAL: &str = "\
    select a.id, a.response, cast(a.decision as bigint), cast(a.reason as bigint), a.amount, a.requested, a.card, a.card_id, a.account_id,
           a.currency, a.card_version, a.program_version, cast(a.mcc as bigint), a.merchant, a.country, a.channel,
           cast(a.charges as text), a.decided_at, h.id, h.account_id, h.amount, cast(h.status as bigint)
      from authorizations a left join holds h on h.authorization_id = a.id where {own}";
/// Accounts that hold anything or are about to; in a store of others, those of the run.
const ACCOUNTS: [&str; 2] = [
    // Joined, for an `in` beside an `or` is looked up row by row where its list is long.
    "with held as (select account_id, cast(sum(amount) as bigint) as amount from holds where status = 1 group by 1),
          mine as (select distinct account_id from ({touched}) t)
     select a.id, a.posted, a.held, a.floor, coalesce(h.amount, 0)
       from accounts a left join held h on h.account_id = a.id left join mine m on m.account_id = a.id
      where a.held <> 0 or h.amount is not null or a.posted - a.held < a.floor or m.account_id is not null",
    "with held as (select account_id, cast(sum(amount) as bigint) as amount from holds
                    where status = 1 and account_id in ({touched}) group by 1)
     select a.id, a.posted, a.held, a.floor, coalesce(h.amount, 0) from accounts a left join held h on h.account_id = a.id
      where a.id in ({touched})",
];
const COUNTERS: [&str; 2] = [
    "select limit_id, scope_id, window_start, amount, count from counters",
    "with {used}, owners as (select id from used union select user_id from used union select account_id from used
                            union select program_id from used)
     select limit_id, scope_id, window_start, amount, count from counters
      where limit_id in (select id from limits where owner_id in (select id from owners)) and scope_id in (select id from owners)",
];
/// Ids that are there twice, and holds without a decision or an account. What else a hold must be is seen row by row.
const DOUBLED: &str = "\
    select (select count(*) from (select 1 from authorizations a where {own} group by a.id having count(*) > 1) twice)
         + (select count(*) from (select 1 from holds a where {held} group by a.authorization_id having count(*) > 1) twice)
         + (select count(*) from holds a where {held} and not exists (select 1 from authorizations o where o.id = a.authorization_id))
         + (select count(*) from holds a where {held} and not exists (select 1 from accounts o where o.id = a.account_id))";
/// In a store of others nobody but them moves money between accounts.
const ENTRIES_OFF: [&str; 2] = [
    "with booked as (select account_id, sum(amount) as amount from entries group by 1)
     select (select count(*) from (select 1 from entries group by transfer having sum(amount) <> 0) odd)
          + (select count(*) from accounts a left join booked b on b.account_id = a.id where a.posted <> coalesce(b.amount, 0))",
    "select cast(0 as bigint)",
];
const OTHERS: [&str; 2] = ["select count(*) from authorizations a where not {own}", "select cast(0 as bigint)"];
const UNHEARD: &str = "select count(*) from authorizations a where a.unheard and {own}";

/// A counter: limit, scope, start of the window.
pub(super) type Key = (i64, i64, i64);

/// A counter with what it has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counter {
    pub(super) key: Key,
    pub(super) amount: i64,
    pub(super) count: i64,
}

/// An account's money.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    pub(super) id: i64,
    pub(super) posted: i64,
    pub(super) held: i64,
    pub(super) floor: i64,
    /// The sum of its open holds.
    pub(super) holds: i64,
}

/// Counts that need no row by row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Totals {
    pub(super) doubled: u64,
    pub(super) entries_off: u64,
    pub(super) others: u64,
    pub(super) unheard: u64,
    pub(super) accounts: u64,
}

/// The columns of a row by their places, whatever the store.
trait Cells {
    fn number(&self, at: usize) -> Result<i64, Error>;
    fn some_number(&self, at: usize) -> Result<Option<i64>, Error>;
    fn text(&self, at: usize) -> Result<&str, Error>;
    fn some_text(&self, at: usize) -> Result<Option<&str>, Error>;
    fn bytes(&self, at: usize) -> Result<&[u8], Error>;
}

macro_rules! cells {
    ($($row:ty),*) => {
        $(impl Cells for $row {
            fn number(&self, at: usize) -> Result<i64, Error> {
                self.try_get(at)
            }

            fn some_number(&self, at: usize) -> Result<Option<i64>, Error> {
                self.try_get(at)
            }

            fn text(&self, at: usize) -> Result<&str, Error> {
                self.try_get(at)
            }

            fn some_text(&self, at: usize) -> Result<Option<&str>, Error> {
                self.try_get(at)
            }

            fn bytes(&self, at: usize) -> Result<&[u8], Error> {
                self.try_get(at)
            }
        })*
    };
}
cells!(PgRow, SqliteRow);

/// A connection for questions about one run.
pub(super) struct Books {
    connection: Connected,
    owner: Owner,
    /// From the first id of the run to the first that is not its any more.
    range: (String, String),
}

enum Connected {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// Reads every row of a statement, from either store.
macro_rules! rows {
    ($books:expr, $sql:expr, $row:ident => $read:expr) => {{
        let sql = AssertSqlSafe($books.filled($sql));
        match &mut $books.connection {
            Connected::Sqlite(store) => {
                let mut lines = sqlx::query(sql).fetch(store);
                while let Some($row) = lines.try_next().await? {
                    $read;
                }
            }
            Connected::Postgres(store) => {
                let mut lines = sqlx::query(sql).fetch(store);
                while let Some($row) = lines.try_next().await? {
                    $read;
                }
            }
        }
    }};
}

impl Books {
    pub(super) async fn open(store: &Location, owner: Owner, run: &str) -> Result<Self, Error> {
        let connection = match store {
            Location::Sqlite(settings) => {
                let options = SqliteConnectOptions::new().filename(&settings.path).read_only(true).busy_timeout(BUSY_TIMEOUT);
                let mut store = SqliteConnection::connect_with(&options.disable_statement_logging()).await?;
                sqlx::raw_sql("begin").execute(&mut store).await?;
                Connected::Sqlite(store)
            }
            Location::Postgres(settings) => {
                let options: PgConnectOptions = settings.url.parse()?;
                let options = match owner {
                    Owner::Run => options,
                    Owner::Everybody => options.options([("statement_timeout", ASKED_MAX.as_millis().to_string())]),
                };
                let mut store = PgConnection::connect_with(&options.disable_statement_logging()).await?;
                sqlx::raw_sql("begin isolation level repeatable read read only").execute(&mut store).await?;
                Connected::Postgres(store)
            }
        };
        let run = run.replace('\'', "''");
        // A round's ids have a dot after the name and all have a dash: both come before a slash, digits and letters after it.
        Ok(Self { connection, owner, range: (format!("{run}-"), format!("{run}/")) })
    }

    fn filled(&self, sql: &str) -> String {
        let held = OWN.replace("a.id", "a.authorization_id");
        let sql = sql.replace("{used}", USED).replace("{touched}", TOUCHED).replace("{held}", &held).replace("{own}", OWN);
        sql.replace("{from}", &self.range.0).replace("{to}", &self.range.1)
    }

    const fn wording<'a>(&self, both: &[&'a str; 2]) -> &'a str {
        match self.owner {
            Owner::Run => both[0],
            Owner::Everybody => both[1],
        }
    }

    pub(super) async fn facts(&mut self) -> Result<Facts, Error> {
        let mut facts = Facts::default();
        rows!(self, PROGRAMS, row => facts.add_program(program(&row)?));
        rows!(self, CARDS, row => facts.add_card(row.text(0)?, card(&row)?));
        rows!(self, LIMITS, row => facts.add_limit(row.text(1)?, row.number(2)?, limit(&row)?));
        Ok(facts)
    }

    /// Every decision of the run with its hold.
    pub(super) async fn journal(&mut self, mut each: impl FnMut(Row<'_>)) -> Result<(), Error> {
        rows!(self, JOURNAL, row => each(journal(&row)?));
        Ok(())
    }

    pub(super) async fn accounts(&mut self) -> Result<Vec<Account>, Error> {
        let mut accounts = Vec::new();
        let sql = self.wording(&ACCOUNTS);
        rows!(self, sql, row => accounts.push(account(&row)?));
        Ok(accounts)
    }

    pub(super) async fn counters(&mut self) -> Result<Vec<Counter>, Error> {
        let mut counters = Vec::new();
        let sql = self.wording(&COUNTERS);
        rows!(self, sql, row => counters.push(counter(&row)?));
        Ok(counters)
    }

    pub(super) async fn totals(&mut self) -> Result<Totals, Error> {
        Ok(Totals {
            doubled: self.count(DOUBLED).await?,
            entries_off: self.count(self.wording(&ENTRIES_OFF)).await?,
            others: self.count(self.wording(&OTHERS)).await?,
            unheard: self.count(UNHEARD).await?,
            accounts: self.count("select count(*) from accounts").await?,
        })
    }

    async fn count(&mut self, sql: &str) -> Result<u64, Error> {
        let sql = AssertSqlSafe(self.filled(sql));
        let count: i64 = match &mut self.connection {
            Connected::Sqlite(store) => sqlx::query_scalar(sql).fetch_one(store).await?,
            Connected::Postgres(store) => sqlx::query_scalar(sql).fetch_one(store).await?,
        };
        Ok(count.cast_unsigned())
    }

    pub(super) async fn close(self) -> Result<(), Error> {
        match self.connection {
            Connected::Sqlite(store) => store.close().await,
            Connected::Postgres(store) => store.close().await,
        }
    }
}

fn card(row: &impl Cells) -> Result<Card, Error> {
    Ok(Card {
        id: row.number(1)?,
        user_id: row.number(2)?,
        account_id: row.number(3)?,
        program_id: row.number(4)?,
        status: row.text(5)?.to_owned(),
        expires_at: row.number(6)?,
        controls: controls(row.text(7)?)?,
        version: row.number(8)?,
        user: row.text(9)?.to_owned(),
        user_active: row.text(10)? == "active",
        kyc_verified: row.text(11)? == "verified",
        currency: row.text(12)?.to_owned(),
        account_open: row.text(13)? == "open",
    })
}

fn program(row: &impl Cells) -> Result<Program, Error> {
    Ok(Program {
        id: row.number(0)?,
        time_zone: row.text(1)?.to_owned(),
        week_start: row.text(2)?.to_owned(),
        kyc_required: row.number(3)? != 0,
        partial_approval: row.number(4)? != 0,
        controls: controls(row.text(5)?)?,
        version: row.number(6)?,
    })
}

fn limit(row: &impl Cells) -> Result<Limit, Error> {
    Ok(Limit {
        id: row.number(0)?,
        scope: row.text(3)?.to_owned(),
        period: row.text(4)?.to_owned(),
        filter: controls(row.text(5)?)?,
        cap_amount: row.some_number(6)?,
        cap_count: row.some_number(7)?,
    })
}

fn controls(text: &str) -> Result<FilterFacts, Error> {
    serde_json::from_str(text).map_err(|error| Error::Decode(error.into()))
}

fn journal(row: &impl Cells) -> Result<Row<'_>, Error> {
    let hold = match row.some_text(18)? {
        Some(id) => Some(Held { id, account_id: row.number(19)?, amount: row.number(20)?, status: row.number(21)? }),
        None => None,
    };
    Ok(Row {
        id: row.text(0)?,
        response: row.bytes(1)?,
        decision: row.number(2)?,
        reason: row.some_number(3)?,
        amount: row.number(4)?,
        requested: row.number(5)?,
        card: row.text(6)?,
        card_id: row.some_number(7)?,
        account_id: row.some_number(8)?,
        currency: row.text(9)?,
        card_version: row.number(10)?,
        program_version: row.number(11)?,
        mcc: row.number(12)?,
        merchant: row.text(13)?,
        country: row.text(14)?,
        channel: row.text(15)?,
        charges: row.some_text(16)?,
        decided_at: row.number(17)?,
        hold,
    })
}

fn account(row: &impl Cells) -> Result<Account, Error> {
    Ok(Account { id: row.number(0)?, posted: row.number(1)?, held: row.number(2)?, floor: row.number(3)?, holds: row.number(4)? })
}

fn counter(row: &impl Cells) -> Result<Counter, Error> {
    Ok(Counter { key: (row.number(0)?, row.number(1)?, row.number(2)?), amount: row.number(3)?, count: row.number(4)? })
}
