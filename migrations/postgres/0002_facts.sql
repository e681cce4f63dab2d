-- Versions and announcements of facts, in triggers so that plain SQL counts too.
--
-- A commit locks its accounts and then reads card versions in a fresh snapshot. That is exact because whoever changes a card, its
-- user, its account's status or one of their limits holds the account's lock when the transaction ends. A program has too many
-- accounts to lock them: it has a gate, an advisory lock that commits share and a change takes alone.
--
-- Lock order, everywhere: program gate < fact_gate < users < cards by id < accounts by id < counters by key < journal by id < holds.
--
-- The functions take sets of ids as arrays and never join transition tables: a plan made for one row and kept would be quadratic
-- for many. `force_custom_plan` is there for the same reason.

-- Only ever locked. Card inserts take it shared among themselves (ROW EXCLUSIVE); a change whose cards cannot all be seen and locked
-- through their owners takes it against them (SHARE).
create table fact_gate (here boolean primary key);

-- The advisory lock of a program. The constant keeps clear of small keys that others may use; exclusive or cannot overflow.
create function program_gate(program bigint) returns bigint language sql immutable parallel safe as $$ select program # 7000000000 $$;

create function facts_announce(kind text, ids bigint[]) returns void language plpgsql as $$
begin
  if cardinality(ids) > 100 then
    perform pg_notify('facts', 'all');
  else
    perform pg_notify('facts', kind || ':' || id) from unnest(ids) as id;
  end if;
end $$;

-- The row is locked when this runs, so the versions of one row ascend in the order of its changes.
create function fact_version() returns trigger language plpgsql as $$
begin
  if tg_op = 'UPDATE' and new.id <> old.id then
    raise exception 'the id of a row in % never changes: delete and insert instead', tg_table_name using errcode = 'check_violation';
  end if;
  new.version := nextval('fact_versions');
  return new;
end $$;
create trigger fact_version before insert or update on users for each row execute function fact_version();
create trigger fact_version before insert or update on cards for each row execute function fact_version();
create trigger fact_version before insert or update on limits for each row execute function fact_version();

-- A transaction with one snapshot for all its statements would touch the cards of its snapshot, and miss those that were committed
-- since: their versions would not move, and what was decided on the old facts would still be taken for current.
create function fact_isolation() returns trigger language plpgsql as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'facts change in transaction isolation READ COMMITTED only: begin without another isolation level'
      using errcode = 'object_not_in_prerequisite_state';
  end if;
  return null;
end $$;
create trigger a_fact_isolation before insert or update or delete or truncate on programs for each statement execute function fact_isolation();
create trigger a_fact_isolation before insert or update or delete or truncate on users for each statement execute function fact_isolation();
create trigger a_fact_isolation before insert or update or delete or truncate on cards for each statement execute function fact_isolation();
create trigger a_fact_isolation before insert or update or delete or truncate on limits for each statement execute function fact_isolation();
create trigger a_fact_isolation before insert or update of status, currency, program_id or delete or truncate on accounts
  for each statement execute function fact_isolation();

-- ---------------------------------------------------------------- programs
create function fact_program() returns trigger language plpgsql as $$
begin
  perform pg_advisory_xact_lock(program_gate(case when tg_op = 'INSERT' then new.id else old.id end));
  if tg_op = 'DELETE' then
    perform pg_notify('facts', 'program:' || old.id);
    return old;
  end if;
  if tg_op = 'UPDATE' and new.id <> old.id then
    raise exception 'the id of a row in % never changes: delete and insert instead', tg_table_name using errcode = 'check_violation';
  end if;
  new.version := nextval('fact_versions');
  perform pg_notify('facts', 'program:' || new.id);
  return new;
end $$;
create trigger fact_program before insert or update or delete on programs for each row execute function fact_program();

-- ---------------------------------------------------------------- cards
create function fact_cards() returns trigger language plpgsql set plan_cache_mode = force_custom_plan as $$
declare
  ids bigint[];
  locked bigint[];
begin
  if tg_op = 'INSERT' then
    lock table fact_gate in row exclusive mode;
    -- Nobody can have approved anything on a card that was not there: no account to lock.
    perform facts_announce('card', array(select id from new_rows limit 101));
    return null;
  end if;
  if tg_op = 'DELETE' then
    ids := array(select id from old_rows);
    locked := array(select distinct account_id from old_rows);
  else
    -- A card that moves to another user or account is new to the limits of that one.
    if exists (select id, user_id, account_id from new_rows except select id, user_id, account_id from old_rows) then
      lock table fact_gate in row exclusive mode;
    end if;
    ids := array(select id from new_rows);
    locked := array(select account_id from old_rows union select account_id from new_rows);
  end if;
  perform 1 from accounts where id = any (locked) order by id for no key update;
  perform facts_announce('card', ids);
  return null;
end $$;
create trigger fact_cards_insert after insert on cards referencing new table as new_rows for each statement execute function fact_cards();
create trigger fact_cards_update after update on cards referencing old table as old_rows new table as new_rows
  for each statement execute function fact_cards();
