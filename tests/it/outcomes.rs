//! Every outcome that a request can cause, as a table: the same for every edge and every store.

use crate::support::{
    request::Request,
    store::Store,
    world::{Holder, Limit, Owner, Program, World},
};
use jitauth::domain::reason::{Reason, ReasonClass};
use serde_json::{Value, json};

/// What a request must be answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected {
    /// In full: the amount, and what is available afterwards.
    Approved(&'static str, &'static str),
    /// In part: the amount, and what is available afterwards.
    Partly(&'static str, &'static str),
    /// Not at all.
    Declined(Reason),
}

/// One outcome.
#[derive(Debug)]
pub(crate) struct Case {
    /// What is sent before, and approved.
    pub(crate) before: Vec<Request>,
    pub(crate) request: Request,
    pub(crate) expected: Expected,
}

impl Case {
    fn new(request: Request, expected: Expected) -> Self {
        Self { before: Vec::new(), request, expected }
    }

    fn after(mut self, before: impl IntoIterator<Item = Request>) -> Self {
        self.before.extend(before);
        self
    }

    /// Whether the decision is kept: bad input and conflicts are not.
    pub(crate) fn journaled(&self) -> bool {
        !matches!(self.expected, Expected::Declined(reason) if reason.class() == ReasonClass::Input)
    }
}

/// The cardholders that [`all`] speaks of.
pub(crate) async fn prepare(store: &Store) {
    let world = World::new(store);
    let usd = world.program("usd", Program::default()).await;
    let blocked_by_card = r#"{"channels": {"except": ["ecommerce"]}, "countries": {"except": ["PRK"]}, "mccs": {"except": ["7995", "6050-6059"]},
        "merchants": {"except": ["mrc_blocked"]}}"#;
    let holders = [
        ("approve", Holder::default()),
        ("partial", Holder { posted: 20_00, ..Holder::default() }),
        ("poor", Holder { posted: 5_00, ..Holder::default() }),
        ("credit", Holder { posted: 0, floor: -30_00, ..Holder::default() }),
        ("lost", Holder { card_status: "lost", ..Holder::default() }),
        ("stolen", Holder { card_status: "stolen", ..Holder::default() }),
        ("expired", Holder { expires_at_us: 1_600_000_000_000_000, ..Holder::default() }),
        ("inactive", Holder { card_status: "inactive", ..Holder::default() }),
        ("suspended", Holder { user_status: "suspended", ..Holder::default() }),
        ("unverified", Holder { kyc: "pending", ..Holder::default() }),
        ("closed", Holder { account_status: "closed", ..Holder::default() }),
        ("blocked", Holder { controls: blocked_by_card, ..Holder::default() }),
    ];
    for (name, holder) in holders {
        world.holder(usd, name, holder).await;
    }
    let single = world.holder(usd, "single", Holder::default()).await;
    world.limit(Owner::Card(single.card), Limit { period: "transaction", cap_amount: Some(10_00), ..Limit::default() }).await;
    let day = world.holder(usd, "day", Holder::default()).await;
    world.limit(Owner::User(day.user), Limit { cap_amount: Some(25_00), ..Limit::default() }).await;
    let twice = world.holder(usd, "twice", Holder::default()).await;
    world.limit(Owner::Account(twice.account), Limit { period: "lifetime", cap_count: Some(2), ..Limit::default() }).await;
    let shops = world.holder(usd, "shops", Holder::default()).await;
    let grocers = r#"{"mccs": {"only": ["5411"]}}"#;
    world.limit(Owner::Card(shops.card), Limit { period: "month", filter: grocers, cap_amount: Some(15_00), ..Limit::default() }).await;

    let jpy = world.program("jpy", Program { currency: "JPY", ..Program::default() }).await;
    world.holder(jpy, "jpy", Holder { posted: 5_000, ..Holder::default() }).await;
    let kwd = world.program("kwd", Program { currency: "KWD", kyc_required: false, ..Program::default() }).await;
    world.holder(kwd, "kwd", Holder { posted: 5_000, kyc: "pending", ..Holder::default() }).await;
    let online_only = r#"{"channels": {"only": ["ecommerce"]}}"#;
    let online = world.program("online", Program { kind: "business", controls: online_only, ..Program::default() }).await;
    world.limit(Owner::Program(online), Limit { scope: Some("card"), period: "week", cap_amount: Some(40_00), ..Limit::default() }).await;
    world.holder(online, "online", Holder::default()).await;
}

