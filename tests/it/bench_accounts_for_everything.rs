//! `jitauth bench` accounts for every request, on every target: what is lost is told, what is wrong fails the run, and nothing that it
//! made stays behind.

use super::support::{
    sandbox::Sandbox,
    services::{Service, Services},
};
use jitauth::bench::summary::Summary;
use std::{process::Output, time::Duration};
use tokio::io::AsyncReadExt;

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
    assert!(proof.approved.len() > 1 && proof.approved["USD"] > 0, "what was heard is summed up: {proof:?}");
    assert!(summary.remains.queues.is_empty() && summary.remains.ended.is_none(), "{:?}", summary.remains);
    assert_eq!((summary.target.redis.as_deref(), summary.target.lanes > 0), (Some("off"), true), "{:?}", summary.target);
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
    let closed = ["smoke", "--target", "inproc", "--json", "--arrival", "closed", "--in-flight", "8", "--rate", "1", "--duration", "1"];
    let output = sandbox.settings.run(&bench(&closed)).await;
    sound(&output, "inproc", "sqlite");
    let summary = summary(&output);
    assert!(summary.warnings.iter().any(|warning| warning.code == "closed_loop") && summary.requests.unsent == 0, "{summary:?}");
    let (rate, measured) = (&summary.rate, summary.requests.measured);
    assert!(measured > 0 && measured < summary.requests.answered && !rate.ran_out, "the warm-up is not measured: {rate:?}");
    assert!((rate.achieved_per_s * rate.measured_s / measured as f64 - 1.0).abs() < 0.2, "{measured} in {rate:?}");
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
async fn a_database_that_the_query_of_the_url_names_is_left_alone() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let url = &sandbox.external().postgres_url;
    let name = url.rsplit('/').next().expect("a database");
    let settings = sandbox.settings.clone().with("JITAUTH_POSTGRES__URL", &format!("{url}?dbname={name}"));
    let output = settings.run(&bench(&[&["smoke", "--target", "inproc"], &SHORT[..]].concat())).await;
    sound(&output, "inproc", "postgresql");
    let written = "(select count(*) from cards) + (select count(*) from authorizations)";
    assert_eq!(sandbox.store().await.number(&format!("select {written}")).await, 0, "in the configuration's database");
    nothing_stays(&sandbox).await;
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
    // Names have the process id in hexadecimal, so this run's are known whoever is connected.
    let mark = format!("x{:x}", id.parse::<u32>().expect("a number"));
    let databases = format!("select count(*) from pg_database where datname like 'jitauth\\_bench\\_%{mark}'");
    assert_eq!(sandbox.store().await.number(&databases).await, 0);
    let daemons = std::fs::read_dir("/proc").unwrap().filter_map(|entry| std::fs::read(entry.ok()?.path().join("environ")).ok());
    let ours = daemons.filter(|environment| String::from_utf8_lossy(environment).contains(&format!("{mark}.requests"))).count();
    assert_eq!(ours, 0, "processes of the run");
}

#[tokio::test]
async fn the_daemon_of_a_run_that_is_killed_ends_too() {
    let sandbox = Sandbox::embedded();
    let mut run = sandbox.settings.start(&bench(&["smoke", "--target", "http", "--duration", "60"]));
    let parent = format!("PPid:\t{}\n", run.id().expect("a process"));
    let children = || -> Vec<std::path::PathBuf> {
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
        processes.filter(|path| std::fs::read_to_string(path.join("status")).is_ok_and(|status| status.contains(&parent))).collect()
    };
    let daemon = super::support::eventually("a daemon", async || children().pop()).await;
    run.kill().await.unwrap();
    let ended = || std::fs::read_to_string(daemon.join("status")).map_or(true, |status| status.contains("(zombie)"));
    super::support::eventually("the daemon has ended", async || ended().then_some(())).await;
}

