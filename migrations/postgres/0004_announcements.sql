-- Announcements that need no question: a listener on the channel `facts` hears
--
--   card:<id>:<version>:<instant>:<token>      a card, its account's status or a limit that bears on it
--   user:<id>:<version>:<instant>:<token>      a user; the user's cards are announced besides
--   program:<id>:<version>:<instant>:<token>   a program or one of its own limits
--   all:<instant>                              more than 100 of them changed or deleted in one statement
--
-- with the new version and the instant of the change, microseconds since 1970-01-01T00:00:00Z. After a deletion, and for the old token
-- of a card that got another one, the version is one that no row with that token ever had. Locks and their order are those of 0002.

create function facts_instant() returns bigint language sql volatile as $$
  select (extract(epoch from clock_timestamp()) * 1000000)::bigint
$$;

-- No request can name a token of more than 64 bytes, and a payload has to stay below 8000: of such a row, none but a program is told.
create function facts_tell(kind text, id bigint, version bigint, token text) returns void language plpgsql as $$
begin
  if octet_length(token) <= 64 or kind = 'program' then
    perform pg_notify('facts', concat_ws(':', kind, id, version, facts_instant(), left(token, 64)));
  end if;
end $$;

-- Of parallel arrays, which need not hold more than 101 rows.
create function facts_announce(kind text, ids bigint[], versions bigint[], tokens text[]) returns void language plpgsql as $$
begin
  if cardinality(ids) > 100 then
    perform pg_notify('facts', 'all:' || facts_instant());
  else
    perform facts_tell(kind, f.id, f.version, f.token) from unnest(ids, versions, tokens) as f(id, version, token);
  end if;
end $$;

-- ---------------------------------------------------------------- programs
create or replace function fact_program() returns trigger language plpgsql as $$
begin
  perform pg_advisory_xact_lock(program_gate(case when tg_op = 'INSERT' then new.id else old.id end));
  if tg_op = 'DELETE' then
    perform facts_tell('program', old.id, nextval('fact_versions'), old.token);
    return old;
  end if;
  if tg_op = 'UPDATE' and new.id <> old.id then
    raise exception 'the id of a row in % never changes: delete and insert instead', tg_table_name using errcode = 'check_violation';
  end if;
  new.version := nextval('fact_versions');
  perform facts_tell('program', new.id, new.version, new.token);
  return new;
end $$;

-- ---------------------------------------------------------------- cards
create or replace function fact_cards() returns trigger language plpgsql set plan_cache_mode = force_custom_plan as $$
declare
  ids bigint[];
  versions bigint[];
  tokens text[];
  locked bigint[];
begin
  if tg_op = 'INSERT' then
    lock table fact_gate in row exclusive mode;
    -- Nobody can have approved anything on a card that was not there: no account to lock.
    select array_agg(id), array_agg(version), array_agg(token) into ids, versions, tokens
      from (select id, version, token from new_rows limit 101) as firsts;
    -- A new card makes nothing stale but "no such card", which is believed for moments only: an import must not cost every cache.
    if cardinality(ids) <= 100 then
      perform facts_announce('card', ids, versions, tokens);
    end if;
    return null;
  end if;
  if tg_op = 'DELETE' then
    select array_agg(id), array_agg(nextval('fact_versions')), array_agg(token) into ids, versions, tokens
      from (select id, token from old_rows limit 101) as firsts;
    locked := array(select distinct account_id from old_rows);
  else
    -- A card that moves to another user or account is new to the limits of that one.
    if exists (select id, user_id, account_id from new_rows except select id, user_id, account_id from old_rows) then
      lock table fact_gate in row exclusive mode;
    end if;
    select array_agg(id), array_agg(version), array_agg(token) into ids, versions, tokens
      from (select id, version, token from new_rows limit 101) as firsts;
    locked := array(select account_id from old_rows union select account_id from new_rows);
  end if;
  perform 1 from accounts where id = any (locked) order by id for no key update;
  perform facts_announce('card', ids, versions, tokens);
  if tg_op = 'UPDATE' and cardinality(ids) <= 100 then
    perform facts_tell('card', id, nextval('fact_versions'), token)
       from (select id, token from old_rows except select id, token from new_rows) as renamed;
  end if;
  return null;
end $$;

-- ---------------------------------------------------------------- users
create or replace function fact_users() returns trigger language plpgsql set plan_cache_mode = force_custom_plan as $$
declare
  ids bigint[];
  versions bigint[];
  tokens text[];
begin
  select array_agg(id), array_agg(version), array_agg(token) into ids, versions, tokens from new_rows;
  perform facts_touch('{}', coalesce(ids, '{}'), '{}');
  perform facts_announce('user', ids, versions, tokens);
  if cardinality(ids) <= 100 then
    -- With the version that the user has now: the id, which is told too, is still the user's.
    perform facts_tell('user', o.id, n.version, o.token) from old_rows o join new_rows n on n.id = o.id where n.token <> o.token;
  end if;
  return null;
end $$;
create or replace trigger fact_users after update on users referencing old table as old_rows new table as new_rows
  for each statement execute function fact_users();

-- Nothing rests on a user without cards: told for whoever keeps users, and no lock is needed.
create function fact_users_told() returns trigger language plpgsql set plan_cache_mode = force_custom_plan as $$
declare
  ids bigint[];
  versions bigint[];
  tokens text[];
begin
  if tg_op = 'INSERT' then
    select array_agg(id), array_agg(version), array_agg(token) into ids, versions, tokens
      from (select id, version, token from new_rows limit 101) as firsts;
    -- As with new cards.
    if cardinality(ids) > 100 then
      return null;
    end if;
  else
    select array_agg(id), array_agg(nextval('fact_versions')), array_agg(token) into ids, versions, tokens
      from (select id, token from old_rows limit 101) as firsts;
  end if;
  perform facts_announce('user', ids, versions, tokens);
  return null;
end $$;
create trigger fact_users_insert after insert on users referencing new table as new_rows for each statement execute function fact_users_told();
create trigger fact_users_delete after delete on users referencing old table as old_rows for each statement execute function fact_users_told();

drop function facts_announce(text, bigint[]);

-- ---------------------------------------------------------------- all at once
create function fact_truncated() returns trigger language plpgsql as $$
begin
  perform pg_notify('facts', 'all:' || facts_instant());
  return null;
end $$;
create trigger fact_truncated after truncate on programs for each statement execute function fact_truncated();
create trigger fact_truncated after truncate on users for each statement execute function fact_truncated();
create trigger fact_truncated after truncate on cards for each statement execute function fact_truncated();

-- ---------------------------------------------------------------- limits made by command
-- Never handed out twice: counters are found by the limit's id, and outlive the limit. From above the ids of the seed on.
create sequence limit_ids start 2000000000;
