-- What a listener in another process needs: it looks at `fact_clock` again and again, and when that has moved, at everything with a
-- newer version than it knows.

create index cards_version_order on cards (version);
create index users_version_order on users (version);
create index programs_version_order on programs (version);

-- When the clock moved last, microseconds since 1970-01-01T00:00:00Z, to the millisecond.
alter table fact_clock add column changed_at integer not null default 0;
create trigger fact_clock_moved after update of version on fact_clock begin
  update fact_clock set changed_at = cast((julianday('now') - 2440587.5) * 86400000000.0 as integer);
end;

-- What is there no more, under the version of its going. `certain` is false where the version must not be taken for the fact's own: for
-- what stood in the way of an insert, which may have replaced it or not (`insert or replace` deletes without firing delete triggers),
-- and for the old token of a user who is still there under the same id.
--
-- Bounded: whoever finds more than 100 changes takes it that everything has changed, and what was dropped from here left 256 newer
-- rows behind.
create table fact_removals (
  seq     integer primary key,
  version integer not null,
  kind    text    not null check (kind in ('card', 'user', 'program')),
  id      integer not null,
  token   text    not null,
  certain integer not null check (certain in (false, true))
) strict;
create trigger fact_removals_bounded after insert on fact_removals begin
  delete from fact_removals where seq <= new.seq - 256;
end;

-- "This is there no more": insert it. Gives it a version of its own.
create view removed (kind, id, token, certain) as select null, null, null, null where false;
create trigger removed_is_remembered instead of insert on removed begin
  update fact_clock set version = version + 1;
  insert into fact_removals (version, kind, id, token, certain) select version, new.kind, new.id, new.token, new.certain from fact_clock;
end;

create trigger cards_removed after delete on cards begin
  insert into removed values ('card', old.id, old.token, true);
end;
create trigger cards_renamed after update of token on cards when old.token <> new.token begin
  insert into removed values ('card', old.id, old.token, true);
end;
create trigger cards_replaced before insert on cards when exists (select 1 from cards where id = new.id and token <> new.token) begin
  insert into removed select 'card', id, token, false from cards where id = new.id and token <> new.token;
end;

create trigger users_removed after delete on users begin
  insert into removed values ('user', old.id, old.token, true);
end;
create trigger users_renamed after update of id, token on users when (old.id, old.token) <> (new.id, new.token) begin
  insert into removed values ('user', old.id, old.token, old.id <> new.id);
end;
create trigger users_replaced before insert on users
when exists (select 1 from users where id = new.id and token <> new.token) or exists (select 1 from users where token = new.token and id <> new.id)
begin
  insert into removed select 'user', id, token, false from users where (id = new.id or token = new.token) and (id, token) <> (new.id, new.token);
end;

create trigger programs_removed after delete on programs begin
  insert into removed values ('program', old.id, old.token, true);
end;
create trigger programs_renamed after update of id on programs when old.id <> new.id begin
  insert into removed values ('program', old.id, old.token, true);
end;
create trigger programs_replaced before insert on programs when exists (select 1 from programs where token = new.token and id <> new.id) begin
  insert into removed select 'program', id, token, false from programs where token = new.token and id <> new.id;
end;

-- As the other store checks it; the table itself cannot be given a check any more.
create trigger limits_insert_caps before insert on limits when new.cap_amount < 0 or new.cap_count < 0 begin
  select raise(abort, 'CHECK constraint failed: a cap is below zero');
end;
create trigger limits_update_caps before update of cap_amount, cap_count on limits when new.cap_amount < 0 or new.cap_count < 0 begin
  select raise(abort, 'CHECK constraint failed: a cap is below zero');
end;

-- Never handed out twice: counters are found by the limit's id, and outlive the limit. From above the ids of the seed on.
create table limit_ids (
  one  integer primary key check (one = 1),
  last integer not null
) strict;
insert into limit_ids (one, last) values (1, 1999999999);