#[tokio::test]
async fn a_second_signal_ends_the_clean_up_and_what_is_left_is_named() {
    let Some(sandbox) = Sandbox::alone().await else { return };
    let arguments = bench(&["smoke", "--target", "amqp", "--duration", "60"]);
    let mut run = sandbox.settings.start(&arguments);
    super::support::eventually("queues of the run", async || (!declared(&sandbox).await.is_empty()).then_some(())).await;
    let services = sandbox.external().services;
    services.pause(Service::Rabbitmq).await;
    let id = run.id().expect("a process").to_string();
    let mut said = String::new();
    for _ in 0..2 {
        assert!(tokio::process::Command::new("kill").args(["-INT", &id]).status().await.unwrap().success());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let ended = tokio::time::timeout(Duration::from_secs(5), run.wait()).await;
    services.resume(Service::Rabbitmq).await;
    assert_eq!(ended.expect("at once").unwrap().code(), Some(130));
    run.stderr.take().expect("piped").read_to_string(&mut said).await.unwrap();
    assert!(said.contains("left behind: ") && said.contains("queue bench-") && said.contains("database jitauth_bench_"), "{said}");
    let database = said.split("database ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a name");
    sandbox.store().await.execute(&format!("drop database {database} with (force)")).await;
}

#[tokio::test]
async fn what_was_measured_is_told_also_when_the_broker_is_gone_at_the_end() {
    let Some(sandbox) = Sandbox::alone().await else { return };
    let services = sandbox.external().services;
    let arguments = bench(&["smoke", "--target", "amqp", "--json", "--rate", "100", "--duration", "4", "--deadline", "500"]);
    let run = sandbox.settings.run(&arguments);
    let kill = async {
        super::support::eventually("queues of the run", async || (!declared(&sandbox).await.is_empty()).then_some(())).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        services.kill(Service::Rabbitmq).await;
    };
    let (output, ()) = tokio::join!(run, kill);
    services.start(Service::Rabbitmq).await;
    let summary = summary(&output);
    assert_eq!(output.status.code(), Some(1), "{:?}", summary.failures);
    assert!(summary.requests.sent > 0 && summary.requests.lost > 0 && summary.proof.is_some(), "{:?}", summary.requests);
    assert!(summary.troubles.iter().any(|trouble| trouble.contains("queue")), "{:?}", summary.troubles);
    let left = summary.warnings.iter().find(|warning| warning.code == "left_behind").expect("queues are left");
    assert!(left.text.contains("queue bench-") && !left.text.contains("database"), "{}", left.text);
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
    let workload = ["command", "rounds", "duration_s", "warm_up_s"].map(|key| summary.scenario.workload[key].as_str());
    assert_eq!(workload, ["floor", "2", "1", "1"], "what a turn was");
    assert_eq!(summary.verdict == "passed", output.status.code() == Some(0), "{:?}", summary.failures);
    assert!(echo.response_time.count > 50 && summary.response_time.count > 50, "{echo:?}");
    assert_eq!((floor.commit.iter().map(|it| it.batch).collect::<Vec<_>>(), floor.rows.len()), (vec![1, 16, 64], 3));
    assert!(floor.commit.iter().all(|it| it.commit.count > 0 && it.decisions_per_s > 0.0 && it.refused == 0), "{:?}", floor.commit);
    assert!(floor.rows.iter().all(|it| it.commit.count > 0 && it.rows_per_s > 0.0), "{:?}", floor.rows);
    assert!([&floor.redis, &floor.fsync, &floor.commit_alone].into_iter().all(|times| times.as_ref().is_some_and(|it| it.count > 0)));
    assert!(summary.environment.redis.as_ref().is_some_and(|version| version.contains('.')), "{:?}", summary.environment);
    assert_eq!(echo.lost, 0, "{echo:?}");
    // The machine may be too busy for a floor to mean anything; then the result says so and has no ratio.
    let said = |code: &str| summary.warnings.iter().any(|warning| warning.code.starts_with(code));
    for (name, against) in [("p50_over_echo_us", "echo_"), ("commit_p50_to_floor", "none")] {
        let told = floor.ratios.iter().any(|ratio| ratio.name == name && ratio.lowest <= ratio.value && ratio.value <= ratio.highest);
        assert!(told || said(against), "{name}: {:?} {:?}", floor.ratios, summary.warnings);
    }
    assert!(floor.ratios.iter().all(|ratio| ratio.name != "p99_to_echo"), "of one sample: {:?}", floor.ratios);
    assert_eq!((summary.requests.lost, summary.requests.unexpected), (0, 0), "{:?}", summary.requests.examples);
    let committed: u64 = floor.commit.iter().map(|it| it.commit.count * it.batch as u64).sum();
    assert!(summary.proof.as_ref().is_some_and(|proof| proof.decisions > 100 + committed), "{:?} {committed}", summary.proof);
    nothing_stays(&sandbox).await;
}

/// What a promise of the profile means is left to builds and machines that can keep one.
#[tokio::test]
async fn every_scenario_is_answered_rightly_and_proved() {
    let sandbox = Sandbox::embedded();
    let bursts = ["--json", "--rate", "50", "--cards", "2000", "--duration", "10"];
    for (scenario, arguments) in
        [("duplicates", &SHORT[..]), ("mixed", &SHORT), ("hot_account", &SHORT), ("ramp", &SHORT), ("burst", &bursts)]
    {
        let output = sandbox.settings.run(&bench(&[&[scenario, "--target", "inproc"], arguments].concat())).await;
        let summary = summary(&output);
        let (requests, proof) = (&summary.requests, summary.proof.as_ref().expect("a proof"));
        assert!(requests.measured > 100 && requests.sent == requests.answered, "{scenario}: {requests:?}");
        assert_eq!((requests.lost, requests.duplicated, requests.unexpected), (0, 0, 0), "{scenario}: {requests:?}");
        assert!(proof.faults().all(|(_, count)| count == 0) && proof.decisions > 100, "{scenario}: {proof:?}");
        assert!(summary.thresholds.iter().all(|graded| graded.passed), "{scenario}: {:?}", summary.thresholds);
        assert!(
            requests.replays_differing == 0 && (scenario != "duplicates" || requests.replays_identical > 50),
            "{scenario}: {requests:?}"
        );
    }
}

#[tokio::test]
async fn a_pipeline_in_this_process_stays_for_all_rounds_of_a_floor() {
    let sandbox = Sandbox::embedded();
    let arguments = [&["bench", "floor", "steady", "--target", "inproc", "--cards", "200", "--rounds", "2"], &SHORT[..]].concat();
    let output = sandbox.settings.run(&arguments).await;
    let summary = summary(&output);
    assert_eq!((summary.requests.lost, summary.requests.unexpected), (0, 0), "{:?}", summary.requests.examples);
    let floor = summary.floor.as_ref().unwrap_or_else(|| panic!("no floor: {:?}", summary.failures));
    assert!(floor.rounds == 2 && floor.echo.is_none() && summary.proof.as_ref().is_some_and(|proof| proof.decisions > 100), "{floor:?}");
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
    assert_eq!(passed, [true, true, true, true, true, false, true], "those of the scenario, then these two");
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

/// What a running daemon stands on is what it says, and what it was not asked to do is said.
#[tokio::test]
async fn a_running_daemon_is_told_by_its_own_report_and_keeps_the_holds() {
    let sandbox = Sandbox::embedded();
    let _daemon = sandbox.daemon().await;
    sandbox.settings.run_well(&["seed", "--cards", "50"]).await;
    let run = async |scenario: &str, cards: &str| {
        let sizes = ["--running", "--cards", cards, "--rate", "100", "--duration", "2", "--warm-up", "0", "--grade", "tell"];
        sandbox.settings.run(&bench(&[&[scenario, "--json"], &sizes[..]].concat())).await
    };
    let output = run("steady", "50").await;
    let told = summary(&output);
    assert_eq!(output.status.code(), Some(0), "{:?}", told.failures);
    let (target, proof) = (&told.target, told.proof.as_ref().expect("a proof"));
    assert_eq!((target.store.as_deref(), target.lanes, target.batch_max, target.configuration.as_str()), (Some("sqlite"), 0, 0, ""));
    assert!(target.durability.as_deref().is_some_and(|stated| stated.contains("synchronous")) && target.redis.is_none(), "{target:?}");
    assert!(told.environment.daemon.is_some() && proof.holds > 0, "{:?} {proof:?}", told.environment);
    let codes: Vec<&str> = told.warnings.iter().map(|warning| warning.code.as_str()).collect();
    assert!(codes.contains(&"funds_not_applied") && codes.contains(&"holds_remain"), "{codes:?}");
    // Others' decisions and what they hold are their business.
    assert_eq!(run("steady", "50").await.status.code(), Some(0));
    let output = run("steady", "5000").await;
    assert_eq!(output.status.code(), Some(1), "cards that are not there are no load");
    assert!(summary(&output).requests.examples.iter().any(|example| example.contains("jitauth seed")), "{output:?}");
    let output = run("cold_cache", "50").await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("runs already") && output.stdout.is_empty(), "{said}");
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

/// What a search for a ceiling says, when it went well.
fn searched(output: &Output) -> (Summary, jitauth::bench::summary::CeilingSearch) {
    let summary = summary(output);
    assert_eq!(output.status.code(), Some(0), "{:?}\n{}", summary.failures, String::from_utf8_lossy(&output.stderr));
    let search = summary.ceiling.as_ref().and_then(|ceiling| ceiling.search.clone()).expect("a search");
    (summary, search)
}

#[tokio::test]
async fn a_ceiling_is_searched_for_in_steps_that_are_all_accounted_for() {
    let sandbox = Sandbox::embedded();
    let sizes = ["--step", "1", "--steps-max", "4", "--rate", "50", "--warm-up", "0", "--cards", "100", "--json"];
    let output = sandbox.settings.run(&[&["bench", "ceiling", "--target", "inproc"], &sizes[..]].concat()).await;
    let (summary, search) = searched(&output);
    assert!((1..=4).contains(&search.steps.len()), "{:?}", search.steps);
    assert!(search.steps.iter().all(|step| step.of == "daemon" && step.lost == 0) && search.echo_confirmed.is_none(), "{:?}", search.steps);
    let proof = summary.proof.as_ref().expect("a proof");
    assert_eq!(proof.decisions + summary.requests.replays_identical, summary.requests.answered, "every step: {proof:?}");
    assert!(summary.requests.sent > summary.requests.measured || search.steps.len() == 1, "{:?}", summary.requests);
    // A closed loop has no rate to search for.
    let closed = ["--target", "inproc", "--arrival", "closed"];
    let refused = sandbox.settings.run(&[&["bench", "ceiling"], &closed[..]].concat()).await;
    assert_eq!(refused.status.code(), Some(64), "{}", String::from_utf8_lossy(&refused.stderr));
}

#[tokio::test]
async fn behind_a_broker_the_echos_ceiling_is_searched_for_in_turn() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let sizes = ["--step", "1", "--steps-max", "2", "--rate", "50", "--warm-up", "0", "--cards", "100", "--json"];
    let output = sandbox.settings.run(&[&["bench", "ceiling", "--target", "amqp"], &sizes[..]].concat()).await;
    let (summary, search) = searched(&output);
    assert_eq!(search.steps.iter().map(|step| step.of.as_str()).collect::<Vec<_>>(), ["daemon", "echo", "daemon", "echo"]);
    let floor = summary.floor.as_ref().expect("the echo");
    assert!(floor.echo.as_ref().is_some_and(|echo| echo.ceiling_per_s.is_some()), "{floor:?}");
    for code in ["not_confirmed", "echo_not_confirmed"] {
        assert!(summary.warnings.iter().any(|warning| warning.code == code), "two steps confirm nothing: {:?}", summary.warnings);
    }
    assert!(floor.ratios.is_empty(), "nor is there a ratio to what was not found: {:?}", floor.ratios);
    nothing_stays(&sandbox).await;
}
