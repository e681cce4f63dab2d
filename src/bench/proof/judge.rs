//! Every decision against its answer, against what was asked, and against what the facts, limits and money in the store ask for.

use super::{
    Owner, Proof, Told,
    facts::{Bound, Card, Facts, refusal},
    journal::{Row, Said, VOIDED},
    store::{Account, Counter, Key},
};
use crate::{
    bench::{
        record::{Known, shown},
        traffic::{Asked, Traffic},
    },
    domain::{
        decision::Decision,
        reason::{Reason, ReasonClass},
    },
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Examples of what is wrong that are kept.
const EXAMPLES_MAX: usize = 5;

/// What the run's approvals come to, and what is still to be seen when all of them are summed up.
pub(super) struct Judge<'a> {
    facts: Facts,
    owner: Owner,
    asked: Vec<Answered<'a>>,
    /// By account: what was approved, as the answers say it.
    approved: HashMap<i64, i64>,
    used: HashMap<Key, Used>,
    /// What was held for a while and taken back: declines may have met it.
    voided: HashMap<i64, i64>,
    voided_used: HashMap<Key, Used>,
    /// Decisions over money: right only if the money was short in the end, because it only ever gets less.
    short: Vec<Short>,
    proof: Proof,
}

/// The requests of one stretch, with the answers that are not found in the journal yet.
struct Answered<'a> {
    traffic: &'a Traffic,
    answers: Vec<Option<Known>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    amount: i64,
    count: i64,
}

/// A decision that says that money or limits were short.
struct Short {
    id: String,
    account: i64,
    bounds: Vec<Bound>,
    /// Why not; `None` for less than was asked for.
    reason: Option<Reason>,
    /// So much more would not fit.
    need: i64,
}

impl<'a> Judge<'a> {
    pub(super) fn new(facts: Facts, owner: Owner, told: &[Told<'a>]) -> Self {
        let answered = |told: &Told<'a>| {
            let mut answers = vec![None; told.traffic.requests.len()];
            for (index, known) in &told.answers {
                if let Some(answer) = answers.get_mut(*index) {
                    *answer = Some(*known);
                }
            }
            Answered { traffic: told.traffic, answers }
        };
        Self {
            facts,
            owner,
            asked: told.iter().map(answered).collect(),
            approved: HashMap::new(),
            used: HashMap::new(),
            voided: HashMap::new(),
            voided_used: HashMap::new(),
            short: Vec::new(),
            proof: Proof::default(),
        }
    }

    /// Looks at one decision.
    pub(super) fn see(&mut self, row: &Row<'_>) {
        self.proof.decisions += 1;
        let found = self.asked.iter_mut().find_map(|asked| Some((asked.traffic.ids.index(row.id)?, asked)));
        let Some((index, asked)) = found.filter(|(index, asked)| *index < asked.answers.len()) else {
            self.proof.untold += 1;
            return self.example(row.id, || "nobody asked for it".to_owned());
        };
        let (answer, request) = (asked.answers[index].take(), asked.traffic.requests[index].asked());
        match answer {
            Some(answer) if answer.journaled() => self.proof.altered += u64::from(!answer.is(row.response)),
            // Told "not decided", so the id may have been decided since, but only declined: nobody knows of a hold.
            Some(answer) => {
                self.proof.altered += u64::from(answer.holds());
                self.proof.untold += u64::from(row.holds());
            }
            None => self.proof.untold += 1,
        }
        let said = Said::read(row.response);
        if !said.as_ref().is_some_and(|said| said.says(row)) {
            self.proof.unlike += 1;
            self.example(row.id, || format!("the journal has other than {}", shown(row.response)));
        }
        if !row.is_about(&request) {
            self.proof.unasked += 1;
            self.example(row.id, || format!("asked were {} {} on {}", request.amount, request.currency, request.card));
        }
        self.proof.doubled += u64::from(!row.is_held(self.owner == Owner::Everybody));
        self.weigh(row, &request, said.and_then(|said| said.approved()));
    }

