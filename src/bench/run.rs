//! One run, from the empty stage to the summary.
#![expect(clippy::disallowed_methods, reason = "the load is measured from outside, on the real clock")]

use super::{
    Error, Kind, Request, Seen, Step,
    environment::{Environment, cpu_time, file_system, in_memory},
    measure::{Measured, measure},
    pacer::{self, Began, Pace},
    proof::{self, Owner, Proof, Told},
    record::Record,
    scenario::{Grade, Scenario},
    schedule,
    scratch::Location,
    spawn::Daemon,
    stage::{Settled, Stage},
    stages::{self, Merged},
    summary::{Cpu, Latency, SCHEMA_VERSION, ScenarioLine, Summary, TargetLine, Tool, Warning},
    targets::Target,
    traffic::{Ids, Traffic},
    versions,
    warning::{self, Circumstances},
};
use crate::{
    ledger::{Store, postgres::Postgres, sqlite::Sqlite},
    telemetry::promise::Verdict,
};
use sha2::{Digest, Sha256};
use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{interval, sleep},
};
use url::Url;

/// How often the progress is shown.
const REFRESH: Duration = Duration::from_millis(250);
/// How long second answers are listened for after the last first one.
pub(super) const ECHOES: Duration = Duration::from_millis(300);
/// The share of the machine above which the generator disturbs what it measures.
const GENERATOR_SHARE_MAX: f64 = 0.4;
/// Bytes of a digest that are shown.
const DIGEST_BYTES: usize = 6;

