//! What must be true of the store afterwards, asked of the store itself by SQL.

use super::{record::Known, scratch::Location, traffic::Ids};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use sqlx::{ConnectOptions, Connection, PgConnection, Row, SqliteConnection, postgres::PgConnectOptions, sqlite::SqliteConnectOptions};
use std::time::Duration;

/// How long a statement waits for a daemon that is still writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Whose decisions the store may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The run's only: a decision that nobody was told is a fault.
    Run,
    /// Others' too: only the ids of the run are held against its answers.
    Everybody,
}

/// What the store says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Decisions in the journal, of the run's requests.
    pub decisions: u64,
    /// Answers we were given that the journal does not have.
    pub lost: u64,
    /// Answers we were given that the journal has with other bytes.
    pub altered: u64,
    /// Decisions that nobody was told.
    pub untold: u64,
    /// Ids decided or held for more than once, and holds that do not match their decision.
    pub doubled: u64,
    /// Accounts with less than they may have.
    pub below_floor: u64,
    /// Counters above a cap, and approvals above the cap of one transaction.
    pub limits_passed: u64,
    /// Counters that are not the sum of the approvals that were charged to them.
    pub counters_off: u64,
    /// Accounts whose held money is not the sum of their open holds.
    pub held_off: u64,
    /// Transfers that do not sum to zero, and accounts that are not the sum of their entries.
    pub entries_off: u64,
    /// Accounts in the store.
    pub accounts: u64,
    /// Open holds.
    pub holds: u64,
    /// Counters in the store.
    pub counters: u64,
}

impl Proof {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn holds_good(&self) -> bool {
        // Nothing decided is nothing proved.
        self.decisions > 0 && self.faults().next().is_none()
    }

    /// What is wrong, with how often.
    pub fn faults(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("answers are missing in the journal", self.lost),
            ("answers are in the journal with other bytes", self.altered),
            ("decisions were told to nobody", self.untold),
            ("ids are decided or held for twice, or held for wrongly", self.doubled),
            ("accounts are below their floor", self.below_floor),
            ("limits were passed", self.limits_passed),
            ("counters are not the sum of what was charged to them", self.counters_off),
            ("accounts hold other than the sum of their holds", self.held_off),
            ("accounts or transfers are not the sum of their entries", self.entries_off),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
    }
}

const DOUBLED: &str = "\
    select (select count(*) from (select 1 from authorizations group by id having count(*) > 1) twice)
         + (select count(*) from (select 1 from holds group by authorization_id having count(*) > 1) twice)
         + (select count(*) from authorizations a left join holds h on h.authorization_id = a.id and h.status = 1
             where (a.decision <> 0) <> (h.authorization_id is not null) or (a.decision <> 0 and h.amount is distinct from a.amount)
                or (a.decision <> 0 and h.account_id is distinct from a.account_id))
         + (select count(*) from holds h where not exists (select 1 from authorizations a where a.id = h.authorization_id))";
const BELOW_FLOOR: &str = "select count(*) from accounts where posted - held < floor";
/// Limits of one transaction have no counter; those without a filter can be checked on the journal.
const LIMITS_PASSED: &str = "\
    select (select count(*) from counters c join limits l on l.id = c.limit_id where c.amount > l.cap_amount or c.count > l.cap_count)
         + (select count(*) from authorizations a join cards c on c.id = a.card_id
              join limits l on (l.owner, l.owner_id) in (values ('card', c.id), ('user', c.user_id), ('account', c.account_id),
                                                                ('program', c.program_id))
             where a.decision <> 0 and l.period = 'transaction' and l.filter = '{}' and a.amount > l.cap_amount)";
