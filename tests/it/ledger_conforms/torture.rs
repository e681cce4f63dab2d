//! Three lanes with stale books, ids they race for, voids, and an administrator: the books hold.
#![expect(clippy::disallowed_methods, reason = "a torture lasts for real seconds")]

use super::{
    draft::{Draft, NOW, STARTS, digest, response},
    fixture::Fixture,
    stage::Stage,
};
use jitauth::{
    domain::{
        decision::{Decision, Verdict},
        facts::{Balance, CardFile},
        ids::{AccountId, CardToken, MerchantId, RequestId},
        limits::{CounterKey, Used},
        money::{Currency, Money},
        reason::Reason,
        request::{AuthRequest, Channel, Country, Mcc, Merchant},
        rules::{self, Position},
    },
    facts::FactSource,
    ledger::{Commit, Known, Ledger, LedgerError, Outcome, Report, Void, Voided},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

const LASTS: Duration = Duration::from_secs(3);
const CARDS: [&str; 5] = ["crd_1", "crd_2", "crd_3", "crd_4", "crd_5"];

/// The bytes that were sent for each id. Whatever is sent later must be the same.
type Sent = Arc<Mutex<HashMap<String, Vec<u8>>>>;

pub(crate) async fn lanes_and_administrators_keep_the_books<F: Fixture>(stage: &mut Stage<F>) {
    stage.sql("update limits set cap_amount = 2000, cap_count = 50 where id = 10; update limits set cap_amount = 4000 where id = 11").await;
    let (sent, until) = (Sent::default(), Instant::now() + LASTS);
    let lanes: Vec<_> = (0..3_u64)
        .map(|seed| {
            let lane = Lane::new(seed, stage.fixture.ledger(), stage.fixture.facts(), Arc::clone(&sent));
            tokio::spawn(lane.work(until))
        })
        .collect();
    administer(stage, until).await;
    let mut tally = Tally::default();
    for lane in lanes {
        tally.add(&lane.await.unwrap());
    }
    let sent = sent.lock().unwrap().clone();
    let id = format!("select id || ' ' || {} from authorizations", F::hex("response"));
    let stored: HashMap<_, _> = stage.fixture.rows(&id).await.iter().map(|row| row.split_once(' ').map(owned).unwrap()).collect();
    for (id, bytes) in &sent {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(stored.get(id), Some(&hex), "{id} is stored as it was sent");
    }
    // The run was about something.
    for (what, count) in
        [("committed", tally.committed), ("known", tally.known), ("stale", tally.stale), ("money", tally.money), ("voids", tally.voids)]
    {
        assert!(count > 10, "only {count} {what}: {tally:?}");
    }
}

fn owned((id, hex): (&str, &str)) -> (String, String) {
    (id.to_owned(), hex.to_owned())
}

/// Changes facts and money by plain SQL. Caps and balances only rise, so that the books can be checked at the end.
async fn administer<F: Fixture>(stage: &Stage<F>, until: Instant) {
    let mut chance = StdRng::seed_from_u64(99);
    for round in 0.. {
        if Instant::now() >= until {
            break;
        }
        let (card, user, account) = (chance.random_range(1..=4), chance.random_range(1..=2), chance.random_range(1..=3));
        let sql = match chance.random_range(0..9) {
            0 => format!("update cards set status = 'inactive' where id = {card}"),
            1 | 2 => format!("update cards set status = 'active' where id = {card}"),
            3 => format!("update users set status = 'suspended' where id = {user}"),
            4 | 5 => "update users set status = 'active'".to_owned(),
            6 => format!("update limits set cap_amount = cap_amount + 500, cap_count = cap_count + 3 where id = {}", 9 + card.min(3)),
            7 if round % 2 == 0 => "delete from cards where id = 5".to_owned(),
            7 => "insert into cards (id, token, user_id, account_id, program_id, expires_at) values (5, 'crd_5', 2, 2, 1, 4000000000000000)
                  on conflict do nothing"
                .to_owned(),
            _ => super::stage::credit(account, 100 + round),
        };
        // An administrator may lose to a lane; the change is not made then.
        if stage.fixture.try_sql(&sql).await.is_err() {
            stage.sql("rollback").await;
        }
        tokio::time::sleep(Duration::from_millis(chance.random_range(1..10))).await;
    }
}

/// What a lane met.
#[derive(Debug, Default)]
struct Tally {
    committed: u64,
    known: u64,
    stale: u64,
    money: u64,
    voids: u64,
    busy: u64,
    gave_up: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.committed += other.committed;
        self.known += other.known;
        self.stale += other.stale;
        self.money += other.money;
        self.voids += other.voids;
        self.busy += other.busy;
        self.gave_up += other.gave_up;
    }
}

