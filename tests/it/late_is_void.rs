//! An approval whose commit came through too late to be sent holds nothing, and stays a decline for ever; unless somebody was
//! answered with it meanwhile: then it stays an approval for everybody.

use crate::support::{
    daemon::Daemon,
    eventually,
    http::{Http, Reply},
    metrics::Metrics,
    outside::{Outside, waits_for_lock},
    request::Request,
    sandbox::Sandbox,
    store::Store,
    world::{Held, Holder, Limit, Owner, Program, World},
};
use lapin::BasicProperties;
use std::time::Duration;
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

const REPLIES: &str = "reply.late";

/// What a late request may take, and a time after which it certainly is late.
const DEADLINE_MS: u32 = 200;
const LATER: Duration = Duration::from_millis(220);

/// How often a machine that was too busy to be late in the right moment is asked again.
const TRIES: u32 = 20;

/// A cardholder whose approvals are counted, on two counters.
async fn counted(store: &Store, name: &str) -> Held {
    let world = World::new(store);
    let program = world.program(name, Program::default()).await;
    let held = world.holder(program, name, Holder::default()).await;
    world.limit(Owner::Card(held.card), Limit { period: "lifetime", cap_amount: Some(50_000), ..Limit::default() }).await;
    world.limit(Owner::User(held.user), Limit { period: "month", cap_count: Some(100), ..Limit::default() }).await;
    held
}

fn request(id: &str, card: &str) -> Request {
    Request::new(id).card(&format!("crd_{card}")).deadline_ms(60_000)
}

/// Longer than any of these tests holds a lock, as far as the daemon lets us.
fn patient(mut sandbox: Sandbox) -> Sandbox {
    let settings = [
        ("JITAUTH_DEADLINE__DEFAULT_MS", "30000"),
        ("JITAUTH_SQLITE__BUSY_TIMEOUT_MS", "5000"),
        ("JITAUTH_POSTGRES__LOCK_TIMEOUT_MS", "500"),
        ("JITAUTH_POSTGRES__COMMIT_TIMEOUT_MS", "5000"),
    ];
    for (name, value) in settings {
        sandbox.settings = sandbox.settings.with(name, value);
    }
    sandbox
}

/// What the money of a cardholder is: held on the account, and amount and number on each counter.
async fn money(store: &Store, held: Held) -> (i64, Vec<(String, String)>) {
    let on_hold = store.number(&format!("select held from accounts where id = {}", held.account)).await;
    let owners = format!("(limits.owner = 'card' and owner_id = {}) or (limits.owner = 'user' and owner_id = {})", held.card, held.user);
    let rows = store
        .rows(&format!(
            "select cast(amount as text), cast(count as text) from counters join limits on limits.id = limit_id where {owners} order by limit_id"
        ))
        .await;
    (on_hold, rows.into_iter().map(|row| (row[0].clone().unwrap(), row[1].clone().unwrap())).collect())
}

/// What `approvals` of 10.00 leave.
fn after(approvals: i64) -> (i64, Vec<(String, String)>) {
    let counter = ((approvals * 10_00).to_string(), approvals.to_string());
    (approvals * 10_00, vec![counter.clone(), counter])
}

async fn voided(http: &Http) -> f64 {
    Metrics::of(http).await.get("jitauth_voided_approvals_total")
}

async fn journaled(store: &Store, id: &str) -> bool {
    store.number(&format!("select count(*) from authorizations where id = '{id}'")).await > 0
}

/// Nothing of the request holds money, its hold is there as a voided one, and the journal declines it with these bytes.
async fn check_void(store: &Store, id: &str, body: &[u8]) {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap();
    assert_eq!((json["decision"].as_str(), json["reason"].as_str()), (Some("declined"), Some("deadline_exceeded")), "{id}: {json}");
    assert!(json["hold"].is_null() && json["approved_amount"].is_null(), "{id}: {json}");
    assert_eq!(store.response(id).await.as_deref(), Some(body), "{id}: what was sent is what is stored");
    let columns = ["decision", "amount", "replays"].map(|column| format!("cast({column} as text)")).join(", ");
    let rows = store.rows(&format!("select {columns} from authorizations where id = '{id}' and charges is null")).await;
    assert_eq!(rows, [["0", "0", "0"].map(|text| Some(text.to_owned())).to_vec()], "{id}");
    let holds = store.rows(&format!("select cast(status as text) from holds where authorization_id = '{id}'")).await;
    assert_eq!(holds, [[Some("3".to_owned())].to_vec()], "{id}: one hold, voided");
}