/// Runs a scenario and takes everything away again, whatever happens. `step` is told how far it is.
///
/// # Errors
/// [`Error`] when there is no result. A result that is wrong is a [`Summary`] that has not [passed](Summary::passed).
pub async fn run(request: &Request, mut step: impl FnMut(Step<'_>)) -> Result<Seen, Error> {
    let seen = on_a_stage(request, async |stage, name| perform(request, stage, name, &mut step).await).await;
    step(Step::Done);
    seen
}

/// Does something on a stage, and takes the stage away again, however it ends. What could not be taken away is told by name: beside the
/// error, or among the warnings of the result.
pub(super) async fn on_a_stage(request: &Request, work: impl AsyncFnOnce(&mut Stage, &str) -> Result<Seen, Error>) -> Result<Seen, Error> {
    let on_first = async |stages: &mut [(Stage, String)]| match stages {
        [(stage, name)] => work(stage, name).await,
        _ => unreachable!("there is a stage for each request"),
    };
    let (mut seen, left) = on_stages(&[request], on_first).await?;
    if !left.is_empty() {
        let text = format!("not everything could be taken away again; left behind: {}", left.join(", "));
        seen.summary.warnings.push(Warning { code: "left_behind".to_owned(), text });
    }
    Ok(seen)
}

/// Does something on a stage for each request, under a name for each, and takes them away again, however it ends. A signal ends the work;
/// a second one ends the taking away too. Gives the names of what could not be taken away with the result.
pub(super) async fn on_stages<T>(
    requests: &[&Request],
    work: impl AsyncFnOnce(&mut [(Stage, String)]) -> Result<T, Error>,
) -> Result<(T, Vec<String>), Error> {
    let name = name_of_a_run();
    let name = |nth| if nth == 0 { name.clone() } else { format!("{name}x{nth}") };
    let stages = requests.iter().enumerate().map(|(nth, request)| Ok((Stage::new(request, &name(nth))?, name(nth))));
    let mut stages = stages.collect::<Result<Vec<_>, Error>>()?;
    let mut signals = Signals::new()?;
    let outcome = tokio::select! {
        outcome = work(&mut stages) => outcome,
        () = signals.any() => Err(Error::Interrupted),
    };
    let mut left: Vec<String> = stages.iter().flat_map(|(stage, _)| stage.belongings()).collect();
    let striking = async {
        for (stage, _) in &mut stages {
            stage.strike(&mut left).await;
        }
    };
    tokio::select! {
        () = striking => {}
        () = signals.any() => {}
    }
    match outcome {
        Ok(result) => Ok((result, left)),
        Err(error) if left.is_empty() => Err(error),
        Err(error) => Err(Error::Left { error: Box::new(error), left }),
    }
}

/// Ctrl-C and SIGTERM.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Resolves with the next one.
    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn perform(request: &Request, stage: &mut Stage, name: &str, step: &mut impl FnMut(Step<'_>)) -> Result<Seen, Error> {
    let environment = Environment { disk: file_system(stage.directory()), ..Environment::look() };
    step(Step::Note("making a store and starting what decides"));
    stage.set(request).await?;
    let asked = target_line(request, stage).await?;
    let record = record(&request.scenario, Ids::new(name));
    let target = stage.target(request, &record).await?;
    let daemon = stage.daemon().and_then(Daemon::pid);
    let before = (cpu_time(None), daemon.and_then(|pid| cpu_time(Some(pid))));
    let (began, pace) = send(&request.scenario, &record, Arc::clone(&target), step).await?;
    let after = (cpu_time(None), daemon.and_then(|pid| cpu_time(Some(pid))));
    let used = |before: Option<Duration>, after: Option<Duration>| Some(after?.saturating_sub(before?).as_secs_f64());
    let available_s = began.instant.elapsed().as_secs_f64() * environment.cores as f64;
    let cpu = used(before.0, after.0).map(|generator_s| Cpu { generator_s, daemon_s: used(before.1, after.1), available_s });
    step(Step::Note("looking at what the daemon says and what is in the store"));
    sleep(ECHOES).await;
    drop(target);
    // From here on there is a result, whatever cannot be asked any more.
    let mut troubles = Vec::new();
    let queue_depth = or_trouble(&mut troubles, "the queue could not be looked at", stage.queue_depth().await).unwrap_or(0);
    let told = stages::ask(stage.base(), request, began.wall, request.scenario.warm_up).await;
    let settled = or_trouble(&mut troubles, "what decides could not be ended", stage.settle().await).unwrap_or_default();
    let proof = or_trouble(&mut troubles, "nothing could be proved", prove(request, stage, name, &[&record]).await).flatten();
    let measured = measure(&request.scenario, &record, &pace);
    let environment = versions::versions(environment, stage, told.as_ref()).await;
    let around = Around {
        environment,
        began,
        queue_depth,
        settled,
        troubles,
        target: asked,
        stages: stages::merge(&record.stages(), told.as_ref(), &request.promise),
    };
    let mut summary = summarise(&request.scenario, Turns { command: "run", rounds: 1 }, &measured, proof, around);
    let heavy = cpu.as_ref().filter(|cpu| request.kind != Kind::Inproc && cpu.generator_s > cpu.available_s * GENERATOR_SHARE_MAX);
    if let Some(cpu) = heavy {
        let text = format!(
            "the generator used {:.1} s of the {:.1} s of processor time that there were: it took part in what it measured",
            cpu.generator_s, cpu.available_s
        );
        summary.warnings.push(Warning { code: "generator_took_the_cores".to_owned(), text });
    }
    summary.cpu = cpu;
    Ok(Seen { summary, measured })
}

/// What came of a step, or a note that it failed.
pub(super) fn or_trouble<T>(troubles: &mut Vec<String>, what: &str, outcome: Result<T, Error>) -> Option<T> {
    outcome.map_err(|error| troubles.push(format!("{what}: {error}"))).ok()
}

/// What is sent, and a clean sheet for what comes back.
#[must_use]
pub fn record(scenario: &Scenario, ids: Ids) -> Arc<Record> {
    Arc::new(sheet(scenario, ids))
}

/// The same for an echo, whose answers are no decisions.
#[must_use]
pub fn echo_record(scenario: &Scenario, ids: Ids) -> Arc<Record> {
    Arc::new(sheet(scenario, ids).of_an_echo())
}

fn sheet(scenario: &Scenario, ids: Ids) -> Record {
    let due = schedule::due_times(scenario);
    let traffic = Arc::new(Traffic::new(scenario, ids, due.len()));
    Record::new(traffic, due, scenario.warm_up)
}

/// Sends everything and shows how far it is.
///
/// # Errors
/// The thread that sends broke.
pub async fn send(
    scenario: &Scenario,
    record: &Arc<Record>,
    target: Arc<dyn Target>,
    step: &mut impl FnMut(Step<'_>),
) -> Result<(Began, Pace), Error> {
    step(Step::Began { what: "answered", total: record.due().len() as u64 });
    let mut refresh = interval(REFRESH);
    let mut sending = std::pin::pin!(pacer::run(scenario, record, target));
    loop {
        tokio::select! {
            outcome = &mut sending => return Ok(outcome?),
            _ = refresh.tick() => {
                let (p50, p99) = record.recent();
                let message = format!("p50 {} ms, p99 {} ms", millis(p50), millis(p99));
                step(Step::At { done: record.totals().answered, message: &message });
            }
        }
    }
}

/// Milliseconds and tenths, for people.
fn millis(us: u64) -> String {
    format!("{}.{}", us / 1_000, us % 1_000 / 100)
}

/// Holds the answers of all stretches of a run against the store, where that is wanted.
///
/// # Errors
/// The store cannot be asked.
pub(super) async fn prove(request: &Request, stage: &Stage, name: &str, records: &[&Record]) -> Result<Option<Proof>, Error> {
    if !request.prove {
        return Ok(None);
    }
    let owner = if stage.is_own() { Owner::Run } else { Owner::Everybody };
    let told: Vec<Told<'_>> = records.iter().map(|record| Told::of(record)).collect();
    Ok(Some(proof::check(stage.store(), owner, name, &told).await?))
}

/// What is known beside the figures.
pub(super) struct Around {
    pub(super) environment: Environment,
    pub(super) began: Began,
    pub(super) queue_depth: u32,
    pub(super) settled: Settled,
    pub(super) troubles: Vec<String>,
    pub(super) target: TargetLine,
    pub(super) stages: stages::Merged,
}

/// How often a scenario was sent, and between what: only runs that agree have the same workload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turns {
    /// The subcommand.
    pub(super) command: &'static str,
    /// Stretches of load.
    pub(super) rounds: u32,
}

/// A daemon that runs already knows best what it stands on.
fn by_its_word(target: TargetLine, told: &Merged) -> TargetLine {
    if target.spawned {
        return target;
    }
    let Merged { store, durability, .. } = told.clone();
    TargetLine { store: store.or(target.store), durability: durability.or(target.durability), ..target }
}

/// The result. `scenario` is what each turn sent, which is a part of the request's when there were several.
pub(super) fn summarise(scenario: &Scenario, turns: Turns, measured: &Measured, proof: Option<Proof>, around: Around) -> Summary {
    let response_time = Latency::whole(&measured.response);
    let target = by_its_word(around.target, &around.stages);
    let debug_build = cfg!(debug_assertions);
    let mut warnings = warning::warnings(&Circumstances {
        rate: &measured.rate,
        requests: &measured.requests,
        decisions: &measured.decisions,
        response: &response_time,
        arrival: scenario.arrival,
        environment: &around.environment,
        queue_depth: around.queue_depth,
        debug_build,
        proof: proof.as_ref(),
        spawned: target.spawned,
        funds: scenario.funds,
        settled: around.settled.in_time,
    });
    let matters = turns.command == "floor" || target.spawned && target.store.as_deref() == Some("sqlite");
    if let Some(disk) = around.environment.disk.as_deref().filter(|disk| matters && in_memory(disk)) {
        let text =
            format!("the run's directory is on {disk}: nothing of a SQLite store or of a synced write reached a disk; use --scratch");
        warnings.push(Warning { code: "not_on_a_disk".to_owned(), text });
    }
    let measured_from = around.began.wall.0.saturating_add(i64::try_from(scenario.warm_up.as_micros()).unwrap_or(0));
    let mut summary = Summary {
        schema_version: SCHEMA_VERSION,
        verdict: String::new(),
        failures: Vec::new(),
        troubles: around.troubles,
        started_at: jiff::Timestamp::from_microsecond(measured_from).map(|at| at.to_string()).unwrap_or_default(),
        tool: Tool::this(),
        scenario: scenario_line(scenario, turns, &target),
        target,
        environment: around.environment,
        rate: measured.rate.clone(),
        cpu: None,
        requests: measured.requests.clone(),
        decisions: measured.decisions.clone(),
        reasons: measured.reasons.clone(),
        response_time,
        service_time: Latency::whole(&measured.service),
        stages: around.stages.stages,
        promise: around.stages.verdict,
        seconds: measured.seconds.clone(),
        heatmap: measured.heatmap.clone(),
        ceiling: measured.ceiling.clone(),
        thresholds: Vec::new(),
        proof,
        remains: around.settled.remains,
        warnings,
        floor: None,
    };
    judge(&mut summary, scenario);
    summary
}

/// A command line as a shell would take it, without the place of the program and without what must not be told.
pub(super) fn command_line(arguments: impl Iterator<Item = String>) -> Option<String> {
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte));
    let shown = |text: &str| if plain(text) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) };
    let mut arguments = arguments.map(|text| without_password(&text));
    let program = arguments.next()?.rsplit('/').next()?.to_owned();
    Some(std::iter::once(program).chain(arguments).map(|text| shown(&text)).collect::<Vec<_>>().join(" "))
}

