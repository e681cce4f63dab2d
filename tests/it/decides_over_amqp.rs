//! A request published to RabbitMQ is decided and answered there, with PostgreSQL and Redis behind.

use crate::{
    outcomes::{self, Case},
    support::{
        amqp::{Amqp, DEAD_LETTERS, Mailbox, Message, REQUESTS, RESPONSES},
        eventually,
        request::Request,
        sandbox::Sandbox,
        store::Store,
    },
};
use jitauth::domain::reason::Reason;
use lapin::BasicProperties;

const REPLIES: &str = "reply.test";

fn properties(id: &str) -> BasicProperties {
    BasicProperties::default().with_message_id(id.into())
}

/// Nothing may be left behind: no request in work or waiting.
async fn settled(amqp: &Amqp) {
    eventually("an empty work queue", async || (amqp.depth(REQUESTS).await == 0).then_some(())).await;
}

async fn check(case: &Case, amqp: &Amqp, replies: &Mailbox, store: &Store) {
    let reply_to = |id: &str| properties(id).with_reply_to(REPLIES.into());
    for request in &case.before {
        amqp.request(request.body(), reply_to(request.id())).await;
        let response = replies.response(request.id()).await;
        assert_eq!(response.json()["decision"], "approved", "{}", request.id());
    }
    let id = case.request.id();
    let seen = replies.all_for(id).len();
    amqp.request(case.request.body(), reply_to(id).with_correlation_id(format!("cor-{id}").into())).await;
    let response = eventually(&format!("a response to {id}"), async || replies.all_for(id).into_iter().nth(seen)).await;
    assert_eq!(response.correlation_id, Some(format!("cor-{id}")));
    outcomes::check_response(case, &response.body);
    outcomes::check_store(case, &response.body, store).await;
    if case.journaled() {
        assert!(response.header("x-stage-us").is_some(), "{id}: {:?}", response.headers);
    } else {
        assert_eq!(response.header("x-final"), Some("false"), "{id}: {:?}", response.headers);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_outcome_over_amqp() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let store = sandbox.store().await;
    outcomes::prepare(&store).await;
    let daemon = sandbox.daemon().await;
    let amqp = sandbox.amqp().await;
    let replies = amqp.collect(REPLIES).await;
    let cases = outcomes::all();
    for case in &cases {
        check(case, &amqp, &replies, &store).await;
    }
    settled(&amqp).await;
    store.check_books().await;
    assert_eq!(amqp.depth(RESPONSES).await, 0, "every request named its own reply queue");
    check_dead_letters(&cases, &amqp).await;
    drop(daemon);
}

/// Bad input is answered and kept for a person as well; everything else is not.
async fn check_dead_letters(cases: &[Case], amqp: &Amqp) {
    let bad = |case: &&Case| {
        let conflict = matches!(case.expected, outcomes::Expected::Declined(Reason::DuplicateConflict));
        !case.journaled() && !conflict
    };
    let mut letters = Vec::new();
    while let Some(letter) = amqp.take(DEAD_LETTERS).await {
        letters.push(letter);
    }
    let mut expected: Vec<_> = cases.iter().filter(bad).map(|case| case.request.id().to_owned()).collect();
    let mut kept: Vec<_> = letters.iter().filter_map(|letter| letter.message_id.clone()).collect();
    expected.sort();
    kept.sort();
    assert_eq!(kept, expected);
    for letter in &letters {
        check_headers(letter);
        let case = cases.iter().find(|case| Some(case.request.id()) == letter.message_id.as_deref()).unwrap();
        let outcomes::Expected::Declined(reason) = case.expected else { unreachable!("only bad input was looked for") };
        assert_eq!(letter.header("x-reason"), Some(reason.name()));
        if reason == Reason::PanPresent {
            assert!(!String::from_utf8_lossy(&letter.body).contains("4111111111111111"), "a card number in a dead letter");
        } else {
            assert_eq!(letter.body, case.request.body(), "{:?}", letter.message_id);
        }
    }
}

fn check_headers(letter: &Message) {
    for name in ["x-reason", "x-detail", "x-attempts", "x-failed-at", "x-dlq-id"] {
        assert!(letter.header(name).is_some(), "no {name}: {:?}", letter.headers);
    }
    assert_eq!(letter.header("x-original-exchange"), Some("transactions"));
    assert_eq!(letter.header("x-original-routing-key"), Some("jit-funding.created"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_reply_to_the_answer_is_in_the_response_queue() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let store = sandbox.store().await;
    outcomes::prepare(&store).await;
    let _daemon = sandbox.daemon().await;
    let amqp = sandbox.amqp().await;
    let request = Request::new("without").amount("12.50");
    amqp.request(request.body(), BasicProperties::default()).await;
    let response = amqp.next(RESPONSES).await;
    assert_eq!(response.json()["decision"], "approved");
    assert_eq!(response.message_id.as_deref(), Some("without"), "the id of the request, also where the message had none");
    assert_eq!(response.correlation_id.as_deref(), Some("without"));
    assert_eq!(store.response("without").await, Some(response.body.clone()));

    amqp.request(request.body(), properties("without").with_correlation_id("again".into())).await;
    let replay = amqp.next(RESPONSES).await;
    assert_eq!((replay.body, replay.correlation_id.as_deref()), (response.body, Some("again")));
    assert_eq!(replay.headers.get("x-replayed").map(String::as_str), Some("true"));
    assert_eq!(store.number("select count(*) from holds").await, 1);
    store.check_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forbidden_reply_to_is_dead_lettered_undecided() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let store = sandbox.store().await;
    outcomes::prepare(&store).await;
    let _daemon = sandbox.daemon().await;
    let amqp = sandbox.amqp().await;
    for (id, reply_to) in [("work", REQUESTS), ("dlq", DEAD_LETTERS), ("other", "payroll")] {
        let request = Request::new(id);
        amqp.request(request.body(), properties(id).with_correlation_id("c-1".into()).with_reply_to(reply_to.into())).await;
        let letter = amqp.next(DEAD_LETTERS).await;
        assert_eq!(letter.header("x-reason"), Some("reply_to_forbidden"), "{reply_to}: {:?}", letter.headers);
        check_headers(&letter);
        assert_eq!((letter.body, letter.reply_to.as_deref()), (request.body(), Some(reply_to)));
        assert_eq!((letter.message_id.as_deref(), letter.correlation_id.as_deref()), (Some(id), Some("c-1")));
    }
    settled(&amqp).await;
    assert_eq!(amqp.depth(DEAD_LETTERS).await, 0);
    assert_eq!(amqp.depth(RESPONSES).await, 0);
    assert_eq!(store.number("select count(*) from authorizations").await, 0);
}