    /// Adds up the money, and asks whether the decision is what it must be.
    fn weigh(&mut self, row: &Row<'_>, asked: &Asked, promised: Option<i64>) {
        let card = self.facts.card(&asked.card);
        let refused = refusal(asked, card.map(|(card, program)| (card.as_ref(), program)), row.decided_at);
        let partial = asked.partial_approval && card.is_some_and(|(_, program)| program.partial_approval);
        let same_facts = match card {
            Some((card, program)) => (row.card_version, row.program_version) == (card.version, program.version),
            None => row.card_id.is_none(),
        };
        let card = card.map(|(card, _)| Arc::clone(card));
        let account = card.as_ref().map(|card| card.account_id);
        self.proof.holds += u64::from(row.holds());
        // By the answer and not by the row: what the requester was promised has to be held.
        if let Some(promised) = promised {
            *self.proof.approved.entry(row.currency.to_owned()).or_default() += promised;
            *self.approved.entry(account.or(row.account_id).unwrap_or_default()).or_default() += promised;
        }
        // What others have changed since cannot be told from what was wrong.
        if !same_facts && self.owner == Owner::Everybody {
            return;
        }
        let bounds = card.as_deref().map(|card| self.facts.bounds(card, asked, row.decided_at).unwrap_or_default()).unwrap_or_default();
        self.charge(row, &bounds);
        // Declined for want of time or of the store: whatever the facts are, and without them where they were not there in time.
        if row.reason().is_some_and(|reason| reason.class() == ReasonClass::System) && !row.holds() {
            return;
        }
        let right = match (row.decision(), row.reason(), refused) {
            (Some(Decision::Declined), Some(reason), Some(expected)) => reason.name() == expected,
            (Some(Decision::Declined), Some(reason), None) => self.is_short(row, card.as_deref(), bounds, partial, Some(reason)),
            (Some(Decision::Approved), None, None) => true,
            (Some(Decision::PartiallyApproved), None, None) => partial && self.is_short(row, card.as_deref(), bounds, partial, None),
            _ => false,
        };
        if !right || !same_facts {
            self.proof.wrong += 1;
            let said = row.reason().map_or("approved", Reason::name);
            self.example(row.id, || format!("{said}, and the facts say {}", refused.unwrap_or("nothing against it")));
        }
    }

    /// Holds what was charged against the limits that ask for it.
    fn charge(&mut self, row: &Row<'_>, bounds: &[Bound]) {
        let voided = row.hold.filter(|hold| hold.status == VOIDED).map(|hold| hold.amount);
        if let (Some(amount), Some(account)) = (voided, row.account_id) {
            *self.voided.entry(account).or_default() += amount;
            bounds.iter().filter_map(|bound| bound.counter).for_each(|key| self.voided_used.entry(key).or_default().add(amount));
        }
        if !row.holds() {
            self.proof.uncharged += u64::from(row.charges.is_some());
            return;
        }
        let Some(charges) = row.charges() else {
            self.proof.uncharged += 1;
            return;
        };
        let mut right = charges.len() == bounds.iter().filter(|bound| bound.counter.is_some()).count();
        for bound in bounds {
            let Some(key) = bound.counter else {
                self.proof.limits_passed += u64::from(bound.cap_amount.is_some_and(|cap| row.amount > cap));
                continue;
            };
            self.used.entry(key).or_default().add(row.amount);
            let charged = charges.iter().find(|charge| (charge.0, charge.1, charge.2) == key);
            right &= charged.is_some_and(|charge| (charge.4 - charge.3, charge.6 - charge.5) == (row.amount, 1));
            let passed = charged.is_some_and(|charge| {
                bound.cap_amount.is_some_and(|cap| charge.4 > cap) || bound.cap_count.is_some_and(|cap| charge.6 > cap)
            });
            self.proof.limits_passed += u64::from(passed);
        }
        if !right {
            self.proof.uncharged += 1;
            self.example(row.id, || format!("charged to {} counters, and not to those of its limits", charges.len()));
        }
    }

    /// Whether a decision over money may be right. What only the sums can tell is put off.
    fn is_short(&mut self, row: &Row<'_>, card: Option<&Card>, bounds: Vec<Bound>, partial: bool, reason: Option<Reason>) -> bool {
        let Some(card) = card else { return false };
        let caps = || bounds.iter().filter(|bound| bound.counter.is_none()).filter_map(|bound| bound.cap_amount);
        let over = |need: i64| caps().any(|cap| cap < need);
        // Where less would do, only a cap of nothing refuses.
        let need = if partial { 1 } else { row.requested };
        match reason {
            Some(Reason::TransactionLimit) => return over(need),
            Some(Reason::AmountLimit | Reason::CountLimit | Reason::InsufficientFunds) if over(need) => return false,
            Some(Reason::AmountLimit | Reason::CountLimit | Reason::InsufficientFunds) => {}
            None if caps().any(|cap| cap == row.amount) => return true,
            None => {}
            Some(_) => return false,
        }
        if self.owner == Owner::Run {
            self.short.push(Short { id: row.id.to_owned(), account: card.account_id, bounds, reason, need });
        }
        true
    }

