//! Programs, users, accounts, cards and limits, put into either store by plain SQL.

use super::store::Store;
use std::sync::atomic::{AtomicI64, Ordering};

/// Far in the future: 2100-01-01, microseconds.
pub(crate) const NEVER_US: i64 = 4_102_444_800_000_000;

/// A writer of facts. Rows get ids of the whole test run's own, so that a mixed-up key never fits by luck.
#[derive(Debug)]
pub(crate) struct World<'a> {
    store: &'a Store,
}

/// A program with its defaults: personal, USD, UTC.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) kind: &'a str,
    pub(crate) currency: &'a str,
    pub(crate) time_zone: &'a str,
    pub(crate) kyc_required: bool,
    pub(crate) partial_approval: bool,
    /// JSON of a filter.
    pub(crate) controls: &'a str,
}

impl Default for Program<'_> {
    fn default() -> Self {
        Self { kind: "personal", currency: "USD", time_zone: "UTC", kyc_required: true, partial_approval: true, controls: "{}" }
    }
}

/// A cardholder with an account and a card, all of one name.
#[derive(Debug)]
pub(crate) struct Holder<'a> {
    /// Posted money of the account, minor units.
    pub(crate) posted: i64,
    pub(crate) floor: i64,
    pub(crate) account_status: &'a str,
    pub(crate) user_status: &'a str,
    pub(crate) kyc: &'a str,
    pub(crate) card_status: &'a str,
    pub(crate) expires_at_us: i64,
    /// JSON of a filter.
    pub(crate) controls: &'a str,
}

impl Default for Holder<'_> {
    fn default() -> Self {
        Self {
            posted: 100_000,
            floor: 0,
            account_status: "open",
            user_status: "active",
            kyc: "verified",
            card_status: "active",
            expires_at_us: NEVER_US,
            controls: "{}",
        }
    }
}

/// The keys of what [`World::holder`] made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) program: i64,
    pub(crate) user: i64,
    pub(crate) account: i64,
    pub(crate) card: i64,
}

/// Whom a limit is attached to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner {
    Card(i64),
    User(i64),
    Account(i64),
    Program(i64),
}

impl Owner {
    const fn parts(self) -> (&'static str, i64) {
        match self {
            Self::Card(id) => ("card", id),
            Self::User(id) => ("user", id),
            Self::Account(id) => ("account", id),
            Self::Program(id) => ("program", id),
        }
    }
}

/// A limit that caps nothing, to be filled in; counted per owner over a day.
#[derive(Debug)]
pub(crate) struct Limit<'a> {
    /// `None` counts whom the limit is attached to.
    pub(crate) scope: Option<&'a str>,
    pub(crate) period: &'a str,
    pub(crate) filter: &'a str,
    pub(crate) cap_amount: Option<i64>,
    pub(crate) cap_count: Option<i64>,
}

impl Default for Limit<'_> {
    fn default() -> Self {
        Self { scope: None, period: "day", filter: "{}", cap_amount: None, cap_count: None }
    }
}

fn next() -> i64 {
    static NEXT: AtomicI64 = AtomicI64::new(1000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn or_null(number: Option<i64>) -> String {
    number.map_or_else(|| "null".to_owned(), |number| number.to_string())
}

impl<'a> World<'a> {
    pub(crate) const fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// A program `prg_<name>` and the account its cardholders are funded from.
    pub(crate) async fn program(&self, name: &str, program: Program<'_>) -> i64 {
        let (id, funding) = (next(), next());
        let Program { kind, currency, time_zone, kyc_required, partial_approval, controls } = program;
        self.store
            .execute(&format!(
                "insert into programs (id, token, kind, currency, time_zone, kyc_required, partial_approval, controls)
                 values ({id}, 'prg_{name}', '{kind}', '{currency}', '{time_zone}', {kyc_required}, {partial_approval}, '{controls}');
                 insert into accounts (id, token, program_id, kind, currency, floor)
                 values ({funding}, 'acc_{name}_funding', {id}, 'funding', '{currency}', -1000000000000000)"
            ))
            .await;
        id
    }

    /// A user `usr_<name>`.
    pub(crate) async fn user(&self, program: i64, name: &str, holder: &Holder<'_>) -> i64 {
        let id = next();
        let Holder { user_status, kyc, .. } = holder;
        self.store
            .execute(&format!(
                "insert into users (id, token, program_id, status, kyc) values ({id}, 'usr_{name}', {program}, '{user_status}', '{kyc}')"
            ))
            .await;
        id
    }

    /// An account `acc_<name>` in the program's currency, with its money posted from the funding account.
    pub(crate) async fn account(&self, program: i64, name: &str, holder: &Holder<'_>) -> i64 {
        let id = next();
        let Holder { floor, account_status, .. } = holder;
        self.store
            .execute(&format!(
                "insert into accounts (id, token, program_id, currency, status, floor)
                 select {id}, 'acc_{name}', id, currency, '{account_status}', {floor} from programs where id = {program}"
            ))
            .await;
        if holder.posted != 0 {
            self.post(program, id, holder.posted).await;
        }
        id
    }

    /// Posts money from the program's funding account to an account: two entries, two balances.
    pub(crate) async fn post(&self, program: i64, account: i64, amount: i64) {
        let transfer = format!("trf_{}", next());
        let funding = format!("(select id from accounts where program_id = {program} and kind = 'funding')");
        self.store
            .execute(&format!(
                "update accounts set posted = posted - {amount} where id = {funding};
                 update accounts set posted = posted + {amount} where id = {account};
                 insert into entries (transfer, account_id, amount, posted_at)
                 values ('{transfer}', {funding}, -({amount}), 0), ('{transfer}', {account}, {amount}, 0)"
            ))
            .await;
    }

    /// A card `crd_<name>` of a user on an account.
    pub(crate) async fn card(&self, program: i64, user: i64, account: i64, name: &str, holder: &Holder<'_>) -> i64 {
        let id = next();
        let Holder { card_status, expires_at_us, controls, .. } = holder;
        self.store
            .execute(&format!(
                "insert into cards (id, token, user_id, account_id, program_id, status, expires_at, controls)
                 values ({id}, 'crd_{name}', {user}, {account}, {program}, '{card_status}', {expires_at_us}, '{controls}')"
            ))
            .await;
        id
    }

    /// User, account and card at once: `usr_<name>`, `acc_<name>`, `crd_<name>`.
    pub(crate) async fn holder(&self, program: i64, name: &str, holder: Holder<'_>) -> Held {
        let user = self.user(program, name, &holder).await;
        let account = self.account(program, name, &holder).await;
        let card = self.card(program, user, account, name, &holder).await;
        Held { program, user, account, card }
    }

    pub(crate) async fn limit(&self, owner: Owner, limit: Limit<'_>) -> i64 {
        let id = next();
        let (owner, owner_id) = owner.parts();
        let Limit { scope, period, filter, cap_amount, cap_count } = limit;
        self.store
            .execute(&format!(
                "insert into limits (id, owner, owner_id, scope, period, filter, cap_amount, cap_count)
                 values ({id}, '{owner}', {owner_id}, '{}', '{period}', '{filter}', {}, {})",
                scope.unwrap_or(owner),
                or_null(cap_amount),
                or_null(cap_count)
            ))
            .await;
        id
    }
}
