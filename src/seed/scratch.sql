-- The columns of migrations/sqlite that the seed writes and the proof reads, for tests.
create table programs (id integer primary key, token text not null unique, kind text not null, currency text not null, time_zone text not null,
  week_start text not null, kyc_required integer not null, partial_approval integer not null, controls text not null, version integer default 0) strict;
create table users (id integer primary key, token text not null unique, program_id integer not null references programs, status text not null,
  kyc text not null, version integer default 0) strict;
create table accounts (id integer primary key, token text not null unique, program_id integer not null references programs, kind text not null,
  currency text not null, status text not null, posted integer not null default 0, held integer not null default 0 check (held >= 0),
  floor integer not null default 0) strict;
create table cards (id integer primary key, token text not null unique, user_id integer not null references users,
  account_id integer not null references accounts, program_id integer not null references programs, status text not null,
  expires_at integer not null, controls text not null, version integer default 0) strict;
create table limits (id integer primary key, owner text not null, owner_id integer not null, scope text not null, period text not null,
  filter text not null, cap_amount integer, cap_count integer, version integer default 0) strict;
create table counters (limit_id integer, scope_id integer, window_start integer, amount integer not null, count integer not null,
  primary key (limit_id, scope_id, window_start)) strict, without rowid;
create table authorizations (seq integer primary key, id text not null, card_id integer, account_id integer, program_id integer,
  amount integer not null, decision integer not null, response blob not null, charges text, replays integer not null default 0) strict;
create table holds (authorization_id text not null, account_id integer not null, amount integer not null, status integer not null) strict;
create table entries (id integer primary key autoincrement, transfer text not null, account_id integer not null, amount integer not null,
  posted_at integer not null) strict;
