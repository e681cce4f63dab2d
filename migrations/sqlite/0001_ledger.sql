-- The ledger. Amounts are minor units of the account's currency, instants are microseconds since 1970-01-01T00:00:00Z.
-- Nothing in here may need a newer SQLite than 3.40: the file is also opened by the command line tools of stable distributions.

-- Facts -------------------------------------------------------------------------------------------------------------------

-- Every version of a fact comes from here and is never given twice, so that "same version" means "same fact", also after a
-- row was deleted and inserted again.
create table fact_clock (
  one     integer primary key check (one = 1),
  version integer not null
) strict;
insert into fact_clock (one, version) values (1, 0);

create table programs (
  id               integer primary key,
  token            text    not null unique,
  kind             text    not null check (kind in ('business', 'personal')),
  currency         text    not null,
  time_zone        text    not null,
  week_start       text    not null default 'monday' check (week_start in ('monday', 'sunday', 'saturday')),
  kyc_required     integer not null default true check (kyc_required in (false, true)),
  partial_approval integer not null default true check (partial_approval in (false, true)),
  controls         text    not null default '{}' check (json_valid(controls)),
  version          integer not null default 0
) strict;

create table users (
  id         integer primary key,
  token      text    not null unique,
  program_id integer not null references programs (id),
  status     text    not null default 'active' check (status in ('active', 'suspended', 'closed')),
  kyc        text    not null default 'verified' check (kyc in ('verified', 'pending', 'rejected')),
  version    integer not null default 0
) strict;

create table accounts (
  id         integer primary key,
  token      text    not null unique,
  program_id integer not null references programs (id),
  kind       text    not null default 'cardholder' check (kind in ('cardholder', 'funding')),
  currency   text    not null,
  status     text    not null default 'open' check (status in ('open', 'closed')),
  posted     integer not null default 0,
  held       integer not null default 0 check (held >= 0),
  floor      integer not null default 0
) strict;

create table cards (
  id         integer primary key,
  token      text    not null unique,
  user_id    integer not null references users (id),
  account_id integer not null references accounts (id),
  program_id integer not null references programs (id),
  status     text    not null default 'active' check (status in ('active', 'inactive', 'lost', 'stolen')),
  expires_at integer not null,
  controls   text    not null default '{}' check (json_valid(controls)),
  version    integer not null default 0
) strict;
create index cards_user on cards (user_id);
create index cards_account on cards (account_id);

-- `owner` says what the limit is attached to, `scope` whose spending one counter of it adds up.
create table limits (
  id         integer primary key,
  owner      text    not null check (owner in ('card', 'user', 'account', 'program')),
  owner_id   integer not null,
  scope      text    not null check (scope in ('card', 'user', 'account', 'program')),
  period     text    not null check (period in ('transaction', 'day', 'week', 'month', 'lifetime')),
  filter     text    not null default '{}' check (json_valid(filter)),
  cap_amount integer,
  cap_count  integer,
  version    integer not null default 0
) strict;
create index limits_owner on limits (owner, owner_id);

-- Money -------------------------------------------------------------------------------------------------------------------
-- No foreign keys from here on: the guards of the commit check what they need, and each key would cost a look-up a row.

create table counters (
  limit_id     integer not null,
  scope_id     integer not null,
  window_start integer not null,
  amount       integer not null check (amount >= 0),
  count        integer not null check (count >= 0),
  primary key (limit_id, scope_id, window_start)
) strict, without rowid;

create table authorizations (
  seq             integer primary key,
  id              text    not null unique,
  digest          blob    not null check (length(digest) = 16),
  card            text    not null,
  card_id         integer,
  account_id      integer,
  program_id      integer,
  requested       integer not null,
  amount          integer not null check (amount >= 0),
  currency        text    not null,
  decision        integer not null check (decision in (0, 1, 2)),
  reason          integer,
  response        blob    not null,
  card_version    integer not null,
  program_version integer not null,
  mcc             integer not null,
  merchant        text    not null,
  country         text    not null,
  channel         text    not null,
  charges         text,
  queue_us        integer not null,
  user_us         integer not null,
  card_us         integer not null,
  limits_us       integer not null,
  decision_us     integer not null,
  decided_at      integer not null,
  replays         integer not null default 0,
  unheard         integer not null default false check (unheard in (false, true))
) strict;
create index authorizations_unheard on authorizations (seq) where unheard;

create table holds (
  authorization_id text    not null primary key,
  id               text    not null,
  account_id       integer not null,
  amount           integer not null check (amount > 0),
  status           integer not null check (status in (1, 2, 3)),
  placed_at        integer not null
) strict, without rowid;
create index holds_open on holds (account_id) where status = 1;