/// Working copies, as stale as they get.
#[derive(Clone, Default)]
struct Book {
    balances: HashMap<AccountId, Balance>,
    used: HashMap<CounterKey, Used>,
}

struct View<'a> {
    book: &'a Book,
    account: AccountId,
}

impl Position for View<'_> {
    fn balance(&self) -> Balance {
        self.book.balances.get(&self.account).copied().unwrap_or_default()
    }

    fn used(&self, key: &CounterKey) -> Used {
        self.book.used.get(key).copied().unwrap_or_default()
    }
}

/// A lane in small: decides with the real rules on its own copies, and learns from what a commit returns.
struct Lane<L, S> {
    chance: StdRng,
    /// Lane and attempt: no two attempts give the same bytes.
    salt: (u64, u64),
    ledger: L,
    facts: S,
    files: HashMap<&'static str, Option<CardFile>>,
    book: Book,
    sent: Sent,
    tally: Tally,
}

impl<L: Ledger, S: FactSource> Lane<L, S> {
    fn new(seed: u64, ledger: L, facts: S, sent: Sent) -> Self {
        let (chance, salt) = (StdRng::seed_from_u64(seed), (seed, 0));
        Self { chance, salt, ledger, facts, files: HashMap::new(), book: Book::default(), sent, tally: Tally::default() }
    }

    async fn work(mut self, until: Instant) -> Tally {
        let mut next = 0_u32;
        while Instant::now() < until {
            // Ids are the same for all lanes, so many are met twice.
            next += self.chance.random_range(1..6);
            let mut batch: Vec<_> = (0..self.chance.random_range(1..8)).map(|ahead| request(next + ahead)).collect();
            batch.sort_by(|a, b| a.1.id.cmp(&b.1.id));
            for tries in 0.. {
                if batch.is_empty() || self.attempt(&mut batch).await {
                    break;
                }
                if tries == 100 {
                    self.tally.gave_up += 1;
                    break;
                }
            }
        }
        self.tally
    }

