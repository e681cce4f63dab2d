//! A warm decision costs no Redis command and its share of one database statement: counted by the servers, not by us.

use crate::support::{
    amqp::Amqp,
    daemon::Daemon,
    eventually,
    http::Http,
    metrics::Metrics,
    request::Request,
    sandbox::Sandbox,
    store::Store,
    world::{Holder, Limit, Owner, Program, World},
};
use fred::prelude::{Builder, Client, ClientLike, Config, KeysInterface};
use fred::types::InfoKind;
use futures_util::future::join_all;
use lapin::BasicProperties;
use std::collections::BTreeMap;

const REPLIES: &str = "reply.trips";
const CARDS: usize = 40;
/// In each of the rounds: one after the other, over HTTP at once, over AMQP at once.
const ROUND: usize = 400;

/// What a server was asked, and how often.
type Calls = BTreeMap<String, i64>;

/// Statements of one database role, by their normalized text. What a function does inside is part of its call.
async fn statements(store: &Store, role: &str) -> Calls {
    let rows = store
        .rows(&format!(
            "select query, cast(sum(calls) as bigint)::text from pg_stat_statements s join pg_roles r on r.oid = s.userid
              where r.rolname = '{role}' and dbid = (select oid from pg_database where datname = current_database()) group by query"
        ))
        .await;
    rows.into_iter().map(|row| (row[0].clone().unwrap(), row[1].as_ref().unwrap().parse().unwrap())).collect()
}

/// Commands that Redis was given by anybody, without our own question.
async fn commands(redis: &Client) -> Calls {
    let info: String = redis.info(Some(InfoKind::CommandStats)).await.expect("Redis answers");
    let count = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    info.lines().filter_map(count).filter(|(name, _)| name != "info").collect()
}

/// What was asked more often afterwards, and by how much.
fn more(before: &Calls, after: &Calls) -> Calls {
    let grown = after.iter().map(|(what, calls)| (what.clone(), calls - before.get(what).unwrap_or(&0)));
    grown.filter(|(_, calls)| *calls != 0).collect()
}

/// A role that nobody but the daemon uses, so that its statements can be told from ours.
async fn role_of_its_own(sandbox: &mut Sandbox, store: &Store) -> String {
    let url = sandbox.external().postgres_url.clone();
    let database = url.rsplit('/').next().unwrap();
    let role = format!("daemon_of_{database}");
    store
        .execute(&format!(
            "create role {role} login;
             grant select, insert, update, delete on all tables in schema public to {role};
             grant usage on all sequences in schema public to {role}"
        ))
        .await;
    // Facts are read as they are used, so that Redis gets to know them, too.
    sandbox.settings = sandbox.settings.clone().with("JITAUTH_MEMORY__WARM", "false");
    sandbox.settings = sandbox.settings.clone().with("JITAUTH_POSTGRES__URL", &url.replace("postgres@", &format!("{role}@")));
    role
}

async fn prepare(store: &Store) {
    let world = World::new(store);
    let program = world.program("trips", Program::default()).await;
    for number in 0..CARDS {
        let held = world.holder(program, &format!("trip{number}"), Holder::default()).await;
        world.limit(Owner::Card(held.card), Limit { period: "lifetime", cap_amount: Some(100_000), ..Limit::default() }).await;
        world.limit(Owner::User(held.user), Limit { period: "month", cap_count: Some(1_000), ..Limit::default() }).await;
    }
}

fn request(id: &str, number: usize) -> Request {
    Request::new(id).card(&format!("crd_trip{}", number % CARDS)).amount("0.50").deadline_ms(60_000)
}

async fn approved(http: &Http, request: &Request) {
    let reply = http.authorize(request.body()).await;
    assert_eq!(reply.json()["decision"], "approved", "{}", reply.text());
}

