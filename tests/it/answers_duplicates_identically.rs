//! One request is decided once, however often it comes, wherever it comes in: every answer to it has the same bytes.

use crate::{
    crowd::{Answer, Crowd, Tally, UNHURRIED_MS, journal, properties, tell},
    support::{
        eventually,
        request::Request,
        sandbox::Sandbox,
        store::Store,
        world::{Holder, Program, World},
    },
};
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};

const COPIES: usize = 50;

/// A request and its copies, with what is decided.
struct Case {
    request: Request,
    decision: &'static str,
    reason: &'static str,
}

async fn prepare(store: &Store) {
    let world = World::new(store);
    let program = world.program("usd", Program::default()).await;
    world.holder(program, "approve", Holder { posted: 100_000, ..Holder::default() }).await;
    world.holder(program, "partial", Holder { posted: 7_00, ..Holder::default() }).await;
    world.holder(program, "poor", Holder { posted: 5_00, ..Holder::default() }).await;
    world.holder(program, "lost", Holder { card_status: "lost", ..Holder::default() }).await;
}

/// Every kind of decision there is, several times, so that the two daemons meet over an id often. Money that an approval has taken
/// is not there for a second one: the copies of one request are all of a kind only if they are decided once.
fn cases() -> Vec<Case> {
    let case = |id: String, card: &str, amount: &str, decision, reason| {
        let request = Request::new(&id).card(card).amount(amount).partial().deadline_ms(UNHURRIED_MS);
        Case { request, decision, reason }
    };
    let mut cases = vec![
        case("part".to_owned(), "crd_partial", "9.00", "partially_approved", ""),
        case("poor-1".to_owned(), "crd_poor", "3.00", "approved", ""),
        Case { request: Request::new("poor-2").card("crd_poor").amount("3.00"), decision: "declined", reason: "insufficient_funds" },
        case("lost".to_owned(), "crd_lost", "1.00", "declined", "card_lost"),
        case("nobody".to_owned(), "crd_nobody", "1.00", "declined", "card_not_found"),
    ];
    cases.extend((1..=8).map(|round| case(format!("full-{round}"), "crd_approve", "10.00", "approved", "")));
    cases
}

/// What a request with the same id may differ in, and still be the same; and what makes it another.
fn variations(request: &Request) -> [(Request, bool); 6] {
    [
        (request.clone(), true),
        (request.clone().with("sent_at", "2024-01-01T00:00:00Z").deadline_ms(100), true),
        (request.clone().channel("ecommerce").mcc("5812"), true),
        (request.clone().amount("9.99"), false),
        (request.clone().card("crd_lost"), false),
        (request.clone().merchant("mrc_other"), false),
    ]
}

/// Sends copies, each from a producer of its own, all at once. Gives the answers that came, in any order.
async fn all_at_once(crowd: &Crowd, copies: &[Request]) -> Vec<Answer> {
    let id = copies[0].id();
    match crowd {
        Crowd::Amqp { producers, replies } => {
            let before = replies.all_for(id).len();
            join_all(copies.iter().zip(producers).enumerate().map(async |(place, (copy, producer))| {
                producer.request(copy.body(), properties(id).with_correlation_id(place.to_string().into())).await;
            }))
            .await;
            let what = format!("{} answers to {id}", copies.len());
            eventually(&what, async || (replies.all_for(id).len() >= before + copies.len()).then_some(())).await;
            replies.all_for(id).into_iter().skip(before).map(Answer::from).collect()
        }
        Crowd::Http { clients } => {
            join_all(copies.iter().zip(clients).enumerate().map(async |(place, (copy, client))| {
                let reply = client.authorize(copy.body()).await;
                let answer = Answer { correlation: Some(place.to_string()), ..Answer::from_reply(id, &reply) };
                let conflict = answer.reason() == "duplicate_conflict";
                assert_eq!(reply.status, if conflict { 409 } else { 200 }, "{}", reply.text());
                answer
            }))
            .await
        }
    }
}

