//! A store in memory with the guards of the real ones, and faults on demand. It exists so that lanes can be tested on a paused clock
//! against outcomes that a real store gives rarely: lost answers, stalls, rows held by others, rows it refuses.

use crate::{
    domain::{
        decision::Decision,
        facts::{Account, Balance, Card, CardFile, CardStatus, Program, ProgramKind, User, WeekStart},
        ids::{AccountId, CardId, CardToken, LimitId, ProgramId, RequestId, UserId, UserToken},
        limits::{Cap, CounterKey, Limit, Scope, Used},
        money::Currency,
        time::{Timestamp, Window},
    },
    facts::{FactError, FactSource},
    ledger::{Commit, JournalEntry, Known, Ledger, LedgerError, Outcome, Positions, Report, Void, Voided},
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

/// What goes wrong with the next commit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// It takes this long, then works.
    Stall(Duration),
    /// It is applied, and the answer is lost.
    LostAfter,
    /// It is not applied, and nobody can tell.
    LostBefore,
    /// There is no connection.
    Unreachable,
    /// A lock is not had in time.
    Contended,
    /// Two transactions stood in each other's way, it says.
    Transient,
    /// A lock is waited for this long, and not had.
    Locked(Duration),
}

#[derive(Clone, Default)]
pub(super) struct Model(pub(super) Arc<Mutex<World>>);

#[derive(Default)]
pub(super) struct World {
    pub(super) cards: HashMap<CardToken, CardFile>,
    pub(super) balances: HashMap<AccountId, Balance>,
    pub(super) counters: HashMap<CounterKey, Used>,
    pub(super) journal: BTreeMap<RequestId, (JournalEntry, u32)>,
    pub(super) unheard: BTreeSet<RequestId>,
    pub(super) faults: VecDeque<Fault>,
    /// Ids that the store will not have, with an approval or at all.
    pub(super) poison: Option<(RequestId, Poison)>,
    pub(super) busy: BTreeSet<AccountId>,
    /// Cards whose rows cannot be read.
    pub(super) garbled: BTreeSet<CardToken>,
    pub(super) commits: u32,
    pub(super) fetches: u32,
    /// How often money was read.
    pub(super) reads: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Poison {
    Approval,
    Anything,
}

impl World {
    /// Adds a card with a day limit on its account. Returns its token.
    pub(super) fn card(&mut self, number: i64, posted: i64, day_cap: i64) -> CardToken {
        let token = CardToken::new(&format!("crd_{number}")).unwrap();
        let user_token = UserToken::new(&format!("usr_{number}")).unwrap();
        let limit = Limit {
            id: LimitId(number),
            scope: Scope::Account,
            window: Window::Day,
            filter: Arc::default(),
            cap_amount: Cap::new(day_cap),
            cap_count: None,
        };
        let file = CardFile {
            card: Arc::new(Card {
                id: CardId(number),
                token: token.clone(),
                version: 1,
                user: UserId(number),
                user_version: 1,
                account: Account { id: AccountId(number), currency: Currency::from_code("USD").unwrap(), open: true },
                program: ProgramId(1),
                status: CardStatus::Active,
                expires: Timestamp(i64::MAX),
                controls: Arc::default(),
                limits: Box::new([limit]),
            }),
            user: Arc::new(User { id: UserId(number), token: user_token, version: 1, active: true, kyc_verified: true }),
            program: Arc::new(Program {
                id: ProgramId(1),
                version: 1,
                kind: ProgramKind::Personal,
                time_zone: "UTC".into(),
                week_start: WeekStart::Monday,
                kyc_required: false,
                partial_approval: false,
                controls: Arc::default(),
                limits: Vec::new(),
            }),
        };
        self.cards.insert(token.clone(), file);
        self.balances.insert(AccountId(number), Balance { posted, held: 0, floor: 0 });
        token
    }

    /// Changes a card's status as an administrator would: with a new version.
    pub(super) fn set_status(&mut self, token: &CardToken, status: CardStatus) {
        let file = self.cards.get_mut(token).unwrap();
        let version = file.card.version + 1;
        file.card = Arc::new(Card { version, status, ..(*file.card).clone() });
    }

    pub(super) fn held(&self) -> i64 {
        self.balances.values().map(|balance| balance.held).sum()
    }

    fn cap(&self, key: &CounterKey) -> Option<i64> {
        self.cards
            .values()
            .flat_map(|file| file.limits())
            .find(|limit| limit.id == key.limit)
            .and_then(|limit| limit.cap_amount)
            .map(Cap::get)
    }

    fn version(&self, card: CardId) -> i64 {
        self.cards.values().find(|file| file.card.id == card).map_or(0, |file| file.card.version)
    }