/// A URL in an argument may have a password, and so may that of a flag: `--url=http://user:password@host`.
fn without_password(text: &str) -> String {
    let (flag, value) = text.split_once('=').filter(|(flag, _)| flag.starts_with("--")).map_or(("", text), |(flag, value)| (flag, value));
    let Some(mut url) = Url::parse(value).ok().filter(|url| url.password().is_some()) else { return text.to_owned() };
    // Fails for URLs that cannot have a password only.
    if url.set_password(Some("***")).is_err() {
        return flag.to_owned();
    }
    if flag.is_empty() { url.to_string() } else { format!("{flag}={url}") }
}

/// Grades the thresholds and says what is wrong.
pub fn judge(summary: &mut Summary, scenario: &Scenario) {
    summary.thresholds = scenario.thresholds.iter().map(|threshold| threshold.grade(summary)).collect();
    summary.failures = summary.faults();
    let broken = summary.thresholds.iter().filter(|graded| !graded.passed);
    let broken: Vec<String> = broken.map(|graded| format!("threshold {} is not kept", graded.threshold)).collect();
    summary.failures.extend(broken);
    if scenario.grade == Grade::Fail && summary.promise == Verdict::Broken {
        let spans = summary.stages.iter().filter(|stage| stage.verdict == Some(Verdict::Broken)).map(|stage| stage.span.as_str());
        let spans = spans.collect::<Vec<_>>().join(", ");
        summary.failures.push(format!("what the profile {} promises is not kept: {spans}", summary.target.profile));
    }
    summary.verdict = if summary.passed() { "passed" } else { "failed" }.to_owned();
}