create table entries (
  id         integer primary key autoincrement,
  transfer   text    not null,
  account_id integer not null,
  amount     integer not null,
  posted_at  integer not null
) strict;
create index entries_account on entries (account_id);
create index entries_transfer on entries (transfer);
create trigger entries_append_only_update before update on entries begin
  select raise(abort, 'entries are append only: post a correcting transfer');
end;
create trigger entries_append_only_delete before delete on entries begin
  select raise(abort, 'entries are append only: post a correcting transfer');
end;

-- Versions ----------------------------------------------------------------------------------------------------------------
-- Whoever changes a fact, by whatever tool, moves the versions of all that rests on it.

-- "What rests on this has changed": insert the owner. Nothing is stored.
create view touched (owner, owner_id) as select null, null where false;
create trigger touched_moves_versions instead of insert on touched begin
  update fact_clock set version = version + 1;
  update cards set version = (select version from fact_clock) where new.owner = 'card' and id = new.owner_id;
  update cards set version = (select version from fact_clock) where new.owner = 'user' and user_id = new.owner_id;
  update cards set version = (select version from fact_clock) where new.owner = 'account' and account_id = new.owner_id;
  update programs set version = (select version from fact_clock) where new.owner = 'program' and id = new.owner_id;
end;

-- A version given by hand is replaced, so that a restored row cannot bring an old one back.
create trigger programs_insert after insert on programs begin
  update fact_clock set version = version + 1;
  update programs set version = (select version from fact_clock) where id = new.id;
end;
create trigger programs_update after update of id, token, kind, currency, time_zone, week_start, kyc_required, partial_approval, controls
on programs begin
  update fact_clock set version = version + 1;
  update programs set version = (select version from fact_clock) where id = new.id;
end;
create trigger programs_version after update of version on programs when new.version <> (select version from fact_clock) begin
  update fact_clock set version = version + 1;
  update programs set version = (select version from fact_clock) where id = new.id;
end;

create trigger cards_insert after insert on cards begin
  update fact_clock set version = version + 1;
  update cards set version = (select version from fact_clock) where id = new.id;
end;
create trigger cards_update after update of id, token, user_id, account_id, program_id, status, expires_at, controls on cards begin
  update fact_clock set version = version + 1;
  update cards set version = (select version from fact_clock) where id = new.id;
end;
create trigger cards_version after update of version on cards when new.version <> (select version from fact_clock) begin
  update fact_clock set version = version + 1;
  update cards set version = (select version from fact_clock) where id = new.id;
end;

-- `insert or replace` deletes without firing delete triggers: what is in its way is looked up beforehand.
create trigger users_replace before insert on users
when exists (select 1 from users where id = new.id) or exists (select 1 from users where token = new.token) begin
  insert into touched select 'user', id from users where id = new.id or token = new.token;
end;
create trigger users_insert after insert on users begin
  update fact_clock set version = version + 1;
  update users set version = (select version from fact_clock) where id = new.id;
end;
create trigger users_update after update of id, token, program_id, status, kyc on users begin
  insert into touched select 'user', old.id union select 'user', new.id;
  update users set version = (select version from fact_clock) where id = new.id;
end;
create trigger users_version after update of version on users when new.version <> (select version from fact_clock) begin
  insert into touched values ('user', new.id);
  update users set version = (select version from fact_clock) where id = new.id;
end;
create trigger users_delete after delete on users begin
  insert into touched values ('user', old.id);
end;

create trigger accounts_replace before insert on accounts
when exists (select 1 from accounts where id = new.id) or exists (select 1 from accounts where token = new.token) begin
  insert into touched select 'account', id from accounts where id = new.id or token = new.token;
end;
create trigger accounts_update after update of id, program_id, currency, status on accounts
when (old.id, old.program_id, old.currency, old.status) is not (new.id, new.program_id, new.currency, new.status) begin
  insert into touched select 'account', old.id union select 'account', new.id;
end;
create trigger accounts_delete after delete on accounts begin
  insert into touched values ('account', old.id);
end;

create trigger limits_replace before insert on limits when exists (select 1 from limits where id = new.id) begin
  insert into touched select owner, owner_id from limits where id = new.id;
end;
create trigger limits_insert after insert on limits begin
  insert into touched values (new.owner, new.owner_id);
  update limits set version = (select version from fact_clock) where id = new.id;
end;
create trigger limits_update after update of id, owner, owner_id, scope, period, filter, cap_amount, cap_count on limits begin
  insert into touched select old.owner, old.owner_id union select new.owner, new.owner_id;
  update limits set version = (select version from fact_clock) where id = new.id;
end;
create trigger limits_version after update of version on limits when new.version <> (select version from fact_clock) begin
  update fact_clock set version = version + 1;
  update limits set version = (select version from fact_clock) where id = new.id;
end;
create trigger limits_delete after delete on limits begin
  insert into touched values (old.owner, old.owner_id);
end;
