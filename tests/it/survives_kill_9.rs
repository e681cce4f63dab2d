//! A daemon may die at any moment: whatever was taken is answered, and nothing is decided twice.

use crate::{
    crowd::{Answer, Load, check_answers, load, prepare_load, tell},
    support::{
        amqp::{DEAD_LETTERS, REQUESTS},
        daemon::Daemon,
        eventually,
        http::Http,
        request::Request,
        sandbox::Sandbox,
    },
};
use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::sleep;

const KILLS: usize = 10;

/// New every time, unless `JITAUTH_TEST_SEED` repeats one.
#[expect(clippy::disallowed_methods, reason = "any number will do")]
fn chance() -> StdRng {
    let given = std::env::var("JITAUTH_TEST_SEED").ok().map(|seed| seed.parse().expect("JITAUTH_TEST_SEED is a number"));
    let seed = given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into());
    tell(&format!("JITAUTH_TEST_SEED={seed}"));
    StdRng::seed_from_u64(seed)
}

async fn moment(chance: &mut StdRng, most_ms: u64) {
    sleep(Duration::from_millis(chance.random_range(1..most_ms))).await;
}

/// One in eight has little time, so that some are taken back as too late while daemons die.
fn hurried(number: usize) -> Request {
    let request = load(number);
    if number.is_multiple_of(8) { request.deadline_ms(100) } else { request }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_daemons_killed_in_turn_and_together() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let store = sandbox.store().await;
    prepare_load(&store).await;
    let mut chance = chance();
    let mut daemons = [sandbox.daemon().await, sandbox.another_daemon().await];
    let load = Load::start(&sandbox, 8, 600, hurried).await;
    load.answered(50).await;
    for kill in 0..KILLS {
        moment(&mut chance, 400).await;
        let answered = load.replies.count();
        // A daemon starts again while the other one works, and is waited for before it dies again; now and then both die.
        let (victim, both) = (kill % 2, chance.random_range(0..4) == 0);
        for (place, daemon) in daemons.iter_mut().enumerate().filter(|(place, _)| both || *place == victim) {
            daemon.kill().await;
            *daemon = Daemon::launch(daemon.settings.clone());
            tell(&format!("kill {kill}: daemon {place}, after {answered} answers"));
        }
        let next = &mut daemons[(kill + 1) % 2];
        next.ready().await;
        load.answered(20).await;
    }
    let (ids, replies) = load.stop().await;
    replies.responses(&ids).await;
    for daemon in &mut daemons {
        daemon.ready().await;
        assert_eq!(daemon.terminate().await.code(), Some(0), "{}", daemon.text());
    }
    let outcome = check_answers(&store, &ids, replies.all().into_iter().map(Answer::from)).await;
    tell(&format!("{outcome:?}"));
    assert!(outcome.replayed > 0, "ten daemons died, and none had committed what it had not acked: {outcome:?}");
    assert!(outcome.approved > 100 && outcome.declined > 100, "{outcome:?}");
    store.check_books().await;
    let amqp = sandbox.amqp().await;
    assert_eq!(
        (amqp.depth(REQUESTS).await, amqp.depth(DEAD_LETTERS).await),
        (0, 0),
        "nothing is left, and no healthy message was set aside"
    );
}

/// What one client has seen when its daemon died: answers, and the request that was not answered any more.
async fn send_until_it_dies(client: &Http, next: &AtomicUsize) -> (Vec<(Request, Answer)>, Request) {
    let mut answered = Vec::new();
    loop {
        let request = load(next.fetch_add(1, Relaxed));
        match client.try_authorize(request.body()).await {
            Ok(reply) => {
                assert_eq!(reply.status, 200, "{}", reply.text());
                let answer = Answer::from_reply(request.id(), &reply);
                answered.push((request, answer));
            }
            Err(_died) => return (answered, request),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_daemon_on_sqlite() {
    let sandbox = Sandbox::embedded();
    let mut daemon = sandbox.daemon().await;
    let store = sandbox.store().await;
    prepare_load(&store).await;
    let mut chance = chance();
    let next = AtomicUsize::new(0);
    let (mut all, mut unanswered) = (Vec::new(), (0, 0));
    for kill in 0..5 {
        let clients: Vec<_> = (0..24).map(|_| Http::new(daemon.address())).collect();
        let begun = next.load(Relaxed);
        let (seen, ()) = tokio::join!(join_all(clients.iter().map(|client| send_until_it_dies(client, &next))), async {
            eventually("a load", async || (next.load(Relaxed) > begun + 100).then_some(())).await;
            moment(&mut chance, 300).await;
            daemon.kill().await;
        });
        daemon.restart().await;
        let http = daemon.http();
        for (answered, lost) in seen {
            for (request, answer) in answered.iter().rev().take(10) {
                let again = http.authorize(request.body()).await;
                assert_eq!((again.status, &again.body[..]), (200, &answer.body[..]), "kill {kill}: {}", request.id());
                assert_eq!(again.header("x-replayed"), Some("true"), "kill {kill}: {}", request.id());
            }
            // Nobody knows whether it was decided. Asked again it is answered, and from then on always so.
            let reply = http.authorize(lost.body()).await;
            let answer = Answer::from_reply(lost.id(), &reply);
            *(if answer.replayed { &mut unanswered.0 } else { &mut unanswered.1 }) += 1;
            let again = http.authorize(lost.body()).await;
            assert_eq!(again.body, reply.body, "kill {kill}: {}", lost.id());
            all.extend(answered.into_iter().map(|(_, answer)| answer).chain([answer]));
        }
        store.check_books().await;
    }
    let ids: Vec<_> = all.iter().map(|answer| answer.id.clone()).collect();
    let outcome = check_answers(&store, &ids, all).await;
    tell(&format!("{outcome:?}; left unanswered: {} had been decided, {} had not", unanswered.0, unanswered.1));
    assert!(outcome.requests > 500 && outcome.not_journaled == 0, "{outcome:?}");
    assert_eq!(daemon.terminate().await.code(), Some(0), "{}", daemon.text());
}
