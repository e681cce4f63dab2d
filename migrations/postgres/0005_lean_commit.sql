-- A commit costs less: no rules that every statement reads anew, counters that are new are not looked for first, and a single decision
-- has a function of its own.

-- PostgreSQL reads a table's CHECK rules anew for each statement that writes to it, which took a sixth of a small commit. What remains is
-- about money that is given back (held, counters). Rows of journal and holds are inserted by these functions only, whose caller
-- looks at every group before it is sent. What is changed later, and what people write into accounts, is looked at by triggers on columns
-- that a commit does not touch.
alter table accounts drop constraint accounts_kind_check, drop constraint accounts_currency_check, drop constraint accounts_status_check;
alter table authorizations drop constraint authorizations_digest_check, drop constraint authorizations_amount_check,
  drop constraint authorizations_decision_check;
alter table holds drop constraint holds_amount_check, drop constraint holds_status_check;

create function account_columns() returns trigger language plpgsql as $$
begin
  if new.kind not in ('cardholder', 'funding') then
    raise exception 'the kind of account % is %: it must be cardholder or funding', new.token, new.kind using errcode = 'check_violation';
  end if;
  if new.currency !~ '^[A-Z]{3}$' then
    raise exception 'the currency of account % is %: it must be three capital letters', new.token, new.currency using errcode = 'check_violation';
  end if;
  if new.status not in ('open', 'closed') then
    raise exception 'the status of account % is %: it must be open or closed', new.token, new.status using errcode = 'check_violation';
  end if;
  return new;
end $$;
create trigger account_columns before insert or update of kind, currency, status on accounts for each row execute function account_columns();

-- The one of 0003, which takes no `l_fresh`, stays for daemons that run while the schema is migrated.

create function hold_columns() returns trigger language plpgsql as $$
begin
  if new.amount <= 0 or new.status not between 1 and 3 then
    raise exception 'the hold of authorization % has amount % and status %: it must hold something and be open, released or voided (1, 2, 3)',
      new.authorization_id, new.amount, new.status using errcode = 'check_violation';
  end if;
  return new;
end $$;
create trigger hold_columns before update of amount, status on holds for each row execute function hold_columns();

