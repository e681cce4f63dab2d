//! What breaks, and comes back without a hand.

use super::rig::{PATIENCE, SILENCE, body_of, decline, eventually, header, reply_to, request_body, settled, with_rig};
use crate::{broker::topology, domain::ids::RequestId, pipeline::DeskOrder};
use lapin::{BasicProperties, options::ExchangeDeleteOptions};
use std::{collections::HashSet, time::Duration};
use tokio::time::sleep;

fn id(text: &str) -> RequestId {
    RequestId::new(text).expect("a good id")
}

#[test]
fn consuming_goes_on_when_the_queue_is_deleted_and_declared_again() {
    with_rig(async |rig| {
        let (broker, mut pipeline) = rig.start().await;
        let reply = rig.reply_queue("again", &[]).await;
        rig.delete(&rig.settings.request_queue).await;
        eventually("not ready", || async { !broker.ready() }).await;
        sleep(SILENCE).await;
        assert!(!broker.ready());
        topology::apply(&rig.settings).await.expect("applied");
        eventually("ready again", || async { broker.ready() }).await;
        rig.request(&request_body("q-1", 3000), reply_to(&reply)).await;
        let job = pipeline.job().await;
        let answer = pipeline.approval(&job);
        job.requester.answer(answer);
        rig.next(&reply).await;
        settled(&broker).await;
        broker.close().await;
    });
}

