//! Spending limits: what they count, over what, and for which transactions.

use super::{
    facts::Card,
    ids::{LimitId, MerchantId},
    request::{AuthRequest, Channel, Country, Mcc},
    time::{Window, WindowStarts},
};
use std::{fmt, num::NonZeroU64, sync::Arc};

/// Whose spending a limit adds up. A limit of a program with scope `Card` caps each of its cards on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Each card by itself.
    Card,
    /// All cards of a user.
    User,
    /// All cards of an account.
    Account,
    /// All cards of a program.
    Program,
}

/// A set of values to let through: everything in `only` (when given) that is not in `except`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Match<T> {
    /// When given, nothing else matches.
    pub only: Option<Vec<T>>,
    /// Never matches.
    pub except: Vec<T>,
}

impl<T> Default for Match<T> {
    fn default() -> Self {
        Self { only: None, except: Vec::new() }
    }
}

impl<T> Match<T> {
    /// Whether a value passes, where `same` tells whether an entry covers it.
    fn passes(&self, same: impl Fn(&T) -> bool) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(&same)) && !self.except.iter().any(&same)
    }
}

/// A range of merchant category codes, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MccRange {
    /// Lowest code covered.
    pub first: Mcc,
    /// Highest code covered.
    pub last: Mcc,
}

/// Which transactions are meant, by where and how they happen. The default means all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    /// By channel.
    pub channels: Match<Channel>,
    /// By the merchant's country.
    pub countries: Match<Country>,
    /// By merchant category.
    pub mccs: Match<MccRange>,
    /// By merchant.
    pub merchants: Match<MerchantId>,
}

impl Filter {
    /// Whether the channel passes.
    #[must_use]
    pub fn passes_channel(&self, request: &AuthRequest) -> bool {
        self.channels.passes(|channel| *channel == request.channel)
    }

    /// Whether the merchant's country passes.
    #[must_use]
    pub fn passes_country(&self, request: &AuthRequest) -> bool {
        self.countries.passes(|country| *country == request.merchant.country)
    }

    /// Whether the merchant category passes.
    #[must_use]
    pub fn passes_mcc(&self, request: &AuthRequest) -> bool {
        self.mccs.passes(|range| (range.first..=range.last).contains(&request.merchant.mcc))
    }

    /// Whether the merchant passes.
    #[must_use]
    pub fn passes_merchant(&self, request: &AuthRequest) -> bool {
        self.merchants.passes(|merchant| *merchant == request.merchant.id)
    }

    /// Whether all four pass.
    #[must_use]
    pub fn passes(&self, request: &AuthRequest) -> bool {
        self.passes_channel(request) && self.passes_country(request) && self.passes_mcc(request) && self.passes_merchant(request)
    }
}

/// What may not be passed: minor units, or approvals. Never negative. With `None` beside it, it takes no more room than the number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cap(NonZeroU64);

impl Cap {
    /// The cap at this number; none for a negative one.
    #[must_use]
    pub fn new(most: i64) -> Option<Self> {
        u64::try_from(most).ok()?.checked_add(1).and_then(NonZeroU64::new).map(Self)
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> i64 {
        (self.0.get() - 1).cast_signed()
    }
}

impl fmt::Debug for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// A cap on spending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The store's key.
    pub id: LimitId,
    /// Whose spending is added up.
    pub scope: Scope,
    /// Over what span.
    pub window: Window,
    /// Which transactions count and are capped. Shared, because many limits say the same.
    pub filter: Arc<Filter>,
    /// Most that may be spent in the window, in minor units of the account's currency; `None` is no cap.
    pub cap_amount: Option<Cap>,
    /// Most approvals in the window; `None` is no cap. Means nothing for one transaction.
    pub cap_count: Option<Cap>,
}

/// What a counter is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CounterKey {
    /// The limit that counts.
    pub limit: LimitId,
    /// The card, user, account or program that is counted, by the limit's scope.
    pub scope: i64,
    /// Start of the window, microseconds; 0 for lifetime.
    pub window: i64,
}

/// What has been spent in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Minor units.
    pub amount: i64,
    /// Approvals.
    pub count: i64,
}

impl Limit {
    /// The counter this limit adds to for a card at an instant; none for one transaction, which needs no memory.
    #[must_use]
    pub fn counter(&self, card: &Card, starts: &WindowStarts) -> Option<CounterKey> {
        if self.window == Window::Transaction {
            return None;
        }
        let scope = match self.scope {
            Scope::Card => card.id.0,
            Scope::User => card.user.0,
            Scope::Account => card.account.id.0,
            Scope::Program => card.program.0,
        };
        Some(CounterKey { limit: self.id, scope, window: starts.start_of(self.window).0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_is_any_number_but_a_negative_one() {
        for most in [0, 1, 5_000, i64::MAX - 1, i64::MAX] {
            assert_eq!(Cap::new(most).map(Cap::get), Some(most));
        }
        for negative in [-1, i64::MIN] {
            assert_eq!(Cap::new(negative), None);
        }
        assert_eq!((size_of::<Option<Cap>>(), size_of::<Limit>()), (8, 40), "there are millions of them");
    }
}
