//! The strings of statements. Each is one call to the connection's thread.
//!
//! Lists travel as JSON and are taken apart by `jsonb_each`: with `json_each` every column of every row would parse its row again,
//! which costs a quarter of the whole commit. Parameters are plain `?` and nothing else: a gap in numbered ones is bound as NULL without a word.
//! `cross join` fixes the order: the list outside, the table by its key inside.

/// A string of statements that runs from `begin immediate` to `commit`, or stops on the way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Statements {
    pub(super) sql: &'static str,
    /// How many there are: a string that stopped early has finished fewer.
    pub(super) count: usize,
    /// How many parameters they take, altogether: one too few would be bound as NULL without a word.
    pub(super) parameters: usize,
}

/// Commits a group. Parameters: ids; cards, absent tokens, programs; accounts and how many; counters and how many; account
/// claims, counter claims; digests, responses, journal; holds. The shapes are those of [`super::group::Group`].
pub(super) const COMMIT: Statements = Statements {
    count: 11,
    parameters: 14,
    sql: "
begin immediate;
insert into guard
  select 'known', count(*) from jsonb_each(?) u cross join authorizations a on a.id = u.value->>0;
insert into guard
  select 'facts', (select count(*) from jsonb_each(?) u left join cards c on c.id = u.value->>0 where c.version is not u.value->>1)
                + (select count(*) from jsonb_each(?) u cross join cards c on c.token = u.value
                     cross join users o on o.id = c.user_id cross join accounts a on a.id = c.account_id
                     cross join programs p on p.id = c.program_id)
                + (select count(*) from jsonb_each(?) u left join programs p on p.id = u.value->>0 where p.version is not u.value->>1);
update accounts set held = held + (u.value->>1) from jsonb_each(?) u
  where accounts.id = u.value->>0 and posted - held - (u.value->>1) >= floor;
insert into guard select 'accounts', changes() <> ?;
insert into counters (limit_id, scope_id, window_start, amount, count)
  select u.value->>0, u.value->>1, u.value->>2, u.value->>3, u.value->>4
    from jsonb_each(?) u cross join limits l on l.id = u.value->>0
    left join counters c on c.limit_id = u.value->>0 and c.scope_id = u.value->>1 and c.window_start = u.value->>2
   where (l.cap_amount is null or ifnull(c.amount, 0) + (u.value->>3) <= l.cap_amount)
     and (l.cap_count is null or ifnull(c.count, 0) + (u.value->>4) <= l.cap_count)
  on conflict do update set amount = amount + excluded.amount, count = count + excluded.count;
insert into guard select 'counters', changes() <> ?;
insert into guard
  select 'claims', (select count(*) from jsonb_each(?) u left join accounts a on a.id = u.value->>0
                     where a.id is null or a.posted - a.held - (u.value->>1) >= a.floor)
                 + (select count(*) from jsonb_each(?) u left join limits l on l.id = u.value->>0
                     left join counters c on c.limit_id = u.value->>0 and c.scope_id = u.value->>1 and c.window_start = u.value->>2
                     where l.id is null
                        or (u.value->>3 is not null and (l.cap_amount is null or ifnull(c.amount, 0) + (u.value->>3) <= l.cap_amount))
                        or (u.value->>4 is not null and (l.cap_count is null or ifnull(c.count, 0) + (u.value->>4) <= l.cap_count)));
insert into authorizations (id, digest, card, card_id, account_id, program_id, requested, amount, currency, decision, reason, response,
    card_version, program_version, mcc, merchant, country, channel, charges, queue_us, user_us, card_us, limits_us, decision_us,
    decided_at, unheard)
  select u.value->>0, substr(?, u.key * 16 + 1, 16), u.value->>3, u.value->>4, u.value->>5, u.value->>6, u.value->>7, u.value->>8,
         u.value->>9, u.value->>10, u.value->>11, substr(?, u.value->>1, u.value->>2), u.value->>12, u.value->>13, u.value->>14,
         u.value->>15, u.value->>16, u.value->>17, u.value->>18, u.value->>19, u.value->>20, u.value->>21, u.value->>22, u.value->>23,
         u.value->>24, u.value->>25
    from jsonb_each(?) u;
insert into holds (authorization_id, id, account_id, amount, status, placed_at)
  select u.value->>0, u.value->>1, u.value->>2, u.value->>3, 1, u.value->>4 from jsonb_each(?) u;
commit",
};