-- `l_fresh` says that a counter's row is likely to be missing. It is inserted without being looked for; one that is there after all is
-- found by the conflict and charged under the same guard. Only counters that nobody charges without the lock of an account of this group
-- may be called fresh: of the others those that are there are locked first, in the order of their keys, and two groups could wait for each
-- other if each called fresh what the other does not. A card that moves to another account meanwhile is charged under two locks; the lock
-- timeout ends such a wait, and the card's version keeps the older of the two from being committed.
--
-- As in 0003, with `l_fresh`. Arrays of one group are parallel: j journal, a accounts, l counters, f cards, g programs, wa account claims,
-- wl counter claims. Sorted, each key once: j by id bytewise, a, l, f, g. An answer is a set of rows:
--   C committed
--   D known id (name, decision, digest, response)          N a token that has a card now (name)
--   F stale card (k1)                                      P stale program (k1)
--   A account (k1: posted, held, floor)                    L counter (k1, k2, k3: amount, count)
--   B busy account (k1)                                    G busy program (k1)
-- No row at all: what was wrong is not any more.
create function jit_commit(
  p_wait boolean,
  j_id text[], j_digest bytea[], j_card text[], j_card_id bigint[], j_account bigint[], j_program bigint[],
  j_requested bigint[], j_amount bigint[], j_currency text[], j_decision smallint[], j_reason smallint[], j_response bytea[],
  j_card_version bigint[], j_program_version bigint[], j_mcc smallint[], j_merchant text[], j_country text[], j_channel text[],
  j_charges text[], j_queue integer[], j_user integer[], j_card_us integer[], j_limits integer[], j_decide integer[],
  j_decided_at bigint[], j_unheard boolean[], j_hold text[],
  a_id bigint[], a_held bigint[],
  l_id bigint[], l_scope bigint[], l_window bigint[], l_amount bigint[], l_count bigint[], l_fresh boolean[],
  f_card bigint[], f_version bigint[], f_absent text[],
  g_program bigint[], g_version bigint[],
  wa_id bigint[], wa_need bigint[],
  wl_id bigint[], wl_scope bigint[], wl_window bigint[], wl_amount bigint[], wl_count bigint[]
) returns table (kind text, name text, k1 bigint, k2 bigint, k3 bigint, v1 bigint, v2 bigint, v3 bigint, b1 bytea, b2 bytea)
language plpgsql volatile as $$
#variable_conflict use_column
declare
  most constant bigint := 9223372036854775807;
  hits bigint;
  made bigint;
  committed boolean := false;
  vanished boolean;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'jit_commit needs transaction isolation READ COMMITTED' using errcode = 'object_not_in_prerequisite_state';
  end if;

  -- A replay never waits for a lock: what is known already is reported at once. The unique index below stays the last word.
  if not exists (select 1 from authorizations j where j.id = any (j_id)) then
    begin                                          -- a subtransaction: raise = nothing applied, its locks given back
      -- 0 The gate of each program. A group that holds nothing needs neither gate nor account: what it says is true at its check.
      if cardinality(a_id) > 0 then
        if p_wait then
          perform pg_advisory_xact_lock_shared(program_gate(g)) from unnest(g_program) as g;
        elsif exists (select 1 from unnest(g_program) as g where not pg_try_advisory_xact_lock_shared(program_gate(g))) then
          raise exception using errcode = 'JA001';
        end if;

        -- 1 Accounts: lock, guard and apply in one pass. The row is read again under its lock, so the guard is exact.
        if not p_wait then
          perform 1 from accounts a where a.id = any (a_id) order by a.id for no key update skip locked;
          get diagnostics hits = row_count;
          if hits <> cardinality(a_id) then
            raise exception using errcode = 'JA001';
          end if;
        end if;
        update accounts a set held = a.held + u.held
          from unnest(a_id, a_held) as u(id, held)
         where a.id >= u.id and a.id <= u.id
           and a.posted::numeric - a.held - u.held >= a.floor and a.held::numeric + u.held <= most;
        get diagnostics hits = row_count;
        if hits <> cardinality(a_id) then
          raise exception using errcode = 'JA001';
        end if;
      end if;

      -- 2 Counters: the same, under the caps of now. Then those that do not exist yet, which another writer may be creating too.
      if cardinality(l_id) > 0 then
        hits := 0;
        if false = any (l_fresh) then
          update counters c set amount = c.amount + u.amount, count = c.count + u.count
            from (select x.*, d.cap_amount, d.cap_count
                    from unnest(l_id, l_scope, l_window, l_amount, l_count, l_fresh)
                         as x(limit_id, scope_id, window_start, amount, count, fresh)
                   cross join lateral (select cap_amount, cap_count from limits where id = x.limit_id offset 0) as d
                   where not x.fresh
                  offset 0) as u
           where c.limit_id = any (array[u.limit_id]) and c.scope_id = u.scope_id and c.window_start = u.window_start
             and c.amount::numeric + u.amount <= coalesce(u.cap_amount, most)
             and c.count::numeric + u.count <= coalesce(u.cap_count, most);
          get diagnostics hits = row_count;
        end if;
        if hits <> cardinality(l_id) then
          insert into counters as c (limit_id, scope_id, window_start, amount, count)
          select x.limit_id, x.scope_id, x.window_start, x.amount, x.count
            from unnest(l_id, l_scope, l_window, l_amount, l_count, l_fresh)
                 with ordinality as x(limit_id, scope_id, window_start, amount, count, fresh, place)
           cross join lateral (select cap_amount, cap_count from limits where id = x.limit_id offset 0) as d
            left join lateral (select true as here from counters e
                                where not x.fresh
                                  and e.limit_id = x.limit_id and e.scope_id = x.scope_id and e.window_start = x.window_start
                               offset 0) as e on true
           where e.here is null and x.amount <= coalesce(d.cap_amount, most) and x.count <= coalesce(d.cap_count, most)
           order by x.place
          on conflict (limit_id, scope_id, window_start) do update
            set amount = c.amount + excluded.amount, count = c.count + excluded.count
            where c.amount::numeric + excluded.amount <= coalesce((select d.cap_amount from limits d where d.id = c.limit_id), most)
              and c.count::numeric + excluded.count <= coalesce((select d.cap_count from limits d where d.id = c.limit_id), most);
          get diagnostics made = row_count;
          if hits + made <> cardinality(l_id) then
            raise exception using errcode = 'JA001';
          end if;
        end if;
      end if;

      -- 3 Journal. An id that another transaction is inserting is waited for.
      insert into authorizations (id, digest, card, card_id, account_id, program_id, requested, amount, currency, decision, reason,
                                  response, card_version, program_version, mcc, merchant, country, channel, charges,
                                  queue_us, user_us, card_us, limits_us, decision_us, decided_at, unheard)
      select u.id, u.digest, u.card, u.card_id, u.account, u.program, u.requested, u.amount, u.currency, u.decision, u.reason,
             u.response, u.card_version, u.program_version, u.mcc, u.merchant, u.country, u.channel, u.charges::jsonb,
             u.queue_us, u.user_us, u.card_us, u.limits_us, u.decide_us, u.decided_at, u.unheard
        from unnest(j_id, j_digest, j_card, j_card_id, j_account, j_program, j_requested, j_amount, j_currency, j_decision, j_reason,
                    j_response, j_card_version, j_program_version, j_mcc, j_merchant, j_country, j_channel, j_charges,
                    j_queue, j_user, j_card_us, j_limits, j_decide, j_decided_at, j_unheard)
             as u(id, digest, card, card_id, account, program, requested, amount, currency, decision, reason,
                  response, card_version, program_version, mcc, merchant, country, channel, charges,
                  queue_us, user_us, card_us, limits_us, decide_us, decided_at, unheard)
      on conflict (id) do nothing;
      get diagnostics hits = row_count;
      if hits <> cardinality(j_id) then
        raise exception using errcode = 'JA001';
      end if;

      -- 4 Holds.
      insert into holds (authorization_id, id, account_id, amount, placed_at)
      select u.id, u.hold, u.account, u.amount, u.decided_at
        from unnest(j_id, j_hold, j_account, j_amount, j_decided_at) as u(id, hold, account, amount, decided_at)
       where u.hold is not null;

      -- 5 The facts and the claims, after every lock is held, all in one snapshot taken now.
      if exists (select 1 from unnest(f_card, f_version) as u(id, version)
                   left join lateral (select version from cards where id = u.id offset 0) as c on true
                  where c.version is distinct from u.version)
      or exists (select 1 from unnest(g_program, g_version) as u(id, version)
                   left join lateral (select version from programs where id = u.id offset 0) as g on true
                  where g.version is distinct from u.version)
      or exists (select 1 from cards c where c.token = any (f_absent))
      or exists (select 1 from unnest(wa_id, wa_need) as u(id, need)
                   left join lateral (select posted, held, floor from accounts where id = u.id offset 0) as a on true
                  where a.posted is null or a.posted::numeric - a.held - u.need >= a.floor)
      or exists (select 1 from unnest(wl_id, wl_scope, wl_window, wl_amount, wl_count) as u(limit_id, scope_id, window_start, amount, count)
                   left join lateral (select true as here, cap_amount, cap_count from limits where id = u.limit_id offset 0) as d on true
                   left join lateral (select amount, count from counters c
                                       where c.limit_id = u.limit_id and c.scope_id = u.scope_id and c.window_start = u.window_start
                                      offset 0) as c on true
                  where d.here is null
                     or (u.amount is not null and (d.cap_amount is null or coalesce(c.amount, 0)::numeric + u.amount <= d.cap_amount))
                     or (u.count is not null and (d.cap_count is null or coalesce(c.count, 0)::numeric + u.count <= d.cap_count)))
      then
        raise exception using errcode = 'JA001';
      end if;
      committed := true;
    exception when sqlstate 'JA001' then null;
    end;
  end if;
  if committed then
    return query select 'C', null::text, null::bigint, null::bigint, null::bigint, null::bigint, null::bigint, null::bigint, null::bytea, null::bytea;
    return;
  end if;

  -- The report, on fresh snapshots. Values may move again before the next try; the guards will say so.
  -- Known ids. Bytes that are not ours are about to be sent again: counted in the statement that reads them, they cannot be voided any more.
  return query
    update authorizations j set replays = j.replays + 1
      from unnest(j_id, j_digest, j_response) as u(id, digest, response)
     where j.id >= u.id and j.id <= u.id and j.digest = u.digest and j.response <> u.response
    returning 'D', j.id, j.decision::bigint, null::bigint, null::bigint, null::bigint, null::bigint, null::bigint, j.digest, j.response;
  return query
    select 'D', j.id, j.decision::bigint, null::bigint, null::bigint, null::bigint, null::bigint, null::bigint, j.digest, j.response
      from unnest(j_id, j_digest, j_response) as u(id, digest, response)
     cross join lateral (select * from authorizations where id = u.id offset 0) as j
     where j.digest <> u.digest or j.response = u.response;

  -- An account or a limit that is gone without a new version of the card (triggers switched off): the facts must be read again.
  vanished := exists (select 1 from unnest(a_id || wa_id) as u(id)
                        left join lateral (select true as here from accounts where id = u.id offset 0) as a on true where a.here is null)
           or exists (select 1 from unnest(l_id || wl_id) as u(id)
                        left join lateral (select true as here from limits where id = u.id offset 0) as d on true where d.here is null);
  return query
    select 'F', null::text, u.id, null::bigint, null::bigint, null::bigint, null::bigint, null::bigint, null::bytea, null::bytea
      from unnest(f_card, f_version) as u(id, version)
      left join lateral (select version from cards where id = u.id offset 0) as c on true
     where vanished or c.version is distinct from u.version;
  return query
    select 'N', c.token, null::bigint, null::bigint, null::bigint, null::bigint, null::bigint, null::bigint, null::bytea, null::bytea
      from cards c where c.token = any (f_absent);
  return query
    select 'P', null::text, u.id, null::bigint, null::bigint, null::bigint, null::bigint, null::bigint, null::bytea, null::bytea
      from unnest(g_program, g_version) as u(id, version)
      left join lateral (select version from programs where id = u.id offset 0) as g on true
     where g.version is distinct from u.version;
  return query
    select 'A', null::text, u.id, null::bigint, null::bigint, a.posted, a.held, a.floor, null::bytea, null::bytea
      from (select z.id, max(z.held) as held, min(z.need) as need
              from (select x.id, x.held, null::bigint as need from unnest(a_id, a_held) as x(id, held)
                    union all select y.id, null, y.need from unnest(wa_id, wa_need) as y(id, need)) as z
             group by z.id) as u
     cross join lateral (select posted, held, floor from accounts where id = u.id offset 0) as a
     where a.posted::numeric - a.held - u.held < a.floor or a.held::numeric + u.held > most
        or a.posted::numeric - a.held - coalesce(u.held, 0) - u.need >= a.floor;
  return query
    select 'L', null::text, u.limit_id, u.scope_id, u.window_start, coalesce(c.amount, 0), coalesce(c.count, 0), null::bigint, null::bytea, null::bytea
      from (select z.limit_id, z.scope_id, z.window_start, max(z.amount) as amount, max(z.count) as count,
                   min(z.more_amount) as more_amount, min(z.more_count) as more_count
              from (select x.*, null::bigint as more_amount, null::bigint as more_count
                      from unnest(l_id, l_scope, l_window, l_amount, l_count) as x(limit_id, scope_id, window_start, amount, count)
                    union all select y.limit_id, y.scope_id, y.window_start, null, null, y.more_amount, y.more_count
                      from unnest(wl_id, wl_scope, wl_window, wl_amount, wl_count)
                           as y(limit_id, scope_id, window_start, more_amount, more_count)) as z
             group by z.limit_id, z.scope_id, z.window_start) as u
     cross join lateral (select cap_amount, cap_count from limits where id = u.limit_id offset 0) as d
      left join lateral (select amount, count from counters e
                          where e.limit_id = u.limit_id and e.scope_id = u.scope_id and e.window_start = u.window_start
                         offset 0) as c on true
     where coalesce(c.amount, 0)::numeric + u.amount > coalesce(d.cap_amount, most)
        or coalesce(c.count, 0)::numeric + u.count > coalesce(d.cap_count, most)
        or (u.more_amount is not null and (d.cap_amount is null
              or coalesce(c.amount, 0)::numeric + coalesce(u.amount, 0) + u.more_amount <= d.cap_amount))
        or (u.more_count is not null and (d.cap_count is null
              or coalesce(c.count, 0)::numeric + coalesce(u.count, 0) + u.more_count <= d.cap_count));
  if not p_wait and cardinality(a_id) > 0 then
    return query
      select 'B', null::text, u.id, null::bigint, null::bigint, null::bigint, null::bigint, null::bigint, null::bytea, null::bytea
        from unnest(a_id) as u(id)
       where exists (select 1 from accounts a where a.id = u.id offset 0)
         and not exists (select 1 from (select 1 from accounts a where a.id = u.id for no key update skip locked) as free offset 0);
    return query
      select 'G', null::text, g, null::bigint, null::bigint, null::bigint, null::bigint, null::bigint, null::bytea, null::bytea
        from unnest(g_program) as g where not pg_try_advisory_xact_lock_shared(program_gate(g));
  end if;
