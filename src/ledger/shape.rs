//! What must be true of a group before any store is asked: it agrees with itself.
//!
//! The stores' guards check a group against their rows. They take its sums at its word, so a sum that is not the sum of its
//! decisions, or an approval whose facts are not listed for checking, has to be caught here.

use super::port::{Commit, JournalEntry, LedgerError, Report};
use crate::domain::ids::{AccountId, CardId, ProgramId};
use std::collections::BTreeMap;

impl Commit {
    /// Whether the group keeps the rules of the port.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] names the rule that is broken.
    pub(super) fn check(&self) -> Result<(), LedgerError> {
        let broken = self.broken_order().or_else(|| self.broken_entry()).or_else(|| self.broken_sum());
        broken.map_or(Ok(()), |rule| Err(LedgerError::Refused(format!("the group contradicts itself: {rule}"))))
    }

    /// Decisions that were made on other versions than the ones listed for checking, as a report: one of the two is stale, and a
    /// store would only look at the listed one. Cards whose facts were fetched at different times can bring their program in two
    /// versions.
    pub(super) fn disagreements(&self) -> Option<Report> {
        let mut report = Report::default();
        for entry in &self.journal {
            let stale_card = entry.card_id.filter(|card| self.card(*card).is_some_and(|version| version != entry.card_version));
            let stale_program = entry.program.filter(|id| self.program(*id).is_some_and(|version| version != entry.program_version));
            report.programs.extend(stale_program);
            report.cards.extend(stale_card.or(entry.card_id.filter(|_| stale_program.is_some())));
        }
        report.cards.sort_unstable();
        report.cards.dedup();
        report.programs.sort_unstable();
        report.programs.dedup();
        (!report.is_empty()).then_some(report)
    }

    /// The version listed for a card.
    fn card(&self, card: CardId) -> Option<i64> {
        self.cards.binary_search_by_key(&card, |listed| listed.card).ok().map(|at| self.cards[at].version)
    }

    /// The version listed for a program.
    fn program(&self, program: ProgramId) -> Option<i64> {
        self.programs.binary_search_by_key(&program, |listed| listed.0).ok().map(|at| self.programs[at].1)
    }

    fn broken_order(&self) -> Option<&'static str> {
        let sorted = ascending(&self.journal, |entry| entry.id.as_str())
            && ascending(&self.accounts, |delta| delta.account)
            && ascending(&self.counters, |delta| delta.key)
            && ascending(&self.cards, |card| card.card)
            && ascending(&self.absent, |token| token.as_str())
            && ascending(&self.programs, |program| program.0)
            && ascending(&self.account_claims, |claim| claim.0)
            && ascending(&self.counter_claims, |claim| claim.key);
        (!sorted).then_some("a list is not sorted by its key, or names a key twice")
    }

    fn broken_entry(&self) -> Option<&'static str> {
        self.journal.iter().find_map(|entry| if entry.decision.holds() { self.broken_approval(entry) } else { broken_decline(entry) })
    }

    fn broken_approval(&self, entry: &JournalEntry) -> Option<&'static str> {
        if entry.hold.is_none() || entry.reason.is_some() || entry.held <= 0 || entry.held > entry.requested {
            return Some("an approval without its hold, with a reason, or over more than was asked for");
        }
        let card = entry.card_id.and_then(|card| self.card(card));
        let program = entry.program.and_then(|program| self.program(program));
        let listed = entry.account.is_some() && card.is_some() && program.is_some();
        (!listed).then_some("an approval whose account is not known, or whose card or program is not listed")
    }

    fn broken_sum(&self) -> Option<&'static str> {
        let mut sums: BTreeMap<AccountId, i64> = BTreeMap::new();
        for (account, held) in self.journal.iter().filter(|entry| entry.held != 0).filter_map(|entry| Some((entry.account?, entry.held))) {
            let sum = sums.entry(account).or_default();
            match sum.checked_add(held) {
                Some(more) => *sum = more,
                None => return Some("the holds on an account add up to more than can be counted"),
            }
        }
        if !self.accounts.iter().map(|delta| (delta.account, delta.held)).eq(sums) {
            return Some("what is held on an account is not the sum of its approvals");
        }
        if self.counters.iter().any(|delta| delta.add.amount <= 0 || delta.add.count <= 0) {
            return Some("a counter goes backwards");
        }
        if self.counter_claims.iter().any(|claim| claim.amount.is_none() && claim.count.is_none()) {
            return Some("a claim that claims nothing");
        }
        let named = |account: &AccountId| self.journal.iter().any(|entry| entry.account.as_ref() == Some(account));
        (!self.account_claims.iter().all(|claim| named(&claim.0))).then_some("a claim about an account that no decision is about")
    }
}

fn broken_decline(entry: &JournalEntry) -> Option<&'static str> {
    (entry.hold.is_some() || entry.reason.is_none() || entry.held != 0 || entry.charges.is_some())
        .then_some("a decline that holds something, charges something or gives no reason")
}

