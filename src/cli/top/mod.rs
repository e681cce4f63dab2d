//! `jitauth top`: the running daemon on one screen. A process of its own that asks `/report`, `/health` and `/metrics` once a second;
//! the daemon pays for the answers and for nothing else.

mod frame;
mod samples;
#[cfg(test)]
mod tests;

use super::{
    Error, Exit,
    daemon::{Daemon, DaemonArgs},
    report, write_out,
};
use crate::config::Config;
use clap::Args;
use console::Term;
use frame::{Health, Seen};
use samples::Samples;
use std::{
    io::{self, IsTerminal},
    time::Duration,
};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

/// How often the daemon is asked.
const EVERY: Duration = Duration::from_secs(1);
/// What rates and percentiles are about.
const STRETCH: &str = "-15s";
/// Characters in a line when nobody says how many there are.
const WIDTH: usize = 120;
/// The other screen and no cursor, and back.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";
const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";
/// To the upper left; to the end of the line; to the end of the screen.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K\r\n";
const CLEAR_REST: &str = "\x1b[J";

/// Which daemon, and how often.
#[derive(Clone, Debug, Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    daemon: DaemonArgs,
    /// Print one screen and end
    #[arg(long)]
    once: bool,
}

/// Shows the screen until Ctrl-C, or once.
pub(super) async fn run(args: &TopArgs, config: &Config) -> Result<(), Error> {
    let daemon = Daemon::new(&args.daemon, config)?;
    if args.once {
        let lines = frame::render(&look(&daemon).await?);
        return write_out((lines.join("\n") + "\n").as_bytes());
    }
    if !io::stdout().is_terminal() {
        let what = "top needs a terminal, and standard output is none";
        return Err(Error::new(Exit::Usage, what, "run it in a terminal, or with --once for one screen"));
    }
    // Before the screen is taken: a daemon that is not there is told on the ordinary one.
    let first = frame::render(&look(&daemon).await?);
    write_out(ENTER)?;
    let shown = show(&daemon, first).await;
    write_out(LEAVE)?;
    shown
}

async fn show(daemon: &Daemon, mut lines: Vec<String>) -> Result<(), Error> {
    let failed = |error: io::Error| Error::bug(format!("signals cannot be listened to: {error}"));
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt()).map_err(failed)?, signal(SignalKind::terminate()).map_err(failed)?);
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut trouble = None;
    loop {
        draw(&lines, trouble.as_deref())?;
        select! {
            biased;
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = ticks.tick() => {}
        }
        // A daemon that restarts is waited for; what it said last stays on the screen.
        trouble = match look(daemon).await {
            Ok(seen) => {
                lines = frame::render(&seen);
                None
            }
            Err(error) => Some(error.to_string()),
        };
    }
}

fn draw(lines: &[String], trouble: Option<&str>) -> Result<(), Error> {
    let size = Term::stdout().size_checked();
    let (height, width) = size.map_or((usize::MAX, WIDTH), |(height, width)| (usize::from(height), usize::from(width)));
    let mut screen = HOME.to_owned();
    let trouble = trouble.iter().flat_map(|trouble| trouble.lines());
    for line in trouble.chain(lines.iter().map(String::as_str)).take(height.saturating_sub(1)) {
        screen.extend(line.chars().take(width));
        screen += CLEAR_LINE;
    }
    write_out((screen + CLEAR_REST).as_bytes())
}

/// Asks the daemon everything that a screen shows.
async fn look(daemon: &Daemon) -> Result<Seen, Error> {
    let (report, _) = report::fetch(daemon, &report::path(Some(STRETCH), None, false)).await?;
    let health = daemon.ask("/health").await?;
    let health: Health = serde_json::from_slice(&health.body).map_err(|error| {
        let what = format!("the health of the daemon at {} cannot be read: {error}", daemon.shown());
        Error::new(Exit::Failed, what, "ask with the jitauth of the same release")
    })?;
    let metrics = daemon.ask("/metrics").await?;
    let samples = Samples::parse(&String::from_utf8_lossy(&metrics.body));
    Ok(Seen { report, health, samples })
}
