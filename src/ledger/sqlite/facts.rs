//! Facts as SQLite reads them.

use super::{Sqlite, error::transient_facts, news::SqliteNews};
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
        roster::{self, CardRow, LimitRow, Roster, usable_cards},
    },
    telemetry::Telemetry,
};
use futures_util::TryStreamExt;
use sqlx::{Connection, pool::PoolConnection};
use std::{ops::ControlFlow, sync::Arc};
use tokio::time::Instant;

impl FactSource for Sqlite {
    async fn fetch(&self, card: &CardToken) -> Result<Option<CardFile>, FactError> {
        let document: Option<String> = sqlx::query_scalar(CARD_DOCUMENT)
            .bind(card.as_str())
            .fetch_optional(&mut *self.reader().await?)
            .await
            .map_err(|error| transient_facts(&error))?;
        document.map(|json| CardDocument::parse(json.as_bytes())).transpose()
    }

    fn tell_waits(&mut self, telemetry: &Telemetry) {
        self.telemetry = Some(telemetry.clone());
    }
}

impl Sqlite {
    async fn reader(&self) -> Result<PoolConnection<sqlx::Sqlite>, FactError> {
        let began = Instant::now();
        let given = self.readers.acquire().await;
        if let Some(telemetry) = &self.telemetry {
            telemetry.pool_waited(began.elapsed());
        }
        given.map_err(|error| transient_facts(&error))
    }
}

impl FactStore for Sqlite {
    type Feed = StoreFeed<SqliteNews>;

    fn feed(&self) -> Self::Feed {
        StoreFeed::new(SqliteNews::new(Arc::clone(&self.door)))
    }

    async fn every_card(&self, mut keep: impl FnMut(Scanned) -> ControlFlow<()> + Send) -> Result<u64, FactError> {
        // A connection of its own: single reads do not wait for it.
        let mut reader = self.door.reader().await.map_err(|error| FactError::Unavailable(error.to_string()))?;
        let handed = every_card(&mut reader, &mut keep).await.map_err(|error| transient_facts(&error));
        self.door.close(reader).await;
        handed
    }

    async fn concerned(&self, subject: &Subject) -> Result<Vec<Change>, FactError> {
        let mut reader = self.reader().await?;
        let rows = sqlx::query_as(concern::query(subject)).bind(concern::token(subject)).bind(concern::limit());
        Ok(concern::changes(subject, rows.fetch_all(&mut *reader).await.map_err(|error| transient_facts(&error))?))
    }
}

async fn every_card(
    reader: &mut sqlx::SqliteConnection,
    keep: &mut (impl FnMut(Scanned) -> ControlFlow<()> + Send),
) -> Result<u64, sqlx::Error> {
    // Its first read takes the snapshot for all of them.
    let mut snapshot = reader.begin().await?;
    let (mut roster, mut handed) = (Roster::default(), 0);
    // Row by row: all at once would take several times what is kept of them.
    let mut rows = sqlx::query_as::<_, LimitRow>(roster::LIMITS).fetch(&mut *snapshot);
    let mut read = 0_u64;
    while let Some(row) = rows.try_next().await? {
        roster.limit(row);
        read += 1;
        if read.is_multiple_of(YIELD_EVERY) {
            tokio::task::yield_now().await;
        }
    }
    drop(rows);
    roster.programs(sqlx::query_as(roster::PROGRAMS).fetch_all(&mut *snapshot).await?);
    if keep(Scanned::Aside(roster.bytes())).is_break() {
        return Ok(0);
    }
    let mut rows = sqlx::query_as::<_, CardRow>(EVERY_CARD).fetch(&mut *snapshot);
    while let Some(row) = rows.try_next().await? {
        let Some(file) = roster.file(row) else { continue };
        handed += 1;
        if keep(Scanned::Card(file)).is_break() {
            break;
        }
        if handed % YIELD_EVERY == 0 {
            tokio::task::yield_now().await;
        }
    }
    drop(rows);
    roster.finish();
    snapshot.rollback().await?;
    Ok(handed)
}

/// After so many rows of a scan others get their turn on its thread.
const YIELD_EVERY: u64 = 256;

/// Cards that can be used now.
const EVERY_CARD: &str = usable_cards!("unixepoch() * 1000000");

/// Everything about the card with the token `?`, in one statement and so in one snapshot. No row when there is no such card, or
/// when what it points at is not there: [`super::statements::COMMIT`] takes the same view of absence.
pub(super) const CARD_DOCUMENT: &str = "
select json_object(
  'card', json_object(
    'id', c.id, 'token', c.token, 'version', c.version, 'user_id', u.id, 'user', u.token, 'user_version', u.version,
    'account_id', a.id, 'currency', a.currency, 'account_open', json(iif(a.status = 'open', 'true', 'false')),
    'program_id', p.id, 'status', c.status, 'expires_at', c.expires_at, 'controls', json(c.controls)),
  'user', json_object(
    'id', u.id, 'token', u.token, 'version', u.version,
    'active', json(iif(u.status = 'active', 'true', 'false')), 'kyc_verified', json(iif(u.kyc = 'verified', 'true', 'false'))),
  'limits', json_object(
    'card_version', c.version,
    'limits', json((select json_group_array(json_object(
        'id', l.id, 'scope', l.scope, 'window', l.period, 'filter', json(l.filter), 'cap_amount', l.cap_amount, 'cap_count', l.cap_count)
        order by l.id)
      from limits l
      where (l.owner = 'card' and l.owner_id = c.id) or (l.owner = 'user' and l.owner_id = c.user_id)
         or (l.owner = 'account' and l.owner_id = c.account_id)))),
  'program', json_object(
    'id', p.id, 'version', p.version, 'kind', p.kind, 'time_zone', p.time_zone, 'week_start', p.week_start,
    'kyc_required', json(iif(p.kyc_required, 'true', 'false')), 'partial_approval', json(iif(p.partial_approval, 'true', 'false')),
    'controls', json(p.controls),
    'limits', json((select json_group_array(json_object(
        'id', l.id, 'scope', l.scope, 'window', l.period, 'filter', json(l.filter), 'cap_amount', l.cap_amount, 'cap_count', l.cap_count)
        order by l.id)
      from limits l where l.owner = 'program' and l.owner_id = p.id))))
from cards c
join users u on u.id = c.user_id
join accounts a on a.id = c.account_id
join programs p on p.id = c.program_id
where c.token = ?";
