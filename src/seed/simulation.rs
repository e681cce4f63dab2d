//! The rules on the planned rows, in memory: what a daemon would decide, without one.

#![expect(clippy::expect_used, reason = "tests")]

use super::{
    Plan,
    rows::{Batch, Limit},
};
use crate::{
    domain::{
        decision::{Decision, Verdict},
        facts::{Balance, CardFile},
        ids::{AccountId, CardToken, MerchantId, RequestId, UserToken},
        limits::{CounterKey, Used},
        money::{Currency, Money},
        reason::Reason,
        request::{AuthRequest, Channel, Country, Mcc, Merchant},
        rules::{self, Position},
        time::{Timestamp, WindowStarts},
    },
    facts::document::CardDocument,
};
use serde_json::{Value, json};
use std::collections::HashMap;

/// 2026-03-04T10:15:07Z. All windows begin there too: the simulation lasts no time.
const NOW: Timestamp = Timestamp(1_772_619_307_000_000);

#[derive(Default)]
pub(crate) struct Simulation {
    files: HashMap<String, CardFile>,
    balances: HashMap<AccountId, Balance>,
    used: HashMap<CounterKey, Used>,
}

struct Book<'a> {
    simulation: &'a Simulation,
    account: Option<AccountId>,
}

impl Position for Book<'_> {
    fn balance(&self) -> Balance {
        self.account.and_then(|account| self.simulation.balances.get(&account)).copied().unwrap_or_default()
    }

    fn used(&self, key: &CounterKey) -> Used {
        self.simulation.used.get(key).copied().unwrap_or_default()
    }
}

impl Simulation {
    pub(crate) fn new(plan: Plan) -> Self {
        let batches: Vec<Batch> = plan.batches().collect();
        let mut owned: HashMap<(&str, i64), Vec<Value>> = HashMap::new();
        for limit in batches.iter().flat_map(|batch| &batch.limits) {
            owned.entry((limit.owner, limit.owner_id)).or_default().push(document(limit));
        }
        let limits_of = |owner, id| owned.get(&(owner, id)).cloned().unwrap_or_default();
        let programs: HashMap<i64, Value> = batches
            .iter()
            .flat_map(|batch| &batch.programs)
            .map(|p| {
                (
                    p.id,
                    json!({"id": p.id, "version": 1, "kind": p.kind, "time_zone": p.time_zone, "week_start": p.week_start,
                "kyc_required": p.kyc_required, "partial_approval": p.partial_approval, "controls": controls(p.controls),
                "limits": limits_of("program", p.id)}),
                )
            })
            .collect();
        let users: HashMap<i64, _> = batches.iter().flat_map(|batch| &batch.users).map(|user| (user.id, user)).collect();
        let accounts: HashMap<i64, _> = batches.iter().flat_map(|batch| &batch.accounts).map(|account| (account.id, account)).collect();
        let mut simulation = Self::default();
        for card in batches.iter().flat_map(|batch| &batch.cards) {
            let (user, account) = (users[&card.user_id], accounts[&card.account_id]);
            let limits: Vec<Value> = [("card", card.id), ("user", user.id), ("account", account.id)]
                .into_iter()
                .flat_map(|(owner, id)| limits_of(owner, id))
                .collect();
            let document = json!({
                "card": {"id": card.id, "token": card.token, "version": 1, "user_id": user.id, "user": user.token, "user_version": 1,
                    "account_id": account.id, "currency": account.currency, "account_open": account.status == "open",
                    "program_id": card.program_id, "status": card.status, "expires_at": card.expires_at, "controls": controls(card.controls)},
                "user": {"id": user.id, "token": user.token, "version": 1, "active": user.status == "active",
                    "kyc_verified": user.kyc == "verified"},
                "limits": {"card_version": 1, "limits": limits},
                "program": programs[&card.program_id],
            });
            let file = CardDocument::parse(document.to_string().as_bytes()).expect("a planned card is a card");
            simulation.balances.insert(AccountId(account.id), Balance { posted: account.posted, held: 0, floor: account.floor });
            simulation.files.insert(card.token.clone(), file);
        }
        simulation
    }

    /// How many limits bear on a card.
    pub(crate) fn limits_on(&self, card: &str) -> usize {
        self.files[card].limits().count()
    }

    /// Decides a request body and remembers what it holds.
    pub(crate) fn decide(&mut self, body: &str) -> (Decision, Option<Reason>) {
        let request = request(body);
        let file = self.files.get(request.card.as_str());
        let starts = WindowStarts { day: NOW, week: NOW, month: NOW };
        let account = file.map(|file| file.card.account.id);
        let verdict = rules::decide(&request, file, &starts, NOW, &Book { simulation: self, account });
        if let (Verdict::Approved { amount, charges, .. }, Some(account)) = (&verdict, account) {
            self.balances.entry(account).or_default().held += amount;
            for charge in charges {
                let used = self.used.entry(charge.key).or_default();
                (used.amount, used.count) = (used.amount + amount, used.count + 1);
            }
        }
        (verdict.decision(), verdict.reason())
    }
}

fn document(limit: &Limit) -> Value {
    json!({"id": limit.id, "scope": limit.scope, "window": limit.period, "filter": controls(limit.filter),
        "cap_amount": limit.cap_amount, "cap_count": limit.cap_count})
}

fn controls(text: &str) -> Value {
    serde_json::from_str(text).expect("controls are JSON")
}

fn request(body: &str) -> AuthRequest {
    let body: Value = serde_json::from_str(body).expect("a body is JSON");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let currency = Currency::from_code(&text(&body["currency"])).expect("a currency");
    let amount = text(&body["amount"]);
    let decimals = amount.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    assert_eq!(decimals, usize::from(currency.exponent()), "{amount} {currency:?}");
    let merchant = &body["merchant"];
    AuthRequest {
        id: RequestId::new(&text(&body["id"])).expect("an id"),
        digest: [0; 16],
        card: CardToken::new(&text(&body["card"])).expect("a token"),
        user: Some(UserToken::new(&text(&body["user"])).expect("a token")),
        amount: Money { minor: amount.replace('.', "").parse().expect("digits"), currency },
        merchant: Merchant {
            id: MerchantId::new(&text(&merchant["id"])).expect("an id"),
            mcc: Mcc::from_code(&text(&merchant["mcc"])).expect("a category"),
            country: Country::from_code(&text(&merchant["country"])).expect("a country"),
        },
        channel: Channel::from_name(&text(&body["channel"])).expect("a channel"),
        partial_approval: body["partial_approval"].as_bool().expect("a flag"),
    }
}
