//! Logging: JSON off a terminal, readable on one.
//!
//! The daemon's lines go to the standard output, those of other commands to the standard error, through a bounded channel and a thread of their own: a reader that is stuck or gone costs lines,
//! which are counted, and never a decision.

use std::{
    env,
    io::{self, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};
use tracing_subscriber::{EnvFilter, Layer, fmt::MakeWriter, layer::SubscriberExt, registry, util::SubscriberInitExt};

/// Lines waiting for the writer.
const LINES_MAX: usize = 8192;
/// How long the last lines may take when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
/// What a command other than the daemon logs: it reports its own errors, and lapin reports them once more.
const COMMAND_FILTER: &str = "warn,lapin=off";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// The log section of the configuration, resolved.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How lines look.
    pub format: Format,
    /// A `tracing` filter, such as `info` or `jitauth=debug`. `RUST_LOG` wins over it.
    pub filter: String,
}

/// Who logs, which decides where to and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The daemon: its log is what it says, so it goes to the standard output.
    Daemon,
    /// Any other command: the standard output is its answer. Only warnings, unless `RUST_LOG` asks for more.
    Command,
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error("the log filter {text:?} from {origin} is not valid: {error}; use a level such as `info`, or `jitauth=debug`")]
    Filter {
        /// Where it comes from.
        origin: &'static str,
        /// What it says.
        text: String,
        /// What is wrong with it.
        error: String,
    },
    /// The writer's thread could not be started.
    #[error("the log writer cannot be started: {0}")]
    Thread(#[source] io::Error),
    /// The process logs already.
    #[error("logging has begun already")]
    Twice,
}

/// Keeps the log going. Dropped, it waits a moment for the last lines: let it live as long as `main`.
#[derive(Debug)]
pub struct LogGuard {
    lines: Lines,
    done: Receiver<()>,
}

impl LogGuard {
    /// Where dropped lines are counted.
    #[must_use]
    pub fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lines.dropped)
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        // Behind everything that was written before. When the channel is full, the reader is stuck: nothing to wait for.
        if self.lines.sender.try_send(Order::Finish).is_ok() {
            let finished = self.done.recv_timeout(FLUSH_TIMEOUT);
            debug_assert!(!matches!(finished, Err(RecvTimeoutError::Disconnected)), "the writer tells before it ends");
        }
    }
}

/// Begins to log for the whole process.
///
/// # Errors
/// [`LogError`] says what is wrong and what to do.
pub fn init(settings: &Settings, speaker: Speaker) -> Result<LogGuard, LogError> {
    let (wanted, terminal, output): (_, _, Box<dyn Write + Send>) = match speaker {
        Speaker::Daemon => (settings.filter.as_str(), io::stdout().is_terminal(), Box::new(io::stdout())),
        Speaker::Command => (COMMAND_FILTER, io::stderr().is_terminal(), Box::new(io::stderr())),
    };
    let filter = filter(env::var("RUST_LOG").ok().as_deref(), wanted)?;
    let (lines, done) = start(output).map_err(LogError::Thread)?;
    let layer = layer(settings.format, terminal, lines.clone());
    registry().with(layer.with_filter(filter)).try_init().map_err(|_| LogError::Twice)?;
    Ok(LogGuard { lines, done })
}

fn filter(from_environment: Option<&str>, from_settings: &str) -> Result<EnvFilter, LogError> {
    let (origin, text) = match from_environment {
        Some(text) if !text.is_empty() => ("RUST_LOG", text),
        _ => ("log.filter", from_settings),
    };
    EnvFilter::try_new(text).map_err(|error| LogError::Filter { origin, text: text.to_owned(), error: error.to_string() })
}

fn layer<S>(format: Format, terminal: bool, lines: Lines) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> registry::LookupSpan<'a>,
{
    let base = tracing_subscriber::fmt::layer().with_writer(lines);
    match format {
        Format::Auto if terminal => readable(base, terminal),
        Format::Pretty => readable(base, terminal),
        Format::Auto | Format::Json => {
            base.json().flatten_event(true).with_current_span(false).with_span_list(false).with_ansi(false).boxed()
        }
    }
}

fn readable<S>(
    base: tracing_subscriber::fmt::Layer<S, tracing_subscriber::fmt::format::DefaultFields, tracing_subscriber::fmt::format::Format, Lines>,
    terminal: bool,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> registry::LookupSpan<'a>,
{
    let colour = terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    base.compact().with_ansi(colour).boxed()
}

enum Order {
    Line(Box<[u8]>),
    Finish,
}

/// The way to the writer's thread; never blocks.
#[derive(Clone, Debug)]
struct Lines {
    sender: SyncSender<Order>,
    dropped: Arc<AtomicU64>,
}

impl Write for Lines {
    /// The formatter hands over one whole line at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.sender.try_send(Order::Line(line.into())).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn start(mut output: impl Write + Send + 'static) -> io::Result<(Lines, Receiver<()>)> {
    let (sender, orders) = sync_channel(LINES_MAX);
    let (finished, done) = sync_channel(1);
    let lines = Lines { sender, dropped: Arc::default() };
    let dropped = Arc::clone(&lines.dropped);
    thread::Builder::new().name("log".to_owned()).spawn(move || {
        for order in orders {
            match order {
                Order::Line(line) => {
                    // A closed pipe is no reason to stop: the daemon goes on without a log.
                    if output.write_all(&line).and_then(|()| output.flush()).is_err() {
                        dropped.fetch_add(1, Relaxed);
                    }
                }
                Order::Finish => drop(finished.try_send(())),
            }
        }
    })?;
    Ok((lines, done))
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
