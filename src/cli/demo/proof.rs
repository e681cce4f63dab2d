//! What must be true of the store afterwards, asked of the store itself by SQL.

use super::{Error, requests, tally::Answer};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{collections::HashMap, path::Path, time::Duration};

/// How long a statement waits for a daemon that is still writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What the store says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Proof {
    /// Decisions in the journal.
    pub(super) decisions: u64,
    /// Answers we were given that the journal does not have.
    pub(super) lost: u64,
    /// Answers we were given that the journal has with other bytes.
    pub(super) altered: u64,
    /// Decisions that nobody was told.
    pub(super) untold: u64,
    /// Ids decided or held for more than once, and holds that do not match their decision.
    pub(super) doubled: u64,
    /// Accounts with less than they may have.
    pub(super) below_floor: u64,
    /// Counters above a cap, and approvals above the cap of one transaction.
    pub(super) limits_passed: u64,
    /// Counters that are not the sum of the approvals that were charged to them.
    pub(super) counters_off: u64,
    /// Accounts whose held money is not the sum of their open holds.
    pub(super) held_off: u64,
    /// Transfers that do not sum to zero, and accounts that are not the sum of their entries.
    pub(super) entries_off: u64,
    /// Accounts in the store.
    pub(super) accounts: u64,
    /// Open holds.
    pub(super) holds: u64,
    /// Counters in the store.
    pub(super) counters: u64,
    /// As the store has it.
    pub(super) journal_mode: String,
}

impl Proof {
    /// Whether nothing is wrong.
    pub(super) const fn holds_good(&self) -> bool {
        // Nothing decided is nothing proved.
        self.decisions > 0
            && self.lost == 0
            && self.altered == 0
            && self.untold == 0
            && self.doubled == 0
            && self.below_floor == 0
            && self.limits_passed == 0
            && self.counters_off == 0
            && self.held_off == 0
            && self.entries_off == 0
    }
}

const DOUBLED: &str = "\
    select (select count(*) from (select 1 from authorizations group by id having count(*) > 1))
         + (select count(*) from (select 1 from holds group by authorization_id having count(*) > 1))
         + (select count(*) from authorizations a left join holds h on h.authorization_id = a.id and h.status = 1
             where (a.decision <> 0) <> (h.authorization_id is not null) or (a.decision <> 0 and h.amount is not a.amount)
                or (a.decision <> 0 and h.account_id is not a.account_id))
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
const COUNTERS_OFF: &str = "\
    with charged as (
      select c.value->>0 as limit_id, c.value->>1 as scope_id, c.value->>2 as window_start, sum(a.amount) as amount, count(*) as count
        from authorizations a, json_each(a.charges) c where a.decision <> 0 group by 1, 2, 3)
    select (select count(*) from counters k left join charged c using (limit_id, scope_id, window_start)
             where k.amount <> ifnull(c.amount, 0) or k.count <> ifnull(c.count, 0))
         + (select count(*) from charged c left join counters k using (limit_id, scope_id, window_start) where k.amount is null)";
const HELD_OFF: &str = "\
    with held as (select account_id, sum(amount) as amount from holds where status = 1 group by 1)
    select (select count(*) from accounts a left join held h on h.account_id = a.id where a.held <> ifnull(h.amount, 0))
         + (select count(*) from held h where not exists (select 1 from accounts a where a.id = h.account_id))";
const ENTRIES_OFF: &str = "\
    with booked as (select account_id, sum(amount) as amount from entries group by 1)
    select (select count(*) from (select 1 from entries group by transfer having sum(amount) <> 0))
         + (select count(*) from accounts a left join booked b on b.account_id = a.id where a.posted <> ifnull(b.amount, 0))";

/// Checks a store against the answers that were given, by index of the request.
pub(super) async fn check<'a>(store: &Path, answers: impl Iterator<Item = (usize, &'a Answer)>) -> Result<Proof, Error> {
    let options = SqliteConnectOptions::new().filename(store).create_if_missing(false).busy_timeout(BUSY_TIMEOUT);
    let mut connection = SqliteConnection::connect_with(&options.disable_statement_logging()).await?;
    let mut proof = Proof {
        decisions: count(&mut connection, "select count(*) from authorizations").await?,
        doubled: count(&mut connection, DOUBLED).await?,
        below_floor: count(&mut connection, BELOW_FLOOR).await?,
        limits_passed: count(&mut connection, LIMITS_PASSED).await?,
        counters_off: count(&mut connection, COUNTERS_OFF).await?,
        held_off: count(&mut connection, HELD_OFF).await?,
        entries_off: count(&mut connection, ENTRIES_OFF).await?,
        accounts: count(&mut connection, "select count(*) from accounts").await?,
        holds: count(&mut connection, "select count(*) from holds where status = 1").await?,
        counters: count(&mut connection, "select count(*) from counters").await?,
        journal_mode: sqlx::query_scalar("pragma journal_mode").fetch_one(&mut connection).await?,
        ..Proof::default()
    };
    compare(&mut connection, answers, &mut proof).await?;
    connection.close().await?;
    Ok(proof)
}

