-- Amounts are minor units, instants are microseconds since 1970-01-01T00:00:00Z.
-- Facts (programs, users, cards, limits, an account's status) carry versions: see 0002. Money never moves a version.

-- One sequence for all facts, so that a version never repeats, not even after delete and insert.
create sequence fact_versions;

create table programs (
  id               bigint primary key,
  token            text collate "C" not null unique,
  kind             text not null check (kind in ('business', 'personal')),
  currency         text not null check (currency ~ '^[A-Z]{3}$'),
  time_zone        text not null,
  week_start       text not null default 'monday' check (week_start in ('monday', 'sunday', 'saturday')),
  kyc_required     boolean not null default true,
  partial_approval boolean not null default true,
  controls         text not null default '{}' check (json_typeof(controls::json) = 'object'),
  version          bigint not null default 0
);

create table users (
  id         bigint primary key,
  token      text collate "C" not null unique,
  program_id bigint not null references programs,
  status     text not null default 'active' check (status in ('active', 'suspended', 'closed')),
  kyc        text not null default 'verified' check (kyc in ('verified', 'pending', 'rejected')),
  version    bigint not null default 0
);

-- A hot row: every approval changes `held`. The free space keeps the new row version on the same page.
create table accounts (
  id         bigint primary key,
  token      text collate "C" not null unique,
  program_id bigint not null references programs,
  kind       text not null default 'cardholder' check (kind in ('cardholder', 'funding')),
  currency   text not null check (currency ~ '^[A-Z]{3}$'),
  status     text not null default 'open' check (status in ('open', 'closed')),
  posted     bigint not null default 0,
  held       bigint not null default 0 check (held >= 0),
  floor      bigint not null default 0
) with (fillfactor = 70);

create table cards (
  id         bigint primary key,
  token      text collate "C" not null unique,
  user_id    bigint not null references users,
  account_id bigint not null references accounts,
  program_id bigint not null references programs,
  status     text not null default 'active' check (status in ('active', 'inactive', 'lost', 'stolen')),
  expires_at bigint not null,
  controls   text not null default '{}' check (json_typeof(controls::json) = 'object'),
  version    bigint not null default 0
) with (fillfactor = 90);
create index cards_user on cards (user_id);
create index cards_account on cards (account_id);

-- `owner` is whom the limit is attached to, `scope` whose spending one counter adds up.
create table limits (
  id         bigint primary key,
  owner      text not null check (owner in ('card', 'user', 'account', 'program')),
  owner_id   bigint not null,
  scope      text not null check (scope in ('card', 'user', 'account', 'program')),
  period     text not null check (period in ('transaction', 'day', 'week', 'month', 'lifetime')),
  filter     text not null default '{}' check (json_typeof(filter::json) = 'object'),
  cap_amount bigint check (cap_amount >= 0),
  cap_count  bigint check (cap_count >= 0),
  version    bigint not null default 0
);
create index limits_owner on limits (owner_id, owner);

-- No foreign keys from here on: each would lock its parent row on every insert of the hot path.
create table counters (
  limit_id     bigint not null,
  scope_id     bigint not null,
  window_start bigint not null,
  amount       bigint not null check (amount >= 0),
  count        bigint not null check (count >= 0),
  primary key (limit_id, scope_id, window_start)
) with (fillfactor = 70);

-- The journal. `replays` counts how often the response was read to be sent again: from the first time on it stands.
create table authorizations (
  id              text collate "C" primary key,
  digest          bytea not null check (octet_length(digest) = 16),
  card            text collate "C" not null,
  card_id         bigint,
  account_id      bigint,
  program_id      bigint,
  requested       bigint not null,
  amount          bigint not null check (amount >= 0),
  currency        text not null,
  decision        smallint not null check (decision between 0 and 2),
  reason          smallint,
  response        bytea not null,
  card_version    bigint not null,
  program_version bigint not null,
  mcc             smallint not null,
  merchant        text collate "C" not null,
  country         text not null,
  channel         text not null,
  charges         jsonb,
  queue_us        integer not null,
  user_us         integer not null,
  card_us         integer not null,
  limits_us       integer not null,
  decision_us     integer not null,
  decided_at      bigint not null,
  replays         integer not null default 0,
  unheard         boolean not null default false
) with (fillfactor = 90);
create index authorizations_unheard on authorizations (id) where unheard;

-- status: 1 open, 2 released, 3 voided.
create table holds (
  authorization_id text collate "C" primary key,
  id               text collate "C" not null,
  account_id       bigint not null,
  amount           bigint not null check (amount > 0),
  status           smallint not null default 1 check (status between 1 and 3),
  placed_at        bigint not null
) with (fillfactor = 90);
create index holds_open on holds (account_id) where status = 1;

-- Posted money, append only: the entries of one transfer sum to zero, and accounts.posted is the sum of an account's entries.
create table entries (
  id         bigint generated always as identity primary key,
  transfer   text collate "C" not null,
  account_id bigint not null,
  amount     bigint not null,
  posted_at  bigint not null
);
create index entries_account on entries (account_id);
create index entries_transfer on entries (transfer);
create function entries_append_only() returns trigger language plpgsql as $$
begin
  raise exception 'entries are append only: post a correcting transfer';
end $$;
create trigger entries_append_only before update or delete on entries for each row execute function entries_append_only();
