//! What a database file says about itself, for a person who asks whether it is set up well.

use super::{Sqlite, error::store_error};
use crate::ledger::{SchemaState, StoreError};

/// What a file says.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Version of the SQLite library, which is built in.
    pub version: String,
    /// How its schema compares with this build's.
    pub schema: SchemaState,
    /// As [`Sqlite::durability`] states it.
    pub durability: String,
}

impl Sqlite {
    /// Asks the file about itself. Changes nothing in it.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read or written.
    pub async fn inspect(&self) -> Result<Inspection, StoreError> {
        let version = sqlx::query_scalar("select sqlite_version()").fetch_one(&self.readers).await;
        Ok(Inspection {
            version: version.map_err(|error| store_error(&error))?,
            schema: self.schema().await?,
            durability: self.durability().await?,
        })
    }
}
