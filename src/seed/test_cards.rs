//! The cards that everyone can rely on: one for each outcome, with the request that shows it.

use super::{
    ids,
    programs::{PROGRAMS, TEST, TEST_JPY, TEST_KWD},
    rows::{Account, Card, Limit, User},
};
use crate::domain::{decision::Decision, reason::Reason};
use serde::Serialize;

/// A test card: what is special about it, and what that leads to.
#[derive(Clone, Copy, Debug)]
pub struct TestCard {
    /// What follows `crd_test_`; its owner is `usr_test_…`, its account `acc_test_…`.
    pub name: &'static str,
    /// What is special, for a person.
    pub point: &'static str,
    /// Position in [`PROGRAMS`].
    program: usize,
    card_status: &'static str,
    expires_at: i64,
    controls: &'static str,
    user_status: &'static str,
    kyc: &'static str,
    account_status: &'static str,
    /// Minor units.
    posted: i64,
    limit: Option<Cap>,
    /// The request that shows the outcome.
    pub sample: Sample,
}

/// The only limit of a test card, owned by the card.
#[derive(Clone, Copy, Debug)]
struct Cap {
    period: &'static str,
    amount: Option<i64>,
    count: Option<i64>,
}

/// A request to a test card and the decision it gets.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Decimal, as on the wire.
    pub amount: &'static str,
    /// ISO 4217.
    pub currency: &'static str,
    /// The merchant's id.
    pub merchant: &'static str,
    /// The merchant's category.
    pub mcc: &'static str,
    /// The merchant's country, ISO 3166-1 alpha-3.
    pub country: &'static str,
    /// How the card met the merchant.
    pub channel: &'static str,
    /// Whether less would do.
    pub partial_approval: bool,
    /// How often the same must have been approved before, that day, under other ids.
    pub earlier: u32,
    /// What it gets.
    pub decision: Decision,
    /// Why.
    pub reason: Option<Reason>,
}

/// A balance that testing does not use up, minor units.
const PLENTY: i64 = 100_000_000_000;
/// 2040-01-01T00:00:00Z, microseconds.
const FAR: i64 = 2_208_988_800_000_000;
/// 2020-01-01T00:00:00Z, microseconds.
const PAST: i64 = 1_577_836_800_000_000;

const APPROVED: Sample = Sample {
    amount: "12.50",
    currency: "USD",
    merchant: "mrc_test_grocer",
    mcc: "5411",
    country: "USA",
    channel: "chip",
    partial_approval: false,
    earlier: 0,
    decision: Decision::Approved,
    reason: None,
};

const PLAIN: TestCard = TestCard {
    name: "approve",
    point: "nothing stands in the way",
    program: TEST,
    card_status: "active",
    expires_at: FAR,
    controls: "{}",
    user_status: "active",
    kyc: "verified",
    account_status: "open",
    posted: PLENTY,
    limit: None,
    sample: APPROVED,
};

const fn declined(reason: Reason) -> Sample {
    Sample { decision: Decision::Declined, reason: Some(reason), ..APPROVED }
}

/// Every test card. Ids go by position: append, never insert.
pub const TEST_CARDS: &[TestCard] = &[
    PLAIN,
    TestCard { name: "card_lost", point: "the card was reported lost", card_status: "lost", sample: declined(Reason::CardLost), ..PLAIN },
    TestCard {
        name: "card_stolen",
        point: "the card was reported stolen",
        card_status: "stolen",
        sample: declined(Reason::CardStolen),
        ..PLAIN
    },
    TestCard {
        name: "card_expired",
        point: "the card expired on 2020-01-01",
        expires_at: PAST,
        sample: declined(Reason::CardExpired),
        ..PLAIN
    },
    TestCard {
        name: "card_inactive",
        point: "the card is not activated",
        card_status: "inactive",
        sample: declined(Reason::CardInactive),
        ..PLAIN
    },
    TestCard {
        name: "user_inactive",
        point: "the user is suspended",
        user_status: "suspended",
        sample: declined(Reason::UserInactive),
        ..PLAIN
    },
    TestCard {
        name: "kyc_required",
        point: "the user's identity is not verified yet",
        kyc: "pending",
        sample: declined(Reason::KycRequired),
        ..PLAIN
    },
    TestCard {
        name: "account_closed",
        point: "the account is closed",
        account_status: "closed",
        sample: declined(Reason::AccountClosed),
        ..PLAIN
    },
    TestCard {
        name: "channel_blocked",
        point: "channel `ecommerce` is blocked",
        controls: r#"{"channels":{"except":["ecommerce"]}}"#,
        sample: Sample { channel: "ecommerce", ..declined(Reason::ChannelBlocked) },
        ..PLAIN
    },
    TestCard {
        name: "country_blocked",
        point: "country `PRK` is blocked",
        controls: r#"{"countries":{"except":["PRK"]}}"#,
        sample: Sample { country: "PRK", ..declined(Reason::CountryBlocked) },
        ..PLAIN
    },
    TestCard {
        name: "mcc_blocked",
        point: "merchant category `7995` is blocked",
        controls: r#"{"mccs":{"except":["7995"]}}"#,
        sample: Sample { mcc: "7995", ..declined(Reason::MccBlocked) },
        ..PLAIN
    },
    TestCard {
        name: "merchant_blocked",
        point: "merchant `mrc_test_blocked` is blocked",
        controls: r#"{"merchants":{"except":["mrc_test_blocked"]}}"#,
        sample: Sample { merchant: "mrc_test_blocked", ..declined(Reason::MerchantBlocked) },
        ..PLAIN
    },
    TestCard {
        name: "transaction_limit",
        point: "at most 10.00 a transaction",
        limit: Some(Cap { period: "transaction", amount: Some(1_000), count: None }),
        sample: declined(Reason::TransactionLimit),
        ..PLAIN
    },
    TestCard {
        name: "amount_limit",
        point: "at most 25.00 a day",
        limit: Some(Cap { period: "day", amount: Some(2_500), count: None }),
        sample: Sample { amount: "25.01", ..declined(Reason::AmountLimit) },
        ..PLAIN
    },
    TestCard {
        name: "count_limit",
        point: "at most 2 approvals a day",
        limit: Some(Cap { period: "day", amount: None, count: Some(2) }),
        sample: Sample { earlier: 2, ..declined(Reason::CountLimit) },
        ..PLAIN
    },
    TestCard {
        name: "insufficient_funds",
        point: "the balance is 5.00",
        posted: 500,
        sample: declined(Reason::InsufficientFunds),
        ..PLAIN
    },
    TestCard {
        name: "partial",
        point: "the balance is 20.00; asked for more, it gives what is there",
        posted: 2_000,
        sample: Sample { amount: "50.00", partial_approval: true, decision: Decision::PartiallyApproved, ..APPROVED },
        ..PLAIN
    },
    TestCard {
        name: "jpy",
        point: "yen: no decimals",
        program: TEST_JPY,
        sample: Sample { amount: "1250", currency: "JPY", country: "JPN", ..APPROVED },
        ..PLAIN
    },
    TestCard {
        name: "kwd",
        point: "Kuwaiti dinars: three decimals",
        program: TEST_KWD,
        sample: Sample { amount: "12.345", currency: "KWD", country: "KWT", ..APPROVED },
        ..PLAIN
    },
];

