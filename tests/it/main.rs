//! The promises, tested from outside on real services: one file per promise, one binary for all.
//!
//! `cargo test` runs what needs no service and says what it skipped; `make test` runs everything.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should panic where it stands")]
#![expect(clippy::print_stderr, reason = "what a test prints is read by a person")]

mod alerts_name_the_cause;
mod answers_duplicates_identically;
mod authorize_asks;
mod bench_accounts_for_everything;
mod bench_compares;
mod bench_figures;
mod broker_restarts;
mod crowd;
mod dashboards_show_numbers;
mod dead_letters;
mod decides_over_amqp;
mod decides_over_http;
mod dlq_replay_is_safe;
mod doctor_finds_it;
mod drains;
mod fills_cannot_resurrect;
mod freeze_reaches_every_daemon;
mod health_names_what_is_out;
mod late_is_void;
mod ledger_conforms;
mod never_overspends;
mod orders_hold_at_once;
mod outcomes;
mod pages_render;
mod redis_comes_and_goes;
mod report_answers_for_an_interval;
mod round_trips;
mod sheds;
mod stale;
mod stale_cache_cannot_approve;
mod stale_cache_cannot_decline;
mod stands_on_its_own_services;
mod store_restarts;
mod support;
mod survives_kill_9;
mod tells_systemd;
mod traffic;
mod warms_before_ready;
