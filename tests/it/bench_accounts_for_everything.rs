//! `jitauth bench` accounts for every request, on every target: what is lost is told, what is wrong fails the run, and nothing that it
//! made stays behind.

use super::support::{sandbox::Sandbox, services::Services};
use jitauth::bench::summary::Summary;
use std::{process::Output, time::Duration};

/// As few requests as show every kind of outcome.
const SHORT: [&str; 7] = ["--json", "--rate", "100", "--duration", "2", "--warm-up", "1"];

fn bench<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["bench", "run"], arguments].concat()
}

fn summary(output: &Output) -> Summary {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// A run in which nothing went wrong, on a store of its own.
fn sound(output: &Output, kind: &str, store: &str) {
    let summary = summary(output);
    assert_eq!(output.status.code(), Some(0), "{:?}\n{}", summary.failures, String::from_utf8_lossy(&output.stderr));
    let (requests, proof) = (&summary.requests, summary.proof.as_ref().expect("a proof"));
    assert_eq!((summary.verdict.as_str(), summary.target.kind.as_str()), ("passed", kind));
    assert_eq!(summary.target.store.as_deref(), Some(store));
    assert!(summary.target.durability.as_deref().is_some_and(|stated| stated.contains("synchronous")), "{:?}", summary.target);
    assert!(requests.sent > 200 && requests.sent == requests.answered, "{requests:?}");
    assert_eq!(proof.decisions + requests.replays_identical, requests.answered, "{proof:?} {requests:?}");
    assert!(requests.replays_identical > 0 && proof.holds > 0, "{proof:?} {requests:?}");
    assert!(summary.reasons.len() > 5, "{:?}", summary.reasons);
    assert!(summary.stages.iter().any(|stage| stage.span == "commit" && stage.latency.count > 0), "{:?}", summary.stages);
    assert_eq!(summary.seconds.iter().map(|second| second.answered).sum::<u64>(), requests.answered);
    eprintln!("{kind} on {store}: response time p50 {} µs", summary.response_time.percentile("p50"));
}

#[tokio::test]
async fn embedded_over_http_and_in_process() {
    let sandbox = Sandbox::embedded();
    for target in ["http", "inproc"] {
        let output = sandbox.settings.run(&bench(&[&["smoke", "--target", target], &SHORT[..]].concat())).await;
        sound(&output, target, "sqlite");
    }
    let closed = ["smoke", "--target", "inproc", "--json", "--arrival", "closed", "--in-flight", "8", "--rate", "3000", "--duration", "1"];
    let output = sandbox.settings.run(&bench(&closed)).await;
    sound(&output, "inproc", "sqlite");
    let summary = summary(&output);
    assert!(summary.warnings.iter().any(|warning| warning.code == "closed_loop") && summary.requests.unsent == 0, "{summary:?}");
}

#[tokio::test]
async fn through_rabbitmq_and_in_process_on_postgresql_and_nothing_stays_behind() {
    let Some(sandbox) = Sandbox::services().await else { return };
    for target in ["amqp", "inproc"] {
        let output = sandbox.settings.run(&bench(&[&["smoke", "--target", target], &SHORT[..]].concat())).await;
        sound(&output, target, "postgresql");
    }
    nothing_stays(&sandbox).await;
}

/// The queues and exchanges of runs in the sandbox.
async fn declared(sandbox: &Sandbox) -> String {
    let external = sandbox.external();
    let vhost = external.broker_url.rsplit('/').next().expect("a vhost");
    let mut names = String::new();
    for what in ["list_queues", "list_exchanges"] {
        let listed = external.services.rabbitmqctl(&["-q", what, "-p", vhost, "name"]).await;
        assert!(listed.contains("transaction"), "{what} shows what is there: {listed}");
        names.extend(listed.lines().filter(|name| name.contains("bench-")));
    }
    names
}

/// Runs name their database after themselves, and their queues too.
async fn nothing_stays(sandbox: &Sandbox) {
    assert_eq!(declared(sandbox).await, "", "queues and exchanges");
    let pid = "select count(*) from pg_database d where datname like 'jitauth\\_bench\\_%'
                  and not exists (select from pg_stat_activity a where a.datname = d.datname)";
    // Another test's run may be between two connections.
    super::support::eventually("no database is left", async || (sandbox.store().await.number(pid).await == 0).then_some(())).await;
}

#[tokio::test]
async fn a_run_that_is_interrupted_takes_everything_away_too() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let mut run = sandbox.settings.start(&bench(&["smoke", "--target", "amqp", "--duration", "60"]));
    super::support::eventually("queues of the run", async || (!declared(&sandbox).await.is_empty()).then_some(())).await;
    let id = run.id().expect("a process").to_string();
    assert!(tokio::process::Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
    let ended = tokio::time::timeout(super::support::PATIENCE, run.wait()).await.expect("it ends").unwrap();
    assert_eq!(ended.code(), Some(130));
    nothing_stays(&sandbox).await;
}

#[tokio::test]
async fn a_floor_is_measured_in_turn_with_the_daemon() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let arguments = [&["bench", "floor", "steady", "--target", "amqp", "--cards", "200", "--rounds", "2"], &SHORT[..]].concat();
    let output = sandbox.settings.run(&arguments).await;
    let summary = summary(&output);
    let floor = summary.floor.as_ref().unwrap_or_else(|| panic!("no floor: {:?}", summary.failures));
    let echo = floor.echo.as_ref().expect("an echo");
    assert_eq!((floor.rounds, echo.queue_type.as_str()), (2, "quorum"));
    assert!(echo.response_time.count > 50 && summary.response_time.count > 50, "{echo:?}");
    assert_eq!(floor.commits.iter().map(|commits| commits.batch).collect::<Vec<_>>(), [1, 16, 64]);
    assert!(floor.commits.iter().all(|commits| commits.commit.count > 0 && commits.rows_per_s > 0.0), "{:?}", floor.commits);
    assert!(floor.redis.as_ref().is_some_and(|times| times.count > 0) && floor.fsync.count > 0);
    for name in ["p50_over_echo_us", "p99_to_echo", "commit_p50_to_floor"] {
        assert!(floor.ratios.iter().any(|ratio| ratio.name == name && ratio.value.is_finite()), "{name}: {:?}", floor.ratios);
    }
    assert_eq!((summary.requests.lost, summary.requests.unexpected), (0, 0), "{:?}", summary.requests.examples);
    assert!(summary.proof.as_ref().is_some_and(|proof| proof.decisions > 100), "{:?}", summary.proof);
}