#[test]
fn cut_connections_under_load_lose_nothing() {
    const REQUESTS: usize = 600;
    with_rig(async |rig| {
        let (broker, pipeline) = rig.start().await;
        let _orders = pipeline.answer_all();
        let reply = rig.reply_queue("load", &[]).await;
        for index in 0..REQUESTS {
            rig.request(&request_body(&format!("c-{index}"), 60_000), reply_to(&reply)).await;
            if index % 100 == 50 {
                rig.cut();
            }
        }
        let mut answered = HashSet::new();
        let until = tokio::time::Instant::now() + PATIENCE;
        while answered.len() < REQUESTS && tokio::time::Instant::now() < until {
            answered.extend(rig.all(&reply).await.into_iter().map(|delivery| delivery.data));
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(answered.len(), REQUESTS, "every request is answered");
        eventually("ready again", || async { broker.ready() }).await;
        settled(&broker).await;
        broker.close().await;
        assert_eq!(rig.waiting(&rig.settings.request_queue).await, 0, "and acked");
        assert_eq!(rig.waiting(&rig.settings.dead_letter_queue).await, 0, "and healthy");
    });
}

#[test]
fn a_connection_whose_channels_are_used_up_is_made_again() {
    const ANSWERS: usize = 12;
    with_rig(async |rig| {
        topology::apply(&rig.settings).await.expect("applied");
        let mut settings = rig.settings.clone();
        settings.url += if settings.url.contains('?') { "&channel_max=8" } else { "?channel_max=8" };
        let (broker, mut pipeline) = rig.restart_with(&settings).await;
        let mut jobs = Vec::new();
        for index in 0..ANSWERS {
            rig.request(&request_body(&format!("u-{index}"), 60_000), BasicProperties::default()).await;
            jobs.push(pipeline.job().await);
        }
        let exchange = settings.exchange.as_str();
        rig.server.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await.expect("deleted");
        for job in jobs {
            let answer = pipeline.approval(&job);
            job.requester.answer(answer);
        }
        // Each is tried five times at least, and each try costs a channel.
        sleep(4 * SILENCE).await;
        topology::apply(&rig.settings).await.expect("applied again");
        let mut answered = HashSet::new();
        while answered.len() < ANSWERS {
            answered.insert(rig.next(&settings.response_queue).await.data);
        }
        settled(&broker).await;
        broker.close().await;
        assert_eq!(rig.waiting(&settings.dead_letter_queue).await, 0);
    });
}

/// As to a quorum queue without a majority. Deliveries that were kept for it for ever would leave no room for others.
#[test]
fn an_answer_that_nobody_confirms_is_given_up_after_its_deadline() {
    with_rig(async |rig| {
        let (broker, mut pipeline) = rig.start().await;
        let reply = rig.reply_queue("silent", &[]).await;
        rig.request(&request_body("n-1", 1000), reply_to(&reply)).await;
        let job = pipeline.job().await;
        let answer = pipeline.approval(&job);
        rig.leave_unconfirmed(true);
        job.requester.answer(answer);
        assert!(matches!(pipeline.order().await, DeskOrder::Unheard(unheard) if unheard == id("n-1")));
        eventually("three tries", || async { rig.waiting(&reply).await == 3 }).await;
        // So is the dead letter, but it is never given up.
        let letter = rig.next(&rig.settings.dead_letter_queue).await;
        assert_eq!(header(&letter, "x-reason").as_deref(), Some("reply_unroutable"), "{letter:?}");
        assert_eq!(rig.waiting(&reply).await, 3, "no fourth try");
        rig.leave_unconfirmed(false);
        settled(&broker).await;
        broker.close().await;
        assert_eq!(rig.waiting(&rig.settings.request_queue).await, 0, "and acked");
    });
}

/// Nobody knows then whether its queue is to blame: it goes out again until the broker speaks, or on the next connection.
#[test]
fn an_answer_to_a_broker_that_is_silent_altogether_is_not_given_up() {
    const OTHERS: usize = 30;
    with_rig(async |rig| {
        let (broker, mut pipeline) = rig.start().await;
        let (others, reply) = (rig.reply_queue("others", &[]).await, rig.reply_queue("unheard", &[]).await);
        let mut jobs = Vec::new();
        for index in 0..OTHERS {
            rig.request(&request_body(&format!("o-{index}"), 60_000), reply_to(&others)).await;
            jobs.push(pipeline.job().await);
        }
        // These leave channels open.
        for job in jobs {
            let answer = pipeline.approval(&job);
            job.requester.answer(answer);
        }
        eventually("all are answered", || async { rig.waiting(&others).await as usize == OTHERS }).await;
        rig.request(&request_body("n-2", 1000), reply_to(&reply)).await;
        let job = pipeline.job().await;
        let answer = pipeline.approval(&job);
        rig.fall_silent(true);
        job.requester.answer(answer);
        eventually("four tries", || async { rig.waiting(&reply).await == 4 }).await;
        rig.fall_silent(false);
        settled(&broker).await;
        broker.close().await;
        assert_eq!(rig.waiting(&rig.settings.dead_letter_queue).await, 0, "it is answered");
        assert_eq!(rig.waiting(&rig.settings.request_queue).await, 0, "and acked");
    });
}

#[test]
fn an_approval_that_outlives_its_channel_is_still_sent() {
    with_rig(async |rig| {
        let (broker, mut pipeline) = rig.start().await;
        let reply = rig.reply_queue("outlives", &[]).await;
        rig.request(&request_body("o-1", 30_000), reply_to(&reply)).await;
        let job = pipeline.job().await;
        rig.cut();
        let again = pipeline.job().await;
        let answer = pipeline.approval(&job);
        job.requester.answer(answer);
        assert_eq!(rig.next(&reply).await.data, body_of("approved", &id("o-1")));
        let mut replay = decline(&id("o-1"));
        replay.body = body_of("approved", &id("o-1")).into();
        again.requester.answer(replay);
        assert_eq!(rig.next(&reply).await.data, body_of("approved", &id("o-1")));
        settled(&broker).await;
        assert!(pipeline.orders.try_recv().is_err(), "it was heard");
        broker.close().await;
        assert_eq!(rig.waiting(&rig.settings.request_queue).await, 0);
    });
}

#[test]
fn a_replay_that_outlives_its_channel_is_left_to_the_next_delivery() {
    with_rig(async |rig| {
        let (broker, mut pipeline) = rig.start().await;
        let reply = rig.reply_queue("stale", &[]).await;
        rig.request(&request_body("s-1", 30_000), reply_to(&reply)).await;
        let job = pipeline.job().await;
        rig.cut();
        let again = pipeline.job().await;
        job.requester.answer(decline(&id("s-1")));
        sleep(SILENCE).await;
        assert_eq!(rig.waiting(&reply).await, 0);
        again.requester.answer(decline(&id("s-1")));
        rig.next(&reply).await;
        settled(&broker).await;
        broker.close().await;
        assert_eq!(rig.waiting(&rig.settings.request_queue).await, 0);
    });
}

#[test]
fn a_dropped_job_leaves_its_message_unacknowledged() {
    with_rig(async |rig| {
        let (broker, mut pipeline) = rig.start().await;
        rig.request(&request_body("d-1", 3000), reply_to("reply.nowhere")).await;
        drop(pipeline.job().await);
        settled(&broker).await;
        broker.close().await;
        eventually("it is back", || async { rig.waiting(&rig.settings.request_queue).await == 1 }).await;
    });
}

#[test]
fn a_dropped_job_comes_again_on_a_channel_that_lives() {
    with_rig(async |rig| {
        let (broker, mut pipeline) = rig.start().await;
        let reply = rig.reply_queue("dropped", &[]).await;
        for index in 0..4 {
            rig.request(&request_body(&format!("d-{index}"), 60_000), reply_to(&reply)).await;
        }
        // Those before and behind it are acked meanwhile, and must not take it with them.
        for index in 0..4 {
            let job = pipeline.job().await;
            if index != 1 {
                let answer = pipeline.approval(&job);
                job.requester.answer(answer);
            }
        }
        let again = pipeline.job().await;
        assert_eq!((&again.request.id, again.redelivered), (&id("d-1"), true));
        let answer = pipeline.approval(&again);
        again.requester.answer(answer);
        let mut answered = HashSet::new();
        while answered.len() < 4 {
            answered.insert(rig.next(&reply).await.data);
        }
        settled(&broker).await;
        broker.close().await;
        assert_eq!(rig.waiting(&rig.settings.request_queue).await, 0, "all are acked");
    });
}

#[test]
fn a_drain_settles_what_was_taken_and_takes_no_more() {
    const TAKEN: usize = 60;
    const LATER: u32 = 10;
    with_rig(async |rig| {
        let (broker, mut pipeline) = rig.start().await;
        let reply = rig.reply_queue("drain", &[]).await;
        for index in 0..TAKEN {
            rig.request(&request_body(&format!("t-{index}"), 60_000), reply_to(&reply)).await;
        }
        let mut jobs = Vec::new();
        while jobs.len() < TAKEN {
            jobs.push(pipeline.job().await);
        }
        broker.stop_intake().await;
        assert!(!broker.ready());
        for index in 0..LATER {
            rig.request(&request_body(&format!("later-{index}"), 60_000), reply_to(&reply)).await;
        }
        assert!(tokio::time::timeout(SILENCE, broker.drained()).await.is_err(), "nothing is settled yet");
        for job in jobs {
            let answer = pipeline.approval(&job);
            job.requester.answer(answer);
        }
        settled(&broker).await;
        broker.close().await;
        assert!(pipeline.jobs.try_recv().is_err(), "nothing was taken after the stop");
        assert_eq!(rig.all(&reply).await.len(), TAKEN);
        assert_eq!(rig.waiting(&rig.settings.request_queue).await, LATER);
        assert!(pipeline.orders.try_recv().is_err(), "all were heard");
    });
}

#[test]
fn an_end_without_a_drain_takes_back_what_was_not_sent() {
    with_rig(async |rig| {
        let (broker, mut pipeline) = rig.start().await;
        rig.request(&request_body("e-1", 3000), reply_to("reply.nowhere")).await;
        let job = pipeline.job().await;
        broker.close().await;
        let answer = pipeline.approval(&job);
        job.requester.answer(answer);
        assert!(matches!(pipeline.order().await, DeskOrder::Void { requesters, .. } if requesters.is_empty()));
        eventually("it is back", || async { rig.waiting(&rig.settings.request_queue).await == 1 }).await;
    });
}