impl TestCard {
    /// The card's token, `crd_test_…`.
    #[must_use]
    pub fn token(&self) -> String {
        format!("crd_test_{}", self.name)
    }

    /// The owner's token, `usr_test_…`.
    #[must_use]
    pub fn user_token(&self) -> String {
        format!("usr_test_{}", self.name)
    }

    /// The account's token, `acc_test_…`.
    #[must_use]
    pub fn account_token(&self) -> String {
        format!("acc_test_{}", self.name)
    }

    /// The body of the sample request under this id, contract version 1.
    #[must_use]
    pub fn request(&self, id: &str) -> String {
        let card = self.token();
        let user = self.user_token();
        RequestBody::new(id, &card, &user, &self.sample).to_json()
    }

    pub(super) fn account(&self, position: usize) -> Account {
        let program = &PROGRAMS[self.program].program;
        Account {
            id: ids::top(position),
            token: self.account_token(),
            program_id: program.id,
            kind: "cardholder",
            currency: program.currency,
            status: self.account_status,
            posted: self.posted,
            floor: 0,
        }
    }

    pub(super) fn user(&self, position: usize) -> User {
        User {
            id: ids::top(position),
            token: self.user_token(),
            program_id: PROGRAMS[self.program].program.id,
            status: self.user_status,
            kyc: self.kyc,
        }
    }

    pub(super) fn card(&self, position: usize) -> Card {
        Card {
            id: ids::top(position),
            token: self.token(),
            user_id: ids::top(position),
            account_id: ids::top(position),
            program_id: PROGRAMS[self.program].program.id,
            status: self.card_status,
            expires_at: self.expires_at,
            controls: self.controls,
        }
    }
}

/// The limits of the test cards.
pub(super) fn limits() -> impl Iterator<Item = Limit> {
    let capped = TEST_CARDS.iter().enumerate().filter_map(|(position, card)| card.limit.map(|cap| (position, cap)));
    capped.enumerate().map(|(nth, (position, cap))| Limit {
        id: ids::top(nth),
        owner: "card",
        owner_id: ids::top(position),
        scope: "card",
        period: cap.period,
        filter: "{}",
        cap_amount: cap.amount,
        cap_count: cap.count,
    })
}

/// A request, contract version 1. Without `sent_at`: its deadline counts from receipt, so the same bytes may be sent again later.
#[derive(Serialize)]
pub(crate) struct RequestBody<'a> {
    version: u8,
    r#type: &'static str,
    id: &'a str,
    card: &'a str,
    user: &'a str,
    pub(crate) amount: &'a str,
    pub(crate) currency: &'a str,
    pub(crate) merchant: MerchantBody<'a>,
    pub(crate) channel: &'a str,
    pub(crate) partial_approval: bool,
}

/// The merchant in a [`RequestBody`].
#[derive(Serialize)]
pub(crate) struct MerchantBody<'a> {
    pub(crate) id: &'a str,
    pub(crate) mcc: &'a str,
    pub(crate) country: &'a str,
}

impl<'a> RequestBody<'a> {
    /// A sample under an id.
    pub(crate) fn new(id: &'a str, card: &'a str, user: &'a str, sample: &Sample) -> Self {
        Self {
            version: 1,
            r#type: "authorization",
            id,
            card,
            user,
            amount: sample.amount,
            currency: sample.currency,
            merchant: MerchantBody { id: sample.merchant, mcc: sample.mcc, country: sample.country },
            channel: sample.channel,
            partial_approval: sample.partial_approval,
        }
    }

    /// The bytes to send.
    pub(crate) fn to_json(&self) -> String {
        // Strings and integers always have a JSON form; an empty body would be declined as malformed.
        serde_json::to_string(self).unwrap_or_default()
    }
}