end $$;

-- The commit of a single decision, which is what most commits are until the load grows: the same guards in the same order as
-- `jit_commit`, without lists to unfold and without a subtransaction.
--
-- Answers true when it is committed, and false when the id is known. A guard that does not hold raises JA001, which takes everything
-- back with the transaction: whoever calls asks `jit_commit` then, which tries again and reports what stands against it. It takes
-- approvals without claims of a decline, and declines that make none, and it waits for locks.

-- Hold, counters and gate belong together: without `p_hold` there are none. `f` is the card's version, `f_absent` a token that has no
-- card, `g` the program's version; null where the decision does not rest on it.
create function jit_commit_one(
  p_id text, p_digest bytea, p_card text, p_card_id bigint, p_account bigint, p_program bigint,
  p_requested bigint, p_amount bigint, p_currency text, p_decision smallint, p_reason smallint, p_response bytea,
  p_card_version bigint, p_program_version bigint, p_mcc smallint, p_merchant text, p_country text, p_channel text,
  p_charges text, p_queue integer, p_user integer, p_card_us integer, p_limits integer, p_decide integer,
  p_decided_at bigint, p_unheard boolean, p_hold text,
  l_id bigint[], l_scope bigint[], l_window bigint[], l_fresh boolean[],
  f_card bigint, f_version bigint, f_absent text, g_program bigint, g_version bigint
) returns boolean language plpgsql volatile as $$
declare
  most constant bigint := 9223372036854775807;
  hits bigint;
  made bigint;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'jit_commit_one needs transaction isolation READ COMMITTED' using errcode = 'object_not_in_prerequisite_state';
  end if;
  if exists (select 1 from authorizations j where j.id = p_id) then
    return false;
  end if;
  if p_hold is not null then
    -- 0 The gate of the program.
    perform pg_advisory_xact_lock_shared(program_gate(g_program));

    -- 1 The account.
    update accounts a set held = a.held + p_amount
     where a.id = p_account and a.posted::numeric - a.held - p_amount >= a.floor and a.held::numeric + p_amount <= most;
    if not found then
      raise exception using errcode = 'JA001';
    end if;

    -- 2 Counters, and those that do not exist yet.
    if cardinality(l_id) > 0 then
      hits := 0;
      if false = any (l_fresh) then
        update counters c set amount = c.amount + p_amount, count = c.count + 1
          from (select x.*, d.cap_amount, d.cap_count
                  from unnest(l_id, l_scope, l_window, l_fresh) as x(limit_id, scope_id, window_start, fresh)
                 cross join lateral (select cap_amount, cap_count from limits where id = x.limit_id offset 0) as d
                 where not x.fresh
                offset 0) as u
         where c.limit_id = any (array[u.limit_id]) and c.scope_id = u.scope_id and c.window_start = u.window_start
           and c.amount::numeric + p_amount <= coalesce(u.cap_amount, most) and c.count::numeric + 1 <= coalesce(u.cap_count, most);
        get diagnostics hits = row_count;
      end if;
      if hits <> cardinality(l_id) then
        insert into counters as c (limit_id, scope_id, window_start, amount, count)
        select x.limit_id, x.scope_id, x.window_start, p_amount, 1
          from unnest(l_id, l_scope, l_window, l_fresh) with ordinality as x(limit_id, scope_id, window_start, fresh, place)
         cross join lateral (select cap_amount, cap_count from limits where id = x.limit_id offset 0) as d
          left join lateral (select true as here from counters e
                              where not x.fresh
                                and e.limit_id = x.limit_id and e.scope_id = x.scope_id and e.window_start = x.window_start
                             offset 0) as e on true
         where e.here is null and p_amount <= coalesce(d.cap_amount, most) and 1 <= coalesce(d.cap_count, most)
         order by x.place
        on conflict (limit_id, scope_id, window_start) do update
          set amount = c.amount + excluded.amount, count = c.count + excluded.count
          where c.amount::numeric + excluded.amount <= coalesce((select d.cap_amount from limits d where d.id = c.limit_id), most)
            and c.count::numeric + excluded.count <= coalesce((select d.cap_count from limits d where d.id = c.limit_id), most);
        get diagnostics made = row_count;
        if hits + made <> cardinality(l_id) then
          raise exception using errcode = 'JA001';
        end if;
      end if;
    end if;
  end if;

  -- 3 Journal.
  insert into authorizations (id, digest, card, card_id, account_id, program_id, requested, amount, currency, decision, reason,
                              response, card_version, program_version, mcc, merchant, country, channel, charges,
                              queue_us, user_us, card_us, limits_us, decision_us, decided_at, unheard)
  values (p_id, p_digest, p_card, p_card_id, p_account, p_program, p_requested, p_amount, p_currency, p_decision, p_reason,
          p_response, p_card_version, p_program_version, p_mcc, p_merchant, p_country, p_channel, p_charges::jsonb,
          p_queue, p_user, p_card_us, p_limits, p_decide, p_decided_at, p_unheard)
  on conflict (id) do nothing;
  if not found then
    raise exception using errcode = 'JA001';
  end if;

  -- 4 The hold.
  if p_hold is not null then
    insert into holds (authorization_id, id, account_id, amount, placed_at) values (p_id, p_hold, p_account, p_amount, p_decided_at);
  end if;

  -- 5 The facts, after every lock is held.
  if f_card is not null and not exists (select 1 from cards c where c.id = f_card and c.version = f_version)
  or g_program is not null and not exists (select 1 from programs g where g.id = g_program and g.version = g_version)
  or f_absent is not null and exists (select 1 from cards c where c.token = f_absent) then
    raise exception using errcode = 'JA001';
  end if;
  return true;
end $$;