/// Every card is known in memory, in the lanes and in Redis.
async fn warm_up(daemon: &Daemon, redis: &Client) {
    let http = daemon.http();
    for number in 0..CARDS {
        approved(&http, &request(&format!("warm-{number}"), number)).await;
    }
    for number in 0..CARDS {
        let keys = [format!("jit:card:crd_trip{number}"), format!("jit:limits:crd_trip{number}")];
        eventually("Redis to be told", async || (redis.exists::<i64, _>(keys.to_vec()).await.ok()? == 2).then_some(())).await;
    }
}

async fn decide(http: &Http, amqp: &Amqp) {
    for number in 0..ROUND {
        approved(http, &request(&format!("single-{number}"), number)).await;
    }
    let at_once: Vec<_> = (0..ROUND).map(|number| request(&format!("http-{number}"), number)).collect();
    join_all(at_once.iter().map(|request| approved(http, request))).await;

    let replies = amqp.collect(REPLIES).await;
    let ids: Vec<_> = (0..ROUND).map(|number| format!("amqp-{number}")).collect();
    for (number, id) in ids.iter().enumerate() {
        let properties = BasicProperties::default().with_message_id(id.as_str().into()).with_reply_to(REPLIES.into());
        amqp.request(request(id, number).body(), properties).await;
    }
    replies.responses(&ids).await;
    for message in replies.all() {
        assert_eq!(message.json()["decision"], "approved", "{}", message.json());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warm_decision_costs_no_redis_command_and_one_statement_per_batch() {
    let Some(mut sandbox) = Sandbox::alone().await else { return };
    let store = sandbox.store().await;
    let role = role_of_its_own(&mut sandbox, &store).await;
    prepare(&store).await;
    let redis = Builder::from_config(Config::from_url(&sandbox.external().redis_url).unwrap()).build().unwrap();
    redis.init().await.expect("Redis answers");
    let (daemon, amqp) = (sandbox.daemon().await, sandbox.amqp().await);
    let http = daemon.http();
    warm_up(&daemon, &redis).await;

    let (asked, commanded, counted) = (statements(&store, &role).await, commands(&redis).await, Metrics::of(&http).await);
    decide(&http, &amqp).await;
    let (asked, commanded) = (more(&asked, &statements(&store, &role).await), more(&commanded, &commands(&redis).await));
    let after = Metrics::of(&http).await;
    let grew = |name: &str| (after.sum(name) - counted.sum(name)) as i64;

    let decisions = i64::try_from(3 * ROUND).unwrap();
    let batches = grew("jitauth_db_transactions_total");
    let mean = decisions as f64 / batches as f64;
    eprintln!("round_trips: {decisions} warm decisions in {batches} batches, {mean:.2} a batch; PostgreSQL {asked:?}; Redis {commanded:?}");
    assert_eq!(grew("jitauth_commit_batch_decisions_sum"), decisions, "every decision was committed once");
    assert_eq!(grew("jitauth_commit_batch_decisions_count"), batches);

    let of = |what: &str| asked.iter().filter(|(query, _)| query.contains(what)).map(|(_, calls)| calls).sum::<i64>();
    assert_eq!(of("jit_commit"), batches, "one statement for each batch");
    let others: Calls = asked.into_iter().filter(|(query, _)| !query.contains("jit_commit")).collect();
    assert!(others.keys().all(|query| query == "select $1"), "beside the readiness ping, nothing was asked: {others:?}");
    // Facts are read by MGET and written by EVALSHA; every quarter of a second the link and the tracking are looked at.
    let look = |command: &String| ["get", "client|trackinginfo"].contains(&command.as_str());
    assert!(commanded.keys().all(look), "beside the look at the link, Redis was asked nothing: {commanded:?}");
    assert_eq!(after.cache("memory", "miss"), counted.cache("memory", "miss"), "a warm decision finds its facts in memory");

    let journal = "select count(*) from authorizations where decision = 1 and id not like 'warm-%'";
    assert_eq!(store.number(journal).await, decisions);
    assert!(batches < decisions, "requests at once share batches");
    store.check_books().await;
}