/// Every outcome. Each case has a card of its own, unless nothing is held for it.
pub(crate) fn all() -> Vec<Case> {
    use Expected::{Approved, Declined, Partly};
    let ask = |id: &str| Request::new(&format!("case-{id}"));
    let same_id = ask("conflict").card("crd_credit").amount("1.00");
    let mut cases = vec![
        Case::new(ask("approve").amount("12.50").user("usr_approve"), Approved("12.50", "987.50")),
        Case::new(ask("jpy").card("crd_jpy").currency("JPY").amount("1200"), Approved("1200", "3800")),
        Case::new(ask("kwd").card("crd_kwd").currency("KWD").amount("1.250"), Approved("1.250", "3.750")),
        Case::new(ask("online").card("crd_online").channel("ecommerce").amount("40.00"), Approved("40.00", "960.00")),
        Case::new(ask("filtered").card("crd_shops").mcc("5812").amount("100.00"), Approved("100.00", "900.00")),
        Case::new(ask("partial").card("crd_partial").amount("50.00").partial(), Partly("20.00", "0.00")),
        Case::new(ask("partial-limit").card("crd_single").amount("10.01").partial(), Partly("10.00", "990.00")),
        Case::new(same_id.clone().amount("2.00"), Declined(Reason::DuplicateConflict)).after([same_id]),
        Case::new(ask("count").card("crd_twice"), Declined(Reason::CountLimit))
            .after([ask("count-1").card("crd_twice"), ask("count-2").card("crd_twice")]),
    ];
    let declines = [
        (ask("no-merchant").without("merchant"), Reason::Malformed),
        (ask("no-channel").without("channel"), Reason::Malformed),
        (ask("version").with("version", 2), Reason::UnsupportedVersion),
        (ask("zero").amount("0.00"), Reason::InvalidAmount),
        (ask("negative").amount("-1.00"), Reason::InvalidAmount),
        (ask("number").with("amount", 10), Reason::InvalidAmount),
        (ask("precision").amount("1.005"), Reason::InvalidPrecision),
        (ask("precision-jpy").card("crd_jpy").currency("JPY").amount("1.5"), Reason::InvalidPrecision),
        (ask("currency").currency("ZZZ"), Reason::InvalidCurrency),
        (ask("pan").card("4111111111111111"), Reason::PanPresent),
        (ask("late").sent_at("2024-01-01T00:00:00Z").deadline_ms(100), Reason::DeadlineExceeded),
        (ask("unknown").card("crd_unknown"), Reason::CardNotFound),
        (ask("lost").card("crd_lost"), Reason::CardLost),
        (ask("stolen").card("crd_stolen"), Reason::CardStolen),
        (ask("expired").card("crd_expired"), Reason::CardExpired),
        (ask("inactive").card("crd_inactive"), Reason::CardInactive),
        (ask("other-user").user("usr_poor"), Reason::UserNotFound),
        (ask("suspended").card("crd_suspended"), Reason::UserInactive),
        (ask("unverified").card("crd_unverified"), Reason::KycRequired),
        (ask("closed").card("crd_closed"), Reason::AccountClosed),
        (ask("eur").currency("EUR"), Reason::CurrencyMismatch),
        (ask("channel").card("crd_blocked").channel("ecommerce"), Reason::ChannelBlocked),
        (ask("program-channel").card("crd_online").channel("chip"), Reason::ChannelBlocked),
        (ask("country").card("crd_blocked").country("PRK"), Reason::CountryBlocked),
        (ask("mcc").card("crd_blocked").mcc("7995"), Reason::MccBlocked),
        (ask("mcc-range").card("crd_blocked").mcc("6051"), Reason::MccBlocked),
        (ask("merchant").card("crd_blocked").merchant("mrc_blocked"), Reason::MerchantBlocked),
        (ask("single").card("crd_single").amount("10.01"), Reason::TransactionLimit),
        (ask("day").card("crd_day").amount("25.01"), Reason::AmountLimit),
        (ask("program-week").card("crd_online").channel("ecommerce").amount("0.01"), Reason::AmountLimit),
        (ask("grocer").card("crd_shops").amount("15.01"), Reason::AmountLimit),
        (ask("poor").card("crd_poor").amount("5.01"), Reason::InsufficientFunds),
        (ask("credit").card("crd_credit").amount("29.01"), Reason::InsufficientFunds),
    ];
    cases.extend(declines.map(|(request, reason)| Case::new(request, Declined(reason))));
    cases
}