#[tokio::test]
async fn thresholds_end_a_run_with_99_and_unknown_ones_do_not_begin() {
    let sandbox = Sandbox::embedded();
    let run = async |extra: &[&str]| sandbox.settings.run(&bench(&[&["smoke", "--target", "inproc"], &SHORT[..], extra].concat())).await;
    let output = run(&["--threshold", "p99<1us", "--threshold", "p99<60s"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(99), "{said}");
    assert!(said.contains("p99<1us") && !said.contains("p99<60s"), "{said}");
    let passed: Vec<bool> = summary(&output).thresholds.iter().map(|graded| graded.passed).collect();
    assert_eq!(passed, [true, true, true, false, true]);
    for (extra, part) in [
        (["--threshold", "p98<1ms"], "no metric"),
        (["--threshold", "p99<1"], "needs a unit"),
        (["--cards", "many"], "--cards"),
        (["--url", "http://127.0.0.1:1"], "inproc"),
    ] {
        let output = run(&extra).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{extra:?}: {said}");
        assert!(said.contains(part) && output.stdout.is_empty(), "{extra:?}: {said}");
    }
}

#[tokio::test]
async fn a_scenario_of_ones_own_is_read_and_its_faults_are_told_with_their_lines() {
    let sandbox = Sandbox::embedded();
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("mine.toml");
    let name = path.to_str().unwrap();
    std::fs::write(&path, "# Mine?\nrate_per_s = 50\ncardz = 3\nduration_s = \"x\"\n").unwrap();
    let output = sandbox.settings.run(&bench(&[name, "--target", "inproc"])).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("mine.toml:3: cardz is no key") && said.contains("mine.toml:4: duration_s must be"), "{said}");
    std::fs::write(&path, "# Mine?\nrate_per_s = 50\ncards = 3\nduration_s = 1\nwarm_up_s = 0\ngrade = \"tell\"\n").unwrap();
    let out = directory.path().join("out");
    let output = sandbox.settings.run(&bench(&[name, "--target", "inproc", "--out", out.to_str().unwrap()])).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let written: Summary = serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!((written.scenario.name.as_str(), written.scenario.question.as_str()), ("mine", "Mine?"));
    for file in ["report.md", "latency.hgrm", "intervals.hlog"] {
        assert!(std::fs::metadata(out.join(file)).unwrap().len() > 100, "{file}");
    }
}

