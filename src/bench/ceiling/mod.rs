//! The highest rate that is kept up with, searched for in short steps; where a broker is between, in turn with that of its echo.
//!
//! A step is kept up with when its 99th percentile stays under the bound, at least 98 % of what is offered is answered in time, nothing is
//! lost, doubled or wrong, and nothing is declined for reasons of ours: a quick "too busy" is no answer.
//!
//! All steps use one store and one daemon, each with ids of its own, after the queue of the one before is empty. The proof covers them all.

mod search;

use super::{
    Error, Request, Seen, Step,
    environment::{Environment, file_system},
    floor::{Echo, FloorReport, Ratio, ratios, turns::Echoes},
    measure::{Measured, measure},
    pacer::Began,
    record::Record,
    run::{self, Around, or_trouble},
    scenario::{REQUESTS_MAX, Scenario},
    stage::Stage,
    stages,
    summary::{Ceiling, CeilingSearch, CeilingStep, Latency, Rate, Requests, Summary, rounded},
    traffic::Ids,
    versions,
};
use crate::telemetry::{Span, report::Report};
use hdrhistogram::Histogram;
use search::{Outcome, Search};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// Unmeasured time at the start of each step.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long the queue may take to empty after a step that was too much.
const DRAIN_MAX: Duration = Duration::from_secs(60);
/// How often it is looked at.
const POLL: Duration = Duration::from_millis(200);
/// No generator of this kind sends more.
const RATE_MAX: u32 = 200_000;
/// How many times the bound the 99th percentile may be for chance to have done it.
const NEARLY: u64 = 3;
/// What share of the offered may be missing for chance to have done it.
const NEARLY_ACHIEVED: f64 = 0.9;

/// How long it may search.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What is measured of each step.
    pub step: Duration,
    /// Steps of one side.
    pub steps_max: u32,
    /// All of it; the step under way is brought to its end.
    pub lasts_max: Duration,
}