fn check_replay(id: &str, first: &[u8], again: &Reply) {
    assert_eq!(again.text(), String::from_utf8_lossy(first), "{id}: the replay differs");
    assert_eq!(again.header("x-replayed"), Some("true"), "{id}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_stalled_past_the_deadline_holds_nothing_on_postgresql() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let sandbox = patient(sandbox);
    let (daemon, store, amqp) = (sandbox.daemon().await, sandbox.store().await, sandbox.amqp().await);
    let (http, replies) = (daemon.http(), amqp.collect(REPLIES).await);
    let held = counted(&store, "late").await;
    assert_eq!(http.authorize(request("warm", "late").body()).await.json()["decision"], "approved");
    assert_eq!(money(&store, held).await, after(1));

    for attempt in 1..=TRIES {
        let id = format!("late-{attempt}");
        let before = voided(&http).await;
        let outside = Outside::holding_account(&store, held.account).await;
        let properties = BasicProperties::default().with_message_id(id.as_str().into()).with_reply_to(REPLIES.into());
        amqp.request(request(&id, "late").deadline_ms(DEADLINE_MS).body(), properties).await;
        // Decided too late on a slow machine, it is journaled as such and waits for no lock.
        let waited = waits_for_lock(&store, "jit_commit", async || journaled(&store, &id).await).await;
        sleep(LATER).await;
        let early = replies.all_for(&id);
        assert!(!waited || early.is_empty(), "answered while its commit was in flight: {early:?}");
        outside.release().await;
        let response = replies.response(&id).await;

        assert_eq!(money(&store, held).await, after(1), "{id}");
        let caught = voided(&http).await > before;
        if caught {
            check_void(&store, &id, &response.body).await;
        }
        check_replay(&id, &response.body, &http.authorize(request(&id, "late").body()).await);
        if caught {
            assert_eq!(money(&store, held).await, after(1), "{id}, replayed");
            store.check_books().await;
            eprintln!("late_is_void: PostgreSQL, approval voided at attempt {attempt}");
            return;
        }
    }
    panic!("no commit came through after its deadline");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_stalled_past_the_deadline_holds_nothing_on_sqlite() {
    let sandbox = patient(Sandbox::embedded());
    let (daemon, store) = (sandbox.daemon().await, sandbox.store().await);
    let http = daemon.http();
    let held = counted(&store, "late").await;
    assert_eq!(http.authorize(request("warm", "late").body()).await.json()["decision"], "approved");

    for attempt in 1..=TRIES {
        let id = format!("late-{attempt}");
        let before = voided(&http).await;
        let outside = Outside::holding_account(&store, held.account).await;
        let asking = tokio::spawn({
            let (http, body) = (http.clone(), request(&id, "late").deadline_ms(DEADLINE_MS).body());
            async move { http.authorize(body).await }
        });
        eventually("the request in the pipeline", async || (Metrics::of(&http).await.get("jitauth_inflight_messages") > 0.0).then_some(()))
            .await;
        sleep(LATER).await;
        assert!(!asking.is_finished(), "answered while its commit was in flight");
        outside.release().await;
        let reply = asking.await.unwrap();

        assert_eq!(money(&store, held).await, after(1), "{id}");
        let caught = voided(&http).await > before;
        if caught {
            check_void(&store, &id, &reply.body).await;
        }
        check_replay(&id, &reply.body, &http.authorize(request(&id, "late").body()).await);
        if caught {
            assert_eq!(money(&store, held).await, after(1), "{id}, replayed");
            store.check_books().await;
            eprintln!("late_is_void: SQLite, approval voided at attempt {attempt}");
            return;
        }
    }
    panic!("no commit came through after its deadline");
}

async fn signal(daemon: &Daemon, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &daemon.pid().to_string()]).status().await.expect("kill runs");
    assert!(status.success(), "kill -{name}: {status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_during_the_void_keeps_the_approval() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let sandbox = patient(sandbox);
    let (daemon, other) = tokio::join!(sandbox.daemon(), sandbox.another_daemon());
    let store = sandbox.store().await;
    let held = counted(&store, "kept").await;
    for (id, http) in [("warm-1", daemon.http()), ("warm-2", other.http())] {
        assert_eq!(http.authorize(request(id, "kept").body()).await.json()["decision"], "approved");
    }
    for attempt in 1..=TRIES {
        let id = format!("kept-{attempt}");
        let before = voided(&daemon.http()).await;
        if replayed_during_void(&daemon, &other, &store, held, &id).await {
            assert_eq!(money(&store, held).await, after(3));
            assert_eq!(voided(&daemon.http()).await, before, "{id} was taken back");
            store.check_books().await;
            eprintln!("late_is_void: replay kept the approval at attempt {attempt}");
            return;
        }
        assert_eq!(money(&store, held).await, after(2), "{id}: a late decision holds nothing");
    }
    panic!("no void was caught waiting");
}

/// Whether the approval came to be late; a busy machine may be too slow to let it be approved at all.
async fn replayed_during_void(daemon: &Daemon, other: &Daemon, store: &Store, held: Held, id: &str) -> bool {
    let outside = Outside::holding_account(store, held.account).await;
    let asking = tokio::spawn({
        let (http, body) = (daemon.http(), request(id, "kept").deadline_ms(DEADLINE_MS).body());
        async move { http.authorize(body).await }
    });
    let waited = waits_for_lock(store, "jit_commit", async || journaled(store, id).await).await;
    // Held still, the daemon learns of its commit only after the lock is taken again, so that its void has to wait for certain.
    signal(daemon, "STOP").await;
    sleep(LATER).await;
    outside.release().await;
    let under_way = "select count(*) from pg_stat_activity
        where datname = current_database() and application_name = 'jitauth' and state = 'active' and query like '%jit_commit%'";
    eventually("the end of the commit", async || (store.number(under_way).await == 0).then_some(())).await;
    let approved = waited && journaled(store, id).await;
    let outside = Outside::holding_account(store, held.account).await;
    signal(daemon, "CONT").await;
    let caught = approved && waits_for_lock(store, "jit_void", async || asking.is_finished()).await;
    if !caught {
        outside.release().await;
        asking.await.unwrap();
        return false;
    }

    let began = Instant::now();
    let replay = other.http().authorize(request(id, "kept").body()).await;
    eprintln!("late_is_void: replayed in {:?} while the account was locked", began.elapsed());
    assert_eq!(replay.json()["decision"], "approved", "{}", replay.text());
    assert_eq!(replay.header("x-replayed"), Some("true"));
    assert!(!asking.is_finished(), "the first requester was answered before the fate of the approval was known");
    outside.release().await;

    let first = asking.await.unwrap();
    assert_eq!(first.text(), replay.text(), "two answers to one request");
    assert_eq!(store.response(id).await.as_deref(), Some(&first.body[..]));
    check_replay(id, &first.body, &daemon.http().authorize(request(id, "kept").body()).await);
    let open = store.number(&format!("select count(*) from holds where authorization_id = '{id}' and status = 1")).await;
    assert_eq!(open, 1, "the approval that was sent holds");
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_held_by_an_operator_costs_its_own_account_only() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let (daemon, store) = (sandbox.daemon().await, sandbox.store().await);
    let http = daemon.http();
    let stuck = counted(&store, "stuck").await;
    let names: Vec<_> = (0..16).map(|number| format!("free{number}")).collect();
    for name in &names {
        counted(&store, name).await;
    }
    for name in names.iter().map(String::as_str).chain(["stuck"]) {
        let warm = http.authorize(request(&format!("warm-{name}"), name).body()).await;
        assert_eq!(warm.json()["decision"], "approved", "{}", warm.text());
    }

    let outside = Outside::holding_account(&store, stuck.account).await;
    let began = Instant::now();
    let ask = |name: String| {
        let http = http.clone();
        tokio::spawn(async move { (http.authorize(request(&format!("held-{name}"), &name).body()).await, began.elapsed()) })
    };
    // In the middle, so that others are decided in its batch, before it and behind it.
    let (first, second) = names.split_at(8);
    let before: Vec<_> = first.iter().cloned().map(ask).collect();
    let in_the_way = ask("stuck".to_owned());
    let behind: Vec<_> = second.iter().cloned().map(ask).collect();
    let (declined, took) = in_the_way.await.unwrap();
    let json = declined.json();
    assert_eq!((json["decision"].as_str(), json["reason"].as_str()), (Some("declined"), Some("system_unavailable")), "{json}");
    let mut slowest = Duration::ZERO;
    for other in before.into_iter().chain(behind) {
        let (reply, took) = other.await.unwrap();
        assert_eq!(reply.json()["decision"], "approved", "{}", reply.text());
        slowest = slowest.max(took);
    }
    eprintln!("late_is_void: a held row was declined after {took:?}, the slowest of 16 others took {slowest:?}");
    assert_eq!(store.response("held-stuck").await.as_deref(), Some(&declined.body[..]), "journaled");
    assert_eq!(store.number("select count(*) from holds where status = 1").await, 17 + 16);
    // All of it while the operator still held the row.
    outside.release().await;

    check_replay("held-stuck", &declined.body, &http.authorize(request("held-stuck", "stuck").body()).await);
    let next = http.authorize(request("next", "stuck").body()).await;
    assert_eq!(next.json()["decision"], "approved", "{}", next.text());
    assert_eq!(money(&store, stuck).await, after(2));
    store.check_books().await;
}