/// Both ways: a counter without charges is as wrong as charges without a counter.
const COUNTERS_OFF: [&str; 2] = [
    "with charged as (
       select c.value->>0 as limit_id, c.value->>1 as scope_id, c.value->>2 as window_start, sum(a.amount) as amount, count(*) as count
         from authorizations a, json_each(a.charges) c where a.decision <> 0 group by 1, 2, 3)
     select (select count(*) from counters k left join charged c using (limit_id, scope_id, window_start)
              where k.amount <> coalesce(c.amount, 0) or k.count <> coalesce(c.count, 0))
          + (select count(*) from charged c left join counters k using (limit_id, scope_id, window_start) where k.amount is null)",
    "with charged as (
       select (c.value->>0)::bigint as limit_id, (c.value->>1)::bigint as scope_id, (c.value->>2)::bigint as window_start,
              sum(a.amount) as amount, count(*) as count
         from authorizations a, jsonb_array_elements(a.charges) c(value) where a.decision <> 0 group by 1, 2, 3)
     select (select count(*) from counters k left join charged c using (limit_id, scope_id, window_start)
              where k.amount <> coalesce(c.amount, 0) or k.count <> coalesce(c.count, 0))
          + (select count(*) from charged c left join counters k using (limit_id, scope_id, window_start) where k.amount is null)",
];
const HELD_OFF: &str = "\
    with held as (select account_id, sum(amount) as amount from holds where status = 1 group by 1)
    select (select count(*) from accounts a left join held h on h.account_id = a.id where a.held <> coalesce(h.amount, 0))
         + (select count(*) from held h where not exists (select 1 from accounts a where a.id = h.account_id))";
const ENTRIES_OFF: &str = "\
    with booked as (select account_id, sum(amount) as amount from entries group by 1)
    select (select count(*) from (select 1 from entries group by transfer having sum(amount) <> 0) odd)
         + (select count(*) from accounts a left join booked b on b.account_id = a.id where a.posted <> coalesce(b.amount, 0))";
/// The run's decisions, by the range of their ids: both stores have an index on it.
const JOURNAL: [&str; 2] = [
    "select id, response from authorizations where id >= ? and id < ?",
    "select id, response from authorizations where id >= $1 and id < $2",
];
const OTHERS: [&str; 2] =
    ["select count(*) from authorizations where id < ? or id >= ?", "select count(*) from authorizations where id < $1 or id >= $2"];

/// A connection for questions.
enum Books {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// Checks a store against the answers that were given, by index of the request.
///
/// # Errors
/// The store could not be asked.
pub async fn check(store: &Location, owner: Owner, ids: &Ids, answers: impl Iterator<Item = (usize, Known)>) -> Result<Proof, sqlx::Error> {
    let mut books = Books::open(store).await?;
    let mut proof = Proof {
        doubled: books.count(DOUBLED).await?,
        below_floor: books.count(BELOW_FLOOR).await?,
        limits_passed: books.count(LIMITS_PASSED).await?,
        counters_off: books.count(COUNTERS_OFF[books.dialect()]).await?,
        held_off: books.count(HELD_OFF).await?,
        entries_off: books.count(ENTRIES_OFF).await?,
        accounts: books.count("select count(*) from accounts").await?,
        holds: books.count("select count(*) from holds where status = 1").await?,
        counters: books.count("select count(*) from counters").await?,
        ..Proof::default()
    };
    books.compare(ids, answers, &mut proof).await?;
    if owner == Owner::Run {
        proof.untold += books.others(ids).await?;
    }
    books.close().await?;
    Ok(proof)
}

impl Books {
    async fn open(store: &Location) -> Result<Self, sqlx::Error> {
        Ok(match store {
            Location::Sqlite(settings) => {
                let options = SqliteConnectOptions::new().filename(&settings.path).create_if_missing(false).busy_timeout(BUSY_TIMEOUT);
                Self::Sqlite(SqliteConnection::connect_with(&options.disable_statement_logging()).await?)
            }
            Location::Postgres(settings) => {
                let options: PgConnectOptions = settings.url.parse()?;
                Self::Postgres(PgConnection::connect_with(&options.disable_statement_logging()).await?)
            }
        })
    }

    /// Which of the two wordings of a statement is understood.
    const fn dialect(&self) -> usize {
        match self {
            Self::Sqlite(_) => 0,
            Self::Postgres(_) => 1,
        }
    }

    async fn count(&mut self, sql: &'static str) -> Result<u64, sqlx::Error> {
        let count: i64 = match self {
            Self::Sqlite(store) => sqlx::query_scalar(sql).fetch_one(store).await?,
            Self::Postgres(store) => sqlx::query_scalar(sql).fetch_one(store).await?,
        };
        Ok(count.cast_unsigned())
    }

