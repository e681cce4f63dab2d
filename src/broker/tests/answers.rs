//! Where answers and dead letters go, and what they carry.

use super::rig::{Rig, SILENCE, body_of, decline, eventually, header, reply_to, request_body, settled, with_rig};
use crate::{
    broker::{
        BrokerError,
        topology::{self, Problem},
    },
    domain::ids::RequestId,
    pipeline::DeskOrder,
};
use lapin::{
    BasicProperties,
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable, ShortString},
};
use std::{collections::HashSet, time::Duration};
use tokio::time::{Instant, sleep};

fn id(text: &str) -> RequestId {
    RequestId::new(text).expect("a good id")
}

#[test]
fn topology_is_applied_once_and_differences_are_named() {
    with_rig(async |rig| {
        let missing = topology::check(&rig.settings).await.expect("asked");
        assert_eq!(missing.len(), 9, "{missing:?}");
        assert!(missing.iter().all(|finding| finding.problem == Problem::Missing), "{missing:?}");
        assert_eq!(topology::check(&rig.settings).await.expect("asked"), missing, "looking changes nothing");
        topology::apply(&rig.settings).await.expect("applied");
        topology::apply(&rig.settings).await.expect("applied again");
        assert_eq!(topology::check(&rig.settings).await.expect("asked"), []);

        rig.delete(&rig.settings.webhook_queue).await;
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        rig.server.queue_declare(rig.settings.webhook_queue.as_str().into(), durable, FieldTable::default()).await.expect("declared");
        let findings = topology::check(&rig.settings).await.expect("asked");
        assert_eq!(findings.len(), 1, "{findings:?}");
        let told = findings[0].to_string();
        assert!(told.contains("inequivalent arg 'x-") && told.contains(&rig.settings.webhook_queue), "{told}");
        assert!(matches!(topology::apply(&rig.settings).await, Err(BrokerError::Topology(_))));
    });
}

#[test]
fn a_wrong_password_is_told_from_a_missing_server() {
    with_rig(async |rig| {
        let mut settings = rig.settings.clone();
        settings.url = settings.url.replacen("guest", "nobody", 1);
        let refused = topology::check(&settings).await.expect_err("refused");
        assert!(matches!(refused, BrokerError::Refused(_)), "{refused}");
        settings.url = "amqp://guest:sesame@127.0.0.1:1/%2f".into();
        let unreachable = topology::check(&settings).await.expect_err("unreachable");
        assert!(matches!(unreachable, BrokerError::Unreachable(_)), "{unreachable}");
        assert!(!unreachable.to_string().contains("sesame"));
        topology::apply(&rig.settings).await.expect("applied, for the cleaning");
    });
}

#[test]
fn answers_go_where_the_request_says_and_are_acked() {
    with_rig(async |rig| {
        let (broker, mut pipeline) = rig.start().await;
        let reply = rig.reply_queue("answers", &[]).await;
        rig.request(&request_body("a-1", 3000), reply_to(&reply).with_correlation_id("corr-1".into())).await;
        rig.request(&request_body("a-2", 3000), BasicProperties::default()).await;
        for _ in 0..2 {
            let job = pipeline.job().await;
            assert!(!job.lossy_reply);
            let mut answer = pipeline.approval(&job);
            answer.replayed = job.request.id == id("a-2");
            answer.journaled = job.request.id == id("a-1");
            job.requester.answer(answer);
        }
        let first = rig.next(&reply).await;
        assert_eq!(first.data, body_of("approved", &id("a-1")));
        let properties = &first.properties;
        let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
        assert_eq!(text(properties.message_id()).as_deref(), Some("a-1"));
        assert_eq!(text(properties.correlation_id()).as_deref(), Some("corr-1"));
        assert_eq!(text(properties.content_type()).as_deref(), Some("application/json"));
        assert_eq!(*properties.delivery_mode(), Some(2));
        assert_eq!(header(&first, "x-replayed").as_deref(), Some("false"));
        assert!(header(&first, "x-stage-us").expect("stages").starts_with("decode="));
        assert_eq!(header(&first, "x-final"), None);

        let second = rig.next(&rig.settings.response_queue).await;
        assert_eq!(second.data, body_of("approved", &id("a-2")));
        assert_eq!(text(second.properties.correlation_id()).as_deref(), Some("a-2"), "without one it is the id");
        assert_eq!(header(&second, "x-replayed").as_deref(), Some("true"));
        assert_eq!(header(&second, "x-final").as_deref(), Some("false"));

        settled(&broker).await;
        assert!(pipeline.orders.try_recv().is_err(), "both approvals were heard");
        broker.close().await;
        assert_eq!(rig.waiting(&rig.settings.request_queue).await, 0, "both were acked");
    });
}

