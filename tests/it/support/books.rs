//! The books: everything the store says about money, read at once and checked against itself.

use super::store::Store;
use std::collections::{BTreeMap, BTreeSet};

/// A counter's key: limit, scope, window start.
type CounterKey = (i64, i64, i64);

/// A journaled decision, as far as money is concerned.
#[derive(Debug)]
struct Decided {
    id: String,
    account: Option<i64>,
    requested: i64,
    amount: i64,
    decision: i64,
    reason: Option<i64>,
    /// Limit, scope, window, amount before, after, count before, after.
    charges: Vec<[i64; 7]>,
}

#[derive(Debug)]
struct Hold {
    authorization: String,
    account: i64,
    amount: i64,
    open: bool,
}

#[derive(Debug)]
struct Account {
    posted: i64,
    held: i64,
    floor: i64,
    entries: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    amount: i64,
    count: i64,
}

/// Read with one query per table: take it when no daemon decides.
#[derive(Debug)]
struct Books {
    journal: Vec<Decided>,
    holds: Vec<Hold>,
    accounts: BTreeMap<i64, Account>,
    counters: BTreeMap<CounterKey, Used>,
    caps: BTreeMap<i64, (Option<i64>, Option<i64>)>,
    unbalanced_transfers: Vec<String>,
}

impl Store {
    /// Panics with everything that is wrong with the money in the store.
    pub(crate) async fn check_books(&self) {
        let books = Books::read(self).await;
        let faults: Vec<_> = books.faults().into_iter().chain(books.caps_passed()).collect();
        assert!(faults.is_empty(), "the books are wrong:\n{}", faults.join("\n"));
    }

    /// As [`Store::check_books`], for a test that lowered or removed a limit under what was spent.
    pub(crate) async fn check_books_but_caps(&self) {
        let faults = Books::read(self).await.faults();
        assert!(faults.is_empty(), "the books are wrong:\n{}", faults.join("\n"));
    }
}

/// A row of texts, read from left to right.
struct Cells(std::vec::IntoIter<Option<String>>);

impl Cells {
    fn text(&mut self) -> Option<String> {
        self.0.next().expect("another column")
    }

    fn number(&mut self) -> Option<i64> {
        self.text().map(|text| text.parse().unwrap_or_else(|_| panic!("not a number: {text}")))
    }

    fn some(&mut self) -> i64 {
        self.number().expect("not null")
    }
}

impl Books {
    async fn read(store: &Store) -> Self {
        let table = async |columns: &[&str], rest: &str| {
            let columns: Vec<_> = columns.iter().map(|column| format!("cast({column} as text)")).collect();
            let rows = store.rows(&format!("select {} from {rest}", columns.join(", "))).await;
            rows.into_iter().map(|row| Cells(row.into_iter())).collect::<Vec<_>>()
        };
        let journal = table(&["id", "account_id", "requested", "amount", "decision", "reason", "charges"], "authorizations").await;
        let holds = table(&["authorization_id", "account_id", "amount", "status"], "holds").await;
        let entries = "(select coalesce(sum(e.amount), 0) from entries e where e.account_id = accounts.id)";
        let accounts = table(&["id", "posted", "held", "floor", entries], "accounts").await;
        let counters = table(&["limit_id", "scope_id", "window_start", "amount", "count"], "counters").await;
        let limits = table(&["id", "cap_amount", "cap_count"], "limits").await;
        let transfers = table(&["transfer"], "entries group by transfer having sum(amount) <> 0").await;
        Self {
            journal: journal.into_iter().map(Decided::read).collect(),
            holds: holds.into_iter().map(Hold::read).collect(),
            accounts: accounts.into_iter().map(Account::read).collect(),
            counters: counters
                .into_iter()
                .map(|mut row| ((row.some(), row.some(), row.some()), Used { amount: row.some(), count: row.some() }))
                .collect(),
            caps: limits.into_iter().map(|mut row| (row.some(), (row.number(), row.number()))).collect(),
            unbalanced_transfers: transfers.into_iter().filter_map(|mut row| row.text()).collect(),
        }
    }

    fn faults(&self) -> Vec<String> {
        let checks = [
            Self::ids_repeated,
            Self::decisions_misshapen,
            Self::held_wrongly,
            Self::holds_and_approvals_apart,
            Self::floors_passed,
            Self::counters_apart_from_journal,
            Self::posted_wrongly,
        ];
        checks.iter().flat_map(|check| check(self)).collect()
    }

