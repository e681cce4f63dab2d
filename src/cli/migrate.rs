//! `jitauth migrate`: the store's schema, created or brought up to date.

use super::{Error, say};
use crate::{
    config::{Config, StoreKind},
    ledger::{
        postgres::{self, Postgres},
        sqlite::Sqlite,
    },
};

pub(super) async fn run(config: &Config) -> Result<(), Error> {
    match config.store {
        StoreKind::Postgres => {
            if let Some(database) = postgres::create_database(&config.postgres).await? {
                say(&format!("created the database {database:?}"))?;
            }
            Postgres::connect(&config.postgres).await?.migrate().await?;
            say("the schema of the PostgreSQL database is current")?;
        }
        StoreKind::Sqlite => {
            Sqlite::visit(&config.sqlite).await?.migrate().await?;
            say(&format!("the schema of {} is current", config.sqlite.path.display()))?;
        }
    }
    match config.broker {
        Some(_) => say("next: jitauth topology apply, jitauth seed, jitauth serve"),
        None => say("next: jitauth seed, jitauth serve"),
    }
}
