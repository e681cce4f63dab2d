//! Facts about cards, from the nearest tier that has them: memory, then Redis, then the store.
//!
//! **Invariant**: nothing here decides anything. A stale or lost fact costs a commit that is refused and decided again on
//! [`tiered::FactTiers::refresh`]ed facts; it never changes an answer.

pub mod breaker;
pub mod change;
pub mod document;
pub mod invalidator;
pub mod memory;
pub mod redis;
#[cfg(test)]
pub(crate) mod sample;
pub mod tiered;
mod warm;

use crate::{
    domain::{facts::CardFile, ids::CardToken},
    telemetry::Telemetry,
};

/// Where facts come from in the end: the store.
pub trait FactSource: Send + Sync + 'static {
    /// Everything about one card, read in one snapshot and one round trip, so that the file [agrees](CardFile::agrees).
    /// `None` when no card has the token.
    ///
    /// # Errors
    /// [`FactError`] when the store could not be read.
    fn fetch(&self, card: &CardToken) -> impl Future<Output = Result<Option<CardFile>, FactError>> + Send;

    /// Where to tell how long its reads wait for one of its connections. A source without any has nothing to tell.
    fn tell_waits(&mut self, _: &Telemetry) {}
}

/// Why facts could not be had from a tier.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FactError {
    /// The tier did not answer, or answered with an error. Another try may help.
    #[error("facts cannot be read: {0}")]
    Unavailable(String),
    /// What the tier holds cannot be understood.
    #[error("facts are not well formed: {0}")]
    Malformed(String),
}
