//! Groups as a lane would hand them in: sums, claims on top of the group, everything sorted.

use jitauth::{
    domain::{
        decision::{Claim, Decision},
        facts::CardFile,
        hold::HoldId,
        ids::{AccountId, CardId, CardToken, MerchantId, ProgramId, RequestId},
        limits::{CounterKey, Scope, Used},
        money::Currency,
        reason::Reason,
        request::{Channel, Country, Mcc},
        time::{Timestamp, Window, WindowStarts},
    },
    ledger::{AccountDelta, CardVersion, Commit, CounterClaim, CounterDelta, JournalEntry},
};
use std::collections::{BTreeMap, HashMap};

/// Windows of the suite: the first microsecond of a day, a week and a month that nobody needs to compute.
pub(crate) const STARTS: WindowStarts = WindowStarts { day: Timestamp(3_000), week: Timestamp(2_000), month: Timestamp(1_000) };
/// When everything is decided.
pub(crate) const NOW: Timestamp = Timestamp(3_500);

/// A group under construction, with the facts and the money it is decided on.
#[derive(Clone, Default)]
pub(crate) struct Draft {
    pub(crate) files: HashMap<String, CardFile>,
    used: HashMap<CounterKey, Used>,
    journal: Vec<JournalEntry>,
    held: BTreeMap<AccountId, i64>,
    added: BTreeMap<CounterKey, Used>,
    cards: BTreeMap<CardId, i64>,
    programs: BTreeMap<ProgramId, i64>,
    absent: Vec<CardToken>,
    account_claims: BTreeMap<AccountId, i64>,
    amount_claims: BTreeMap<CounterKey, i64>,
    count_claims: BTreeMap<CounterKey, i64>,
}

/// A request's bytes under another salt are other bytes for the same request.
pub(crate) fn response(id: &str, decision: Decision, salt: &str) -> Vec<u8> {
    // Every byte value is kept as it is, JSON or not.
    [format!("{{\"id\":\"{id}\",\"decision\":\"{}\",\"by\":\"{salt} \\\"é\u{1}", decision.name()).as_bytes(), &[0, 0xff, b'}']].concat()
}

/// The digest of a request over this amount.
pub(crate) fn digest(amount: i64) -> [u8; 16] {
    u128::try_from(amount).unwrap().to_le_bytes()
}

/// The counters that spending with a card adds to.
pub(crate) fn charged(file: &CardFile) -> Vec<CounterKey> {
    let mut keys: Vec<_> =
        file.limits().filter(|l| l.window != Window::Transaction).filter_map(|l| l.counter(&file.card, &STARTS)).collect();
    keys.sort();
    keys
}

impl Draft {
    /// A group to be decided on these facts and counters.
    pub(crate) fn on(files: HashMap<String, CardFile>, used: HashMap<CounterKey, Used>) -> Self {
        Self { files, used, ..Self::default() }
    }

    /// Approves in full.
    pub(crate) fn approve(self, id: &str, card: &str, amount: i64) -> Self {
        self.approve_of(id, card, amount, amount, None)
    }

    /// Approves `amount` of `requested`.
    pub(crate) fn approve_of(mut self, id: &str, card: &str, requested: i64, amount: i64, claim: Option<Claim>) -> Self {
        let file = self.rest_on(card);
        self.claim(&file, claim);
        let decision = if amount < requested { Decision::PartiallyApproved } else { Decision::Approved };
        let mut charges = Vec::new();
        for key in charged(&file) {
            let (before, added) = (self.used.get(&key).copied().unwrap_or_default(), self.added.entry(key).or_default());
            let (amounts, counts) = (before.amount.saturating_add(added.amount), before.count + added.count);
            charges.push((key.limit.0, key.scope, key.window, amounts, amounts.saturating_add(amount), counts, counts + 1));
            (added.amount, added.count) = (added.amount + amount, added.count + 1);
        }
        *self.held.entry(file.card.account.id).or_default() += amount;
        let entry = JournalEntry {
            held: amount,
            decision,
            reason: None,
            response: response(id, decision, "a").into(),
            hold: Some(HoldId::new(&format!("hld_{id}"))),
            charges: Some(serde_json::to_string(&charges).unwrap()),
            ..entry(id, card, Some(&file), requested)
        };
        self.journal.push(entry);
        self
    }

    /// Declines.
    pub(crate) fn decline(mut self, id: &str, card: &str, requested: i64, reason: Reason, claim: Option<Claim>) -> Self {
        let file = self.rest_on(card);
        self.claim(&file, claim);
        self.journal.push(JournalEntry { reason: Some(reason), ..entry(id, card, Some(&file), requested) });
        self
    }

