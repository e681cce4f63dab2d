//! RabbitMQ goes away in every way, under load: nothing that it confirmed to a producer is lost, nothing is decided twice, and the
//! daemon finds its way back by itself.

use crate::{
    support::{
        amqp::{EXCHANGE, REQUESTS},
        daemon::Daemon,
        eventually,
        sandbox::Sandbox,
        services::Service,
        store::Store,
    },
    traffic::{self, Traffic, figure, metric, ready_again, unready},
};
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A request that was redelivered after its deadline is declined; one that nobody could be answered in time was taken back. Where a slow
/// machine lets requests pile up, single ones are declined undecided.
const LATE: &[&str] = &["deadline_exceeded", "system_unavailable"];

async fn ends_well(traffic: Traffic, daemon: Daemon, store: &Store, fault: &str) {
    // Before the daemon goes: it says how many approvals nobody may have heard, and the store lists the same.
    traffic.pause().await;
    let unheard = metric(&daemon, "jitauth_unheard_approvals_total").await;
    let listed = store.number("select count(*) from authorizations where unheard").await;
    traffic.resume();
    assert_eq!(unheard, listed as f64, "unheard approvals: counted, and listed in the store");
    let summary = traffic.finish(&mut [daemon], store, LATE).await;
    assert_eq!(summary.decided + summary.shed, summary.requests, "every confirmed request was decided, or declined in time");
    assert!(summary.shed * 20 <= summary.requests, "the broker's faults cost few requests their decision: {summary:?}");
    let again = summary.responses - summary.requests;
    figure(&format!("{fault}: {summary:?}, {again} answered again, {listed} unheard"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_loses_and_doubles_nothing() {
    let Some(sandbox) = Sandbox::alone().await else { return };
    let sandbox = traffic::cold(sandbox);
    let services = sandbox.external().services;
    let store = sandbox.store().await;
    traffic::prepare(&store).await;
    let mut daemon = sandbox.daemon().await;
    let traffic = Traffic::start(&sandbox).await;

    services.kill(Service::Rabbitmq).await;
    unready(&daemon).await;
    // Longer than the short deadlines, so that some approvals have to be taken back.
    sleep(Duration::from_millis(1500)).await;
    services.start(Service::Rabbitmq).await;
    ready_again(&mut daemon, "broker killed", Instant::now()).await;

    traffic.more(100).await;
    ends_well(traffic, daemon, &store, "broker killed").await;
}

async fn made_again(connection: &str, is_up: impl AsyncFn() -> bool) {
    let healed = Instant::now();
    eventually("connections that are made again", async || is_up().await.then_some(())).await;
    figure(&format!("connections closed: {connection}: made again after {:.2} s", healed.elapsed().as_secs_f64()));
}

/// What makes the broker leave everything that comes by a connection of the daemon for a while, and then break the connection off.
fn break_off(connection: &str, vhost: &str) -> String {
    format!(
        "[begin
            Channels = [Channel || [{{pid, Channel}}, {{connection, Of}}] <- rabbit_channel:info_all([pid, connection]), Of =:= Connection],
            [erlang:suspend_process(Channel) || Channel <- Channels],
            timer:sleep(1000),
            [exit(Process, kill) || Process <- Channels ++ [Connection]]
          end || [{{pid, Connection}}, {{client_properties, Client}}, {{vhost, <<\"{vhost}\">>}}]
                    <- rabbit_networking:connection_info_all([pid, client_properties, vhost]),
                 lists:member({{<<\"connection_name\">>, longstr, <<\"{connection}\">>}}, Client)]."
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_broker_closes_are_made_again() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let sandbox = traffic::cold(sandbox);
    let services = sandbox.external().services;
    let vhost = sandbox.external().broker_url.rsplit('/').next().expect("a vhost").to_owned();
    let store = sandbox.store().await;
    traffic::prepare(&store).await;
    let mut daemon = sandbox.daemon().await;
    let traffic = Traffic::start(&sandbox).await;
    let reconnects = async |role: &str| metric(&daemon, &format!("jitauth_broker_reconnects_total{{role=\"{role}\"}}")).await;
    // What was published shortly before is neither taken nor confirmed, while acks still get through.
    services.rabbitmqctl(&["eval", &break_off("jitauth publish", &vhost)]).await;
    made_again("answering", async || reconnects("publisher").await >= 1.0).await;
    traffic.more(50).await;
    services.rabbitmqctl(&["eval", &break_off("jitauth consume", &vhost)]).await;
    made_again("consuming", async || reconnects("consumer").await >= 1.0).await;
    traffic.more(50).await;
    let before = reconnects("publisher").await.min(reconnects("consumer").await);
    services.rabbitmqctl(&["close_all_connections", "--vhost", &vhost, "a test"]).await;
    made_again("both", async || reconnects("publisher").await.min(reconnects("consumer").await) > before).await;
    traffic.more(50).await;
    ready_again(&mut daemon, "connections closed", Instant::now()).await;
    ends_well(traffic, daemon, &store, "connections closed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_deleted_and_made_again_is_consumed_again() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let sandbox = traffic::cold(sandbox);
    let store = sandbox.store().await;
    traffic::prepare(&store).await;
    let mut daemon = sandbox.daemon().await;
    let traffic = Traffic::start(&sandbox).await;
    let amqp = sandbox.amqp().await;

    // Deleting a queue deletes what is in it, so nothing may be.
    traffic.pause().await;
    let channel = amqp.channel().await.expect("RabbitMQ answers");
    channel.queue_delete(REQUESTS.into(), QueueDeleteOptions::default()).await.expect("the queue is deleted");
    traffic.resume();
    unready(&daemon).await;
    // Meanwhile nothing is confirmed: the broker returns what no queue takes, and the producers try on.
    let before = traffic.confirmed();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(traffic.confirmed(), before, "there is no queue that could take a request");
    sandbox.settings.run_well(&["topology", "apply"]).await;
    ready_again(&mut daemon, "queue deleted", Instant::now()).await;

    traffic.more(100).await;
    ends_well(traffic, daemon, &store, "queue deleted").await;
}

/// Answers to requests without `reply_to` go through an exchange. Publishing to one that is gone closes the channel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_that_the_broker_closes_are_made_again() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let sandbox = traffic::cold(sandbox);
    let store = sandbox.store().await;
    traffic::prepare(&store).await;
    let mut daemon = sandbox.daemon().await;
    let traffic = Traffic::start(&sandbox).await;
    let amqp = sandbox.amqp().await;
    let channel = amqp.channel().await.expect("RabbitMQ answers");
    channel.exchange_delete(EXCHANGE.into(), ExchangeDeleteOptions::default()).await.expect("the exchange is deleted");
    traffic.send_unaddressed(20).await;
    daemon.event("publish_refused").await;
    sandbox.settings.run_well(&["topology", "apply"]).await;
    let healed = Instant::now();
    ready_again(&mut daemon, "exchange deleted", healed).await;
    traffic.all_answered().await;
    figure(&format!("exchange deleted: the last answer {:.2} s after it healed", healed.elapsed().as_secs_f64()));

    traffic.more(100).await;
    ends_well(traffic, daemon, &store, "exchange deleted").await;
}
