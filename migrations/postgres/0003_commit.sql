-- The commit of a group of decisions: one call, one transaction, one round trip, all or nothing.
--
-- Every statement of a volatile function takes its own snapshot in READ COMMITTED. That is what makes "lock, then read" exact, and why
-- the functions refuse anything else.
--
-- Rows are locked in the order of the arrays, which the caller sorts. The plans that do so are the only ones left to the planner: the
-- connection forbids hash joins, merge joins, sequential and bitmap scans; a row to be updated is joined on its first key column by
-- `>=` and `<=`, or by `= any (array[…])`, which serve the index but no merge join, so that the planner sees no use in walking the whole
-- index instead (comparing whole rows would, after the first column, not stop the walk); other rows are read in a lateral subquery
-- with `offset 0`, which can only be the inner side of a nested loop. So a plan made on empty tables stays right when they grow.
--
-- Sums are numeric: no overflow can raise, or wrap into an approval.

-- Arrays of one group are parallel: j journal, a accounts, l counters, f cards, g programs, wa account claims, wl counter claims.
-- Sorted, each key once: j by id bytewise, a, l, f, g. An answer is a set of rows:
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
  l_id bigint[], l_scope bigint[], l_window bigint[], l_amount bigint[], l_count bigint[],
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
        update counters c set amount = c.amount + u.amount, count = c.count + u.count
          from (select x.*, d.cap_amount, d.cap_count
                  from unnest(l_id, l_scope, l_window, l_amount, l_count) as x(limit_id, scope_id, window_start, amount, count)
                 cross join lateral (select cap_amount, cap_count from limits where id = x.limit_id offset 0) as d
                offset 0) as u
         where c.limit_id = any (array[u.limit_id]) and c.scope_id = u.scope_id and c.window_start = u.window_start
           and c.amount::numeric + u.amount <= coalesce(u.cap_amount, most) and c.count::numeric + u.count <= coalesce(u.cap_count, most);
        get diagnostics hits = row_count;
        if hits <> cardinality(l_id) then
          insert into counters as c (limit_id, scope_id, window_start, amount, count)
          select x.limit_id, x.scope_id, x.window_start, x.amount, x.count
            from unnest(l_id, l_scope, l_window, l_amount, l_count)
                 with ordinality as x(limit_id, scope_id, window_start, amount, count, place)
           cross join lateral (select cap_amount, cap_count from limits where id = x.limit_id offset 0) as d
            left join lateral (select true as here from counters e
                                where e.limit_id = x.limit_id and e.scope_id = x.scope_id and e.window_start = x.window_start
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

-- Takes an approval back that was never sent. Answers whether the decline is the decision now, and the bytes that are.
create function jit_void(
  p_id text, p_account bigint, p_held bigint, l_id bigint[], l_scope bigint[], l_window bigint[],
  p_own bytea, p_decline bytea, p_reason smallint
) returns table (done boolean, response bytea) language plpgsql volatile as $$
#variable_conflict use_column
declare
  stored bytea;
  times integer;
  held_open boolean;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'jit_void needs transaction isolation READ COMMITTED' using errcode = 'object_not_in_prerequisite_state';
  end if;
  select j.response into stored from authorizations j where j.id = p_id;
  if not found then
    raise exception 'there is no authorization %', p_id using errcode = 'no_data_found';
  end if;
  if stored = p_own then
    perform 1 from accounts a where a.id = p_account for no key update;
    for i in 1 .. cardinality(l_id) loop
      perform 1 from counters c where c.limit_id = l_id[i] and c.scope_id = l_scope[i] and c.window_start = l_window[i] for no key update;
    end loop;
    select j.response, j.replays into stored, times from authorizations j where j.id = p_id for update;
    perform 1 from holds h
      where h.authorization_id = p_id and h.status = 1 and h.account_id = p_account and h.amount = p_held for update;
    held_open := found;
    if stored = p_own and times = 0 and held_open then
      update accounts a set held = a.held - p_held where a.id = p_account;
      for i in 1 .. cardinality(l_id) loop
        update counters c set amount = c.amount - p_held, count = c.count - 1
         where c.limit_id = l_id[i] and c.scope_id = l_scope[i] and c.window_start = l_window[i];
      end loop;
      update authorizations j
         set response = p_decline, decision = 0, reason = p_reason, amount = 0, charges = null, unheard = false
       where j.id = p_id;
      update holds h set status = 3 where h.authorization_id = p_id;
      stored := p_decline;
    end if;
  end if;
  if stored = p_decline then
    return query select true, stored;
  else
    -- These bytes are about to be sent: they stand from now on.
    return query update authorizations j set replays = j.replays + 1 where j.id = p_id returning j.response = p_decline, j.response;
  end if;
end $$;