    /// Decisions that are not the run's.
    async fn others(&mut self, ids: &Ids) -> Result<u64, sqlx::Error> {
        let (sql, (from, to)) = (OTHERS[self.dialect()], range(ids));
        let count: i64 = match self {
            Self::Sqlite(store) => sqlx::query_scalar(sql).bind(from).bind(to).fetch_one(store).await?,
            Self::Postgres(store) => sqlx::query_scalar(sql).bind(from).bind(to).fetch_one(store).await?,
        };
        Ok(count.cast_unsigned())
    }

    /// Every answer against the journal, and the journal against the answers.
    async fn compare(&mut self, ids: &Ids, answers: impl Iterator<Item = (usize, Known)>, proof: &mut Proof) -> Result<(), sqlx::Error> {
        let mut told: Vec<Option<Known>> = Vec::new();
        for (index, answer) in answers {
            told.resize(told.len().max(index + 1), None);
            told[index] = Some(answer);
        }
        let mut compare = |id: &str, response: &[u8]| {
            proof.decisions += 1;
            match ids.index(id).and_then(|index| told.get_mut(index)?.take()) {
                Some(answer) if answer.journaled() => proof.altered += u64::from(!answer.is(response)),
                // Answered "not decided" once, so the id may have been decided since; but only a decline may say so.
                Some(answer) => proof.altered += u64::from(answer.holds()),
                None => proof.untold += 1,
            }
        };
        let (sql, (from, to)) = (JOURNAL[self.dialect()], range(ids));
        match self {
            Self::Sqlite(store) => {
                let mut rows = sqlx::query(sql).bind(from).bind(to).fetch(store);
                while let Some(row) = rows.try_next().await? {
                    compare(row.try_get(0)?, row.try_get(1)?);
                }
            }
            Self::Postgres(store) => {
                let mut rows = sqlx::query(sql).bind(from).bind(to).fetch(store);
                while let Some(row) = rows.try_next().await? {
                    compare(row.try_get(0)?, row.try_get(1)?);
                }
            }
        }
        proof.lost = told.into_iter().flatten().filter(|answer| answer.journaled()).count() as u64;
        Ok(())
    }

    async fn close(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::Postgres(store) => store.close().await,
        }
    }
}

