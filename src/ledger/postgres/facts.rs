//! Facts from the store: one query, one snapshot, one document.

use super::Postgres;
use crate::{
    domain::{facts::CardFile, ids::CardToken},
    facts::{FactError, FactSource, document::CardDocument},
};
use tokio::time::timeout;

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
        let unavailable = |error: sqlx::Error| FactError::Unavailable(error.to_string());
        let mut connection = self.facts.acquire().await.map_err(unavailable)?;
        let query = sqlx::query_scalar(DOCUMENT).bind(card.as_str());
        let Ok(text) = timeout(self.server.answer_timeout(), query.fetch_optional(&mut *connection)).await else {
            // Back in the pool it would be waited for, and its place be lost as long as the server is silent.
            drop(connection.detach());
            return Err(FactError::Unavailable("no answer in time".to_owned()));
        };
        let text: Option<String> = text.map_err(unavailable)?;
        text.map(|text| CardDocument::parse(text.as_bytes())).transpose()
    }
}
