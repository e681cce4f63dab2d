//! One run, from the empty stage to the summary.
#![expect(clippy::disallowed_methods, reason = "the load is measured from outside, on the real clock")]

use super::{
    Error, Kind, Request, Seen, Step,
    environment::Environment,
    measure::{Measured, measure},
    pacer::{self, Began, Pace},
    proof::{self, Owner, Proof},
    record::Record,
    scenario::{Grade, Scenario},
    schedule,
    scratch::Location,
    stage::Stage,
    stages,
    summary::{Latency, SCHEMA_VERSION, ScenarioLine, Summary, TargetLine, Tool},
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
    signal::unix::{SignalKind, signal},
    time::{interval, sleep},
};

/// How often the progress is shown.
const REFRESH: Duration = Duration::from_millis(250);
/// How long second answers are listened for after the last first one.
const ECHOES: Duration = Duration::from_millis(300);
/// Bytes of a digest that are shown.
const DIGEST_BYTES: usize = 6;

/// Runs a scenario and takes everything away again, whatever happens. `step` is told how far it is.
///
/// # Errors
/// [`Error`] when there is no result. A result that is wrong is a [`Summary`] that has not [passed](Summary::passed).
pub async fn run(request: &Request, mut step: impl FnMut(Step<'_>)) -> Result<Seen, Error> {
    let name = name_of_a_run();
    let mut stage = Stage::new(request, &name)?;
    let outcome = tokio::select! {
        outcome = perform(request, &mut stage, &name, &mut step) => outcome,
        interrupted = interrupted() => Err(interrupted),
    };
    step(Step::Done);
    let struck = stage.strike().await;
    let seen = outcome?;
    struck?;
    Ok(seen)
}

/// Resolves when the run is to end: by Ctrl-C, or by SIGTERM.
pub(super) async fn interrupted() -> Error {
    let (mut terminate, mut interrupt) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => return Error::Io(error),
    };
    tokio::select! {
        _ = terminate.recv() => Error::Interrupted,
        _ = interrupt.recv() => Error::Interrupted,
    }
}

async fn perform(request: &Request, stage: &mut Stage, name: &str, step: &mut impl FnMut(Step<'_>)) -> Result<Seen, Error> {
    let environment = Environment::look();
    step(Step::Note("making a store and starting what decides"));
    stage.set(request).await?;
    let record = record(&request.scenario, Ids::new(name));
    let target = stage.target(request, &record).await?;
    let (began, pace) = send(&request.scenario, &record, Arc::clone(&target), step).await?;
    step(Step::Note("looking at what the daemon says and what is in the store"));
    sleep(ECHOES).await;
    drop(target);
    let queue_depth = stage.queue_depth().await?;
    let told = stages::ask(stage.base(), request, began.wall, request.scenario.warm_up).await;
    let target = target_line(request, stage).await?;
    let settled = stage.settle().await?;
    let proof = prove(request, stage, &record).await?;
    let measured = measure(&request.scenario, &record, &pace);
    let environment = versions::versions(environment, stage, told.as_ref()).await;
    let around = Around {
        environment,
        began,
        queue_depth,
        settled,
        target,
        stages: stages::merge(&record.stages(), told.as_ref(), &request.promise),
    };
    let summary = summarise(request, &measured, proof, around);
    Ok(Seen { summary, measured })
}

/// What is sent, and a clean sheet for what comes back.
#[must_use]
pub fn record(scenario: &Scenario, ids: Ids) -> Arc<Record> {
    let due = schedule::due_times(scenario);
    let traffic = Arc::new(Traffic::new(scenario, ids, due.len()));
    Arc::new(Record::new(traffic, due, scenario.warm_up))
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

async fn prove(request: &Request, stage: &Stage, record: &Record) -> Result<Option<Proof>, Error> {
    if !request.prove {
        return Ok(None);
    }
    let owner = if stage.is_own() { Owner::Run } else { Owner::Everybody };
    Ok(Some(proof::check(stage.store(), owner, &record.traffic().ids, record.answers()).await?))
}

/// What is known beside the figures.
pub(super) struct Around {
    pub(super) environment: Environment,
    pub(super) began: Began,
    pub(super) queue_depth: u32,
    pub(super) settled: bool,
    pub(super) target: TargetLine,
    pub(super) stages: stages::Merged,
}

pub(super) fn summarise(request: &Request, measured: &Measured, proof: Option<Proof>, around: Around) -> Summary {
    let (response_time, scenario) = (Latency::whole(&measured.response), &request.scenario);
    let debug_build = cfg!(debug_assertions);
    let warnings = warning::warnings(&Circumstances {
        rate: &measured.rate,
        response: &response_time,
        arrival: scenario.arrival,
        environment: &around.environment,
        queue_depth: around.queue_depth,
        debug_build,
        proved: proof.is_some(),
        settled: around.settled,
    });
    let measured_from = around.began.wall.0.saturating_add(i64::try_from(scenario.warm_up.as_micros()).unwrap_or(0));
    let mut summary = Summary {
        schema_version: SCHEMA_VERSION,
        verdict: String::new(),
        failures: Vec::new(),
        started_at: jiff::Timestamp::from_microsecond(measured_from).map(|at| at.to_string()).unwrap_or_default(),
        tool: Tool {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: option_env!("JITAUTH_COMMIT").map(str::to_owned),
            build: if debug_build { "debug" } else { "release" }.to_owned(),
        },
        scenario: scenario_line(scenario, &around.target),
        target: around.target,
        environment: around.environment,
        rate: measured.rate.clone(),
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
        warnings,
        floor: None,
    };
    judge(&mut summary, scenario);
    summary
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

fn scenario_line(scenario: &Scenario, target: &TargetLine) -> ScenarioLine {
    let workload = scenario.workload();
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
    let known = request.prove || stage.is_own();
    let durability = match stage.store() {
        _ if !known => None,
        Location::Sqlite(settings) => Some(Store::durability(&Sqlite::visit(settings).await?).await?),
        Location::Postgres(settings) => Some(Store::durability(&Postgres::connect(settings).await?).await?),
    };
    Ok(TargetLine {
        kind: request.kind.name().to_owned(),
        spawned: stage.is_own(),
        store: known.then(|| stage.store().name().to_owned()),
        durability,
        queue_type: stage.broker().map(|broker| format!("{:?}", broker.queue_type).to_lowercase()),
        profile: request.profile.clone(),
        lanes: if request.kind == Kind::Inproc && stage.store().name() == "sqlite" { 1 } else { request.pipeline.lanes },
        batch_max: request.pipeline.batch_max,
        configuration: request.configuration.clone(),
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
    fn a_run_fails_for_its_thresholds_and_where_it_is_graded_for_the_promise() {
        let promise = "what the profile production promises is not kept: commit";
        check(Grade::Fail, Verdict::Kept, "p99<1s", &[]);
        check(Grade::Fail, Verdict::TooFew, "p99<1s", &[]);
        check(Grade::Fail, Verdict::Broken, "p99<1s", &[promise]);
        check(Grade::Tell, Verdict::Broken, "p99<1s", &[]);
        check(Grade::Tell, Verdict::Kept, "p99<1ms", &["threshold p99<1ms is not kept"]);
    }
}