fn is_decline(body: &[u8]) -> bool {
    const DECLINE: &[u8] = br#""decision":"declined""#;
    body.windows(DECLINE.len()).any(|window| window == DECLINE)
}

/// Every answer against the journal, and the journal against the answers.
async fn compare<'a>(
    connection: &mut SqliteConnection,
    answers: impl Iterator<Item = (usize, &'a Answer)>,
    proof: &mut Proof,
) -> Result<(), Error> {
    let mut told: HashMap<usize, &Answer> = answers.collect();
    for row in sqlx::query("select id, response from authorizations").fetch_all(connection).await? {
        let (id, response): (String, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
        match requests::index(&id).and_then(|index| told.remove(&index)) {
            Some(answer) if answer.journaled => proof.altered += u64::from(answer.body != response),
            // Answered "not decided" once, so the id may have been decided since; but only a decline may say so.
            Some(answer) => proof.altered += u64::from(!is_decline(&answer.body)),
            None => proof.untold += 1,
        }
    }
    proof.lost = told.values().filter(|answer| answer.journaled).count() as u64;
    Ok(())
}

async fn count(connection: &mut SqliteConnection, sql: &'static str) -> Result<u64, Error> {
    let count: i64 = sqlx::query_scalar(sql).fetch_one(connection).await?;
    Ok(count.cast_unsigned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::seed::{self, Plan, Target, ids};
    use bytes::Bytes;

    /// Three decisions on load card 1 (two approvals of 700 and a decline), as a daemon would have left them.
    async fn sound() -> (tempfile::TempDir, std::path::PathBuf, SqliteConnection) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("proof.db");
        let mut store = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path).create_if_missing(true)).await.unwrap();
        sqlx::raw_sql(include_str!("../../seed/scratch.sql")).execute(&mut store).await.unwrap();
        seed::write(Plan::new(1, 1), &Target::Sqlite { path: path.clone() }, |_| ()).await.unwrap();
        let (card, daily) = (ids::load(1), 1_999_899_999_i64);
        for (nth, decision, amount) in [(0, 1, 700), (1, 2, 700), (2, 0, 0)] {
            let charges = (decision > 0).then(|| format!("[[{daily},{card},0,0,700,0,1]]"));
            sqlx::query(
                "insert into authorizations(id, card_id, account_id, amount, decision, response, charges) values (?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(requests::id(nth))
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

    fn answers() -> Vec<(usize, Answer)> {
        (0..3).map(|nth| (nth, Answer { body: Bytes::from(format!("answer {nth}")), journaled: true })).collect()
    }

    async fn verdict(path: &Path, answers: &[(usize, Answer)]) -> Proof {
        check(path, answers.iter().map(|(index, answer)| (*index, answer))).await.unwrap()
    }

    #[tokio::test]
    async fn a_sound_store_passes() {
        let (_directory, path, _store) = sound().await;
        let proof = verdict(&path, &answers()).await;
        assert!(proof.holds_good(), "{proof:?}");
        assert_eq!((proof.decisions, proof.holds, proof.counters), (3, 2, 1));
    }

    #[tokio::test]
    async fn every_planted_fault_is_found() {
        type Fault = fn(&Proof) -> u64;
        let faults: &[(&str, Fault)] = &[
            ("delete from authorizations where id = 'demo-0000002'", |proof| proof.lost),
            ("update authorizations set response = x'00' where id = 'demo-0000001'", |proof| proof.altered),
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
            let proof = verdict(&path, &answers()).await;
            assert!(found(&proof) > 0 && !proof.holds_good(), "{sql}: {proof:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_was_not_final_need_not_be_in_the_journal() {
        let (_directory, path, _store) = sound().await;
        let mut given = answers();
        given.push((7, Answer { body: Bytes::from_static(b"unavailable"), journaled: false }));
        assert!(verdict(&path, &given).await.holds_good());
        given.push((8, Answer { body: Bytes::from_static(b"approved"), journaled: true }));
        assert_eq!(verdict(&path, &given).await.lost, 1);
    }
}