fn scenario_line(scenario: &Scenario, turns: Turns, target: &TargetLine) -> ScenarioLine {
    let mut workload = scenario.workload();
    workload.extend([("command".to_owned(), turns.command.to_owned()), ("rounds".to_owned(), turns.rounds.to_string())]);
    let mut digest = Sha256::new();
    for (key, value) in &workload {
        digest.update(format!("{key}={value}\n"));
    }
    digest.update(format!("{} {:?} {:?}", target.kind, target.store, target.queue_type));
    let workload_digest = digest.finalize().iter().take(DIGEST_BYTES).fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        write!(hex, "{byte:02x}").unwrap_or_default();
        hex
    });
    ScenarioLine { name: scenario.name.clone(), question: scenario.question.clone(), workload, workload_digest }
}

pub(super) async fn target_line(request: &Request, stage: &Stage) -> Result<TargetLine, Error> {
    let own = stage.is_own();
    let durability = match stage.store() {
        _ if !stage.may_look() => None,
        Location::Sqlite(settings) => {
            let stated = Store::durability(&Sqlite::visit(settings).await?).await?;
            let disk = settings.path.parent().and_then(file_system).filter(|disk| in_memory(disk));
            Some(disk.map_or_else(|| stated.clone(), |disk| format!("{stated}, on {disk}: in memory, on no disk")))
        }
        Location::Postgres(settings) => Some(Store::durability(&Postgres::connect(settings).await?).await?),
    };
    Ok(TargetLine {
        kind: request.kind.name().to_owned(),
        spawned: own,
        store: stage.may_look().then(|| stage.store().name().to_owned()),
        durability,
        queue_type: stage.broker().map(|broker| format!("{:?}", broker.queue_type).to_lowercase()),
        profile: request.profile.clone(),
        // A daemon that runs already does not tell these.
        lanes: match stage.store() {
            _ if !own => 0,
            Location::Sqlite(_) => 1,
            Location::Postgres(_) => request.pipeline.lanes,
        },
        batch_max: if own { request.pipeline.batch_max } else { 0 },
        configuration: if own { request.configuration.clone() } else { String::new() },
        redis: own.then(|| "off".to_owned()),
    })
}

