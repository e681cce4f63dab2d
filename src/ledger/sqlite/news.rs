//! What other connections to the file have changed. SQLite tells nobody: the clock of facts is looked at again and again, and what is
//! newer than it was is read when it has moved. Commits of decisions do not move it.

use super::connect::Door;
use crate::{
    domain::{
        ids::{CardToken, ProgramId, UserId, UserToken},
        time::Timestamp,
    },
    facts::change::{Announced, Change},
    ledger::feed::Source,
};
use sqlx::SqliteConnection;
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

/// How often the clock is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// Longest that a look may take.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// More changes than this count as everything. Below what `fact_removals` keeps.
const CHANGES_MAX: i64 = 100;

const CLOCK: &str = "select version from fact_clock";
/// One statement, so one snapshot. The clock comes first, and so is never cut off.
const NEWER: &str = "
select 'clock', 0, '', version, changed_at, true from fact_clock
union all select * from (select 'program', id, token, version, 0, true from programs where version > ?1 order by version limit ?2)
union all select * from (select 'user', id, token, version, 0, true from users where version > ?1 order by version limit ?2)
union all select * from (select 'card', id, token, version, 0, true from cards where version > ?1 order by version limit ?2)
union all select * from (select kind, id, token, version, 0, certain from fact_removals where version > ?1 order by version limit ?2)";

type Row = (String, i64, String, i64, i64, bool);

/// The changes in a file.
#[derive(Debug)]
pub struct SqliteNews {
    door: Arc<Door>,
    reader: Option<SqliteConnection>,
    /// What is known already. Stays when a connection fails, so that nothing is missed in between.
    known: Option<i64>,
}

impl SqliteNews {
    pub(super) const fn new(door: Arc<Door>) -> Self {
        Self { door, reader: None, known: None }
    }
}

impl Source for SqliteNews {
    async fn connect(&mut self) -> Result<(), String> {
        self.reader = None;
        let mut reader = self.door.reader().await.map_err(|error| error.to_string())?;
        let clock = within(sqlx::query_scalar(CLOCK).fetch_one(&mut reader)).await?;
        self.known.get_or_insert(clock);
        self.reader = Some(reader);
        Ok(())
    }

    async fn changes(&mut self) -> Result<Vec<Announced>, String> {
        let (Some(reader), Some(known)) = (&mut self.reader, &mut self.known) else { return Err("not connected".to_owned()) };
        loop {
            sleep(LOOK_EVERY).await;
            let clock: i64 = within(sqlx::query_scalar(CLOCK).fetch_one(&mut *reader)).await?;
            if clock == *known {
                continue;
            }
            let rows: Vec<Row> = within(sqlx::query_as(NEWER).bind(*known).bind(CHANGES_MAX + 1).fetch_all(&mut *reader)).await?;
            let Some((&(_, _, _, clock, changed_at, _), newer)) = rows.split_first() else { continue };
            // A clock that went back belongs to another history: a file that was restored in place.
            let all = clock < *known || i64::try_from(newer.len()).is_ok_and(|count| count > CHANGES_MAX);
            *known = clock;
            let at = Some(Timestamp(changed_at));
            let changes = if all { vec![Announced { change: Change::Everything, at }] } else { told(newer, clock, at) };
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }
}

/// The instant is that of the last change only.
fn told(newer: &[Row], clock: i64, last: Option<Timestamp>) -> Vec<Announced> {
    let mut newer: Vec<&Row> = newer.iter().collect();
    newer.sort_by_key(|row| row.3);
    newer.iter().filter_map(|row| Some(Announced { change: change(row)?, at: last.filter(|_| row.3 == clock) })).collect()
}

/// `None` for a token that no request can name.
fn change((kind, id, token, version, _, certain): &Row) -> Option<Change> {
    let version = certain.then_some(*version);
    match kind.as_str() {
        "card" => CardToken::new(token).ok().map(|token| Change::Card { token, version }),
        "user" => UserToken::new(token).ok().map(|token| Change::User { id: UserId(*id), token, version }),
        "program" => Some(Change::Program { id: ProgramId(*id), version }),
        _ => Some(Change::Everything),
    }
}

async fn within<T>(look: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, String> {
    match timeout(LOOK_MAX, look).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the file could not be read within {} ms", LOOK_MAX.as_millis())),
    }
}