#[test]
fn a_forbidden_reply_to_is_dead_lettered_undecided() {
    with_rig(async |rig| {
        let (broker, mut pipeline) = rig.start().await;
        let body = request_body("f-1", 3000);
        rig.request(&body, reply_to(&rig.settings.webhook_queue)).await;
        let letter = rig.next(&rig.settings.dead_letter_queue).await;
        assert_eq!(letter.data, body);
        assert_eq!(header(&letter, "x-reason").as_deref(), Some("reply_to_forbidden"));
        assert!(pipeline.jobs.try_recv().is_err(), "it was not decided");
        assert_eq!(rig.waiting(&rig.settings.webhook_queue).await, 0);
        settled(&broker).await;
        broker.close().await;
        assert_eq!(rig.waiting(&rig.settings.request_queue).await, 0);
    });
}

#[test]
fn bad_input_is_answered_and_dead_lettered_with_its_original_bytes() {
    with_rig(async |rig| {
        let (broker, mut pipeline) = rig.start().await;
        let reply = rig.reply_queue("bad", &[]).await;
        let mut headers = FieldTable::default();
        headers.insert("x-trace".into(), AMQPValue::LongString("t-1".into()));
        headers.insert("CC".into(), AMQPValue::FieldArray(vec![AMQPValue::LongString("elsewhere".into())].into()));
        let properties = reply_to(&reply)
            .with_message_id("m-1".into())
            .with_correlation_id("c-1".into())
            .with_type("order".into())
            .with_user_id("guest".into())
            .with_expiration("60000".into())
            .with_headers(headers);
        let body = b"{\"version\":1, not json \xff";
        for _ in 0..2 {
            rig.request(body, properties.clone()).await;
        }
        let answer = rig.next(&reply).await;
        let said = String::from_utf8(answer.data.clone()).expect("UTF-8");
        assert!(said.contains(r#""decision":"declined""#) && said.contains(r#""reason":"malformed""#), "{said}");
        assert_eq!(header(&answer, "x-final").as_deref(), Some("false"));
        assert_eq!(answer.properties.correlation_id().as_ref().map(ShortString::as_str), Some("c-1"));

        let letter = rig.next(&rig.settings.dead_letter_queue).await;
        assert_eq!(letter.data, body);
        assert_eq!(letter.properties.message_id().as_ref().map(ShortString::as_str), Some("m-1"));
        assert_eq!(letter.properties.kind().as_ref().map(ShortString::as_str), Some("order"));
        assert_eq!((letter.properties.user_id(), letter.properties.expiration()), (&None, &None));
        for (name, value) in [
            ("x-reason", "malformed"),
            ("x-attempts", "1"),
            ("x-original-exchange", &rig.settings.exchange),
            ("x-original-routing-key", topology::CREATED),
            ("x-original-expiration", "60000"),
            ("x-original-user-id", "guest"),
            ("x-trace", "t-1"),
        ] {
            assert_eq!(header(&letter, name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(header(&letter, "CC"), None, "it would be routed again");
        assert!(header(&letter, "x-detail").is_some() && header(&letter, "x-failed-at").is_some());
        let again = rig.next(&rig.settings.dead_letter_queue).await;
        assert_eq!(header(&letter, "x-dlq-id").expect("an id"), header(&again, "x-dlq-id").expect("an id"));
        assert!(pipeline.jobs.try_recv().is_err());
        settled(&broker).await;
        broker.close().await;
        assert_eq!(rig.waiting(&rig.settings.request_queue).await, 0);
    });
}

#[test]
fn an_answer_nobody_takes_is_tried_again_then_taken_back_and_dead_lettered() {
    with_rig(async |rig| {
        let (broker, mut pipeline) = rig.start().await;
        let begun = Instant::now();
        rig.request(&request_body("u-1", 600), reply_to(&rig.missing_queue("u"))).await;
        let job = pipeline.job().await;
        let answer = pipeline.approval(&job);
        job.requester.answer(answer);
        let DeskOrder::Void { approval: void, at, mut requesters } = pipeline.order().await else { panic!("it is known to be unsent") };
        assert_eq!((void.id.clone(), at), (id("u-1"), job.deadline));
        assert!(begun.elapsed() > Duration::from_millis(250), "it was tried until its deadline was near");
        assert_eq!(rig.waiting(&rig.settings.dead_letter_queue).await, 0, "not before it was taken back");
        requesters.pop().expect("it still waits").answer(decline(&void.id));
        let letter = rig.next(&rig.settings.dead_letter_queue).await;
        assert_eq!(letter.data, request_body("u-1", 600));
        assert_eq!(header(&letter, "x-reason").as_deref(), Some("reply_unroutable"));
        let attempts: u32 = header(&letter, "x-attempts").expect("attempts").parse().expect("a number");
        assert!(attempts >= 3, "{attempts}");
        settled(&broker).await;
        broker.close().await;
        assert_eq!(rig.waiting(&rig.settings.request_queue).await, 0);
    });
}

#[test]
fn an_answer_reaches_a_queue_that_appears_before_the_deadline() {
    with_rig(async |rig| {
        let (broker, mut pipeline) = rig.start().await;
        let late = rig.missing_queue("late").replace("missing-", "");
        rig.request(&request_body("l-1", 5000), reply_to(&late)).await;
        let job = pipeline.job().await;
        let answer = pipeline.approval(&job);
        job.requester.answer(answer);
        sleep(SILENCE).await;
        assert_eq!(rig.reply_queue("late", &[]).await, late);
        assert_eq!(rig.next(&late).await.data, body_of("approved", &id("l-1")));
        settled(&broker).await;
        assert!(pipeline.orders.try_recv().is_err(), "it was heard");
        broker.close().await;
    });
}

#[test]
fn a_late_approval_is_not_sent_but_taken_back() {
    with_rig(async |rig| {
        let (broker, mut pipeline) = rig.start().await;
        let reply = rig.reply_queue("late", &[]).await;
        rig.request(&request_body("v-1", 3000), reply_to(&reply)).await;
        let job = pipeline.job().await;
        let answer = pipeline.approval_until(&job, Instant::now());
        job.requester.answer(answer);
        let DeskOrder::Void { approval: void, mut requesters, .. } = pipeline.order().await else { panic!("it is known to be unsent") };
        assert_eq!(rig.waiting(&reply).await, 0);
        requesters.pop().expect("it still waits").answer(decline(&void.id));
        assert_eq!(rig.next(&reply).await.data, body_of("declined", &id("v-1")), "the requester hears what stands");
        settled(&broker).await;
        broker.close().await;
        assert_eq!(rig.waiting(&rig.settings.dead_letter_queue).await, 0);
    });
}

/// lapin itself mixes these up when they are in flight on one channel.
#[test]
fn returned_answers_do_not_rub_off_on_delivered_ones() {
    const EACH: usize = 100;
    with_rig(async |rig| {
        let (broker, mut pipeline) = rig.start().await;
        // Such queues confirm as fast as the broker returns, so confirms and returns alternate on the wire.
        let reply = rig.exclusive_queue("good").await;
        for index in 0..EACH {
            rig.request(&request_body(&format!("good-{index}"), 60_000), reply_to(&reply)).await;
            // Where an approval was late before its next try, the decline in its place is tried until the request's own deadline.
            rig.request(&request_body(&format!("lost-{index}"), 10_000), reply_to(&rig.missing_queue("mixed"))).await;
        }
        let mut jobs = Vec::new();
        while jobs.len() < 2 * EACH {
            jobs.push(pipeline.job().await);
        }
        // All at once, so that many are in flight together.
        let deadline = Instant::now() + Duration::from_millis(500);
        for job in jobs {
            let until = if job.request.id.as_str().starts_with("lost-") { deadline } else { job.deadline };
            let answer = pipeline.approval_until(&job, until);
            job.requester.answer(answer);
        }
        let mut taken_back = HashSet::new();
        while taken_back.len() < EACH {
            let DeskOrder::Void { approval: void, mut requesters, .. } = pipeline.order().await else { panic!("every fate is known here") };
            assert!(void.id.as_str().starts_with("lost-"), "{:?} was delivered", void.id);
            requesters.pop().expect("it still waits").answer(decline(&void.id));
            assert!(taken_back.insert(void.id));
        }
        settled(&broker).await;
        broker.close().await;
        let answered: HashSet<Vec<u8>> = rig.all(&reply).await.into_iter().map(|delivery| delivery.data).collect();
        assert_eq!(answered.len(), EACH);
        assert_eq!(rig.all(&rig.settings.dead_letter_queue).await.len(), EACH);
        assert!(pipeline.orders.try_recv().is_err());
        assert_eq!(rig.waiting(&rig.settings.request_queue).await, 0);
    });
}

#[test]
fn the_ack_waits_for_the_confirm() {
    with_rig(async |rig: std::sync::Arc<Rig>| {
        let (broker, mut pipeline) = rig.start().await;
        let full = [("x-max-length", AMQPValue::LongInt(1)), ("x-overflow", AMQPValue::LongString("reject-publish".into()))];
        let reply = rig.reply_queue("full", &full).await;
        rig.publish("", &reply, b"in the way", BasicProperties::default()).await;
        rig.request(&request_body("n-1", 30_000), reply_to(&reply)).await;
        let job = pipeline.job().await;
        let answer = pipeline.approval(&job);
        job.requester.answer(answer);
        assert!(matches!(pipeline.order().await, DeskOrder::Unheard(unheard) if unheard == id("n-1")), "refused: nobody knows");
        broker.close().await;
        eventually("the request is back", || async { rig.waiting(&rig.settings.request_queue).await == 1 }).await;

        let (broker, mut pipeline) = rig.restart().await;
        let job = pipeline.job().await;
        job.requester.answer(decline(&id("n-1")));
        sleep(SILENCE).await;
        assert_eq!(rig.next(&reply).await.data, b"in the way");
        assert_eq!(rig.next(&reply).await.data, body_of("declined", &id("n-1")), "sent again once there is room");
        settled(&broker).await;
        broker.close().await;
        assert_eq!(rig.waiting(&rig.settings.request_queue).await, 0);
    });
}