/// The same load on a daemon that is killed in the middle of it: for good, or for a moment.
async fn killed_over_http(restart: bool) -> Output {
    let sandbox = Sandbox::embedded();
    let mut daemon = sandbox.daemon().await;
    sandbox.settings.run_well(&["seed", "--cards", "100"]).await;
    let arguments = bench(&["smoke", "--running", "--json", "--cards", "100", "--rate", "100", "--duration", "5", "--deadline", "1000"]);
    let run = sandbox.settings.run(&arguments);
    let kill = async {
        let sent = "select count(*) from authorizations";
        let store = sandbox.store().await;
        super::support::eventually("some decisions", async || (store.number(sent).await > 50).then_some(())).await;
        daemon.kill().await;
        if restart {
            tokio::time::sleep(Duration::from_millis(300)).await;
            daemon.restart().await;
        }
    };
    let (output, ()) = tokio::join!(run, kill);
    output
}

#[tokio::test]
async fn a_daemon_that_is_killed_leaves_requests_lost_and_the_run_says_so() {
    let output = killed_over_http(false).await;
    let summary = summary(&output);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let requests = &summary.requests;
    assert!(requests.lost > 0 && requests.retries > 0 && requests.answered > 0, "{requests:?}");
    assert_eq!(requests.sent, requests.answered + requests.lost, "{requests:?}");
    assert!(summary.failures.iter().any(|failure| failure.contains("had no answer")), "{:?}", summary.failures);
    let proof = summary.proof.expect("a proof");
    assert!(proof.lost == 0 && proof.altered == 0 && proof.held_off == 0, "what was answered is in the books all the same: {proof:?}");
}

#[tokio::test]
async fn a_daemon_that_comes_back_loses_nothing_and_the_retries_are_told() {
    let output = killed_over_http(true).await;
    let summary = summary(&output);
    let requests = &summary.requests;
    assert_eq!((requests.lost, requests.unexpected), (0, 0), "{requests:?}");
    assert!(requests.retries > 0, "{requests:?}");
    assert_eq!(summary.proof.as_ref().map(|proof| (proof.lost, proof.altered, proof.doubled)), Some((0, 0, 0)));
    assert_eq!(output.status.code(), Some(0), "{:?}", summary.failures);
}

#[tokio::test]
async fn what_is_left_in_the_queue_is_lost_and_warned_of() {
    let Some(sandbox) = Sandbox::services().await else { return };
    sandbox.settings.run_well(&["seed", "--cards", "100"]).await;
    let mut daemon = sandbox.daemon().await;
    let sizes = ["--cards", "100", "--rate", "100", "--duration", "4", "--deadline", "1000"];
    let arguments = bench(&[&["smoke", "--target", "amqp", "--running", "--json"], &sizes[..]].concat());
    let run = sandbox.settings.run(&arguments);
    let kill = async {
        let store = sandbox.store().await;
        let sent = "select count(*) from authorizations";
        super::support::eventually("some decisions", async || (store.number(sent).await > 50).then_some(())).await;
        daemon.kill().await;
    };
    let (output, ()) = tokio::join!(run, kill);
    let summary = summary(&output);
    assert_eq!(output.status.code(), Some(1), "{:?}", summary.failures);
    assert!(summary.requests.lost > 0 && summary.requests.answered > 0, "{:?}", summary.requests);
    assert!(summary.warnings.iter().any(|warning| warning.code == "queue_not_empty"), "{:?}", summary.warnings);
    assert!(!summary.target.spawned && Services::get().is_some());
}