/// Says why a group was refused, after it was rolled back, and counts the replays it thereby answers. Parameters: digests,
/// responses, ids; cards; absent tokens; programs; journal; cards, counters, counter claims; accounts; account claims; counters;
/// counter claims. Claims are on top of the state before the group here.
///
/// A row names its kind first. `bereft` are cards of decisions whose account, or one of whose limits, is gone.
pub(super) const REPORT: Statements = Statements {
    count: 12,
    parameters: 14,
    sql: "
begin immediate;
update authorizations
   set replays = replays + (digest = substr(?, u.key * 16 + 1, 16) and response <> substr(?, u.value->>1, u.value->>2))
  from jsonb_each(?) u where authorizations.id = u.value->>0
  returning 'known', id, digest, response, decision;
select 'card', u.value->>0 from jsonb_each(?) u left join cards c on c.id = u.value->>0 where c.version is not u.value->>1;
select 'appeared', u.value from jsonb_each(?) u cross join cards c on c.token = u.value
    cross join users o on o.id = c.user_id cross join accounts a on a.id = c.account_id cross join programs p on p.id = c.program_id;
select 'program', u.value->>0 from jsonb_each(?) u left join programs p on p.id = u.value->>0 where p.version is not u.value->>1;
select distinct 'bereft', u.value->>4 from jsonb_each(?) u
  where u.value->>4 is not null and u.value->>5 is not null and not exists (select 1 from accounts a where a.id = u.value->>5);
select 'bereft', u.value->>0 from jsonb_each(?) u
  where exists (select 1 from jsonb_each(?) x left join limits l on l.id = x.value->>0 where l.id is null)
     or exists (select 1 from jsonb_each(?) x left join limits l on l.id = x.value->>0 where l.id is null);
select 'account', a.id, a.posted, a.held, a.floor from jsonb_each(?) u cross join accounts a on a.id = u.value->>0
  where not a.posted - a.held - (u.value->>1) >= a.floor;
select 'account', a.id, a.posted, a.held, a.floor from jsonb_each(?) u cross join accounts a on a.id = u.value->>0
  where a.posted - a.held - (u.value->>1) >= a.floor;
select 'counter', l.id, u.value->>1, u.value->>2, ifnull(c.amount, 0), ifnull(c.count, 0)
  from jsonb_each(?) u cross join limits l on l.id = u.value->>0
  left join counters c on c.limit_id = u.value->>0 and c.scope_id = u.value->>1 and c.window_start = u.value->>2
  where ifnull(c.amount, 0) + (u.value->>3) > l.cap_amount or ifnull(c.count, 0) + (u.value->>4) > l.cap_count;
select 'counter', l.id, u.value->>1, u.value->>2, ifnull(c.amount, 0), ifnull(c.count, 0)
  from jsonb_each(?) u cross join limits l on l.id = u.value->>0
  left join counters c on c.limit_id = u.value->>0 and c.scope_id = u.value->>1 and c.window_start = u.value->>2
  where (u.value->>3 is not null and (l.cap_amount is null or ifnull(c.amount, 0) + (u.value->>3) <= l.cap_amount))
     or (u.value->>4 is not null and (l.cap_count is null or ifnull(c.count, 0) + (u.value->>4) <= l.cap_count));
commit",
};

/// Reads money. Parameters: accounts, counters.
pub(super) const POSITIONS: Statements = Statements {
    count: 1,
    parameters: 2,
    sql: "
select 'account', a.id, a.posted, a.held, a.floor, null from jsonb_each(?) u cross join accounts a on a.id = u.value
union all
select 'counter', c.limit_id, c.scope_id, c.window_start, c.amount, c.count from jsonb_each(?) u
  cross join counters c on c.limit_id = u.value->>0 and c.scope_id = u.value->>1 and c.window_start = u.value->>2",
};

/// Takes an approval back. Parameters: id, response; id, held, account; held, account; held, counters; reason, decline, id; id.
///
/// The first guard is the port's rule. An approval whose hold was released meanwhile stands as well: it was settled, so it was
/// heard. The second guard catches a caller that is wrong about what was held.
pub(super) const VOID: Statements = Statements {
    count: 8,
    parameters: 13,
    sql: "
begin immediate;
insert into guard select 'stands', not exists (
  select 1 from authorizations a join holds h on h.authorization_id = a.id
   where a.id = ? and a.response = ? and a.replays = 0 and a.decision > 0 and h.status = 1);
insert into guard select 'void', not exists (
  select 1 from authorizations a join holds h on h.authorization_id = a.id
   where a.id = ? and a.amount = ? and h.amount = a.amount and a.account_id = ? and h.account_id = a.account_id);
update accounts set held = held - ? where id = ?;
update counters set amount = max(amount - ?, 0), count = max(count - 1, 0) from jsonb_each(?) u
  where limit_id = u.value->>0 and scope_id = u.value->>1 and window_start = u.value->>2;
update authorizations set decision = 0, reason = ?, amount = 0, response = ?, charges = null, unheard = false where id = ?;
update holds set status = 3 where authorization_id = ?;
commit",
};

/// Reads the decision that stands in the way of a void, and counts the replay unless it is the decline already.
/// Parameters: decline, id.
pub(super) const STANDS: Statements = Statements {
    count: 1,
    parameters: 2,
    sql: "update authorizations set replays = replays + (response <> ?) where id = ? returning response",
};

/// Lists an approval. Parameter: id.
pub(super) const MARK_UNHEARD: Statements =
    Statements { count: 1, parameters: 1, sql: "update authorizations set unheard = true where id = ? and decision > 0 and not unheard" };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_are_those_of_the_texts() {
        for statements in [COMMIT, REPORT, POSITIONS, VOID, STANDS, MARK_UNHEARD] {
            assert_eq!(statements.sql.matches(';').count() + 1, statements.count, "{}", statements.sql);
            assert_eq!(statements.sql.matches('?').count(), statements.parameters, "{}", statements.sql);
            assert!(!statements.sql.contains(['$', ':', '@']), "named parameters: {}", statements.sql);
            let numbered = statements.sql.split('?').skip(1).any(|after| after.starts_with(|next: char| next.is_ascii_digit()));
            assert!(!numbered, "a gap in numbered parameters is bound as NULL: {}", statements.sql);
        }
    }
}
