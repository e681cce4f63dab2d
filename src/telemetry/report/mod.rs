//! What `/report` tells: latencies and counts since start, or of a stretch of time, graded against what the profile promises.
//!
//! Every interval the difference of all recorders and counters is kept, in memory and, where a directory is set, on disk. Whoever
//! asks pays for the answer, on a thread of their own; a decision pays nothing.

mod answer;
mod counts;
mod disk;
mod interval;
mod question;
mod settings;

pub use answer::{Asked, Caches, Decisions, Report, Share, SpanLine};
pub use counts::Counts;
pub use question::{Question, QuestionError, STRETCH_MAX};
pub use settings::Settings;

use super::{Promise, Telemetry, clock, throttle::Throttle};
use crate::domain::time::Timestamp;
use disk::Disk;
use interval::{Interval, Reading, overlaps};
use parking_lot::Mutex;
use std::{collections::VecDeque, io, path::Path, sync::Arc, time::Duration};
use tokio::time::{MissedTickBehavior, interval};

/// Between two lines about a disk that does not take intervals.
const REPEAT_AFTER: Duration = Duration::from_secs(60);

/// What a report says about the daemon itself.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The profile, as it was named.
    pub profile: String,
    /// `postgresql` or `sqlite`.
    pub store: &'static str,
    /// What survives a power cut, as the store states it.
    pub durability: String,
    /// What latency is promised.
    pub promise: Promise,
}

/// Keeps intervals, and answers questions about them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reports {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    about: About,
    settings: Settings,
    telemetry: Telemetry,
    started: Timestamp,
    /// When the open interval began, and what had been counted by then.
    open: Mutex<(Timestamp, Counts)>,
    kept: Mutex<VecDeque<Kept>>,
    disk: Option<Mutex<Disk>>,
    trouble: Throttle,
}

/// An interval in memory, as it is written.
#[derive(Debug)]
struct Kept {
    start: Timestamp,
    end: Timestamp,
    text: String,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The stretch of time lies before what is kept.
    #[error("nothing is kept of that time; what is kept begins at {0}")]
    NotKept(String),
    /// The files cannot be read.
    #[error("the files in report.directory cannot be read: {0}")]
    Disk(#[from] io::Error),
}

impl Reports {
    /// Begins the first interval. A directory that cannot be used is told in the log, and intervals are kept in memory only: the
    /// daemon's work does not depend on it.
    #[must_use]
    pub fn new(about: About, settings: Settings, telemetry: Telemetry) -> Self {
        let started = clock::now();
        let disk = settings.directory.as_deref().and_then(|directory| match Disk::open(directory, &settings, started) {
            Ok(disk) => Some(Mutex::new(disk)),
            Err(error) => {
                tracing::warn!(
                    event = "report_directory_failed",
                    directory = %directory.display(),
                    %error,
                    "intervals are kept in memory only; make report.directory writable and start again, or set it to \"\""
                );
                None
            }
        });
        let open = Mutex::new((started, telemetry.counts()));
        let trouble = Throttle::new(REPEAT_AFTER);
        Self { inner: Arc::new(Inner { about, settings, telemetry, started, open, kept: Mutex::default(), disk, trouble }) }
    }

    /// The store, as health checks name it.
    #[must_use]
    pub fn store(&self) -> &'static str {
        match self.inner.about.store {
            "postgresql" => "postgres",
            other => other,
        }
    }

    /// Ends an interval whenever one is over, until it is dropped. The wiring runs one of these.
    pub async fn keep(self) {
        let mut ticks = interval(self.inner.settings.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let this = self.clone();
            // Not a decision's thread: this takes some milliseconds, or as long as the disk takes.
            if let Err(error) = tokio::task::spawn_blocking(move || this.end_interval()).await {
                tracing::error!(event = "interval_failed", %error, "an interval was not kept; please report this");
            }
        }
    }

    /// Ends the open interval and keeps it. Blocks: not for an async thread.
    pub fn end_interval(&self) {
        let inner = &*self.inner;
        let mut ended = {
            let mut open = inner.open.lock();
            let (counts, now) = (inner.telemetry.counts(), clock::now());
            let mut ended = Interval::empty(open.0, now);
            ended.set = inner.telemetry.take_interval();
            ended.counts = counts.since(&open.1);
            *open = (now, counts);
            ended
        };
        ended.slowest = inner.telemetry.take_slowest();
        if ended.is_empty() {
            return;
        }
        match ended.encode() {
            Ok(text) => self.put(Kept { start: ended.start, end: ended.end, text }),
            Err(error) => tracing::error!(event = "interval_failed", %error, "an interval was not kept; please report this"),
        }
    }

