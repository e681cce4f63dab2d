//! SIGTERM ends a daemon with clean hands: nothing it had taken is lost, nothing is done twice, and it says so.

use crate::{
    crowd::{Answer, Load, Tally, check_answers, load, prepare_load, tell},
    support::{
        amqp::{DEAD_LETTERS, REQUESTS},
        daemon::Daemon,
        eventually,
        http::Http,
        metrics::Metrics,
        request::Request,
        sandbox::{External, Sandbox},
    },
};
use futures_util::future::join_all;
use sqlx::{Connection, SqliteConnection};
use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};
use tokio::{sync::Notify, time::sleep};

/// Ends a daemon by SIGTERM and checks what it says about it.
async fn drain(daemon: &mut Daemon) -> Tally {
    let lives = Tally::all(daemon).len();
    let status = daemon.terminate().await;
    assert_eq!(status.code(), Some(0), "{status}\n{}", daemon.text());
    let tally = eventually("the last line of the log", async || Tally::all(daemon).into_iter().nth(lives)).await;
    assert!(tally.complete && tally.in_flight == 0, "{tally:?}");
    tally
}

/// How much was in flight when it was told to end.
fn in_flight_then(daemon: &Daemon) -> u64 {
    let line = daemon.log().into_iter().rfind(|line| line["event"] == "draining").expect("it says that it drains");
    line["in_flight"].as_u64().expect("a count")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_from_rabbitmq() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let store = sandbox.store().await;
    prepare_load(&store).await;
    let (mut one, mut two) = (sandbox.daemon().await, sandbox.another_daemon().await);
    let load = Load::start(&sandbox, 8, 600, load).await;
    load.answered(300).await;
    let mut tallies = vec![drain(&mut one).await];
    let mut in_flight = vec![in_flight_then(&one)];
    // The other one goes on alone.
    load.answered(300).await;
    tallies.push(drain(&mut two).await);
    in_flight.push(in_flight_then(&two));
    // Nobody is there; what comes in waits, and the next daemon takes it.
    let amqp = sandbox.amqp().await;
    eventually("requests that wait", async || (amqp.depth(REQUESTS).await > 100).then_some(())).await;
    one.restart().await;
    load.answered(300).await;
    let (ids, replies) = load.stop().await;
    replies.responses(&ids).await;
    tallies.push(drain(&mut one).await);

    let outcome = check_answers(&store, &ids, replies.all().into_iter().map(Answer::from)).await;
    tell(&format!("{outcome:?}; in flight at SIGTERM: {in_flight:?}; {tallies:?}"));
    assert!(in_flight.iter().any(|count| *count > 0), "the daemons had something in their hands: {in_flight:?}");
    assert_eq!((outcome.again, outcome.replayed, outcome.not_journaled), (0, 0, 0), "nothing was delivered twice");
    store.check_books().await;
    for tally in &tallies {
        assert_eq!((tally.of("received"), tally.of("decided")), (tally.of("answered"), tally.of("answered")), "{tally:?}");
        assert_eq!((tally.of("replayed"), tally.of("returned"), tally.of("dead_lettered")), (0, 0, 0), "{tally:?}");
    }
    assert_eq!(tallies.iter().map(|tally| tally.of("answered")).sum::<u64>(), u64::try_from(ids.len()).unwrap());
    assert_eq!(messages(sandbox.external(), REQUESTS).await, 0, "neither waiting nor unacknowledged");
    assert_eq!(messages(sandbox.external(), DEAD_LETTERS).await, 0);
}

/// All messages of a queue, those in somebody's hands too.
async fn messages(external: &External, queue: &str) -> u64 {
    let vhost = external.broker_url.rsplit('/').next().unwrap();
    let list = external.services.rabbitmqctl(&["list_queues", "--silent", "-p", vhost, "name", "messages"]).await;
    let line = list.lines().find_map(|line| line.strip_prefix(queue)?.strip_prefix('\t'));
    line.unwrap_or_else(|| panic!("no {queue}: {list}")).trim().parse().unwrap()
}

const CLIENTS: u32 = 32;

/// Asks for one thing after the other until the daemon says that it closes, or hangs up; then the last request has no answer.
async fn ask_until_it_closes(client: &Http, next: &AtomicUsize) -> (Vec<Answer>, Option<Request>) {
    let mut answers = Vec::new();
    loop {
        let request = load(next.fetch_add(1, Relaxed));
        match client.try_authorize(request.body()).await {
            Ok(reply) => {
                assert_eq!(reply.status, 200, "{}", reply.text());
                let answer = Answer::from_reply(request.id(), &reply);
                let closed = !answer.journaled;
                answers.push(answer);
                if closed {
                    return (answers, None);
                }
            }
            Err(_closed) => return (answers, Some(request)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_over_http() {
    let sandbox = Sandbox::embedded();
    let mut daemon = sandbox.daemon().await;
    let store = sandbox.store().await;
    prepare_load(&store).await;
    let path = sandbox.settings.get("JITAUTH_SQLITE__PATH").unwrap();
    let mut database = SqliteConnection::connect(&format!("sqlite://{path}")).await.unwrap();
    let (http, next, held_up) = (daemon.http(), AtomicUsize::new(0), Notify::new());
    let clients: Vec<_> = (0..CLIENTS).map(|_| Http::new(daemon.address())).collect();

    let asking = join_all(clients.iter().map(|client| ask_until_it_closes(client, &next)));
    let draining = async {
        held_up.notified().await;
        drain(&mut daemon).await
    };
    let (seen, tally, refused) = tokio::join!(asking, draining, async {
        eventually("a load", async || (next.load(Relaxed) > 400).then_some(())).await;
        // Somebody else has the database: every client waits for an answer when the signal comes.
        sqlx::query("begin immediate").execute(&mut database).await.unwrap();
        eventually("all in flight", async || {
            // The gauge is that of the last arrival: it counts once nobody has sent anything for a while.
            let sent = next.load(Relaxed);
            sleep(Duration::from_millis(200)).await;
            let all = Metrics::of(&http).await.get("jitauth_inflight_messages") == f64::from(CLIENTS);
            (all && next.load(Relaxed) == sent).then_some(())
        })
        .await;
        held_up.notify_one();
        // While it drains it says so, and takes nothing new.
        eventually("/ready fails", async || http.get("/ready").await.is_ok_and(|reply| reply.status == 503).then_some(())).await;
        let refused = http.authorize(load(1_000_000).body()).await;
        sqlx::query("rollback").execute(&mut database).await.unwrap();
        Answer::from_reply("load-1000000", &refused)
    });
    assert_eq!((refused.reason().as_str(), refused.journaled), ("system_unavailable", false));

    let unanswered = seen.iter().filter(|(_, request)| request.is_some()).count();
    let answers: Vec<_> = seen.into_iter().flat_map(|(answers, _)| answers).chain([refused]).collect();
    let ids: Vec<_> = answers.iter().map(|answer| answer.id.clone()).collect();
    // That includes: what was not answered was not decided.
    let outcome = check_answers(&store, &ids, answers).await;
    let in_flight = in_flight_then(&daemon);
    tell(&format!("{outcome:?}; in flight at SIGTERM: {in_flight}; refused by a closed connection: {unanswered}"));
    assert_eq!(in_flight, u64::from(CLIENTS));
    assert_eq!((outcome.again, outcome.replayed), (0, 0));
    assert_eq!(tally.of("decided"), u64::try_from(outcome.requests).unwrap(), "{tally:?}");
    store.check_books().await;
}
