//! `jitauth demo`: the whole thing at work, with nothing installed, and a proof at the end.
#![expect(clippy::disallowed_methods, reason = "the demo measures the daemon from outside, on the real clock")]

mod measure;
mod print;
mod requests;
mod tally;
#[cfg(test)]
mod tests;
mod traffic;

use super::{
    daemon::{Daemon as Link, Place},
    progress::Progress,
};
use crate::{
    bench::{
        proof::{self, Owner, Told},
        scratch::Location,
        spawn::{Daemon, Launch, SpawnError},
    },
    ledger::sqlite,
    seed::{self, Plan, Target},
};
use measure::CacheCounts;
use print::{BurstSeen, Decisions, Outage, Replays, Summary};
use requests::Traffic;
use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tally::{Tally, Times};
use tokio::sync::watch;
use traffic::{Burst, Pace, Sender};

/// Longest time for either half of the burst: a slow machine sends less, not longer.
const BURST_HALF_MAX: Duration = Duration::from_secs(5);
/// Requests in the burst, at most.
const BURST_REQUESTS: usize = 60_000;
/// The SQLite file in the directory of the demo.
const STORE: &str = "jitauth.db";
/// How often the progress bar moves.
const REFRESH: Duration = Duration::from_millis(200);

/// What `jitauth demo` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Load cards to seed
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub cards: u64,
    /// Requests a second while latency is measured
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    pub rate: u64,
    /// Seconds for which latency is measured
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub seconds: u64,
    /// Connections in the burst
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub connections: u16,
    /// Draws cards and requests
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Keep the store and the log
    #[arg(long)]
    pub keep: bool,
}