    fn put(&self, kept: Kept) {
        let inner = &*self.inner;
        if let Some(disk) = &inner.disk
            && let Err(error) = disk.lock().append(&kept.text, kept.end)
            && let Some(count) = inner.trouble.pass()
        {
            tracing::warn!(event = "interval_not_written", count, %error, "intervals are not on disk; look at report.directory");
        }
        let mut all = inner.kept.lock();
        all.push_back(kept);
        while all.len() > inner.settings.kept_max {
            all.pop_front();
        }
    }

    /// Answers a question. Blocks while it reads: not for an async thread.
    ///
    /// # Errors
    /// [`ReportError`] when nothing is kept of the time in question.
    pub fn answer(&self, question: Question) -> Result<Report, ReportError> {
        let inner = &*self.inner;
        let now = clock::now();
        let (whole, intervals) = match question {
            Question::SinceStart => (self.since_start(now), 0),
            Question::Between(from, to) => self.between(from, to, now)?,
        };
        let asked = Asked { now, started: inner.started, question, intervals };
        Ok(Report::new(&inner.about, &asked, &whole))
    }

    fn since_start(&self, now: Timestamp) -> Interval {
        let inner = &*self.inner;
        let mut whole = Interval::empty(inner.started, now);
        whole.counts = inner.telemetry.counts();
        whole.set = inner.telemetry.whole();
        whole.slowest = inner.telemetry.slowest();
        let mut reading = Reading::new(Timestamp(i64::MIN), Timestamp(i64::MAX));
        for kept in inner.kept.lock().iter() {
            // Histograms are in the whole already; only the last line is looked at.
            if let Some(interval) = kept.text.lines().next_back().and_then(|end| reading.line(end)) {
                whole.keep_slowest(&interval.slowest, inner.settings.slowest_max);
            }
        }
        whole
    }

    fn between(&self, from: Timestamp, to: Timestamp, now: Timestamp) -> Result<(Interval, usize), ReportError> {
        let inner = &*self.inner;
        let begins = self.begins();
        if to <= begins {
            return Err(ReportError::NotKept(clock::rfc3339(begins)));
        }
        let mut parts = Vec::new();
        match self.directory_for(from) {
            Some(directory) => Disk::read(directory, from, to, |interval| parts.push(interval))?,
            None => {
                let mut reading = Reading::new(from, to);
                let kept = inner.kept.lock();
                let lines = kept.iter().filter(|kept| overlaps(kept.start, kept.end, from, to)).flat_map(|kept| kept.text.lines());
                parts.extend(lines.filter_map(|line| reading.line(line)));
            }
        }
        parts.extend(self.open_interval(from, to, now));
        let mut parts = parts.into_iter();
        let Some(mut whole) = parts.next() else { return Ok((Interval::empty(from.max(begins), to), 0)) };
        let mut intervals = 1;
        for part in parts {
            whole.join(&part, inner.settings.slowest_max);
            intervals += 1;
        }
        Ok((whole, intervals))
    }

    /// The interval that has not ended yet, if it is asked about.
    fn open_interval(&self, from: Timestamp, to: Timestamp, now: Timestamp) -> Option<Interval> {
        let telemetry = &self.inner.telemetry;
        let open = self.inner.open.lock();
        if !overlaps(open.0, now, from, to) {
            return None;
        }
        let mut interval = Interval::empty(open.0, now);
        interval.set = telemetry.interval();
        interval.counts = telemetry.counts().since(&open.1);
        interval.slowest = telemetry.slowest();
        Some(interval)
    }

    /// When what is kept begins.
    fn begins(&self) -> Timestamp {
        let inner = &*self.inner;
        let memory = inner.kept.lock();
        // As long as none had to leave, memory has everything since the start.
        let in_memory = if memory.len() < inner.settings.kept_max { None } else { memory.front().map(|kept| kept.start) };
        let in_memory = in_memory.unwrap_or(inner.started);
        let directory = inner.disk.as_ref().and(inner.settings.directory.as_deref());
        directory.and_then(Disk::earliest).map_or(in_memory, |on_disk| on_disk.min(in_memory))
    }

    /// Where to read from when memory does not reach back far enough.
    fn directory_for(&self, from: Timestamp) -> Option<&Path> {
        let inner = &*self.inner;
        let reaches = {
            let memory = inner.kept.lock();
            let full = memory.len() >= inner.settings.kept_max;
            if full { memory.front().is_some_and(|kept| kept.start <= from) } else { inner.started <= from }
        };
        inner.disk.as_ref().filter(|_| !reaches).and(inner.settings.directory.as_deref())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