create trigger fact_cards_delete after delete on cards referencing old table as old_rows for each statement execute function fact_cards();

-- Gives a new version to the cards in `c`, to those of the users in `u` and to those of the accounts in `a`.
create function facts_touch(c bigint[], u bigint[], a bigint[]) returns void language plpgsql set plan_cache_mode = force_custom_plan as $$
declare
  owners bigint := cardinality(c) + cardinality(u) + cardinality(a);
  gated boolean := owners > 100;
  touched bigint[];
begin
  if owners = 0 then
    return;
  end if;
  -- A card that another transaction is inserting for one of the owners cannot be seen yet, and would come to light without knowing
  -- of this change. Its insert holds a key share lock on its user and its account: locking those for update waits for it. An owner
  -- that cannot be seen cannot be locked, and many are too many: then the gate waits for every card insert.
  if not gated then
    gated := owners <> (select count(*) from cards where id = any (c)) + (select count(*) from users where id = any (u))
                     + (select count(*) from accounts where id = any (a));
  end if;
  if gated then
    lock table fact_gate in share mode;
  else
    perform 1 from users where id = any (u) order by id for update;
  end if;
  touched := array(select id from cards where id = any (c) or user_id = any (u) or account_id = any (a) order by id for no key update);
  if not gated then
    perform 1 from accounts where id = any (a || array(select account_id from cards where id = any (touched))) order by id for update;
  end if;
  update cards set version = version where id = any (c) or user_id = any (u) or account_id = any (a);
end $$;

-- ---------------------------------------------------------------- users
create function fact_users() returns trigger language plpgsql as $$
declare ids bigint[] := array(select id from new_rows);
begin
  perform facts_touch('{}', ids, '{}');
  perform facts_announce('user', ids);
  return null;
end $$;
create trigger fact_users after update on users referencing new table as new_rows for each statement execute function fact_users();

-- ---------------------------------------------------------------- accounts
-- By row and by column, so that a change of money costs nothing.
create function fact_account() returns trigger language plpgsql as $$
begin
  if new.id <> old.id then
    raise exception 'the id of a row in % never changes: delete and insert instead', tg_table_name using errcode = 'check_violation';
  end if;
  perform facts_touch('{}', '{}', array[new.id]);
  return null;
end $$;
create trigger fact_account after update of id, status, currency, program_id on accounts for each row
  when ((old.id, old.status, old.currency, old.program_id) is distinct from (new.id, new.status, new.currency, new.program_id))
  execute function fact_account();

-- ---------------------------------------------------------------- limits
-- A new or a removed limit is a change of its owner: no version of its own could tell.
create function fact_limits() returns trigger language plpgsql set plan_cache_mode = force_custom_plan as $$
declare c bigint[]; u bigint[]; a bigint[]; p bigint[];
begin
  if tg_op = 'TRUNCATE' then
    perform pg_advisory_xact_lock(program_gate(id)) from (select id from programs order by id) as ordered;
    update programs set version = version;
    lock table fact_gate in share mode;
    update cards set version = version;
    return null;
  elsif tg_op = 'INSERT' then
    select array_agg(distinct owner_id) filter (where owner = 'card'), array_agg(distinct owner_id) filter (where owner = 'user'),
           array_agg(distinct owner_id) filter (where owner = 'account'), array_agg(distinct owner_id) filter (where owner = 'program')
      into c, u, a, p from new_rows;
  elsif tg_op = 'DELETE' then
    select array_agg(distinct owner_id) filter (where owner = 'card'), array_agg(distinct owner_id) filter (where owner = 'user'),
           array_agg(distinct owner_id) filter (where owner = 'account'), array_agg(distinct owner_id) filter (where owner = 'program')
      into c, u, a, p from old_rows;
  else
    select array_agg(distinct owner_id) filter (where owner = 'card'), array_agg(distinct owner_id) filter (where owner = 'user'),
           array_agg(distinct owner_id) filter (where owner = 'account'), array_agg(distinct owner_id) filter (where owner = 'program')
      into c, u, a, p from (select owner, owner_id from old_rows union all select owner, owner_id from new_rows) as both_rows;
  end if;
  if p is not null then
    perform pg_advisory_xact_lock(program_gate(id)) from unnest(p) as id;
    update programs set version = version where id = any (p);
  end if;
  perform facts_touch(coalesce(c, '{}'), coalesce(u, '{}'), coalesce(a, '{}'));
  return null;
end $$;
create trigger fact_limits_insert after insert on limits referencing new table as new_rows for each statement execute function fact_limits();
create trigger fact_limits_update after update on limits referencing old table as old_rows new table as new_rows
  for each statement execute function fact_limits();
create trigger fact_limits_delete after delete on limits referencing old table as old_rows for each statement execute function fact_limits();
create trigger fact_limits_truncate after truncate on limits for each statement execute function fact_limits();
