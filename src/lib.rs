//! jitauth decides card authorizations in memory and guards them in the store.
//!
//! The modules, in the order a request travels:
//!
//! | module | what it is |
//! |---|---|
//! | [`broker`] | RabbitMQ: takes deliveries, publishes responses, acks last |
//! | [`http`] | the other edge: `POST /v1/authorizations`, health, metrics |
//! | [`codec`] | bytes to domain and back |
//! | [`pipeline`] | gathers facts, decides in lanes, commits in groups, takes late approvals back |
//! | [`facts`] | users, cards, limits: memory, then Redis, then the store |
//! | [`domain`] | the rules themselves; pure |
//! | [`ledger`] | the store: journal, holds, counters, and the guards that make a wrong approval impossible |
//! | [`telemetry`] | events, metrics, latency histograms |
//! | [`seed`] | sample rows for a store: programs, test cards, load cards |
//! | [`mod@bench`] | makes load, measures it from outside, and proves that nothing was lost |
//! | [`config`] | files, environment and flags, resolved into each module's settings |
//! | [`app`] | the wiring |
//! | [`cli`] | one file per subcommand |
//!
//! A new rule goes into [`domain::rules`], a new reason into [`domain::reason`], a new store beside `ledger::sqlite`, a new
//! processor beside [`http`]. `ARCHITECTURE.md` tells the life of an authorization.

pub mod app;
pub mod bench;
pub mod broker;
pub mod cli;
pub mod codec;
pub mod config;
pub mod domain;
pub mod facts;
pub mod http;
pub mod ledger;
pub mod pipeline;
pub mod seed;
pub mod telemetry;

/// The commit that this was built from, where the build knew it: releases do.
pub const COMMIT: Option<&str> = option_env!("BUILD_COMMIT");
