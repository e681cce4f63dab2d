//! The ledger on SQLite: one string of statements commits a batch under BEGIN IMMEDIATE.

mod settings;

pub use settings::Settings;