/// A name that no other run has: of the moment it began and the process. Digits and letters that make no card number.
#[must_use]
pub fn name_of_a_run() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("bench-{:x}x{:x}", now.as_millis(), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{summary::tests::example, threshold::Threshold};

    /// What fails the example, once its requests are accounted for.
    fn check(grade: Grade, promise: Verdict, threshold: &str, failures: &[&str]) {
        let mut summary = example();
        summary.requests.lost = 0;
        summary.promise = promise;
        summary.stages[0].verdict = Some(promise);
        let thresholds = Threshold::parse(threshold).into_iter().collect();
        judge(&mut summary, &Scenario { grade, thresholds, ..Scenario::default() });
        assert_eq!(summary.failures, failures);
        assert_eq!(summary.verdict, if failures.is_empty() { "passed" } else { "failed" });
    }

    #[test]
    fn another_command_or_number_of_rounds_is_another_workload() {
        let (scenario, target) = (Scenario::default(), TargetLine::default());
        let line = |command, rounds| scenario_line(&scenario, Turns { command, rounds }, &target);
        assert_eq!(line("run", 1).workload["rounds"], "1");
        let digests = [line("run", 1), line("floor", 1), line("floor", 3), line("run", 1)].map(|line| line.workload_digest);
        assert_eq!(digests[0], digests[3]);
        assert!(digests[0] != digests[1] && digests[1] != digests[2], "{digests:?}");
    }

    #[test]
    fn a_command_line_can_be_given_again_and_tells_no_password() {
        for (arguments, expected) in [
            (vec!["/usr/bin/jitauth", "bench", "run", "smoke"], Some("jitauth bench run smoke")),
            (vec!["jitauth", "--threshold", "p99<5ms", "it's"], Some("jitauth --threshold 'p99<5ms' 'it'\\''s'")),
            (vec!["jitauth", ""], Some("jitauth ''")),
            (vec!["jitauth", "--url", "http://me:secret@host:1/"], Some("jitauth --url 'http://me:***@host:1/'")),
            (vec!["jitauth", "--url=http://me:secret@host:1/"], Some("jitauth '--url=http://me:***@host:1/'")),
            (vec!["jitauth", "--url=http://host:1"], Some("jitauth --url=http://host:1")),
            (vec![], None),
        ] {
            assert_eq!(command_line(arguments.into_iter().map(str::to_owned)).as_deref(), expected);
        }
    }

    #[test]
    fn a_run_fails_for_its_thresholds_and_where_it_is_graded_for_the_promise() {
        let promise = "what the profile production promises is not kept: commit";
        check(Grade::Fail, Verdict::Kept, "p99<1s", &[]);
        check(Grade::Fail, Verdict::TooFew, "p99<1s", &[]);
        check(Grade::Fail, Verdict::Broken, "p99<1s", &[promise]);
        check(Grade::Tell, Verdict::Broken, "p99<1s", &[]);
        check(Grade::Tell, Verdict::Kept, "p99<1ms", &["threshold p99<1ms is not kept"]);
    }
}