    fn report(&mut self, commit: &Commit, wait: bool) -> Report {
        let mut report = Report::default();
        for entry in &commit.journal {
            if let Some((stored, replays)) = self.journal.get_mut(&entry.id) {
                let own = stored.response == entry.response;
                *replays += u32::from(!own && stored.digest == entry.digest);
                let (id, digest, response) = (entry.id.clone(), stored.digest, stored.response.clone());
                report.known.push(Known { id, digest, response, decision: stored.decision, own });
            }
        }
        if !report.known.is_empty() {
            return report;
        }
        if !wait {
            report.busy_accounts = commit.accounts.iter().map(|delta| delta.account).filter(|id| self.busy.contains(id)).collect();
        }
        report.cards = commit.cards.iter().filter(|guard| self.version(guard.card) != guard.version).map(|guard| guard.card).collect();
        report.appeared = commit.absent.iter().filter(|token| self.cards.contains_key(*token)).cloned().collect();
        for delta in &commit.accounts {
            let balance = self.balances[&delta.account];
            if balance.room() < delta.held {
                report.accounts.push((delta.account, balance));
            }
        }
        for delta in &commit.counters {
            let used = self.counters.get(&delta.key).copied().unwrap_or_default();
            if self.cap(&delta.key).is_some_and(|cap| used.amount + delta.add.amount > cap) {
                report.counters.push((delta.key, used));
            }
        }
        for (account, need) in &commit.account_claims {
            let added = commit.accounts.iter().find(|delta| delta.account == *account).map_or(0, |delta| delta.held);
            let balance = self.balances[account];
            if balance.room() >= added + need {
                report.accounts.push((*account, balance));
            }
        }
        report
    }

    fn apply(&mut self, commit: &Commit) {
        for entry in &commit.journal {
            self.journal.insert(entry.id.clone(), (entry.clone(), 0));
        }
        for delta in &commit.accounts {
            self.balances.get_mut(&delta.account).unwrap().held += delta.held;
        }
        for delta in &commit.counters {
            let used = self.counters.entry(delta.key).or_default();
            used.amount += delta.add.amount;
            used.count += delta.add.count;
        }
    }

    fn commit(&mut self, commit: &Commit, wait: bool) -> Result<Outcome, LedgerError> {
        self.commits += 1;
        if wait && commit.accounts.iter().any(|delta| self.busy.contains(&delta.account)) {
            return Err(LedgerError::Contended("busy".to_owned()));
        }
        if let Some((id, poison)) = &self.poison
            && let Some(entry) = commit.journal.iter().find(|entry| entry.id == *id)
            && (*poison == Poison::Anything || entry.decision.holds())
        {
            return Err(LedgerError::Refused("poison".to_owned()));
        }
        let report = self.report(commit, wait);
        if !report.is_empty() {
            return Ok(Outcome::Rejected(Box::new(report)));
        }
        self.apply(commit);
        Ok(Outcome::Committed)
    }
}

impl Ledger for Model {
    async fn commit(&mut self, commit: &Commit, wait: bool) -> Result<Outcome, LedgerError> {
        let fault = self.0.lock().faults.pop_front();
        match fault {
            Some(Fault::Stall(time)) => tokio::time::sleep(time).await,
            Some(Fault::Unreachable) => return Err(LedgerError::Unreachable("down".to_owned())),
            Some(Fault::Transient) => return Err(LedgerError::Transient("deadlock".to_owned())),
            Some(Fault::Contended) => return Err(LedgerError::Contended("locked".to_owned())),
            Some(Fault::Locked(time)) => {
                tokio::time::sleep(time).await;
                return Err(LedgerError::Contended("locked".to_owned()));
            }
            Some(Fault::LostBefore) => return Err(LedgerError::Unknown("lost".to_owned())),
            Some(Fault::LostAfter) => {
                drop(self.0.lock().commit(commit, wait));
                return Err(LedgerError::Unknown("lost".to_owned()));
            }
            None => tokio::time::sleep(Duration::from_micros(500)).await,
        }
        self.0.lock().commit(commit, wait)
    }

    async fn positions(&mut self, accounts: &[AccountId], counters: &[CounterKey]) -> Result<Positions, LedgerError> {
        let mut world = self.0.lock();
        world.reads += 1;
        Ok(Positions {
            accounts: accounts.iter().filter_map(|id| Some((*id, *world.balances.get(id)?))).collect(),
            counters: counters.iter().filter_map(|key| Some((*key, *world.counters.get(key)?))).collect(),
        })
    }

    async fn void(&mut self, void: &Void) -> Result<Voided, LedgerError> {
        let mut world = self.0.lock();
        let (entry, replays) = world.journal.get_mut(&void.id).unwrap();
        if entry.response == void.decline {
            return Ok(Voided::Done);
        }
        if *replays > 0 || entry.response != void.response {
            *replays += 1;
            return Ok(Voided::Stands(entry.response.clone()));
        }
        entry.response = void.decline.clone();
        entry.decision = Decision::Declined;
        world.balances.get_mut(&void.account).unwrap().held -= void.held;
        for key in &void.counters {
            let used = world.counters.get_mut(key).unwrap();
            used.amount -= void.held;
            used.count -= 1;
        }
        Ok(Voided::Done)
    }

    async fn mark_unheard(&mut self, id: &RequestId) -> Result<(), LedgerError> {
        self.0.lock().unheard.insert(id.clone());
        Ok(())
    }
}

impl FactSource for Model {
    async fn fetch(&self, card: &CardToken) -> Result<Option<CardFile>, FactError> {
        let found = {
            let mut world = self.0.lock();
            world.fetches += 1;
            if world.garbled.contains(card) {
                return Err(FactError::Malformed("controls".to_owned()));
            }
            world.cards.get(card).cloned()
        };
        tokio::time::sleep(Duration::from_micros(200)).await;
        Ok(found)
    }
}
