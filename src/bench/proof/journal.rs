//! A decision in the journal, and what its answer says.

use crate::{
    bench::traffic::Asked,
    codec::money,
    domain::{decision::Decision, money::Currency, reason::Reason},
};
use serde::Deserialize;

/// A row of the journal with its hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) id: &'a str,
    pub(super) response: &'a [u8],
    pub(super) decision: i64,
    pub(super) reason: Option<i64>,
    pub(super) amount: i64,
    pub(super) requested: i64,
    pub(super) card: &'a str,
    pub(super) card_id: Option<i64>,
    pub(super) account_id: Option<i64>,
    pub(super) currency: &'a str,
    pub(super) card_version: i64,
    pub(super) program_version: i64,
    pub(super) mcc: i64,
    pub(super) merchant: &'a str,
    pub(super) country: &'a str,
    pub(super) channel: &'a str,
    pub(super) charges: Option<&'a str>,
    pub(super) decided_at: i64,
    pub(super) hold: Option<Held<'a>>,
}

/// A row of the holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held<'a> {
    pub(super) id: &'a str,
    pub(super) account_id: i64,
    pub(super) amount: i64,
    pub(super) status: i64,
}

/// A response, as the requester reads it.
#[derive(Debug, Deserialize)]
pub(super) struct Said<'a> {
    version: u8,
    id: &'a str,
    decision: &'a str,
    reason: Option<&'a str>,
    response_code: &'a str,
    approved_amount: Option<&'a str>,
    currency: &'a str,
    hold: Option<&'a str>,
}

/// What was added to a counter: limit, scope, start of the window, amount before and after, count before and after.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Charge(pub(super) i64, pub(super) i64, pub(super) i64, pub(super) i64, pub(super) i64, pub(super) i64, pub(super) i64);

/// A hold's status: money is held.
pub(super) const OPEN: i64 = 1;
/// The approval was taken back before it was told.
pub(super) const VOIDED: i64 = 3;

impl Row<'_> {
    pub(super) fn decision(&self) -> Option<Decision> {
        Decision::ALL.iter().copied().find(|decision| *decision as i64 == self.decision)
    }

    pub(super) fn reason(&self) -> Option<Reason> {
        Reason::from_number(u16::try_from(self.reason?).ok()?)
    }

    /// Whether money is held.
    pub(super) const fn holds(&self) -> bool {
        self.decision != 0
    }

    /// Whether it is about what was asked, and approves no more than that.
    pub(super) fn is_about(&self, asked: &Asked) -> bool {
        let amount = match self.decision() {
            Some(Decision::Declined) => self.amount == 0,
            Some(Decision::Approved) => self.amount == self.requested,
            Some(Decision::PartiallyApproved) => asked.partial_approval && (1..self.requested).contains(&self.amount),
            None => false,
        };
        amount
            && asked.minor() == Some(self.requested)
            && (self.card, self.currency, self.merchant) == (asked.card.as_str(), asked.currency, asked.merchant.as_str())
            && (self.country, self.channel) == (asked.country, asked.channel)
            && asked.mcc.parse() == Ok(self.mcc)
    }

    /// Whether there is one open hold for exactly this approval, and none for a decline.
    pub(super) fn is_held(&self, released: bool) -> bool {
        match &self.hold {
            Some(hold) if self.holds() => {
                (hold.status == OPEN || released && hold.status != VOIDED)
                    && hold.amount == self.amount
                    && Some(hold.account_id) == self.account_id
            }
            Some(hold) => hold.status != OPEN,
            None => !self.holds(),
        }
    }

    /// What was charged; `None` when it cannot be read.
    pub(super) fn charges(&self) -> Option<Vec<Charge>> {
        self.charges.map_or_else(|| Some(Vec::new()), |text| serde_json::from_str(text).ok())
    }
}

impl<'a> Said<'a> {
    /// Reads a response.
    pub(super) fn read(response: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(response).ok()
    }

    /// What it promises, minor units.
    pub(super) fn approved(&self) -> Option<i64> {
        money::parse(self.approved_amount?, Currency::from_code(self.currency)?).ok()
    }

    /// Whether it says what the journal and the hold have.
    pub(super) fn says(&self, row: &Row<'_>) -> bool {
        let (decision, reason) = (row.decision(), row.reason());
        let code = match (decision, reason) {
            (Some(Decision::PartiallyApproved), None) => "10",
            (Some(Decision::Approved), None) => "00",
            (Some(Decision::Declined), Some(reason)) => reason.response_code(),
            _ => return false,
        };
        let amount = if row.holds() { self.approved() == Some(row.amount) } else { self.approved_amount.is_none() };
        amount
            && (self.version, self.id, self.response_code, self.currency) == (1, row.id, code, row.currency)
            && Some(self.decision) == decision.map(Decision::name)
            && self.reason == reason.map(Reason::name)
            && self.hold == row.hold.filter(|_| row.holds()).map(|hold| hold.id)
    }
}
