//! `jitauth bench`: load, measured and proved.

mod ceiling;
mod compare;
mod figures;

use super::{Error, Exit, progress::Progress, say, write_out};
use crate::{
    bench::{
        self, Kind, Request, Running, Seen, Step, floor, output, print, run,
        scenario::{BUILT_IN, Flag, Scenario},
        scratch::Location,
        spawn::Launch,
        summary::Summary,
        threshold::Threshold,
    },
    config::{Config, StoreKind},
};
use clap::{Args, Subcommand, ValueEnum};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// What to do with load.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Send the load of a scenario, measure it, and prove that nothing was lost
    Run(RunArgs),
    /// Measure what the parts can do without us, in turn with the daemon
    Floor(FloorArgs),
    /// Search for the highest rate that keeps the 99th percentile under the scenario's bound, with nothing lost
    Ceiling(ceiling::CeilingArgs),
    /// Hold the results of two states of the program against each other; exit 98 when a figure became worse
    Compare(compare::CompareArgs),
    /// Measure every figure that has to be reached, and write the table of README
    Figures(figures::FiguresArgs),
    /// The scenarios that are built in
    List,
    /// Answer every request without deciding it: what `bench floor` measures the broker by
    #[command(hide = true)]
    Echo,
}

/// What `jitauth bench run` takes. Flags win over the scenario.
#[derive(Clone, Debug, Args)]
pub(super) struct RunArgs {
    /// Scenario: a name of `jitauth bench list`, or the path of a .toml file
    #[arg(value_name = "SCENARIO")]
    scenario: String,
    /// How requests reach what decides
    #[arg(long, value_name = "TARGET", default_value = "http")]
    target: TargetName,
    /// Store of the daemon that is started [default: that of the configuration]
    #[arg(long, value_name = "STORE")]
    store: Option<StoreName>,
    /// Ask the daemon that runs by this configuration instead of starting one; its store must have the cards (jitauth seed). The load
    /// spends their money for good: holds and decisions stay in that store
    #[arg(long)]
    running: bool,
    /// Ask the daemon that listens here, as in http://127.0.0.1:8080; implies --running
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// File with the running daemon's bearer token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Directory on the disk that is measured, for the run's SQLite file and log [default: that of sqlite.path, or the system's for
    /// temporary files]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Do not look into the store afterwards
    #[arg(long)]
    no_proof: bool,
    /// Requests a second
    #[arg(long, value_name = "N")]
    rate: Option<String>,
    /// Requests a second at the end, in a straight line from --rate
    #[arg(long, value_name = "N")]
    ramp_to: Option<String>,
    /// Seconds that are measured
    #[arg(long, value_name = "S")]
    duration: Option<String>,
    /// Seconds of the same before, not measured
    #[arg(long, value_name = "S")]
    warm_up: Option<String>,
    /// constant, poisson, or closed
    #[arg(long, value_name = "ARRIVAL")]
    arrival: Option<String>,
    /// Requests without an answer at once
    #[arg(long, value_name = "N")]
    in_flight: Option<String>,
    /// Load cards that are used
    #[arg(long, value_name = "N")]
    cards: Option<String>,
    /// Exponent of Zipf's law for the use of cards; 0 uses all alike
    #[arg(long, value_name = "X")]
    skew: Option<String>,
    /// How long the requester waits, milliseconds
    #[arg(long, value_name = "MS")]
    deadline: Option<String>,
    /// Draws everything that is left to chance
    #[arg(long, value_name = "N")]
    seed: Option<String>,
    /// What a broken promise of the profile means: fail (exit code 99), or tell
    #[arg(long, value_name = "GRADE")]
    grade: Option<String>,
    /// What must be true of the result, as in 'p99<25ms', or of its ratio to a floor, as in 'p99_to_echo<1.5'; may be given again. Broken: exit code 99
    #[arg(long = "threshold", value_name = "BOUND")]
    thresholds: Vec<String>,
    /// Directory for report.html, report.md, summary.json, latency.hgrm and intervals.hlog
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// summary.json of the run that report.html shows beside this one [default: that in the directory, of the same workload]
    #[arg(long, value_name = "FILE", requires = "out", value_parser = previous)]
    previous: Option<Box<Summary>>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// What `jitauth bench floor` takes.
#[derive(Clone, Debug, Args)]
pub(super) struct FloorArgs {
    #[command(flatten)]
    run: RunArgs,
    /// How often daemon and floors take turns
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TargetName {
    /// A daemon's HTTP edge
    Http,
    /// A daemon behind RabbitMQ
    Amqp,
    /// The pipeline and its store in this process
    Inproc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StoreName {
    /// A file
    Sqlite,
    /// A database of the run's own on the server of the configuration
    Postgres,
}

/// Reads a result while the command line is read: one that is not there should not be told of after the run.
fn previous(path: &str) -> Result<Box<Summary>, String> {
    output::read(Path::new(path)).map(Box::new).map_err(|error| error.to_string())
}

/// How the daemon of a run is started: with the profile and the file that this command was given.
pub(super) struct Invocation {
    /// This program.
    pub(super) binary: PathBuf,
    /// `--profile`.
    pub(super) profile: String,
    /// `--config`.
    pub(super) config: Option<PathBuf>,
    /// The `JITAUTH_` variables.
    pub(super) environment: BTreeMap<String, String>,
}

pub(super) async fn run(command: BenchCommand, config: &Config, invocation: Invocation) -> Result<(), Error> {
    match command {
        BenchCommand::List => list(),
        BenchCommand::Ceiling(args) => {
            let request = request(&args.run, config, invocation)?;
            ceiling::searchable(&request.scenario, request.running.is_some())?;
            let mut shown = Shown::default();
            let seen = bench::ceiling::run(&request, args.settings(), |step| shown.step(step)).await?;
            finish(&args.run, &seen)
        }
        BenchCommand::Figures(args) => figures::run(&args, config, invocation).await,
        BenchCommand::Compare(args) => compare::run(&args),
        BenchCommand::Echo => {
            let broker = config.broker.as_ref().ok_or(bench::Error::NoBroker)?;
            let echo = floor::echo::Echo::start(broker).await.map_err(bench::Error::from)?;
            say(r#"{"event":"ready"}"#)?;
            echo.run().await;
            Ok(())
        }
        BenchCommand::Run(args) => {
            let request = request(&args, config, invocation)?;
            let mut shown = Shown::default();
            let seen = run::run(&request, |step| shown.step(step)).await?;
            finish(&args, &seen)
        }
        BenchCommand::Floor(args) => {
            let redis = config.redis.as_ref().map(|redis| redis.url.clone());
            let request = request(&args.run, config, invocation)?;
            let mut shown = Shown::default();
            let seen = floor::turns::run(&request, args.rounds, redis, |step| shown.step(step)).await?;
            finish(&args.run, &seen)
        }
    }
}

fn list() -> Result<(), Error> {
    for (name, _) in BUILT_IN {
        let scenario = Scenario::load(name, &[]).map_err(|error| Error::bug(error.to_string()))?;
        say(&format!("{name:<12} {}", scenario.question))?;
    }
    say("next: jitauth bench run smoke")
}

fn request(args: &RunArgs, config: &Config, invocation: Invocation) -> Result<Request, Error> {
    let kind = match args.target {
        TargetName::Http => Kind::Http,
        TargetName::Amqp => Kind::Amqp,
        TargetName::Inproc => Kind::Inproc,
    };
    let asked = asked(scenario(args)?, kind, args.store, config, invocation)?;
    Ok(Request { running: running(args, kind, config)?, prove: !args.no_proof, scratch: args.scratch.clone(), ..asked })
}

/// A request to a daemon of its own, as the configuration says.
fn asked(scenario: Scenario, kind: Kind, store: Option<StoreName>, config: &Config, invocation: Invocation) -> Result<Request, Error> {
    let store = match (store, config.store) {
        (Some(StoreName::Sqlite), _) | (None, StoreKind::Sqlite) => Location::Sqlite(config.sqlite.clone()),
        (Some(StoreName::Postgres), _) | (None, StoreKind::Postgres) => Location::Postgres(config.postgres.clone()),
    };
    Ok(Request {
        scenario,
        kind,
        running: None,
        store,
        broker: config.broker.clone(),
        pipeline: config.pipeline,
        memory: config.memory,
        freshness: config.freshness,
        promise: config.promise,
        profile: config.profile.clone(),
        configuration: config.fingerprint().to_owned(),
        token: None,
        launch: launch(invocation)?,
        prove: true,
        scratch: None,
    })
}

fn scenario(args: &RunArgs) -> Result<Scenario, Error> {
    let quoted = |text: &Option<String>| text.as_ref().map(|text| format!("{text:?}"));
    let flags: Vec<Flag> = [
        ("--rate", "rate_per_s", args.rate.clone()),
        ("--ramp-to", "ramp_to_per_s", args.ramp_to.clone()),
        ("--duration", "duration_s", args.duration.clone()),
        ("--warm-up", "warm_up_s", args.warm_up.clone()),
        ("--arrival", "arrival", quoted(&args.arrival)),
        ("--in-flight", "in_flight_max", args.in_flight.clone()),
        ("--cards", "cards", args.cards.clone()),
        ("--skew", "zipf_exponent", args.skew.clone()),
        ("--deadline", "deadline_ms", args.deadline.clone()),
        ("--seed", "seed", args.seed.clone()),
        ("--grade", "grade", quoted(&args.grade)),
    ]
    .into_iter()
    .filter_map(|(name, key, value)| Some(Flag { name, key, value: value? }))
    .collect();
    let mut scenario = Scenario::load(&args.scenario, &flags).map_err(|error| {
        Error::new(
            Exit::BadFlagValue,
            error.to_string(),
            "load/steady.toml of this release explains every key; jitauth bench list has the others",
        )
    })?;
    for text in &args.thresholds {
        let threshold = Threshold::parse(text)
            .map_err(|error| Error::new(Exit::BadFlagValue, error.to_string(), "give it as in --threshold 'p99<25ms'"))?;
        scenario.thresholds.push(threshold);
    }
    Ok(scenario)
}

/// The daemon that is asked, when it runs already.
fn running(args: &RunArgs, kind: Kind, config: &Config) -> Result<Option<Running>, Error> {
    if !args.running && args.url.is_none() {
        return Ok(None);
    }
    if kind == Kind::Inproc {
        let what = "the target inproc is a pipeline in this process, and no daemon that runs already";
        return Err(Error::new(Exit::BadFlagValue, what, "leave out --running and --url, or take --target http or amqp"));
    }
    let asked = super::daemon::DaemonArgs { url: args.url.clone(), token_file: args.token_file.clone() };
    let (url, token) = super::daemon::Daemon::new(&asked, config)?.place_and_token();
    Ok(Some(Running { url, token }))
}

fn launch(invocation: Invocation) -> Result<Launch, Error> {
    let Invocation { binary, profile, config, mut environment } = invocation;
    let absolute = |path: &Path| {
        fs::canonicalize(path)
            .map_err(|error| Error::new(Exit::Failed, format!("{} is not found again: {error}", path.display()), "try again"))
    };
    // The daemon has another working directory.
    let profile = if Path::new(&profile).is_file() { absolute(Path::new(&profile))?.to_string_lossy().into_owned() } else { profile };
    let mut arguments = vec!["--profile".to_owned(), profile];
    if let Some(config) = config.filter(|config| !config.as_os_str().is_empty()) {
        arguments.extend(["--config".to_owned(), absolute(&config)?.to_string_lossy().into_owned()]);
    }
    environment.retain(|name, _| !matches!(name.as_str(), "JITAUTH_PROFILE" | "JITAUTH_CONFIG"));
    let launch = Launch { binary, arguments, environment, directory: PathBuf::new() };
    // On loopback, for us alone: it needs no token.
    let mut launch = launch.with("JITAUTH_HTTP__TOKEN", "");
    launch.environment.insert("JITAUTH_HTTP__TOKEN_FILE".to_owned(), String::new());
    Ok(launch)
}

fn finish(args: &RunArgs, seen: &Seen) -> Result<(), Error> {
    let mut text = Vec::new();
    if args.json {
        serde_json::to_writer_pretty(&mut text, &seen.summary).map_err(Error::bug)?;
        text.push(b'\n');
    } else {
        print::summary(&mut text, &seen.summary).map_err(Error::bug)?;
    }
    // The files first: nothing that happens to the terminal may take them along.
    let written = args.out.as_ref().map(|directory| {
        output::write(directory, seen, args.previous.as_deref()).map_err(|error| {
            let what = format!("the result cannot be written to {}: {error}", directory.display());
            Error::new(Exit::Failed, what, "give a directory that can be written to with --out")
        })
    });
    write_out(&text)?;
    written.transpose()?;
    if let (Some(directory), false) = (&args.out, args.json) {
        say(&format!("Written to {}: report.html, report.md, summary.json, latency.hgrm, intervals.hlog", directory.display()))?;
    }
    let summary = &seen.summary;
    if summary.passed() {
        return Ok(());
    }
    let faults = summary.faults();
    if faults.is_empty() {
        let next = "see which requests or spans were slow in the result, or set thresholds that this machine can keep";
        return Err(Error::new(Exit::PromiseBroken, summary.failures.join("; "), next));
    }
    let next = "look at the examples and the proof in the result: answers or money may be wrong, and no figure counts";
    Err(Error::new(Exit::Failed, format!("the run failed: {}", faults.join("; ")), next))
}

/// The progress of a run, on the standard error.
#[derive(Default)]
struct Shown {
    progress: Option<Progress>,
}

impl Shown {
    fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Note(text) => {
                self.end();
                // Progress that nobody can see is no reason to stop the work.
                drop(writeln!(io::stderr(), "{text}"));
            }
            Step::Began { what, total } => {
                self.end();
                self.progress = Some(Progress::start(what, total));
            }
            Step::At { done, message } => {
                if let Some(progress) = &mut self.progress {
                    progress.at(done, message);
                }
            }
            Step::Done => self.end(),
        }
    }

    fn end(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.finish();
        }
    }
}

impl From<bench::Error> for Error {
    fn from(error: bench::Error) -> Self {
        use bench::{Error as Bench, scratch::ScratchError};
        let next = match error {
            Bench::Store(error) | Bench::Scratch(ScratchError::Store(error)) => return error.into(),
            Bench::Scratch(ScratchError::Topology(error)) => return error.into(),
            Bench::Scratch(ScratchError::Seed(error)) => return error.into(),
            Bench::Cold => "leave out --running and --url, so that a daemon is started, or take another scenario",
            Bench::NoBroker => "choose a profile with a broker, as in: jitauth --profile services bench run steady --target amqp",
            Bench::Broker(_) | Bench::Scratch(ScratchError::Broker(_)) => {
                "see that RabbitMQ runs where JITAUTH_BROKER__URL says, and try again"
            }
            Bench::Scratch(ScratchError::Address) => "set JITAUTH_POSTGRES__URL or JITAUTH_POSTGRES__URL_FILE",
            Bench::Scratch(ScratchError::Taken(_) | ScratchError::Unmade) => "run it again: each run has a name of its own",
            Bench::Scratch(ScratchError::Sql(_)) => "see that the user of JITAUTH_POSTGRES__URL may create and drop databases",
            Bench::Proof(_) => "point the configuration at the store of the daemon that was asked, or add --no-proof",
            Bench::Interrupted => "run it again; what it had made is taken away",
            Bench::Left { .. } => "take away what is left, as with dropdb and rabbitmqctl delete_queue: it has the name of the run",
            Bench::Io(_) | Bench::Spawn(_) | Bench::Url(_) | Bench::Floor(_) | Bench::Ceiling(_) => "mend that and run it again",
        };
        let why = if let Bench::Left { error, .. } = &error { error } else { &error };
        let exit = match why {
            Bench::NoBroker => Exit::Misconfigured,
            Bench::Cold => Exit::BadFlagValue,
            Bench::Broker(_) | Bench::Scratch(ScratchError::Broker(_)) => Exit::Unavailable,
            Bench::Interrupted => Exit::Interrupted,
            _ => Exit::Failed,
        };
        Self::new(exit, error.to_string(), next)
    }
}
