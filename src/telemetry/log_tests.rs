#![expect(clippy::disallowed_methods, reason = "a log writer is a thread, and real time is what it takes")]
#![expect(clippy::expect_used, reason = "a failed expectation is a failed test")]

use super::*;
use parking_lot::Mutex;
use std::time::Instant;

/// A reader whose behaviour a test chooses.
#[derive(Clone, Default)]
struct Sink {
    text: Arc<Mutex<Vec<u8>>>,
    stuck: Arc<Mutex<()>>,
    closed: bool,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        drop(self.stuck.lock());
        self.text.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log_to(sink: &Sink, format: Format, write: impl FnOnce()) -> (Arc<AtomicU64>, Duration) {
    let (lines, done) = start(sink.clone()).expect("thread");
    let guard = LogGuard { lines: lines.clone(), done };
    tracing::subscriber::with_default(registry().with(layer(format, false, lines)), write);
    let dropped = guard.dropped();
    let start = Instant::now();
    drop(guard);
    (dropped, start.elapsed())
}

#[test]
fn json_lines_have_their_fields_at_the_top() {
    let sink = Sink::default();
    log_to(&sink, Format::Auto, || tracing::warn!(event = "dependency_down", dependency = "store", count = 3, "it is\ndown"));
    let text = String::from_utf8(sink.text.lock().clone()).expect("text");
    assert_eq!(text.lines().count(), 1, "{text}");
    let line: serde_json::Value = serde_json::from_str(&text).expect("json");
    for (field, expected) in
        [("level", "WARN"), ("message", "it is\ndown"), ("target", module_path!()), ("event", "dependency_down"), ("dependency", "store")]
    {
        assert_eq!(line[field], expected, "{field} in {text}");
    }
    assert_eq!(line["count"], 3);
    assert!(line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z') && time.len() == "2026-03-04T10:15:07.112345Z".len()));
}

#[test]
fn a_stuck_reader_costs_lines_but_no_time() {
    let sink = Sink::default();
    let stuck = Arc::clone(&sink.stuck);
    let held = stuck.lock();
    let start = Instant::now();
    let (dropped, _) = log_to(&sink, Format::Json, || (0..LINES_MAX * 2).for_each(|line| tracing::info!(line)));
    assert!(start.elapsed() < Duration::from_secs(10), "writers waited for the reader");
    assert!(dropped.load(Relaxed) >= LINES_MAX as u64 - 1, "{dropped:?}");
    drop(held);
}

#[test]
fn a_closed_pipe_is_survived() {
    let sink = Sink { closed: true, ..Sink::default() };
    let (dropped, _) = log_to(&sink, Format::Json, || (0..3).for_each(|line| tracing::info!(line)));
    assert_eq!(dropped.load(Relaxed), 3);
}

#[test]
fn the_environment_wins_and_bad_filters_say_where_they_come_from() {
    for (environment, settings, expected) in [
        (None, "info", Ok("info")),
        (Some(""), "warn", Ok("warn")),
        (Some("jitauth=debug"), "info", Ok("jitauth=debug")),
        (Some("jitauth=loud"), "info", Err("RUST_LOG")),
        (None, "=,=", Err("log.filter")),
    ] {
        let got = filter(environment, settings).map(|filter| filter.to_string());
        match (got, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected),
            (Err(error), Err(origin)) => assert!(error.to_string().contains(origin), "{error}"),
            (got, expected) => panic!("{environment:?} {settings:?}: {got:?} instead of {expected:?}"),
        }
    }
}
