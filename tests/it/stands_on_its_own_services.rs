//! The rig itself: every test has its own place in the services, and the services can be broken and healed.

use crate::support::{
    amqp::Amqp,
    eventually,
    sandbox::Sandbox,
    services::{Service, Turn},
    store::Store,
};
use fred::prelude::{Builder, ClientLike, Config, KeysInterface};
use lapin::BasicProperties;
use sqlx::{Connection, PgConnection};
use std::time::Duration;
use tokio::time::timeout;

async fn redis(url: &str) -> fred::prelude::Client {
    let client = Builder::from_config(Config::from_url(url).unwrap())
        .with_performance_config(|performance| performance.default_command_timeout = Duration::from_secs(1))
        .with_connection_config(|connection| connection.max_command_attempts = 1)
        .build()
        .unwrap();
    client.init().await.expect("Redis answers");
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_shares_nothing_with_another() {
    let Some(one) = Sandbox::bare(Turn::shared().await).await else { return };
    let Some(two) = Sandbox::bare(Turn::Taken).await else { return };
    let (one, two) = (one.external(), two.external());

    let (first, second) = (Store::postgres(&one.postgres_url).await, Store::postgres(&two.postgres_url).await);
    first.execute("create table mine (id int); insert into mine values (1), (2)").await;
    assert_eq!(first.number("select count(*) from mine").await, 2);
    let tables = "select count(*) from information_schema.tables where table_name = 'mine'";
    assert_eq!(second.number(tables).await, 0);
    assert!(first.number("select count(*) from pg_stat_statements").await >= 0);

    let (first, second) = (redis(&one.redis_url).await, redis(&two.redis_url).await);
    first.set::<(), _, _>("mine", 1, None, None, false).await.unwrap();
    assert_eq!(second.get::<Option<i64>, _>("mine").await.unwrap(), None);

    let (first, second) = (Amqp::connect(&one.broker_url).await, Amqp::connect(&two.broker_url).await);
    let (inbox, other) = (first.collect("mine").await, second.collect("mine").await);
    let confirmation = first.publish("", "mine", b"{}", BasicProperties::default().with_message_id("m-1".into())).await;
    assert_eq!(confirmation, Ok(lapin::Confirmation::Ack(None)));
    inbox.responses(&["m-1".to_owned()]).await;
    assert_eq!((inbox.all().len(), other.all().len()), (1, 0));
    assert!(one.services.rabbitmqctl(&["list_vhosts", "--silent"]).await.contains("test-"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_can_be_broken_and_healed() {
    let Some(sandbox) = Sandbox::bare(Turn::alone().await).await else { return };
    let external = sandbox.external();
    let services = external.services;

    let store = sandbox.store().await;
    store.execute("create table kept (id int); insert into kept values (1)").await;
    services.kill(Service::Postgres).await;
    assert!(PgConnection::connect(&external.postgres_url).await.is_err(), "PostgreSQL was killed");
    services.start(Service::Postgres).await;
    assert_eq!(store.number("select count(*) from kept").await, 1, "what was committed outlives a crash");
    services.stop(Service::Postgres).await;
    services.start(Service::Postgres).await;
    assert_eq!(store.number("select count(*) from kept").await, 1);

    let client = redis(&external.redis_url).await;
    services.pause(Service::Redis).await;
    let hung = timeout(Duration::from_secs(5), client.get::<Option<i64>, _>("key")).await;
    assert!(hung.is_err() || hung.is_ok_and(|answer| answer.is_err()), "a paused Redis answers nothing");
    services.resume(Service::Redis).await;
    eventually("Redis to answer again", async || client.get::<Option<i64>, _>("key").await.ok()).await;

    let amqp = sandbox.amqp().await;
    let inbox = amqp.collect("kept").await;
    services.stop(Service::Rabbitmq).await;
    assert!(amqp.publish("", "kept", b"1", BasicProperties::default()).await.is_err(), "RabbitMQ was stopped");
    services.start(Service::Rabbitmq).await;
    amqp.channel().await.expect("RabbitMQ answers again");
    let message = BasicProperties::default().with_message_id("after".into());
    assert_eq!(amqp.publish("", "kept", b"1", message).await, Ok(lapin::Confirmation::Ack(None)));
    inbox.response("after").await;
}