    fn approvals(&self) -> impl Iterator<Item = &Decided> {
        self.journal.iter().filter(|decided| decided.decision != 0)
    }

    fn ids_repeated(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let repeated = self.journal.iter().filter(|decided| !seen.insert(&decided.id));
        repeated.map(|decided| format!("{} was decided twice", decided.id)).collect()
    }

    fn decisions_misshapen(&self) -> Vec<String> {
        let wrong = |decided: &&Decided| match decided.decision {
            0 => decided.amount != 0 || decided.reason.is_none(),
            1 => decided.amount != decided.requested || decided.reason.is_some(),
            2 => decided.amount <= 0 || decided.amount >= decided.requested || decided.reason.is_some(),
            _ => true,
        };
        self.journal.iter().filter(wrong).map(|decided| format!("misshapen decision: {decided:?}")).collect()
    }

    fn held_wrongly(&self) -> Vec<String> {
        let mut open: BTreeMap<i64, i64> = BTreeMap::new();
        for hold in self.holds.iter().filter(|hold| hold.open) {
            *open.entry(hold.account).or_default() += hold.amount;
        }
        let unknown = open.keys().filter(|account| !self.accounts.contains_key(account));
        let mut faults: Vec<_> = unknown.map(|account| format!("holds on account {account}, which does not exist")).collect();
        for (id, account) in &self.accounts {
            let sum = open.get(id).copied().unwrap_or_default();
            if account.held != sum {
                faults.push(format!("account {id}: held is {}, its open holds sum to {sum}", account.held));
            }
        }
        faults
    }

    fn holds_and_approvals_apart(&self) -> Vec<String> {
        let key = |id: &str, account: Option<i64>, amount: i64| (id.to_owned(), account, amount);
        let approved: BTreeSet<_> = self.approvals().map(|decided| key(&decided.id, decided.account, decided.amount)).collect();
        let open = self.holds.iter().filter(|hold| hold.open);
        let held: BTreeSet<_> = open.map(|hold| key(&hold.authorization, Some(hold.account), hold.amount)).collect();
        let without_hold = approved.difference(&held).map(|approval| format!("approval without its open hold: {approval:?}"));
        let without_approval = held.difference(&approved).map(|hold| format!("open hold without its approval: {hold:?}"));
        without_hold.chain(without_approval).collect()
    }

    fn floors_passed(&self) -> Vec<String> {
        let passed = self.accounts.iter().filter(|(_, account)| account.posted - account.held < account.floor);
        passed.map(|(id, account)| format!("account {id} is below its floor: {account:?}")).collect()
    }

    fn counters_apart_from_journal(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut charged: BTreeMap<CounterKey, Used> = BTreeMap::new();
        for decided in self.approvals() {
            for charge in &decided.charges {
                let [limit, scope, window, amount_before, amount_after, count_before, count_after] = *charge;
                if (amount_after - amount_before, count_after - count_before) != (decided.amount, 1) {
                    faults.push(format!("{} of {} charged a counter by something else: {charge:?}", decided.id, decided.amount));
                }
                let used = charged.entry((limit, scope, window)).or_default();
                used.amount += decided.amount;
                used.count += 1;
            }
        }
        let keys: BTreeSet<_> = charged.keys().chain(self.counters.keys()).collect();
        for key in keys {
            let (journal, counter) = (charged.get(key).copied().unwrap_or_default(), self.counters.get(key).copied().unwrap_or_default());
            if journal != counter {
                faults.push(format!("counter {key:?} is {counter:?}, the journal charged {journal:?}"));
            }
        }
        faults
    }

    fn posted_wrongly(&self) -> Vec<String> {
        let transfers = self.unbalanced_transfers.iter().map(|transfer| format!("the entries of {transfer} do not sum to zero"));
        let accounts = self.accounts.iter().filter(|(_, account)| account.posted != account.entries);
        transfers.chain(accounts.map(|(id, account)| format!("account {id}: posted is not the sum of its entries: {account:?}"))).collect()
    }