    /// Decides and commits a batch. `false` when it must be decided again; known ids have left it then.
    async fn attempt(&mut self, batch: &mut Vec<(&'static str, AuthRequest)>) -> bool {
        for (card, _) in &*batch {
            self.learn(card, false).await;
        }
        self.salt.1 += 1;
        let (group, book) = self.decide(batch);
        match self.ledger.commit(&group, true).await {
            Ok(Outcome::Committed) => {
                self.book = book;
                self.tally.committed += batch.len() as u64;
                self.answer(&group).await;
                true
            }
            Ok(Outcome::Rejected(report)) => {
                self.adopt(*report, batch).await;
                false
            }
            Err(LedgerError::Contended(_) | LedgerError::Transient(_)) => {
                self.tally.busy += 1;
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn learn(&mut self, card: &'static str, again: bool) {
        if again || !self.files.contains_key(card) {
            let file = self.facts.fetch(&CardToken::new(card).unwrap()).await.unwrap();
            self.files.insert(card, file);
        }
    }

    fn decide(&self, batch: &[(&'static str, AuthRequest)]) -> (Commit, Book) {
        let mut book = self.book.clone();
        let files = self.files.iter().filter_map(|(card, file)| Some(((*card).to_owned(), file.clone()?)));
        // What the draft adds up itself is what is there before the group.
        let mut draft = Draft::on(files.collect(), book.used.clone());
        for (card, request) in batch {
            let file = self.files.get(card).and_then(Option::as_ref);
            let account = file.map_or(AccountId(0), |file| file.card.account.id);
            let (id, asked) = (request.id.as_str(), request.amount.minor);
            draft = match rules::decide(request, file, &STARTS, NOW, &View { book: &book, account }) {
                Verdict::Approved { amount, charges, claim, .. } => {
                    book.balances.entry(account).or_default().held += amount;
                    for charge in charges {
                        let used = book.used.entry(charge.key).or_default();
                        (used.amount, used.count) = (used.amount + amount, used.count + 1);
                    }
                    draft.approve_of(id, card, asked, amount, claim)
                }
                Verdict::Declined { reason: Reason::CardNotFound, .. } => draft.absent_of(id, card, asked),
                Verdict::Declined { reason, claim } => draft.decline(id, card, asked, reason, claim),
            };
        }
        let mut group = draft.close();
        for entry in &mut group.journal {
            entry.response = self.response(entry.id.as_str(), entry.decision).into();
        }
        (group, book)
    }

    async fn adopt(&mut self, report: Report, batch: &mut Vec<(&'static str, AuthRequest)>) {
        self.tally.known += report.known.len() as u64;
        self.tally.stale += (report.cards.len() + report.programs.len() + report.appeared.len()) as u64;
        self.tally.money += (report.accounts.len() + report.counters.len()) as u64;
        if !(report.cards.is_empty() && report.programs.is_empty() && report.appeared.is_empty()) {
            for card in CARDS {
                self.learn(card, true).await;
            }
        }
        self.book.balances.extend(report.accounts);
        self.book.used.extend(report.counters);
        for Known { id, digest, response, own, .. } in report.known {
            let asked = batch.iter().find(|(_, request)| request.id == id).map(|(_, request)| request.digest);
            assert_eq!(asked, Some(digest), "{} is one request, whoever asks: another one would not be sent these bytes", id.as_str());
            assert!(!own, "no outcome was lost, so {} cannot be our own", id.as_str());
            self.send(id.as_str(), &response);
            batch.retain(|(_, request)| request.id != id);
        }
    }

    /// Sends what was committed, or takes it back unsent.
    async fn answer(&mut self, group: &Commit) {
        for entry in &group.journal {
            if !entry.decision.holds() || self.chance.random_range(0..6) > 0 {
                self.send(entry.id.as_str(), &entry.response);
                continue;
            }
            let charges: Vec<[i64; 7]> = serde_json::from_str(entry.charges.as_deref().unwrap()).unwrap();
            let key = |c: [i64; 7]| CounterKey { limit: jitauth::domain::ids::LimitId(c[0]), scope: c[1], window: c[2] };
            let void = Void {
                id: entry.id.clone(),
                account: entry.account.unwrap(),
                held: entry.held,
                counters: charges.into_iter().map(key).collect(),
                response: entry.response.clone(),
                decline: self.response(entry.id.as_str(), Decision::Declined).into(),
                reason: Reason::DeadlineExceeded,
            };
            match self.ledger.void(&void).await {
                Ok(Voided::Done) => {
                    self.tally.voids += 1;
                    self.book = Book::default();
                    self.send(entry.id.as_str(), &void.decline);
                }
                Ok(Voided::Stands(bytes)) => self.send(entry.id.as_str(), &bytes),
                // It stays held, unsent.
                Err(LedgerError::Contended(_) | LedgerError::Transient(_)) => self.tally.busy += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn response(&self, id: &str, decision: Decision) -> Vec<u8> {
        response(id, decision, &format!("{:?}", self.salt))
    }

    fn send(&self, id: &str, bytes: &[u8]) {
        let mut sent = self.sent.lock().unwrap();
        let first = sent.entry(id.to_owned()).or_insert_with(|| bytes.to_vec());
        assert_eq!(first, bytes, "{id} was answered in two ways");
    }
}

/// The request with this number: the same whoever asks.
fn request(number: u32) -> (&'static str, AuthRequest) {
    let card = CARDS[number as usize % CARDS.len()];
    let minor = 1 + i64::from(number * 37 % 90);
    let merchant =
        Merchant { id: MerchantId::new("m-1").unwrap(), mcc: Mcc::from_code("5812").unwrap(), country: Country::from_code("NLD").unwrap() };
    let request = AuthRequest {
        id: RequestId::new(&format!("t{number}")).unwrap(),
        digest: digest(minor),
        card: CardToken::new(card).unwrap(),
        user: None,
        amount: Money { minor, currency: Currency::from_code("USD").unwrap() },
        merchant,
        channel: Channel::Chip,
        partial_approval: number.is_multiple_of(3),
    };
    (card, request)
}
