//! The ledger on PostgreSQL: a PL/pgSQL function commits a batch in one round trip.

mod settings;

pub use settings::Settings;