async fn check(case: &Case, crowd: &Crowd, store: &Store) {
    let id = case.request.id();
    let answers = all_at_once(crowd, &vec![case.request.clone(); COPIES]).await;
    assert_eq!(answers.len(), COPIES, "{id}: one answer to each copy");
    let bodies: BTreeSet<_> = answers.iter().map(|answer| String::from_utf8_lossy(&answer.body).into_owned()).collect();
    assert_eq!(bodies.len(), 1, "{id}: {bodies:#?}");
    let answer = &answers[0];
    assert_eq!((answer.json()["decision"].as_str(), answer.reason().as_str()), (Some(case.decision), case.reason), "{id}");
    assert_eq!(store.response(id).await.as_deref(), Some(&*answer.body), "{id}: what was sent is what is stored");
    let fresh = answers.iter().filter(|answer| !answer.replayed).count();
    assert_eq!(fresh, 1, "{id}: all but the one that was decided say that they are replays");
    let correlations: BTreeSet<_> = answers.iter().filter_map(|answer| answer.correlation.clone()).collect();
    assert_eq!(correlations.len(), COPIES, "{id}: each copy has an answer of its own");
    let holds = store.number(&format!("select count(*) from holds where authorization_id = '{id}'")).await;
    assert_eq!(holds, i64::from(case.decision != "declined"), "{id}");
}

/// Copies that differ in their amount: one of the two is decided, the other is a conflict.
async fn check_race(round: usize, crowd: &Crowd, store: &Store) {
    let id = format!("race-{round}");
    let amounts = ["4.00", "4.01"];
    let copies: Vec<_> = (0..COPIES).map(|place| Request::new(&id).amount(amounts[place % 2]).deadline_ms(UNHURRIED_MS)).collect();
    let answers = all_at_once(crowd, &copies).await;
    assert_eq!(answers.len(), COPIES);
    let stored = store.response(&id).await.expect("one of the two was decided");
    let won = usize::from(String::from_utf8_lossy(&stored).contains("\"4.01\""));
    for answer in &answers {
        let place: usize = answer.correlation.as_ref().unwrap().parse().unwrap();
        if place % 2 == won {
            assert_eq!(answer.body, stored, "{id}");
        } else {
            assert_eq!(answer.reason(), "duplicate_conflict", "{id}");
            assert!(!answer.journaled, "{id}");
        }
    }
    assert_eq!(store.number(&format!("select count(*) from holds where authorization_id = '{id}'")).await, 1);
}

/// Known ids, asked for again by others than at first, in every variation.
async fn check_again(cases: &[Case], crowd: &Crowd, store: &Store) {
    let before = journal(store).await;
    for case in cases {
        let id = case.request.id();
        for (request, same) in variations(&case.request) {
            let answer = all_at_once(crowd, std::slice::from_ref(&request)).await.remove(0);
            if same {
                assert_eq!(String::from_utf8_lossy(&answer.body), before[id], "{id}");
                assert!(answer.replayed, "{id}");
            } else if request.body() != case.request.body() {
                assert_eq!(answer.reason(), "duplicate_conflict", "{id}: {request:?}");
            }
        }
    }
    assert_eq!(journal(store).await, before, "nothing was decided again");
}

async fn check_all(crowd: &Crowd, store: &Store) -> Vec<Case> {
    let cases = cases();
    for case in &cases {
        check(case, crowd, store).await;
    }
    for round in 0..6 {
        check_race(round, crowd, store).await;
    }
    check_again(&cases, crowd, store).await;
    store.check_books().await;
    cases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_two_daemons_on_postgresql() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let store = sandbox.store().await;
    prepare(&store).await;
    let mut daemons = [sandbox.daemon().await, sandbox.another_daemon().await];
    let crowd = Crowd::over_amqp(&sandbox, COPIES).await;
    let cases = check_all(&crowd, &store).await;
    let mut counts = BTreeMap::<_, Vec<u64>>::new();
    for daemon in &mut daemons {
        assert_eq!(daemon.terminate().await.code(), Some(0), "{}", daemon.text());
        let tally = &Tally::all(daemon)[0];
        for name in ["received", "decided", "replayed"] {
            counts.entry(name).or_default().push(tally.of(name));
        }
    }
    tell(&format!("by the one and the other: {counts:?}"));
    assert!(counts["received"].iter().all(|count| *count > 100), "copies go to both daemons: {counts:?}");
    for daemon in &mut daemons {
        daemon.restart().await;
    }
    check_again(&cases, &crowd, &store).await;
    store.check_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_one_daemon_on_sqlite() {
    let sandbox = Sandbox::embedded();
    let mut daemon = sandbox.daemon().await;
    let store = sandbox.store().await;
    prepare(&store).await;
    let cases = check_all(&Crowd::over_http(daemon.address(), COPIES), &store).await;
    assert_eq!(daemon.terminate().await.code(), Some(0), "{}", daemon.text());
    daemon.restart().await;
    check_again(&cases, &Crowd::over_http(daemon.address(), COPIES), &store).await;
    store.check_books().await;
}
