//! A hold: money set aside on an account for one authorization.

use std::fmt;

/// The public id of a hold, `hld_` and a ULID.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HoldId(Box<str>);

impl HoldId {
    /// Wraps a text made by the caller (ids are arguments in here).
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for HoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