/// The answer to a case, as its bytes say it.
pub(crate) fn check_response(case: &Case, body: &[u8]) {
    let name = case.request.id();
    let text = str::from_utf8(body).unwrap_or_else(|error| panic!("{name}: {error}"));
    let response: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
    let keys = ["version", "id", "decision", "reason", "response_code", "approved_amount", "currency", "available", "hold", "decided_at"];
    let places: Vec<_> =
        keys.iter().map(|key| text.find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("{name}: no {key}: {text}"))).collect();
    assert!(places.is_sorted(), "{name}: the keys are out of order: {text}");
    assert_eq!(response.as_object().unwrap().len(), keys.len(), "{name}: {text}");
    let (decision, reason, code, amount) = match case.expected {
        Expected::Approved(amount, _) => ("approved", Value::Null, "00", json!(amount)),
        Expected::Partly(amount, _) => ("partially_approved", Value::Null, "10", json!(amount)),
        Expected::Declined(reason) => ("declined", json!(reason.name()), reason.response_code(), Value::Null),
    };
    let said = [&response["version"], &response["id"], &response["decision"], &response["reason"], &response["response_code"]];
    let expected = [&json!(1), &json!(name), &json!(decision), &reason, &json!(code)];
    assert_eq!(said, expected, "{name}: {text}");
    assert_eq!(response["approved_amount"], amount, "{name}: {text}");
    match case.expected {
        Expected::Approved(_, available) | Expected::Partly(_, available) => {
            assert_eq!(response["available"], available, "{name}: {text}");
            assert!(response["hold"].as_str().is_some_and(|hold| hold.starts_with("hld_")), "{name}: {text}");
        }
        Expected::Declined(reason) => {
            assert_eq!(response["hold"], Value::Null, "{name}: {text}");
            if reason == Reason::CardNotFound {
                assert_eq!(response["available"], Value::Null, "{name}: {text}");
            }
        }
    }
    assert!(response["decided_at"].as_str().is_some_and(|instant| instant.ends_with('Z')), "{name}: {text}");
}

/// What the store holds for a case must be what was answered.
pub(crate) async fn check_store(case: &Case, body: &[u8], store: &Store) {
    let id = case.request.id();
    let columns = ["decision", "reason", "amount", "card"].map(|column| format!("cast({column} as text)")).join(", ");
    let rows = store.rows(&format!("select {columns} from authorizations where id = '{id}'")).await;
    let holds = store.rows(&format!("select id, cast(amount as text) from holds where authorization_id = '{id}' and status = 1")).await;
    if let Expected::Declined(Reason::DuplicateConflict) = case.expected {
        assert_eq!((rows.len(), holds.len()), (1, 1), "{id}: the first decision stands alone");
        assert_ne!(store.response(id).await.as_deref(), Some(body), "{id}: the conflict replaced the decision");
        return;
    }
    if !case.journaled() {
        assert_eq!((rows.len(), holds.len()), (0, 0), "{id}: bad input leaves nothing in the store");
        return;
    }
    assert_eq!(store.response(id).await.as_deref(), Some(body), "{id}: what was sent is what is stored");
    let [row] = rows.as_slice() else { panic!("{id}: {} rows in the journal", rows.len()) };
    let (decision, reason) = match case.expected {
        Expected::Approved(..) => ("1", None),
        Expected::Partly(..) => ("2", None),
        Expected::Declined(reason) => ("0", Some(reason.number().to_string())),
    };
    assert_eq!((row[0].as_deref(), &row[1]), (Some(decision), &reason), "{id}");
    if reason.is_some() {
        assert_eq!((row[2].as_deref(), holds.len()), (Some("0"), 0), "{id}: a decline holds nothing");
    } else {
        let response: Value = serde_json::from_slice(body).unwrap();
        let [hold] = holds.as_slice() else { panic!("{id}: {} open holds", holds.len()) };
        assert_eq!((hold[0].as_deref(), &hold[1]), (response["hold"].as_str(), &row[2]), "{id}");
    }
}

#[test]
fn every_reason_a_request_can_cause_is_in_the_table() {
    let cases = all();
    for reason in Reason::ALL {
        let caused_by_us = matches!(reason, Reason::SystemUnavailable | Reason::SystemError);
        let there = cases.iter().any(|case| matches!(case.expected, Expected::Declined(expected) if expected == *reason));
        assert_eq!(there, !caused_by_us, "{reason:?}");
    }
}
