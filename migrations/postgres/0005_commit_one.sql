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
  l_id bigint[], l_scope bigint[], l_window bigint[],
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
      update counters c set amount = c.amount + p_amount, count = c.count + 1
        from (select x.*, d.cap_amount, d.cap_count
                from unnest(l_id, l_scope, l_window) as x(limit_id, scope_id, window_start)
               cross join lateral (select cap_amount, cap_count from limits where id = x.limit_id offset 0) as d
              offset 0) as u
       where c.limit_id = any (array[u.limit_id]) and c.scope_id = u.scope_id and c.window_start = u.window_start
         and c.amount::numeric + p_amount <= coalesce(u.cap_amount, most) and c.count::numeric + 1 <= coalesce(u.cap_count, most);
      get diagnostics hits = row_count;
      if hits <> cardinality(l_id) then
        insert into counters as c (limit_id, scope_id, window_start, amount, count)
        select x.limit_id, x.scope_id, x.window_start, p_amount, 1
          from unnest(l_id, l_scope, l_window) with ordinality as x(limit_id, scope_id, window_start, place)
         cross join lateral (select cap_amount, cap_count from limits where id = x.limit_id offset 0) as d
          left join lateral (select true as here from counters e
                              where e.limit_id = x.limit_id and e.scope_id = x.scope_id and e.window_start = x.window_start
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
