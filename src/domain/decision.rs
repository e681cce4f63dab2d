//! What was decided, what it would change, and what it claims about the store.

use super::{limits::CounterKey, reason::Reason};

/// A counter that an approval adds to: its amount, and one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Which counter.
    pub key: CounterKey,
    /// What it held before this approval.
    pub before: super::limits::Used,
}

/// What a decision says about money in the store, for the commit to check: "this much more would not fit".
/// `need` counts on top of the balances the decision was made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Holding `need` more would take the account past its floor.
    Account {
        /// Minor units.
        need: i64,
    },
    /// Adding `need` would take the counter past its amount cap.
    Amount {
        /// Which counter.
        key: CounterKey,
        /// Minor units.
        need: i64,
    },
    /// One more approval would take the counter past its count cap.
    Count {
        /// Which counter.
        key: CounterKey,
    },
}

/// The outcome of one authorization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `amount` is to be held.
    Approved {
        /// Minor units; less than asked for when `partial`.
        amount: i64,
        /// Whether this is less than was asked for.
        partial: bool,
        /// The counters to add to.
        charges: Vec<Charge>,
        /// Why not more, for a partial approval that money bounds.
        claim: Option<Claim>,
    },
    /// Nothing is held.
    Declined {
        /// The first reason in order of precedence.
        reason: Reason,
        /// For declines over money.
        claim: Option<Claim>,
    },
}

/// The three values of `decision` on the wire, in metrics and in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Decision {
    /// Nothing held.
    Declined = 0,
    /// The full amount held.
    Approved = 1,
    /// Less than the amount held.
    PartiallyApproved = 2,
}

impl Decision {
    /// Every value.
    pub const ALL: &[Self] = &[Self::Declined, Self::Approved, Self::PartiallyApproved];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Declined => "declined",
            Self::Approved => "approved",
            Self::PartiallyApproved => "partially_approved",
        }
    }

    /// Whether money is held for it.
    #[must_use]
    pub const fn holds(self) -> bool {
        !matches!(self, Self::Declined)
    }
}

impl Verdict {
    /// A decline that claims nothing about money.
    #[must_use]
    pub const fn declined(reason: Reason) -> Self {
        Self::Declined { reason, claim: None }
    }

    /// The wire value.
    #[must_use]
    pub const fn decision(&self) -> Decision {
        match self {
            Self::Approved { partial: false, .. } => Decision::Approved,
            Self::Approved { partial: true, .. } => Decision::PartiallyApproved,
            Self::Declined { .. } => Decision::Declined,
        }
    }

    /// Why not, for a decline.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            Self::Approved { .. } => None,
            Self::Declined { reason, .. } => Some(*reason),
        }
    }

    /// Minor units to hold; 0 for a decline.
    #[must_use]
    pub const fn held(&self) -> i64 {
        match self {
            Self::Approved { amount, .. } => *amount,
            Self::Declined { .. } => 0,
        }
    }

    /// What it claims about the store.
    #[must_use]
    pub const fn claim(&self) -> Option<Claim> {
        match self {
            Self::Approved { claim, .. } | Self::Declined { claim, .. } => *claim,
        }
    }
}
