//! Facts from the store: one query, one snapshot, one document.

use super::{Postgres, news::PgNews};
use crate::{
    domain::{facts::CardFile, ids::CardToken},
    facts::{
        FactError, FactSource,
        change::{Change, FactStore, Scanned, Subject},
        document::CardDocument,
    },
    ledger::{
        concern,
        feed::StoreFeed,
        roster::{self, CardRow, LimitRow, ProgramRow, Roster, usable_cards},
    },
    telemetry::Telemetry,
};
use futures_util::StreamExt;
use sqlx::{Connection, PgConnection, pool::PoolConnection};
use std::{ops::ControlFlow, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};

/// Longest that the next rows of a long reading may take to come.
const ROWS_MAX: Duration = Duration::from_secs(60);
/// Rows that are waited for together.
const ROWS_TOGETHER: usize = 256;

/// Everything about the card with token `$1`, in the shape of `facts::document`.
const DOCUMENT: &str = "\
select json_build_object(
  'card', json_build_object('id', c.id, 'token', c.token, 'version', c.version, 'user_id', u.id, 'user', u.token, 'user_version', u.version,
    'account_id', a.id, 'currency', a.currency, 'account_open', a.status = 'open', 'program_id', p.id, 'status', c.status,
    'expires_at', c.expires_at, 'controls', c.controls::json),
  'user', json_build_object('id', u.id, 'token', u.token, 'version', u.version, 'active', u.status = 'active',
    'kyc_verified', u.kyc = 'verified'),
  'limits', json_build_object('card_version', c.version, 'limits', coalesce((
    select json_agg(json_build_object('id', l.id, 'scope', l.scope, 'window', l.period, 'filter', l.filter::json,
                                      'cap_amount', l.cap_amount, 'cap_count', l.cap_count) order by l.id)
      from (select * from limits where owner_id = c.id and owner = 'card'
            union all select * from limits where owner_id = u.id and owner = 'user'
            union all select * from limits where owner_id = a.id and owner = 'account') l
    ), '[]')),
  'program', json_build_object('id', p.id, 'version', p.version, 'kind', p.kind, 'time_zone', p.time_zone, 'week_start', p.week_start,
    'kyc_required', p.kyc_required, 'partial_approval', p.partial_approval, 'controls', p.controls::json, 'limits', coalesce((
    select json_agg(json_build_object('id', l.id, 'scope', l.scope, 'window', l.period, 'filter', l.filter::json,
                                      'cap_amount', l.cap_amount, 'cap_count', l.cap_count) order by l.id)
      from limits l
     where l.owner_id = p.id and l.owner = 'program'
    ), '[]')))::text
  from cards c
  join users u on u.id = c.user_id
  join accounts a on a.id = c.account_id
  join programs p on p.id = c.program_id
 where c.token = $1";

impl FactSource for Postgres {
    async fn fetch(&self, card: &CardToken) -> Result<Option<CardFile>, FactError> {
        let mut connection = self.reader().await?;
        let query = sqlx::query_scalar(DOCUMENT).bind(card.as_str());
        let Ok(text) = timeout(self.server.answer_timeout(), query.fetch_optional(&mut *connection)).await else {
            // Back in the pool it would be waited for, and its place be lost as long as the server is silent.
            drop(connection.detach());
            return Err(FactError::Unavailable("no answer in time".to_owned()));
        };
        let text: Option<String> = text.map_err(unavailable)?;
        text.map(|text| CardDocument::parse(text.as_bytes())).transpose()
    }

    fn tell_waits(&mut self, telemetry: &Telemetry) {
        self.telemetry = Some(telemetry.clone());
    }
}

impl Postgres {
    async fn reader(&self) -> Result<PoolConnection<sqlx::Postgres>, FactError> {
        let began = Instant::now();
        let given = self.facts.acquire().await;
        if let Some(telemetry) = &self.telemetry {
            telemetry.pool_waited(began.elapsed());
        }
        given.map_err(unavailable)
    }
}

impl FactStore for Postgres {
    type Feed = StoreFeed<PgNews>;

    fn feed(&self) -> Self::Feed {
        StoreFeed::new(PgNews::new(Arc::clone(&self.server)))
    }

    async fn every_card(&self, mut keep: impl FnMut(Scanned) -> ControlFlow<()> + Send) -> Result<u64, FactError> {
        // A connection of its own: single reads do not wait for it.
        let options = self.server.reading_options();
        let mut connection = self.server.open_with(&options).await.map_err(|error| FactError::Unavailable(error.to_string()))?;
        let handed = every_card(&mut connection, &mut keep).await?;
        // Read to its end or not, the connection is of no more use, and what became of it of no interest.
        drop(connection);
        Ok(handed)
    }

    async fn concerned(&self, subject: &Subject) -> Result<Vec<Change>, FactError> {
        let mut connection = self.reader().await?;
        let query = sqlx::query_as(concern::query(subject)).bind(concern::token(subject)).bind(concern::limit());
        let Ok(rows) = timeout(self.server.answer_timeout(), query.fetch_all(&mut *connection)).await else {
            drop(connection.detach());
            return Err(FactError::Unavailable("no answer in time".to_owned()));
        };
        Ok(concern::changes(subject, rows.map_err(unavailable)?))
    }
}

/// Cards that can be used now.
const EVERY_CARD: &str = usable_cards!("(extract(epoch from now()) * 1000000)::bigint");

async fn every_card(connection: &mut PgConnection, keep: &mut (impl FnMut(Scanned) -> ControlFlow<()> + Send)) -> Result<u64, FactError> {
    let late = |_| FactError::Unavailable(format!("no rows for {} s", ROWS_MAX.as_secs()));
    let begin = connection.begin_with("begin isolation level repeatable read, read only");
    let mut snapshot = timeout(ROWS_MAX, begin).await.map_err(late)?.map_err(unavailable)?;
    let mut roster = Roster::default();
    // Row by row: all at once would take several times what is kept of them.
    let mut rows = sqlx::query_as::<_, LimitRow>(roster::LIMITS).fetch(&mut *snapshot).ready_chunks(ROWS_TOGETHER);
    while let Some(chunk) = timeout(ROWS_MAX, rows.next()).await.map_err(late)? {
        for row in chunk {
            roster.limit(row.map_err(unavailable)?);
        }
        tokio::task::yield_now().await;
    }
    drop(rows);
    let programs = timeout(ROWS_MAX, sqlx::query_as::<_, ProgramRow>(roster::PROGRAMS).fetch_all(&mut *snapshot));
    roster.programs(programs.await.map_err(late)?.map_err(unavailable)?);
    if keep(Scanned::Aside(roster.bytes())).is_break() {
        return Ok(0);
    }
    let mut handed = 0;
    let mut rows = sqlx::query_as::<_, CardRow>(EVERY_CARD).fetch(&mut *snapshot).ready_chunks(ROWS_TOGETHER);
    'reading: while let Some(chunk) = timeout(ROWS_MAX, rows.next()).await.map_err(late)? {
        for row in chunk {
            let Some(file) = roster.file(row.map_err(unavailable)?) else { continue };
            handed += 1;
            if keep(Scanned::Card(file)).is_break() {
                break 'reading;
            }
        }
        // Rows that are there already never make the driver wait: without this the scan would keep a thread for seconds.
        tokio::task::yield_now().await;
    }
    roster.finish();
    Ok(handed)
}

fn unavailable(error: sqlx::Error) -> FactError {
    FactError::Unavailable(error.to_string())
}