/// Why the demo ended early, or what it disproved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, a process or the terminal.
    #[error("the demo could not go on: {0}")]
    Io(#[from] io::Error),
    /// The daemon did not start.
    #[error("{0}")]
    Daemon(String),
    /// The daemon could not be started or ended.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// Sample cards could not be written.
    #[error("{0}")]
    Seed(#[from] seed::Error),
    /// A request that was not answered, or not as it should be.
    #[error("{0}")]
    Traffic(String),
    /// The store could not be asked.
    #[error("the store could not be checked: {0}")]
    Store(#[from] sqlx::Error),
    /// The store is not what was answered.
    #[error("the proof failed: the line above says what is wrong")]
    Disproved,
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// Runs `jitauth demo` with this binary as the daemon.
///
/// # Errors
/// [`Error`]. The daemon is stopped then, too.
pub async fn run(args: &DemoArgs, binary: &Path) -> Result<(), Error> {
    let directory = tempfile::Builder::new().prefix("jitauth-demo-").disable_cleanup(args.keep).tempdir()?;
    tokio::select! {
        outcome = demonstrate(args, binary, directory.path()) => outcome,
        interrupt = tokio::signal::ctrl_c() => Err(interrupt.map_or_else(Error::Io, |()| Error::Interrupted)),
    }
}

async fn demonstrate(args: &DemoArgs, binary: &Path, directory: &Path) -> Result<(), Error> {
    let plan = Plan::new(args.cards, args.seed);
    let mut daemon = Daemon::new(embedded(binary, directory));
    let store = directory.join(STORE);
    let sync_cost = measure::sync_cost(directory)?;
    daemon.run("migrate").await?;
    seed::write(plan, &Target::Sqlite { path: store.clone() }, |_| ()).await?;
    let traffic = Traffic::new(plan, args.seed, usize::try_from(args.rate * args.seconds).unwrap_or(usize::MAX), BURST_REQUESTS);
    let ready = daemon.start().await?;
    say(&format!("Embedded daemon at http://{} (SQLite in {}), {} load cards.", ready, directory.display(), args.cards))?;

    let (place, at) = watch::channel(place(ready)?);
    let sender = Sender {
        link: Link::at(at, usize::from(args.connections)),
        tally: Arc::new(Tally::new(traffic.bodies.len())),
        traffic: Arc::new(traffic),
    };
    let mut caches = CacheCounts::default();
    let (pace, steady) = steady_phase(args, &sender).await?;
    let (burst, burst_times, outage) = burst_phase(args, &sender, &mut daemon, &place, &mut caches).await?;
    caches.add_page(&metrics(&sender).await?);
    // Killed once more, not stopped: whatever was answered has to be in the file by now.
    daemon.kill().await?;
    let answers = sender.tally.answers().map(|(body, answer)| (body, answer.known())).collect();
    let told = Told { traffic: &sender.traffic.asked, answers };
    let proof = proof::check(&Location::Sqlite(opened(&store)), Owner::Run, requests::RUN, &[told]).await?;

    let replays = Replays { identical: sender.tally.identical.load(Relaxed), differing: sender.tally.differing.load(Relaxed) };
    let mut decisions = Decisions::default();
    sender.tally.answers().for_each(|(_, answer)| decisions.add(&answer.body));
    let durability = daemon.stated_durability();
    let summary = Summary {
        cards: args.cards,
        pace: &pace,
        steady: &steady,
        burst: &burst,
        burst_times: &burst_times,
        outage: &outage,
        decisions: &decisions,
        caches: &caches,
        sync_cost: &sync_cost,
        durability: durability.as_deref(),
        replays,
        proof: &proof,
        kept: args.keep.then_some(directory),
    };
    print::summary(&mut io::stdout().lock(), &summary)?;
    if proof.holds_good() && replays.differing == 0 && decisions.unreadable == 0 { Ok(()) } else { Err(Error::Disproved) }
}

/// At a stated rate, for the latency figures.
async fn steady_phase(args: &DemoArgs, sender: &Sender) -> Result<(Pace, Times), Error> {
    let total = sender.traffic.steady.len() as u64;
    let pace = watched("steady", total, sender, traffic::steady(sender, args.rate)).await?;
    Ok((pace, sender.tally.take_times()))
}

/// As fast as it goes, with a kill in the middle.
async fn burst_phase(
    args: &DemoArgs,
    sender: &Sender,
    daemon: &mut Daemon,
    place_of_daemon: &watch::Sender<Place>,
    caches: &mut CacheCounts,
) -> Result<(BurstSeen, Times, Outage), Error> {
    let connections = usize::from(args.connections);
    let answered = || sender.tally.answered.load(Relaxed);
    let work = async {
        let (began, first) = (Instant::now(), answered());
        let mut burst = Burst::start(sender, connections);
        burst.reach(50, BURST_HALF_MAX).await?;
        caches.add_page(&metrics(sender).await?);
        let (killed, before, times) = (Instant::now(), answered(), sender.tally.take_times());
        daemon.kill().await?;
        let ready = daemon.start().await?;
        let (again, mid) = (Instant::now(), answered());
        place_of_daemon.send_replace(place(ready)?);
        burst.reach(100, BURST_HALF_MAX).await?;
        burst.finish().await?;
        let seen = BurstSeen {
            connections,
            answered: (before - first) + (answered() - mid),
            took: killed.duration_since(began) + again.elapsed(),
        };
        let tally = &sender.tally;
        let outage =
            Outage { down: again.duration_since(killed), resent: tally.resent.load(Relaxed), recovered: tally.recovered.load(Relaxed) };
        Ok((seen, times, outage))
    };
    watched("burst", sender.traffic.burst.len() as u64, sender, work).await
}

/// Does the work, and shows how far it is.
async fn watched<T>(what: &'static str, total: u64, sender: &Sender, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let before = sender.tally.answered.load(Relaxed);
    let mut progress = Progress::start(what, total);
    let mut refresh = tokio::time::interval(REFRESH);
    let mut work = std::pin::pin!(work);
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome,
            _ = refresh.tick() => progress.at(sender.tally.answered.load(Relaxed) - before, &sender.tally.p99()),
        }
    };
    progress.finish();
    outcome
}

/// A daemon that needs nothing, and takes nothing from what is configured for this user.
fn embedded(binary: &Path, directory: &Path) -> Launch {
    let (arguments, environment) = (Vec::new(), BTreeMap::new());
    Launch { binary: binary.to_owned(), arguments, environment, directory: directory.to_owned() }
        .on_a_free_port()
        .with("JITAUTH_PROFILE", "embedded")
        .with("JITAUTH_STORE__KIND", "sqlite")
        .with("JITAUTH_SQLITE__PATH", directory.join(STORE).to_string_lossy())
        .with("JITAUTH_BROKER__ENABLED", "false")
        .with("JITAUTH_REDIS__ENABLED", "false")
}

/// The store, for a look at it.
fn opened(path: &Path) -> sqlite::Settings {
    let busy_timeout = Duration::from_secs(5);
    sqlite::Settings { path: path.to_owned(), readers: 1, busy_timeout, autocheckpoint_pages: 1_000 }
}

fn place(ready: SocketAddr) -> Result<Place, Error> {
    Place::new(ready).map_err(|error| Error::Daemon(format!("the daemon's address {ready} is none: {error}")))
}

async fn metrics(sender: &Sender) -> Result<String, Error> {
    let answer = sender.link.get("/metrics").await;
    answer.map(|reply| reply.text()).map_err(|error| Error::Traffic(format!("GET /metrics was not answered: {error}")))
}

fn say(line: &str) -> Result<(), Error> {
    Ok(writeln!(io::stdout(), "{line}")?)
}
