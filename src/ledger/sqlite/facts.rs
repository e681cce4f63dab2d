//! Facts as SQLite reads them.

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