/// Whether the keys rise strictly.
fn ascending<'a, T, K: Ord>(list: &'a [T], key: impl Fn(&'a T) -> K) -> bool {
    list.iter().map(key).is_sorted_by(|a, b| a < b)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::{
        domain::{
            decision::Decision,
            hold::HoldId,
            ids::{CardId, CardToken, LimitId, MerchantId, ProgramId, RequestId},
            limits::{CounterKey, Used},
            money::Currency,
            reason::Reason,
            request::{Channel, Country, Mcc},
            time::Timestamp,
        },
        ledger::{AccountDelta, CardVersion, CounterDelta},
    };

    fn entry(id: &str, held: i64) -> JournalEntry {
        JournalEntry {
            id: RequestId::new(id).unwrap(),
            digest: [0; 16],
            card: CardToken::new("crd_1").unwrap(),
            card_id: Some(CardId(1)),
            account: Some(AccountId(1)),
            program: Some(ProgramId(1)),
            requested: 100,
            held,
            currency: Currency::from_code("USD").unwrap(),
            decision: if held > 0 { Decision::Approved } else { Decision::Declined },
            reason: (held == 0).then_some(Reason::CardLost),
            response: b"{}"[..].into(),
            hold: (held > 0).then(|| HoldId::new("hld_1")),
            card_version: 7,
            program_version: 8,
            mcc: Mcc::from_code("5812").unwrap(),
            merchant: MerchantId::new("m").unwrap(),
            country: Country::from_code("NLD").unwrap(),
            channel: Channel::Chip,
            charges: (held > 0).then(|| "[]".to_owned()),
            stage_us: [0; 5],
            decided_at: Timestamp(0),
            unheard: false,
        }
    }

    fn sound() -> Commit {
        Commit {
            journal: vec![entry("a", 40), entry("b", 0), entry("c", 60)],
            accounts: vec![AccountDelta { account: AccountId(1), held: 100 }],
            counters: vec![CounterDelta {
                key: CounterKey { limit: LimitId(1), scope: 1, window: 0 },
                add: Used { amount: 100, count: 2 },
                fresh: false,
            }],
            cards: vec![CardVersion { card: CardId(1), version: 7 }],
            programs: vec![(ProgramId(1), 8)],
            account_claims: vec![(AccountId(1), 5)],
            ..Commit::default()
        }
    }

    #[test]
    fn a_group_that_contradicts_itself_is_refused() {
        sound().check().unwrap();
        type Spoil = fn(&mut Commit);
        let cases: &[(&str, Spoil)] = &[
            ("unsorted ids", |c| c.journal.swap(0, 1)),
            ("an id twice", |c| c.journal[1].id = c.journal[0].id.clone()),
            ("an account twice", |c| c.accounts.push(c.accounts[0])),
            ("a sum too small", |c| c.accounts[0].held = 99),
            ("a sum left out", |c| c.accounts.clear()),
            ("a sum of nothing", |c| c.accounts.push(AccountDelta { account: AccountId(2), held: 1 })),
            ("a sum that overflows", |c| {
                for at in [0, 2] {
                    (c.journal[at].requested, c.journal[at].held) = (i64::MAX, i64::MAX);
                }
            }),
            ("an approval without a hold", |c| c.journal[0].hold = None),
            ("an approval over more than was asked for", |c| c.journal[0].requested = 39),
            ("an approval on an unlisted card", |c| c.cards.clear()),
            ("an approval on an unlisted program", |c| c.programs.clear()),
            ("a decline that holds", |c| c.journal[1].held = 1),
            ("a decline that charges", |c| c.journal[1].charges = Some("[]".to_owned())),
            ("a counter going backwards", |c| c.counters[0].add.amount = -1),
            ("a claim about nothing", |c| c.account_claims[0].0 = AccountId(9)),
        ];
        for (what, spoil) in cases {
            let mut group = sound();
            spoil(&mut group);
            assert!(matches!(group.check(), Err(LedgerError::Refused(_))), "{what}");
        }
    }

    #[test]
    fn a_decision_on_another_version_than_listed_is_stale() {
        type Spoil = fn(&mut Commit);
        type Stale = Option<(Vec<CardId>, Vec<ProgramId>)>;
        let (card, program) = (vec![CardId(1)], vec![ProgramId(1)]);
        let cases: &[(&str, Spoil, Stale)] = &[
            ("a sound group", |_| {}, None),
            ("an older card", |c| c.journal[0].card_version = 6, Some((card.clone(), vec![]))),
            ("a decline on an older card", |c| c.journal[1].card_version = 6, Some((card.clone(), vec![]))),
            ("an older program", |c| c.journal[2].program_version = 7, Some((card, program))),
            ("a card that is not listed", |c| (c.journal[1].card_id, c.journal[1].card_version) = (Some(CardId(2)), 1), None),
        ];
        for (what, spoil, expected) in cases {
            let mut group = sound();
            spoil(&mut group);
            let found = group.disagreements().map(|report| (report.cards, report.programs));
            assert_eq!(&found, expected, "{what}");
        }
    }
}