    fn caps_passed(&self) -> Vec<String> {
        let passed = |key: &CounterKey, used: &Used| {
            let (amount, count) = self.caps.get(&key.0).copied().unwrap_or_default();
            amount.is_some_and(|cap| used.amount > cap) || count.is_some_and(|cap| used.count > cap)
        };
        let passed = self.counters.iter().filter(|(key, used)| passed(key, used));
        passed.map(|(key, used)| format!("counter {key:?} is past its cap {:?}: {used:?}", self.caps[&key.0])).collect()
    }
}

impl Decided {
    fn read(mut row: Cells) -> Self {
        Self {
            id: row.text().expect("an id"),
            account: row.number(),
            requested: row.some(),
            amount: row.some(),
            decision: row.some(),
            reason: row.number(),
            charges: row.text().map_or_else(Vec::new, |json| serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"))),
        }
    }
}

impl Hold {
    fn read(mut row: Cells) -> Self {
        Self { authorization: row.text().expect("an id"), account: row.some(), amount: row.some(), open: row.some() == 1 }
    }
}

impl Account {
    fn read(mut row: Cells) -> (i64, Self) {
        (row.some(), Self { posted: row.some(), held: row.some(), floor: row.some(), entries: row.some() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Books {
        let decided = |id: &str, amount, decision, reason, charges| Decided {
            id: id.to_owned(),
            account: Some(1),
            requested: 500,
            amount,
            decision,
            reason,
            charges,
        };
        Books {
            journal: vec![
                decided("full", 500, 1, None, vec![[9, 1, 0, 0, 500, 0, 1]]),
                decided("part", 300, 2, None, vec![[9, 1, 0, 500, 800, 1, 2]]),
                decided("none", 0, 0, Some(260), Vec::new()),
            ],
            holds: vec![
                Hold { authorization: "full".to_owned(), account: 1, amount: 500, open: true },
                Hold { authorization: "part".to_owned(), account: 1, amount: 300, open: true },
                Hold { authorization: "none".to_owned(), account: 1, amount: 200, open: false },
            ],
            accounts: BTreeMap::from([(1, Account { posted: 800, held: 800, floor: 0, entries: 800 })]),
            counters: BTreeMap::from([((9, 1, 0), Used { amount: 800, count: 2 })]),
            caps: BTreeMap::from([(9, (Some(800), Some(2)))]),
            unbalanced_transfers: Vec::new(),
        }
    }

    #[test]
    fn books_that_are_wrong_are_found_out() {
        type Damage = fn(&mut Books);
        let damages: &[(&str, Damage)] = &[
            ("decided twice", |books| books.journal[1].id = "full".to_owned()),
            ("misshapen", |books| books.journal[2].reason = None),
            ("misshapen", |books| books.journal[0].requested = 501),
            ("its open holds sum to", |books| books.accounts.get_mut(&1).unwrap().held = 799),
            ("which does not exist", |books| books.holds[0].account = 2),
            ("approval without its open hold", |books| books.holds[0].open = false),
            ("open hold without its approval", |books| books.holds[2].open = true),
            ("open hold without its approval", |books| books.holds[0].amount = 499),
            ("below its floor", |books| books.accounts.get_mut(&1).unwrap().floor = 1),
            ("charged a counter by something else", |books| books.journal[0].charges[0][4] = 501),
            ("charged a counter by something else", |books| books.journal[0].charges[0][6] = 2),
            ("the journal charged", |books| books.counters.get_mut(&(9, 1, 0)).unwrap().count = 1),
            ("the journal charged", |books| books.counters.clear()),
            ("the journal charged", |books| books.journal[0].charges.clear()),
            ("not the sum of its entries", |books| books.accounts.get_mut(&1).unwrap().entries = 1),
            ("do not sum to zero", |books| books.unbalanced_transfers.push("trf_1".to_owned())),
            ("past its cap", |books| books.caps.get_mut(&9).unwrap().0 = Some(799)),
            ("past its cap", |books| books.caps.get_mut(&9).unwrap().1 = Some(1)),
        ];
        let faults = |books: &Books| books.faults().into_iter().chain(books.caps_passed()).collect::<Vec<_>>().join("\n");
        assert_eq!(faults(&sound()), "");
        for (expected, damage) in damages {
            let mut books = sound();
            damage(&mut books);
            assert!(faults(&books).contains(expected), "{expected:?} is not among: {:?}", faults(&books));
        }
    }
}
