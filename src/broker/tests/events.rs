//! Events in and out, and back again after a loss.

use super::rig::{PATIENCE, Pipeline, Rig, eventually, with_rig};
use crate::{
    broker::events::{self, Outgoing},
    codec::event::{self, EventKind, FactEvent},
    domain::{
        facts::Subject,
        ids::{CardToken, UserToken},
        time::Timestamp,
    },
};
use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, QueueBindOptions},
    types::FieldTable,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::time::timeout;

fn card(kind: EventKind, token: &str) -> FactEvent {
    FactEvent { kind, subject: Subject::Card(CardToken::new(token).expect("a token")), at: Some(Timestamp(1_772_619_307_112_000)) }
}

/// Announces until it is heard: nobody listens before the queue is bound, and events are not kept for those who come later.
async fn heard(rig: &Rig, pipeline: &mut Pipeline, event: &FactEvent) {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        events::announce(&rig.settings, std::slice::from_ref(event)).await.expect("announced");
        match timeout(Duration::from_millis(100), pipeline.events.recv()).await {
            Ok(Some(got)) if got == *event => return,
            Ok(Some(_)) | Err(_) => assert!(tokio::time::Instant::now() < until, "{event:?} is not heard"),
            Ok(None) => panic!("the edge has stopped to listen"),
        }
    }
}

#[test]
fn events_are_heard_and_what_is_none_does_no_harm() {
    with_rig(async |rig| {
        let (broker, mut pipeline) = rig.start().await;
        heard(&rig, &mut pipeline, &card(EventKind::CardUpdated, "crd_first")).await;
        let exchange = rig.settings.events_exchange.as_str();
        for (key, body) in [
            ("card.updated", &b"{"[..]),
            ("card.updated", br#"{"version":1,"type":"card.updated","card":"4111111111111111"}"#),
            ("card.updated", &[b' '; 100_000]),
            // Our own, which we do not listen to.
            ("latency.alert", b"{}"),
        ] {
            let published =
                rig.server.basic_publish(exchange.into(), key.into(), BasicPublishOptions::default(), body, BasicProperties::default());
            published.await.expect("published").await.expect("confirmed");
        }
        let user = Subject::User(UserToken::new("usr_1").expect("a token"));
        let after = FactEvent { kind: EventKind::LimitsUpdated, subject: user, at: None };
        events::announce(&rig.settings, std::slice::from_ref(&after)).await.expect("announced");
        loop {
            let got = timeout(PATIENCE, pipeline.events.recv()).await.expect("in time").expect("the edge listens");
            if got == after {
                break;
            }
            // Those of the first announcement that were sent more than once.
            assert_eq!(got, card(EventKind::CardUpdated, "crd_first"));
        }
        broker.close().await;
    });
}

#[test]
fn listening_goes_on_after_a_lost_connection() {
    with_rig(async |rig| {
        let (broker, mut pipeline) = rig.start().await;
        heard(&rig, &mut pipeline, &card(EventKind::CardIssued, "crd_before")).await;
        rig.cut();
        eventually("ready again", || async { broker.ready() }).await;
        heard(&rig, &mut pipeline, &card(EventKind::CardIssued, "crd_after")).await;
        broker.close().await;
    });
}

/// Acks that are under way while a connection is lost never end in lapin, now and then; listening must not wait for them.
#[test]
fn listening_goes_on_after_connections_lost_under_load() {
    const LOSSES: u32 = 25;
    with_rig(async |rig| {
        let (broker, mut pipeline) = rig.start().await;
        let sent = Arc::new(AtomicU32::new(0));
        let flood = tokio::spawn({
            let (rig, sent) = (Arc::clone(&rig), Arc::clone(&sent));
            async move {
                loop {
                    let kind = EventKind::CardUpdated.name();
                    let body = event::encode(&card(EventKind::CardUpdated, &format!("crd_{}", sent.fetch_add(1, Ordering::Relaxed))));
                    let exchange = rig.settings.events_exchange.as_str();
                    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
                    let published = rig.server.basic_publish(exchange.into(), kind.into(), options, &body, properties).await;
                    published.expect("published").await.expect("confirmed");
                }
            }
        });
        for loss in 0..LOSSES {
            let before = sent.load(Ordering::Relaxed);
            // What waited from before the last loss is not what counts.
            let news = async {
                loop {
                    let heard = pipeline.events.recv().await.expect("the edge listens");
                    let Subject::Card(token) = &heard.subject else { continue };
                    if token.as_str()["crd_".len()..].parse().is_ok_and(|number: u32| number > before) {
                        return;
                    }
                }
            };
            timeout(PATIENCE, news).await.unwrap_or_else(|_| panic!("nothing is heard after {loss} losses"));
            rig.cut();
        }
        flood.abort();
        broker.close().await;
    });
}

#[test]
fn what_is_told_reaches_who_listens() {
    with_rig(async |rig| {
        let (broker, pipeline) = rig.start().await;
        let queue = rig.exclusive_queue("alerts").await;
        let (exchange, options) = (rig.settings.events_exchange.as_str(), QueueBindOptions::default());
        rig.server
            .queue_bind(queue.as_str().into(), exchange.into(), "latency.alert".into(), options, FieldTable::default())
            .await
            .expect("bound");
        for body in ["{\"n\":1}", "{\"n\":2}"] {
            pipeline.tell.send(Outgoing { key: "latency.alert", body: body.into() }).await.expect("taken");
            assert_eq!(rig.next(&queue).await.data, body.as_bytes());
            // The next one finds another connection.
            rig.cut();
            eventually("not ready", || async { !broker.ready() }).await;
            eventually("ready again", || async { broker.ready() }).await;
        }
        broker.close().await;
    });
}