/// From the first id of a run to the first that is not its any more: a dot follows a dash.
fn range(ids: &Ids) -> (String, String) {
    let from = ids.prefix();
    let to = format!("{}.", from.trim_end_matches('-'));
    (from, to)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::ledger::sqlite::Settings;
    use crate::seed::{self, Plan, Target, ids};
    use sqlx::SqliteConnection;
    use std::path::Path;

    /// Three decisions on load card 1 (two approvals of 700 and a decline), as a daemon would have left them.
    async fn sound() -> (tempfile::TempDir, std::path::PathBuf, SqliteConnection) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("proof.db");
        let mut store = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path).create_if_missing(true)).await.unwrap();
        sqlx::raw_sql(include_str!("../seed/scratch.sql")).execute(&mut store).await.unwrap();
        seed::write(Plan::new(1, 1), &Target::Sqlite { path: path.clone() }, |_| ()).await.unwrap();
        let (card, daily) = (ids::load(1), 1_999_899_999_i64);
        for (nth, decision, amount) in [(0, 1, 700), (1, 2, 700), (2, 0, 0)] {
            let charges = (decision > 0).then(|| format!("[[{daily},{card},0,0,700,0,1]]"));
            sqlx::query(
                "insert into authorizations(id, card_id, account_id, amount, decision, response, charges) values (?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(run().id(nth))
            .bind(card)
            .bind(card)
            .bind(amount)
            .bind(decision)
            .bind(format!("answer {nth}").into_bytes())
            .bind(charges)
            .execute(&mut store)
            .await
            .unwrap();
        }
        sqlx::query(
            "insert into holds select id, account_id, amount, 1 from authorizations where decision > 0;
             update accounts set held = 1400 where id = ?;
             insert into counters values (?, ?, 0, 1400, 2)",
        )
        .bind(card)
        .bind(daily)
        .bind(card)
        .execute(&mut store)
        .await
        .unwrap();
        (directory, path, store)
    }

    fn run() -> Ids {
        Ids::new("demo")
    }

    fn answers() -> Vec<(usize, Known)> {
        (0..3).map(|nth| (nth, Known::new(format!("answer {nth}").as_bytes(), true, nth < 2))).collect()
    }

    async fn verdict(path: &Path, owner: Owner, answers: &[(usize, Known)]) -> Proof {
        let settings = Settings { path: path.to_owned(), readers: 1, busy_timeout: BUSY_TIMEOUT, autocheckpoint_pages: 1_000 };
        check(&Location::Sqlite(settings), owner, &run(), answers.iter().copied()).await.unwrap()
    }

    #[tokio::test]
    async fn a_sound_store_passes() {
        let (_directory, path, _store) = sound().await;
        let proof = verdict(&path, Owner::Run, &answers()).await;
        assert!(proof.holds_good(), "{proof:?}");
        assert_eq!((proof.decisions, proof.holds, proof.counters), (3, 2, 1));
    }

    #[tokio::test]
    async fn every_planted_fault_is_found() {
        type Fault = fn(&Proof) -> u64;
        let faults: &[(&str, Fault)] = &[
            ("delete from authorizations where id = 'demo-0000002'", |proof| proof.lost),
            ("update authorizations set response = x'00' where id = 'demo-0000001'", |proof| proof.altered),
            ("insert into authorizations(id, amount, decision, response) values ('other', 0, 0, x'00')", |proof| proof.untold),
            ("insert into authorizations(id, amount, decision, response) values ('demo-0000009', 0, 0, x'00')", |proof| proof.untold),
            (
                "insert into authorizations(id, amount, decision, response) select id, amount, decision, response from authorizations
               where id = 'demo-0000002'",
                |proof| proof.doubled,
            ),
            ("insert into holds select * from holds where authorization_id = 'demo-0000000'", |proof| proof.doubled),
            ("delete from holds where authorization_id = 'demo-0000000'", |proof| proof.doubled),
            ("update holds set amount = 701 where authorization_id = 'demo-0000000'", |proof| proof.doubled),
            ("insert into holds values ('demo-0000002', 5, 1, 1)", |proof| proof.doubled),
            ("update accounts set floor = posted where held > 0", |proof| proof.below_floor),
            ("update limits set cap_amount = 1399 where id = 1999899999", |proof| proof.limits_passed),
            ("update limits set cap_count = 1 where id = 1999899999", |proof| proof.limits_passed),
            ("update limits set cap_amount = 699 where period = 'transaction'", |proof| proof.limits_passed),
            ("update counters set amount = amount - 1", |proof| proof.counters_off),
            ("delete from counters", |proof| proof.counters_off),
            ("insert into counters values (1, 1, 1, 1, 1)", |proof| proof.counters_off),
            ("update accounts set held = held + 1 where held > 0", |proof| proof.held_off),
            ("update accounts set posted = posted + 1 where token = 'acc_0000001'", |proof| proof.entries_off),
            ("insert into entries(transfer, account_id, amount, posted_at) values ('x', 1, 1, 1)", |proof| proof.entries_off),
        ];
        for (sql, found) in faults {
            let (_directory, path, mut store) = sound().await;
            sqlx::query(*sql).execute(&mut store).await.unwrap();
            let proof = verdict(&path, Owner::Run, &answers()).await;
            assert!(found(&proof) > 0 && !proof.holds_good(), "{sql}: {proof:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_was_not_final_need_not_be_in_the_journal() {
        let (_directory, path, _store) = sound().await;
        let mut given = answers();
        given.push((7, Known::new(b"unavailable", false, false)));
        assert!(verdict(&path, Owner::Run, &given).await.holds_good());
        given.push((8, Known::new(b"approved", true, true)));
        assert_eq!(verdict(&path, Owner::Run, &given).await.lost, 1);
    }

    #[tokio::test]
    async fn in_a_store_that_others_use_too_their_decisions_are_theirs() {
        let (_directory, path, mut store) = sound().await;
        for id in ["auth-1", "demo.0000001", "demoo-0000001"] {
            let insert = sqlx::query("insert into authorizations(id, amount, decision, response) values (?, 0, 0, x'00')");
            insert.bind(id).execute(&mut store).await.unwrap();
        }
        assert!(verdict(&path, Owner::Everybody, &answers()).await.holds_good());
        assert_eq!(verdict(&path, Owner::Run, &answers()).await.untold, 3);
    }
}