    /// Holds the sums against the store's.
    pub(super) fn close(mut self, accounts: &[Account], counters: &[Counter]) -> Proof {
        self.explain(accounts);
        self.count(counters);
        let own = self.owner == Owner::Run;
        for account in accounts {
            let ours = self.approved.remove(&account.id);
            self.proof.below_floor += u64::from((own || ours.is_some()) && account.posted.saturating_sub(account.held) < account.floor);
            let ours = ours.unwrap_or_default();
            let off = account.held != account.holds || if own { account.held != ours } else { account.held < ours };
            self.proof.held_off += u64::from(off);
        }
        self.proof.held_off += self.approved.values().filter(|amount| **amount != 0).count() as u64;
        let answers = self.asked.iter().flat_map(|asked| asked.answers.iter().flatten());
        self.proof.lost = answers.filter(|answer| answer.journaled()).count() as u64;
        self.proof
    }

    fn count(&mut self, counters: &[Counter]) {
        let own = self.owner == Owner::Run;
        self.proof.counters = if own { counters.len() } else { self.used.len() } as u64;
        let caps = self.facts.caps();
        let mut seen = HashSet::new();
        for Counter { key, amount, count } in counters {
            let ours = self.used.get(key);
            let Used { amount: charged, count: times } = ours.copied().unwrap_or_default();
            seen.extend(ours.map(|_| *key));
            let off = if own { (*amount, *count) != (charged, times) } else { *amount < charged || *count < times };
            self.proof.counters_off += u64::from(off);
            let passed = caps
                .get(&key.0)
                .is_some_and(|(most, often)| most.is_some_and(|most| *amount > most) || often.is_some_and(|often| *count > often));
            self.proof.limits_passed += u64::from(passed && (own || ours.is_some()));
        }
        self.proof.counters_off += (self.used.len() - seen.len()) as u64;
    }

    /// Whether what was declined for want of money or room, or cut short, could not be had: what is used only grows.
    fn explain(&mut self, accounts: &[Account]) {
        let money: HashMap<i64, &Account> = accounts.iter().map(|account| (account.id, account)).collect();
        let mut unexplained = Vec::new();
        for Short { id, account, bounds, reason, need } in std::mem::take(&mut self.short) {
            let used = |bound: &Bound| {
                let key = bound.counter?;
                let [one, other] = [&self.used, &self.voided_used].map(|used| used.get(&key).copied().unwrap_or_default());
                Some(Used { amount: one.amount + other.amount, count: one.count + other.count })
            };
            let funds = || {
                let taken: i64 = [&self.approved, &self.voided].iter().filter_map(|sums| sums.get(&account)).sum();
                money.get(&account).is_none_or(|money| money.posted.saturating_sub(taken).saturating_sub(money.floor) < need)
            };
            let over =
                |cap: Option<i64>, used: Option<i64>, need: i64| cap.zip(used).is_some_and(|(cap, used)| used.saturating_add(need) > cap);
            let amount = || bounds.iter().any(|bound| over(bound.cap_amount, used(bound).map(|used| used.amount), need));
            let count = || bounds.iter().any(|bound| over(bound.cap_count, used(bound).map(|used| used.count), 1));
            let explained = match reason {
                Some(Reason::InsufficientFunds) => funds(),
                Some(Reason::AmountLimit) => amount(),
                Some(Reason::CountLimit) => count(),
                _ => funds() || amount(),
            };
            if !explained {
                unexplained.push((id, reason.map_or("partially_approved", Reason::name)));
            }
        }
        for (id, said) in unexplained {
            self.proof.wrong += 1;
            self.example(&id, || format!("{said}, and there was enough to the end"));
        }
    }

    fn example(&mut self, id: &str, what: impl FnOnce() -> String) {
        if self.proof.examples.len() < EXAMPLES_MAX {
            self.proof.examples.push(format!("{id}: {}", what()));
        }
    }
}

impl Used {
    const fn add(&mut self, amount: i64) {
        self.amount += amount;
        self.count += 1;
    }
}
