//! What the pipeline promises, on a paused clock.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod ahead;
mod lost;
mod model;
mod pulse;
mod spans;

use self::model::{Fault, Model, Poison};
use super::{Answer, FreshApproval, Intake, Job, Pipeline, Requester, Running, Settings, WallClock};
use crate::{
    domain::{
        decision::Decision,
        facts::CardStatus,
        ids::{AccountId, CardToken, MerchantId, RequestId},
        money::{Currency, Money},
        reason::Reason,
        request::{AuthRequest, Channel, Country, Mcc, Merchant},
        time::Timestamp,
    },
    facts::{
        memory::{self, Memory},
        tiered::FactTiers,
    },
    telemetry::{Spans, Telemetry},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// A pipeline on the model, and a requester that hands out what it is answered.
struct Rig {
    model: Model,
    facts: FactTiers<Model>,
    pipeline: Pipeline<Model>,
    running: Running,
    telemetry: Telemetry,
}

/// The receiving end of a request.
struct Waiting(mpsc::Receiver<(Instant, Answer)>);

struct Asker(mpsc::Sender<(Instant, Answer)>);

impl Requester for Asker {
    fn answer(self: Box<Self>, answer: Answer) {
        self.0.try_send((Instant::now(), answer)).unwrap();
    }
}

impl Waiting {
    async fn answer(&mut self) -> Answer {
        self.0.recv().await.unwrap().1
    }
}

const SETTINGS: Settings = Settings {
    lanes: 1,
    batch_max: 64,
    lane_queue_max: 1000,
    in_flight_max: 1000,
    book_accounts_max: 100,
    book_counters_max: 100,
    deadline_default: Duration::from_millis(2000),
    deadline_reserve: Duration::from_millis(50),
    shed_before: Duration::from_millis(20),
    fact_tries: 3,
    drain_timeout: Duration::from_millis(1000),
};

fn rig() -> Rig {
    rig_with(SETTINGS)
}

fn rig_with(settings: Settings) -> Rig {
    let memory = memory::Settings { bytes_max: 1 << 20, ttl: MS(3_600_000), absent_ttl: MS(3_600_000) };
    let (model, telemetry, started) = (Model::default(), Telemetry::default(), Instant::now());
    let wall: WallClock = Arc::new(move || Timestamp(1_772_619_307_000_000 + i64::try_from(started.elapsed().as_micros()).unwrap()));
    let facts = FactTiers::new(Memory::new(memory), None, model.clone(), telemetry.clone());
    let ledger = model.clone();
    let (pipeline, running) = super::start(settings, facts.clone(), || ledger.clone(), &wall, &telemetry);
    Rig { model, facts, pipeline, running, telemetry }
}

impl Rig {
    fn card(&self, number: i64, posted: i64) -> CardToken {
        self.model.0.lock().card(number, posted, i64::MAX)
    }

    fn ask(&self, id: &str, card: &CardToken, minor: i64, deadline: Duration) -> Waiting {
        self.deliver(id, card, minor, deadline, false)
    }

    /// As [`Rig::ask`], for what may have been delivered to another daemon before.
    fn ask_again(&self, id: &str, card: &CardToken, minor: i64, deadline: Duration) -> Waiting {
        self.deliver(id, card, minor, deadline, true)
    }

    fn deliver(&self, id: &str, card: &CardToken, minor: i64, deadline: Duration, redelivered: bool) -> Waiting {
        let (sender, receiver) = mpsc::channel(2);
        let now = Instant::now();
        self.pipeline.submit(Job {
            request: AuthRequest {
                id: RequestId::new(id).unwrap(),
                digest: digest(card, minor),
                card: card.clone(),
                user: None,
                amount: Money { minor, currency: Currency::from_code("USD").unwrap() },
                merchant: Merchant {
                    id: MerchantId::new("m1").unwrap(),
                    mcc: Mcc::from_code("5812").unwrap(),
                    country: Country::from_code("NLD").unwrap(),
                },
                channel: Channel::Chip,
                partial_approval: false,
            },
            received: now,
            deadline: now + deadline,
            spans: Spans::default(),
            lossy_reply: false,
            redelivered,
            requester: Box::new(Asker(sender)),
        });
        Waiting(receiver)
    }

    fn fault(&self, faults: &[Fault]) {
        self.model.0.lock().faults.extend(faults);
    }

    fn held(&self) -> i64 {
        self.model.0.lock().held()
    }
}

fn digest(card: &CardToken, minor: i64) -> [u8; 16] {
    let mut digest = [0; 16];
    digest[..8].copy_from_slice(&minor.to_le_bytes());
    digest[8..].iter_mut().zip(card.as_str().bytes().rev()).for_each(|(to, from)| *to = from);
    digest
}

/// Whether it can only be kept: somebody else was answered with it.
fn stands(fresh: Option<FreshApproval>) -> bool {
    fresh.is_some_and(|fresh| {
        let deadline = fresh.deadline();
        fresh.heard();
        deadline.is_none()
    })
}

fn heard(answer: Answer) -> Answer {
    let mut answer = answer;
    if let Some(fresh) = answer.fresh.take() {
        fresh.heard();
    }
    answer
}

#[tokio::test(start_paused = true)]
async fn approves_and_holds_until_the_money_is_gone() {
    let rig = rig();
    let card = rig.card(1, 100);
    let mut waiting: Vec<_> = (0..5).map(|n| rig.ask(&format!("a{n}"), &card, 30, MS(1000))).collect();
    let mut decisions = Vec::new();
    for one in &mut waiting {
        let answer = heard(one.answer().await);
        decisions.push(answer.reason);
    }
    assert_eq!(decisions, [None, None, None, Some(Reason::InsufficientFunds), Some(Reason::InsufficientFunds)]);
    assert_eq!(rig.held(), 90);
    assert_eq!(rig.pipeline.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_approval_committed_too_late_is_taken_back() {
    let rig = rig();
    let card = rig.card(1, 100);
    rig.fault(&[Fault::Stall(MS(400))]);
    let answer = rig.ask("late", &card, 30, MS(300)).answer().await;
    assert_eq!((answer.decision, answer.reason, answer.journaled), (Decision::Declined, Some(Reason::DeadlineExceeded), true));
    assert_eq!(rig.held(), 0);
    assert!(rig.model.0.lock().counters.values().all(|used| used.amount == 0 && used.count == 0), "the counters are given back");
    let again = rig.ask("late", &card, 30, MS(300)).answer().await;
    assert_eq!((again.body, again.replayed), (answer.body, true), "a replay answers the same decline");
}

#[tokio::test(start_paused = true)]
async fn an_approval_handed_back_unsent_is_taken_back_at_its_deadline() {
    let rig = rig();
    let card = rig.card(1, 100);
    let mut answer = rig.ask("unsent", &card, 30, MS(300)).answer().await;
    let (sender, receiver) = mpsc::channel(2);
    answer.fresh.take().unwrap().void(Some(Box::new(Asker(sender))));
    sleep(MS(100)).await;
    assert_eq!(rig.held(), 30, "until its deadline it stays for a retry");
    let (_, second) = Waiting(receiver).0.recv().await.unwrap();
    assert_eq!((second.reason, rig.held()), (Some(Reason::DeadlineExceeded), 0));
}

#[tokio::test(start_paused = true)]
async fn a_replay_keeps_an_approval_from_being_taken_back() {
    let rig = rig();
    let card = rig.card(1, 100);
    let mut answer = rig.ask("kept", &card, 30, MS(300)).answer().await;
    let replay = rig.ask("kept", &card, 30, MS(300)).answer().await;
    assert_eq!((replay.body.clone(), replay.replayed), (answer.body.clone(), true));
    let (sender, receiver) = mpsc::channel(2);
    answer.fresh.take().unwrap().void(Some(Box::new(Asker(sender))));
    let (_, second) = Waiting(receiver).0.recv().await.unwrap();
    assert_eq!((second.body, second.decision, rig.held()), (answer.body, Decision::Approved, 30));
}

#[tokio::test(start_paused = true)]
async fn an_approval_of_unknown_fate_is_held_and_listed() {
    let rig = rig();
    let card = rig.card(1, 100);
    let answer = rig.ask("lost", &card, 30, MS(300)).answer().await;
    drop(answer);
    sleep(MS(1000)).await;
    assert_eq!(rig.held(), 30);
    assert!(rig.model.0.lock().unheard.contains(&RequestId::new("lost").unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_nobody_hears_is_listed() {
    let rig = rig();
    let card = rig.card(1, 100);
    heard(rig.ask("known", &card, 30, MS(300)).answer().await);
    let declined = heard(rig.ask("poor", &card, 300, MS(300)).answer().await);
    assert_eq!(declined.reason, Some(Reason::InsufficientFunds));
    assert!(rig.ask("poor", &card, 300, MS(300)).answer().await.fresh.is_none(), "a decline holds nothing");
    let listed = async |id: &str| {
        sleep(MS(100)).await;
        rig.model.0.lock().unheard.remove(&RequestId::new(id).unwrap())
    };
    heard(rig.ask("known", &card, 30, MS(300)).answer().await);
    assert!(!listed("known").await, "it was heard");
    drop(rig.ask("known", &card, 30, MS(300)).answer().await);
    assert!(listed("known").await);
    // Known to be unsent it is listed as well, and its requester is answered with it once more: it stands.
    let mut answer = rig.ask("known", &card, 30, MS(300)).answer().await;
    let (sender, receiver) = mpsc::channel(2);
    answer.fresh.take().unwrap().void(Some(Box::new(Asker(sender))));
    let second = Waiting(receiver).answer().await;
    assert_eq!((second.body, second.fresh.is_none(), rig.held()), (answer.body, true, 30));
    assert!(listed("known").await);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_cannot_be_read_costs_its_own_requests_only() {
    let rig = rig();
    let (garbled, sound) = (rig.card(1, 1000), rig.card(2, 1000));
    for card in [&garbled, &sound] {
        heard(rig.ask(&format!("warm-{}", card.as_str()), card, 10, MS(1000)).answer().await);
    }
    {
        let mut world = rig.model.0.lock();
        world.set_status(&garbled, CardStatus::Inactive);
        world.garbled.insert(garbled.clone());
    }
    let asked = Instant::now();
    let (mut one, mut two) = (rig.ask("one", &garbled, 10, MS(1000)), rig.ask("two", &sound, 10, MS(1000)));
    assert_eq!(heard(two.answer().await).reason, None);
    assert!(asked.elapsed() < MS(100), "{:?}", asked.elapsed());
    assert_eq!(one.answer().await.reason, Some(Reason::SystemError));
}

#[tokio::test(start_paused = true)]
async fn trouble_that_does_not_pass_is_not_waited_for_for_ever() {
    let rig = rig();
    let card = rig.card(1, 1000);
    rig.fault(&[Fault::Transient; 9]);
    let answer = rig.ask("one", &card, 10, MS(60_000)).answer().await;
    assert_eq!((answer.reason, answer.journaled, rig.held()), (Some(Reason::SystemError), true, 0));
    rig.fault(&[Fault::Transient; 5]);
    assert_eq!(heard(rig.ask("two", &card, 10, MS(60_000)).answer().await).reason, None, "it passed");
}

#[tokio::test(start_paused = true)]
async fn an_id_that_was_shed_is_not_decided_for_its_repeats() {
    let rig = rig();
    let card = rig.card(1, 1000);
    heard(rig.ask("warm", &card, 10, MS(1000)).answer().await);
    rig.fault(&[Fault::Stall(MS(400))]);
    let _stuck = rig.ask("stuck", &card, 10, MS(1000));
    sleep(MS(10)).await;
    // The second one could wait for the stuck commit, the first one cannot.
    let (mut first, mut second) = (rig.ask("one", &card, 10, MS(100)), rig.ask("one", &card, 10, MS(2000)));
    let (first, second) = (first.answer().await, second.answer().await);
    assert_eq!((first.reason, first.journaled), (Some(Reason::SystemUnavailable), false));
    assert_eq!((second.body, second.journaled), (first.body, false));
    sleep(MS(1000)).await;
    assert_eq!(rig.held(), 20, "only what was approved is held");
}

#[tokio::test(start_paused = true)]
async fn stale_facts_change_no_decision() {
    let rig = rig();
    let card = rig.card(1, 1000);
    let check = async |id: &str, expected: Option<Reason>| {
        assert_eq!(heard(rig.ask(id, &card, 10, MS(1000)).answer().await).reason, expected, "{id}");
    };
    check("active", None).await;
    rig.model.0.lock().set_status(&card, CardStatus::Inactive);
    check("frozen", Some(Reason::CardInactive)).await;
    rig.model.0.lock().set_status(&card, CardStatus::Active);
    check("thawed", None).await;
    let unknown = CardToken::new("crd_2").unwrap();
    assert_eq!(rig.ask("none", &unknown, 10, MS(1000)).answer().await.reason, Some(Reason::CardNotFound));
    rig.card(2, 1000);
    assert_eq!(heard(rig.ask("some", &unknown, 10, MS(1000)).answer().await).reason, None);
    // Money that came or went behind the lane's back.
    rig.model.0.lock().balances.get_mut(&AccountId(1)).unwrap().posted = 25;
    check("less", Some(Reason::InsufficientFunds)).await;
    rig.model.0.lock().balances.get_mut(&AccountId(1)).unwrap().posted = 500;
    check("more", None).await;
}

#[tokio::test(start_paused = true)]
async fn one_id_is_decided_once() {
    let rig = rig();
    let card = rig.card(1, 1000);
    // In one batch: the first one, a twin of it, and one with another amount.
    let (mut first, mut twin) = (rig.ask("same", &card, 10, MS(1000)), rig.ask("same", &card, 10, MS(1000)));
    let mut other = rig.ask("same", &card, 11, MS(1000));
    let (first, twin, other) = (heard(first.answer().await), twin.answer().await, other.answer().await);
    assert_eq!((first.body.clone(), true), (twin.body, twin.replayed));
    assert_eq!((other.reason, other.journaled), (Some(Reason::DuplicateConflict), false));
    // And in later ones.
    let again = rig.ask("same", &card, 10, MS(1000)).answer().await;
    assert_eq!((again.body, again.replayed, stands(again.fresh)), (first.body.clone(), true, true));
    assert_eq!(rig.ask("same", &card, 12, MS(1000)).answer().await.reason, Some(Reason::DuplicateConflict));
    // Also when one with another amount comes first in its batch.
    let (mut other, mut again) = (rig.ask("same", &card, 13, MS(1000)), rig.ask("same", &card, 10, MS(1000)));
    assert_eq!(other.answer().await.reason, Some(Reason::DuplicateConflict));
    let again = again.answer().await;
    assert_eq!((again.body, again.replayed, stands(again.fresh)), (first.body, true, true));
    assert_eq!(rig.held(), 10);
}

#[tokio::test(start_paused = true)]
async fn what_the_store_refuses_is_found_and_declined_alone() {
    for (poison, journaled) in [(Poison::Approval, true), (Poison::Anything, false)] {
        let rig = rig();
        let card = rig.card(1, 1000);
        rig.fault(&[Fault::Stall(MS(1))]);
        rig.model.0.lock().poison = Some((RequestId::new("a3").unwrap(), poison));
        let mut waiting: Vec<_> = (0..6).map(|n| rig.ask(&format!("a{n}"), &card, 10, MS(1000))).collect();
        for (n, one) in waiting.iter_mut().enumerate() {
            let answer = heard(one.answer().await);
            let expected = (n == 3).then_some(Reason::SystemError);
            assert_eq!((answer.reason, answer.journaled), (expected, n != 3 || journaled), "{n}");
        }
        assert_eq!(rig.held(), 50);
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_behind_a_stuck_commit_is_declined_in_time() {
    let rig = rig();
    let card = rig.card(1, 1000);
    heard(rig.ask("warm", &card, 10, MS(1000)).answer().await);
    rig.fault(&[Fault::Stall(MS(5000))]);
    let mut stuck = rig.ask("stuck", &card, 10, MS(300));
    sleep(MS(10)).await;
    let asked = Instant::now();
    let shed = rig.ask("behind", &card, 10, MS(300)).answer().await;
    assert!(asked.elapsed() < MS(300), "declined after {:?}", asked.elapsed());
    assert_eq!((shed.reason, shed.journaled), (Some(Reason::SystemUnavailable), false));
    let again = rig.ask("behind", &card, 10, MS(300)).answer().await;
    assert_eq!(again.body, shed.body, "until its deadline the same bytes");
    let under_way = || rig.telemetry.commit_counts().under_way;
    assert_eq!(under_way(), 1, "and who watches the store sees that it is stuck");
    assert_eq!(stuck.answer().await.reason, Some(Reason::DeadlineExceeded));
    assert_eq!((rig.held(), under_way()), (10, 0));
}

#[tokio::test(start_paused = true)]
async fn who_repeats_what_is_being_decided_waits_for_that_decision() {
    let rig = rig();
    let card = rig.card(1, 1000);
    heard(rig.ask("warm", &card, 10, MS(1000)).answer().await);
    rig.fault(&[Fault::Stall(MS(200))]);
    let mut first = rig.ask("one", &card, 10, MS(300));
    sleep(MS(10)).await;
    // This one's patience ends while the commit of the first is under way.
    let again = rig.ask("one", &card, 10, MS(100)).answer().await;
    let first = heard(first.answer().await);
    assert_eq!((first.decision, again.body, again.replayed), (Decision::Approved, first.body, true));
}

#[tokio::test(start_paused = true)]
async fn what_was_delivered_before_is_answered_by_the_store_alone() {
    let rig = rig();
    let card = rig.card(1, 1000);
    let first = heard(rig.ask("known", &card, 10, MS(1000)).answer().await);
    // Behind a stuck commit.
    rig.fault(&[Fault::Stall(MS(1000))]);
    let mut stuck = rig.ask("stuck", &card, 10, MS(300));
    sleep(MS(10)).await;
    let (mut known, mut new) = (rig.ask_again("known", &card, 10, MS(300)), rig.ask_again("new", &card, 10, MS(300)));
    let known = known.answer().await;
    assert_eq!((known.body, known.replayed), (first.body.clone(), true));
    let new = new.answer().await;
    assert_eq!((new.reason, new.journaled), (Some(Reason::DeadlineExceeded), true));
    assert_eq!(stuck.answer().await.reason, Some(Reason::DeadlineExceeded));
    // While the store is out, warm and cold.
    for commits in [12, 40] {
        rig.fault(&vec![Fault::Unreachable; commits]);
        let known = rig.ask_again("known", &card, 10, MS(100)).answer().await;
        assert_eq!((known.body, known.replayed), (first.body.clone(), true));
    }
    assert_eq!(rig.held(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_row_held_by_others_costs_its_own_requests_only() {
    let rig = rig();
    let (busy, free) = (rig.card(1, 1000), rig.card(2, 1000));
    rig.model.0.lock().busy.insert(AccountId(1));
    let (mut one, mut two) = (rig.ask("one", &busy, 10, MS(1000)), rig.ask("two", &free, 10, MS(1000)));
    assert_eq!(one.answer().await.reason, Some(Reason::SystemUnavailable));
    assert_eq!(heard(two.answer().await).reason, None);
    assert_eq!(rig.model.0.lock().journal.len(), 2, "both are journaled");
}

#[tokio::test(start_paused = true)]
async fn whoever_cannot_wait_for_a_lock_once_more_is_declined_in_time() {
    for (deadline, lock) in [(1000, 300), (500, 300), (2000, 60)] {
        let rig = rig();
        let card = rig.card(1, 1000);
        heard(rig.ask("warm", &card, 10, MS(1000)).answer().await);
        rig.fault(&[Fault::Locked(MS(lock)); 100]);
        let asked = Instant::now();
        let answer = rig.ask("locked", &card, 10, MS(deadline)).answer().await;
        assert_eq!((answer.reason, answer.journaled), (Some(Reason::SystemUnavailable), false), "{deadline}");
        let took = asked.elapsed();
        assert!(took < MS(deadline), "{deadline}: {took:?}");
        assert!(took + MS(2 * lock + 250) > MS(deadline), "{deadline}: given up too early: {took:?}");
        assert_eq!(rig.held(), 10, "{deadline}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_out_costs_declines_before_the_deadline_and_nothing_after() {
    let rig = rig();
    let card = rig.card(1, 1000);
    heard(rig.ask("warm", &card, 10, MS(1000)).answer().await);
    rig.fault(&[Fault::Unreachable; 8]);
    let asked = Instant::now();
    let answer = rig.ask("down", &card, 10, MS(100)).answer().await;
    assert!(asked.elapsed() < MS(100));
    assert_eq!((answer.reason, answer.journaled), (Some(Reason::SystemUnavailable), false));
    rig.model.0.lock().faults.clear();
    assert_eq!(heard(rig.ask("up", &card, 10, MS(100)).answer().await).reason, None);
    assert_eq!(rig.held(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_burst_on_a_cold_card_reads_its_facts_once() {
    let rig = rig();
    let card = rig.card(1, 1000);
    let mut waiting: Vec<_> = (0..20).map(|n| rig.ask(&format!("a{n}"), &card, 1, MS(1000))).collect();
    for one in &mut waiting {
        heard(one.answer().await);
    }
    assert_eq!(rig.model.0.lock().fetches, 1);
}
