//! What a store brings to the suite.

use jitauth::ledger::{Ledger, administration::Administration};

/// A fresh store of one kind.
pub(crate) trait Fixture: Sized + Send + Sync + 'static {
    /// Its ledger.
    type Ledger: Ledger;
    /// Its facts.
    type Facts: Administration;

    /// Creates and migrates an empty store. `None`, with the reason printed, when there is no server to do it on.
    fn fresh() -> impl Future<Output = Option<Self>>;

    /// A ledger of its own: two of them are two lanes, or two daemons.
    fn ledger(&self) -> Self::Ledger;

    /// Where facts are read.
    fn facts(&self) -> Self::Facts;

    /// Runs plain SQL from outside, with a connection that knows nothing of us. Several statements are
    /// surely one transaction only if they say so.
    fn try_sql(&self, sql: &str) -> impl Future<Output = Result<(), String>> + Send;

    /// Runs a query from outside whose rows are one text each.
    fn rows(&self, sql: &str) -> impl Future<Output = Vec<String>> + Send;

    /// SQL for the hexadecimal digits of a column of bytes.
    fn hex(column: &str) -> String;

    /// Removes the store.
    fn remove(self) -> impl Future<Output = ()> + Send;
}