/// Searches. The scenario's rate is tried first; its duration, its ramp and its bursts do not count.
///
/// # Errors
/// [`Error`] when there is no result.
pub async fn run(request: &Request, settings: Settings, mut step: impl FnMut(Step<'_>)) -> Result<Seen, Error> {
    let warm_up = request.scenario.warm_up.min(WARM_UP);
    let scenario = Scenario { ramp_to_per_s: None, burst: None, duration: settings.step, warm_up, ..request.scenario.clone() };
    let request = Request { scenario, ..request.clone() };
    let seen = run::on_a_stage(&request, async |stage, name| perform(&request, settings, stage, name, &mut step).await).await;
    step(Step::Done);
    seen
}

async fn perform(
    request: &Request,
    settings: Settings,
    stage: &mut Stage,
    name: &str,
    step: &mut impl FnMut(Step<'_>),
) -> Result<Seen, Error> {
    let environment = Environment { disk: file_system(stage.directory()), ..Environment::look() };
    step(Step::Note("making a store and starting what decides"));
    stage.set(request).await?;
    let (mut echoes, mut kept) = (Echoes::open(request, stage, name).await?, Vec::new());
    let seconds = (settings.step + request.scenario.warm_up).as_secs().max(1);
    let rate_max = u32::try_from(REQUESTS_MAX / seconds).unwrap_or(u32::MAX).min(RATE_MAX);
    let new = || Search::new(request.scenario.rate_per_s, rate_max);
    let (mut ours, mut theirs) = (Half::new("daemon", new()), echoes.is_some().then(|| Half::new("echo", new())));
    let (until, mut steps) = (Instant::now() + settings.lasts_max, Vec::new());
    for nth in 0..settings.steps_max {
        let before = steps.len();
        if let Some(scenario) = ours.scenario(request, nth).filter(|_| Instant::now() < until) {
            let record = run::record(&scenario, Ids::new(&format!("{name}.{nth}")));
            let (began, measured) = daemon(request, &scenario, stage, &record, step).await?;
            let told = stages::ask(stage.base(), request, began.wall, scenario.warm_up).await;
            let spans = record.stages();
            kept.push(record);
            steps.push(ours.heard(&scenario, Taken { measured, began: Some(began), told, spans }, step));
        }
        if let (Some(echoes), Some(half)) = (&mut echoes, &mut theirs)
            && let Some(scenario) = half.scenario(request, nth).filter(|_| Instant::now() < until)
        {
            let (measured, _) = echoes.turn(&scenario, step).await?;
            steps.push(half.heard(&scenario, Taken { measured, began: None, told: None, spans: Vec::new() }, step));
        }
        if steps.len() == before {
            break;
        }
    }
    finish(request, environment, (stage, name), &kept, (ours, theirs), steps).await
}

/// One step of what decides, and what is left of it after.
async fn daemon(
    request: &Request,
    scenario: &Scenario,
    stage: &mut Stage,
    record: &Arc<Record>,
    step: &mut impl FnMut(Step<'_>),
) -> Result<(Began, Measured), Error> {
    let target = stage.target(request, record).await?;
    let (began, pace) = run::send(scenario, record, Arc::clone(&target), step).await?;
    let until = Instant::now() + DRAIN_MAX;
    while Instant::now() < until {
        let totals = record.totals();
        if totals.answered >= totals.sent && stage.queue_depth().await? == 0 {
            break;
        }
        sleep(POLL).await;
    }
    sleep(run::ECHOES).await;
    drop(target);
    Ok((began, measure(scenario, record, &pace)))
}

/// A step that was taken.
struct Taken {
    measured: Measured,
    began: Option<Began>,
    told: Option<Report>,
    spans: Vec<(Span, Histogram<u64>)>,
}

/// The search of one side.
struct Half {
    of: &'static str,
    search: Search,
    /// The latest step at each rate that was kept, and the latest that was not.
    kept: BTreeMap<u32, Taken>,
    not_kept: Option<Taken>,
    requests: Requests,
    /// Why the lowest rate that was not kept was not.
    generator: Option<u32>,
}

impl Half {
    fn new(of: &'static str, search: Search) -> Self {
        Self { of, search, kept: BTreeMap::new(), not_kept: None, requests: Requests::default(), generator: None }
    }

    /// The next step, with other chances than the last.
    fn scenario(&self, request: &Request, nth: u32) -> Option<Scenario> {
        let seed = request.scenario.seed.wrapping_add(u64::from(nth));
        Some(Scenario { rate_per_s: self.search.next()?, seed, ..request.scenario.clone() })
    }

    fn heard(&mut self, scenario: &Scenario, taken: Taken, step: &mut impl FnMut(Step<'_>)) -> CeilingStep {
        let (rate, judged) = (scenario.rate_per_s, judge(scenario, &taken.measured));
        self.requests.join(&taken.measured.requests);
        if judged.generator {
            self.generator = Some(rate);
        }
        self.search.heard(judged.outcome);
        let line = line(self.of, scenario, &taken.measured, &judged);
        step(Step::Note(&line.told()));
        match judged.outcome {
            Outcome::Kept => drop(self.kept.insert(rate, taken)),
            Outcome::Nearly | Outcome::Broken => self.not_kept = Some(taken),
        }
        line
    }

    /// Whether the ceiling was found: more was offered and not kept up with, and what was kept was kept twice.
    fn certain(&self) -> bool {
        self.search.broken().is_some() && self.search.confirmed()
    }

    /// Requests that were lost in the step that counts. Those that were too much may lose some.
    fn lost(&self) -> u64 {
        let counts = self.search.found().and_then(|rate| self.kept.get(&rate)).or(self.not_kept.as_ref());
        counts.map_or(0, |taken| taken.measured.requests.lost)
    }

    /// The step that counts: the latest at the highest rate that was kept, or the latest of all when none was.
    fn best(self) -> Option<Taken> {
        let Self { search, mut kept, not_kept, .. } = self;
        search.found().and_then(|rate| kept.remove(&rate)).or(not_kept)
    }

    /// Whether the generator was why no higher rate was kept.
    fn by_generator(&self) -> bool {
        self.generator.is_some() && self.generator == self.search.broken()
    }
}

struct Judged {
    outcome: Outcome,
    why: Option<String>,
    generator: bool,
}

/// Whether a step was kept up with.
fn judge(scenario: &Scenario, it: &Measured) -> Judged {
    let broken = |why: String| Judged { outcome: Outcome::Broken, why: Some(why), generator: false };
    let requests = &it.requests;
    for (count, what) in [
        (requests.lost, "had no answer"),
        (requests.unsent, "could not be sent"),
        (requests.duplicated, "had more than one answer"),
        (requests.unexpected, "were answered with something else"),
        (requests.errors, "were declined for reasons of ours"),
    ] {
        if count > 0 {
            return broken(format!("{count} {what}"));
        }
    }
    if it.response.is_empty() {
        return broken("nothing was measured".to_owned());
    }
    let bound = u64::try_from(scenario.ceiling_p99.as_micros()).unwrap_or(u64::MAX);
    let (p99, rate) = (it.response.value_at_quantile(0.99), &it.rate);
    let why = match (p99 >= bound, rate.saturated) {
        (false, false) => return Judged { outcome: Outcome::Kept, why: None, generator: false },
        (true, _) => format!("p99 {} ms", rounded(p99 as f64 / 1e3, 1)),
        (false, true) => format!("{} a second were answered", rate.achieved_per_s),
    };
    // Once a request was on its way it was answered in time: it left too late.
    let generator = rate.held_back == 0 && it.service.value_at_quantile(0.99) < bound;
    let why = if generator { format!("{why}, because requests left late") } else { why };
    let nearly = p99 < bound.saturating_mul(NEARLY) && rate.achieved_per_s >= rate.offered_per_s * NEARLY_ACHIEVED;
    Judged { outcome: if nearly { Outcome::Nearly } else { Outcome::Broken }, why: Some(why), generator }
}

fn line(of: &str, scenario: &Scenario, it: &Measured, judged: &Judged) -> CeilingStep {
    CeilingStep {
        of: of.to_owned(),
        rate_per_s: scenario.rate_per_s,
        achieved_per_s: it.rate.achieved_per_s,
        p50_us: it.response.value_at_quantile(0.5),
        p99_us: it.response.value_at_quantile(0.99),
        service_p99_us: it.service.value_at_quantile(0.99),
        lag_p99_us: it.lag.value_at_quantile(0.99),
        lost: it.requests.lost + it.requests.unsent,
        errors: it.requests.errors,
        kept: judged.outcome == Outcome::Kept,
        why: judged.why.clone(),
    }
}

async fn finish(
    request: &Request,
    environment: Environment,
    (stage, name): (&mut Stage, &str),
    kept: &[Arc<Record>],
    (ours, theirs): (Half, Option<Half>),
    steps: Vec<CeilingStep>,
) -> Result<Seen, Error> {
    let (target, mut troubles) = (run::target_line(request, stage).await?, Vec::new());
    let queue_depth = or_trouble(&mut troubles, "the queue could not be looked at", stage.queue_depth().await).unwrap_or(0);
    let settled = or_trouble(&mut troubles, "what decides could not be ended", stage.settle().await).unwrap_or_default();
    let records: Vec<&Record> = kept.iter().map(AsRef::as_ref).collect();
    let proved = run::prove(request, stage, name, &records).await;
    let proof = or_trouble(&mut troubles, "nothing could be proved", proved).flatten();
    let (found, theirs_found) = (ours.found(), theirs.as_ref().map(Half::found));
    let search = CeilingSearch {
        confirmed: ours.search.confirmed(),
        generator: ours.by_generator(),
        echo_confirmed: theirs.as_ref().map(|half| half.search.confirmed()),
        echo_generator: theirs.as_ref().map(Half::by_generator),
        steps,
    };
    let ceiling = Ceiling {
        rate_per_s: found,
        p99_bound_us: u64::try_from(request.scenario.ceiling_p99.as_micros()).unwrap_or(u64::MAX),
        reached: ours.search.broken().is_some(),
        search: Some(search),
    };
    let (requests, confirmed) = (ours.requests.clone(), ours.search.confirmed());
    let Some(Taken { mut measured, began: Some(began), told, spans }) = ours.best() else {
        return Err(Error::Ceiling("there was no step".to_owned()));
    };
    let environment = versions::versions(environment, stage, told.as_ref()).await;
    let stages = stages::merge(&spans, told.as_ref(), &request.promise);
    // Every request of every step is accounted for; speed is that of the step that counts.
    measured.requests = Requests { measured: measured.requests.measured, ..requests };
    measured.ceiling = Some(ceiling);
    let around = Around { environment, began, queue_depth, settled, troubles, target, stages };
    let mut summary = run::summarise(&request.scenario, run::Turns { command: "ceiling", rounds: 1 }, &measured, proof, around);
    let ours = confirmed.then_some(found);
    summary.floor = theirs.map(|half| echo(&half, &summary, request.scenario.duration, (ours, theirs_found)));
    warn(&mut summary);
    run::judge(&mut summary, &request.scenario);
    Ok(Seen { summary, measured })
}

impl Half {
    /// The highest rate that was kept up with; 0 when none was.
    fn found(&self) -> f64 {
        f64::from(self.search.found().unwrap_or(0))
    }
}

/// The echo's ceiling, as a floor, with the ratio of ours to it, if that was kept twice. The echo's times are those of other rates, so they
/// are not told.
fn echo(half: &Half, daemon: &Summary, slice: Duration, (ours, theirs): (Option<f64>, Option<f64>)) -> FloorReport {
    let theirs = theirs.unwrap_or(0.0);
    // A ceiling of the echo that was not found may be far higher, and would flatter.
    let ratio = ours.filter(|_| theirs > 0.0 && half.certain()).map(|ours| Ratio {
        name: "ceiling_to_echo".to_owned(),
        value: rounded(ours / theirs, 3),
        lowest: rounded(ours / theirs, 3),
        highest: rounded(ours / theirs, 3),
        meaning: "ceiling, to that of the broker's echo".to_owned(),
    });
    let echo = Echo {
        queue_type: daemon.target.queue_type.clone().unwrap_or_default(),
        response_time: Latency::default(),
        service_time: Latency::default(),
        rate: Rate::default(),
        ceiling_per_s: Some(theirs),
        ceiling_reached: half.search.broken().is_some(),
        lost: half.lost(),
    };
    let (slice_s, ratios) = (slice.as_secs_f64(), ratio.into_iter().collect());
    FloorReport {
        rounds: 1,
        slice_s,
        echo: Some(echo),
        commit: Vec::new(),
        commit_alone: None,
        rows: Vec::new(),
        redis: None,
        fsync: None,
        ratios,
    }
}

/// Why the ceiling may be another.
fn warn(summary: &mut Summary) {
    let Some(search) = summary.ceiling.as_ref().and_then(|ceiling| ceiling.search.as_ref()) else { return };
    let mut warnings = Vec::new();
    let mut warn = |applies: bool, code: &str, text: &str| {
        if applies {
            warnings.push(super::summary::Warning { code: code.to_owned(), text: text.to_owned() });
        }
    };
    let late = "requests left late at the next higher rate: the generator, or a broker that takes no more, was the limit";
    warn(
        !search.confirmed,
        "not_confirmed",
        "the ceiling was not kept a second time before the steps or the time were used up: no ratio of it is told",
    );
    warn(
        search.echo_confirmed == Some(false),
        "echo_not_confirmed",
        "the echo's ceiling was not kept a second time: no ratio to it is told",
    );
    warn(search.generator, "generator_limited", &format!("{late}; what decides may do more"));
    let reached = summary.floor.as_ref().and_then(|floor| floor.echo.as_ref()).is_none_or(|echo| echo.ceiling_reached);
    warn(!reached, "echo_not_reached", "the search ended before the echo was offered more than it can do: no ratio to it is told");
    warn(search.echo_generator == Some(true), "echo_generator_limited", &format!("{late} of the echo; it may do more"));
    warnings.extend(summary.floor.iter().flat_map(ratios::warnings));
    summary.warnings.extend(warnings);
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::bench::record::histogram;

    fn measured(p99_us: u64, change: impl FnOnce(&mut Measured)) -> Measured {
        let mut response = histogram();
        (0..100).for_each(|_| response.saturating_record(p99_us));
        let mut it = Measured {
            rate: Rate { offered_per_s: 1_000.0, achieved_per_s: 1_000.0, ..Rate::default() },
            requests: Requests { sent: 100, answered: 100, ..Requests::default() },
            decisions: std::collections::BTreeMap::new(),
            reasons: std::collections::BTreeMap::new(),
            service: response.clone(),
            lag: histogram(),
            response,
            by_second: Vec::new(),
            seconds: Vec::new(),
            heatmap: crate::bench::summary::Heatmap::default(),
            ceiling: None,
            stretches: Vec::new(),
        };
        change(&mut it);
        it
    }

    #[test]
    fn the_step_that_counts_is_the_latest_at_the_highest_rate_that_was_kept() {
        let scenario = Scenario { rate_per_s: 1_000, ceiling_p99: Duration::from_millis(100), ..Scenario::default() };
        let check = |p99s_ms: &[u64], found, best_ms| {
            let mut half = Half::new("daemon", Search::new(1_000, 100_000));
            for p99_ms in p99s_ms {
                let step = Scenario { rate_per_s: half.search.next().unwrap(), ..scenario.clone() };
                let taken = Taken { measured: measured(p99_ms * 1_000, |_| ()), began: None, told: None, spans: Vec::new() };
                half.heard(&step, taken, &mut |_| ());
            }
            assert_eq!(half.search.found(), found, "{p99s_ms:?}");
            let p99 = half.best().unwrap().measured.response.value_at_quantile(0.99) / 1_000;
            assert_eq!(p99, best_ms, "{p99s_ms:?}");
        };
        check(&[1, 2, 900], Some(2_000), 2);
        check(&[1, 2, 900, 30, 40, 50], Some(3_750), 50);
        // 4,000 is too much, 3,875 the highest that was kept, and the second time it is not: what counts is the step at 3,750.
        check(&[1, 2, 900, 30, 40, 50, 60, 901], Some(3_750), 50);
        check(&[900, 901], None, 901);
    }

    #[test]
    fn a_ratio_to_the_echos_ceiling_is_told_once_that_was_found() {
        let scenario = Scenario { rate_per_s: 1_000, ceiling_p99: Duration::from_millis(100), ..Scenario::default() };
        let daemon = crate::bench::summary::tests::example();
        let check = |p99s_ms: &[u64], lost, expected: Option<f64>| {
            let mut half = Half::new("echo", Search::new(1_000, 100_000));
            for p99_ms in p99s_ms {
                let step = Scenario { rate_per_s: half.search.next().unwrap(), ..scenario.clone() };
                let measured = measured(p99_ms * 1_000, |it| it.requests.lost = if *p99_ms > 100 { lost } else { 0 });
                half.heard(&step, Taken { measured, began: None, told: None, spans: Vec::new() }, &mut |_| ());
            }
            let floor = |ours| echo(&half, &daemon, Duration::from_secs(5), (ours, Some(half.found())));
            let certain = floor(Some(3_000.0));
            assert_eq!(certain.ratios.first().map(|ratio| ratio.value), expected, "{p99s_ms:?}");
            assert!(floor(None).ratios.is_empty(), "nor is ours certain");
            let lost = half.search.found().is_none() && lost > 0;
            assert_eq!(ratios::warnings(&certain).iter().any(|warning| warning.code == "echo_lost"), lost, "{p99s_ms:?}");
        };
        check(&[1], 0, None);
        check(&[1, 900], 0, None);
        check(&[1, 900, 1, 1, 1, 1], 0, None);
        // 1,937 is the highest that is kept, and is kept twice; what was too much lost requests.
        check(&[1, 900, 1, 1, 1, 1, 1], 7, Some(1.549));
        check(&[900, 900, 900, 900, 900, 900, 900, 900], 7, None);
    }

    #[test]
    fn a_step_is_kept_when_it_is_quick_and_whole() {
        let scenario = Scenario { ceiling_p99: Duration::from_millis(100), ..Scenario::default() };
        let check = |p99_us, change: fn(&mut Measured), outcome, why: &str, generator| {
            let judged = judge(&scenario, &measured(p99_us, change));
            assert_eq!((judged.outcome, judged.generator), (outcome, generator), "{p99_us} {:?}", judged.why);
            assert_eq!(judged.why.unwrap_or_default(), why);
        };
        let saturated = |it: &mut Measured| (it.rate.saturated, it.rate.achieved_per_s) = (true, 950.0);
        let far = |it: &mut Measured| (it.rate.saturated, it.rate.achieved_per_s) = (true, 890.0);
        let held_back = |it: &mut Measured| (it.rate.saturated, it.rate.achieved_per_s, it.rate.held_back) = (true, 950.0, 1);
        let left_late = |it: &mut Measured| {
            it.service.reset();
            it.service.saturating_record(50);
        };
        check(99_000, |_| (), Outcome::Kept, "", false);
        check(101_000, |_| (), Outcome::Nearly, "p99 101.1 ms", false);
        check(301_000, |_| (), Outcome::Broken, "p99 301.1 ms", false);
        check(101_000, left_late, Outcome::Nearly, "p99 101.1 ms, because requests left late", true);
        check(50, saturated, Outcome::Nearly, "950 a second were answered, because requests left late", true);
        check(50, held_back, Outcome::Nearly, "950 a second were answered", false);
        check(50, far, Outcome::Broken, "890 a second were answered, because requests left late", true);
        check(50, |it| it.requests.lost = 1, Outcome::Broken, "1 had no answer", false);
        check(50, |it| it.requests.unsent = 2, Outcome::Broken, "2 could not be sent", false);
        check(50, |it| it.requests.duplicated = 1, Outcome::Broken, "1 had more than one answer", false);
        check(50, |it| it.requests.unexpected = 1, Outcome::Broken, "1 were answered with something else", false);
        check(50, |it| it.requests.errors = 1, Outcome::Broken, "1 were declined for reasons of ours", false);
        check(50, |it| it.response.reset(), Outcome::Broken, "nothing was measured", false);
    }
}