    /// Declines because there is no such card.
    pub(crate) fn absent(self, id: &str, card: &str) -> Self {
        self.absent_of(id, card, 100)
    }

    /// The same for a request over this amount.
    pub(crate) fn absent_of(mut self, id: &str, card: &str, asked: i64) -> Self {
        self.absent.push(CardToken::new(card).unwrap());
        self.journal.push(entry(id, card, None, asked));
        self
    }

    /// The group, as the port wants it.
    pub(crate) fn close(mut self) -> Commit {
        self.journal.sort_by(|a, b| a.id.cmp(&b.id));
        self.absent.sort();
        self.absent.dedup();
        let held = |account: &AccountId| self.held.get(account).copied().unwrap_or_default();
        let added = |key: &CounterKey| self.added.get(key).copied().unwrap_or_default();
        let mut claims: BTreeMap<CounterKey, CounterClaim> = BTreeMap::new();
        for (key, need) in &self.amount_claims {
            let none = CounterClaim { key: *key, amount: None, count: None };
            claims.entry(*key).or_insert(none).amount = Some(need - added(key).amount);
        }
        for (key, need) in &self.count_claims {
            let none = CounterClaim { key: *key, amount: None, count: None };
            claims.entry(*key).or_insert(none).count = Some(need - added(key).count);
        }
        Commit {
            accounts: self.held.iter().map(|(account, held)| AccountDelta { account: *account, held: *held }).collect(),
            counters: self.added.iter().map(|(key, add)| CounterDelta { key: *key, add: *add, fresh: self.hint(key, *add) }).collect(),
            cards: self.cards.iter().map(|(card, version)| CardVersion { card: *card, version: *version }).collect(),
            programs: self.programs.iter().map(|(program, version)| (*program, *version)).collect(),
            absent: self.absent,
            account_claims: self.account_claims.iter().map(|(account, need)| (*account, need - held(account))).collect(),
            counter_claims: claims.into_values().collect(),
            journal: self.journal,
        }
    }

    /// That a counter is fresh is a hint: as often wrong as right here, and given for those only that it may be given for.
    fn hint(&self, key: &CounterKey, add: Used) -> bool {
        let mut limits = self.files.values().flat_map(CardFile::limits);
        add.amount % 2 == 0 && limits.any(|limit| limit.id == key.limit && matches!(limit.scope, Scope::Card | Scope::Account))
    }

    fn rest_on(&mut self, card: &str) -> CardFile {
        let file = self.files.get(card).unwrap_or_else(|| panic!("{card} is not among the facts")).clone();
        self.cards.insert(file.card.id, file.card.version);
        self.programs.insert(file.program.id, file.program.version);
        file
    }

    /// A claim is about the money as it is at that point of the group. Of several the smallest need says the most.
    fn claim(&mut self, file: &CardFile, claim: Option<Claim>) {
        fn least<K: Ord>(claims: &mut BTreeMap<K, i64>, key: K, need: i64) {
            claims.entry(key).and_modify(|least| *least = need.min(*least)).or_insert(need);
        }
        let added = |key: &CounterKey| self.added.get(key).copied().unwrap_or_default();
        match claim {
            None => {}
            Some(Claim::Account { need }) => {
                let account = file.card.account.id;
                least(&mut self.account_claims, account, need + self.held.get(&account).copied().unwrap_or_default());
            }
            Some(Claim::Amount { key, need }) => least(&mut self.amount_claims, key, need + added(&key).amount),
            Some(Claim::Count { key }) => least(&mut self.count_claims, key, 1 + added(&key).count),
        }
    }
}

/// A journal row for a decline.
fn entry(id: &str, card: &str, file: Option<&CardFile>, requested: i64) -> JournalEntry {
    JournalEntry {
        id: RequestId::new(id).unwrap(),
        digest: digest(requested),
        card: CardToken::new(card).unwrap(),
        card_id: file.map(|file| file.card.id),
        account: file.map(|file| file.card.account.id),
        program: file.map(|file| file.program.id),
        requested,
        held: 0,
        currency: Currency::from_code("USD").unwrap(),
        decision: Decision::Declined,
        reason: Some(Reason::CardNotFound),
        response: response(id, Decision::Declined, "a").into(),
        hold: None,
        card_version: file.map_or(0, |file| file.card.version),
        program_version: file.map_or(0, |file| file.program.version),
        mcc: Mcc::from_code("0742").unwrap(),
        merchant: MerchantId::new("m-1").unwrap(),
        country: Country::from_code("NLD").unwrap(),
        channel: Channel::Contactless,
        charges: None,
        stage_us: [11, 12, 13, 14, 15],
        decided_at: NOW,
        unheard: false,
    }
}
