//! What `/report` tells: latencies and counts since start, or of a stretch of time, graded against what the profile promises.
//!
//! Every interval the difference of all recorders and counters is kept, in memory and, where a directory is set, on disk. Whoever
//! asks pays for the answer, on a thread of their own; a decision pays nothing. Who asks with `detail=true` is told what pictures need
//! as well: the whole curve of a decision's time, and each interval by itself.

mod answer;
mod counts;
mod detail;
mod disk;
mod interval;
mod question;
mod settings;

pub use answer::{Asked, Caches, Decisions, Report, Share, SpanLine};
pub use counts::Counts;
pub use detail::{Detail, Stretch};
pub use question::{Question, QuestionError, STRETCH_MAX};
pub use settings::Settings;

use super::{Promise, Telemetry, clock, throttle::Throttle};
use crate::domain::time::Timestamp;
use disk::Disk;
use interval::{Interval, Reading, overlaps};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::{MissedTickBehavior, interval};

/// Between two lines about a disk that does not take intervals.
const REPEAT_AFTER: Duration = Duration::from_secs(60);
/// A wall clock that goes so much astray of the monotonic one within an interval was set.
const CLOCK_SET_US: u64 = 1_000_000;

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
    started: Instant,
    open: Mutex<Open>,
    kept: Mutex<VecDeque<Arc<Kept>>>,
    disk: Option<Mutex<Disk>>,
    trouble: Throttle,
}

/// The interval that has not ended yet.
#[derive(Debug)]
struct Open {
    start: Timestamp,
    /// The same moment by a clock that nobody sets.
    began: Instant,
    /// What had been counted by then.
    counts: Counts,
}

impl Open {
    /// When it began, by a wall clock that says it is `now`. A clock that was set meanwhile takes the beginning along; otherwise
    /// intervals follow each other without a gap.
    fn start(&self, now: Timestamp) -> Timestamp {
        let lasted = i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX);
        let start = Timestamp(now.0.saturating_sub(lasted));
        if start.0.abs_diff(self.start.0) < CLOCK_SET_US { self.start } else { start }
    }
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
    /// Begins the first interval. The directory is not touched before the first interval is over: a disk that hangs must not keep the
    /// daemon from its work.
    #[must_use]
    pub fn new(about: About, settings: Settings, telemetry: Telemetry) -> Self {
        let started = clock::now();
        let disk = settings.directory.as_deref().map(|directory| Mutex::new(Disk::new(directory, &settings)));
        let open = Mutex::new(Open { start: started, began: clock::instant(), counts: telemetry.counts() });
        let trouble = Throttle::new(REPEAT_AFTER);
        Self {
            inner: Arc::new(Inner { about, settings, telemetry, started: clock::instant(), open, kept: Mutex::default(), disk, trouble }),
        }
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
            let mut ended = Interval::empty(open.start(now), now);
            ended.set = inner.telemetry.take_interval();
            ended.counts = counts.since(&open.counts);
            *open = Open { start: now, began: clock::instant(), counts };
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
        let kept = Arc::new(kept);
        {
            // Memory first: a disk that takes its time must not hide an interval from questions.
            let mut all = inner.kept.lock();
            all.push_back(Arc::clone(&kept));
            while all.len() > inner.settings.kept_max {
                all.pop_front();
            }
        }
        if let Some(disk) = &inner.disk
            && let Err(error) = disk.lock().append(&kept.text, kept.start, kept.end)
            && let Some(count) = inner.trouble.pass()
        {
            tracing::warn!(
                event = "interval_not_written",
                count,
                %error,
                "intervals are in memory only; make report.directory writable, or set it to \"\""
            );
        }
    }

    /// Answers a question. Blocks while it reads: not for an async thread.
    ///
    /// # Errors
    /// [`ReportError`] when nothing is kept of the time in question.
    pub fn answer(&self, question: Question) -> Result<Report, ReportError> {
        self.tell(question, None)
    }

    /// The same with [`Report::detail`], which takes longer.
    ///
    /// # Errors
    /// [`ReportError`] when nothing is kept of the time in question.
    pub fn answer_in_detail(&self, question: Question) -> Result<Report, ReportError> {
        self.tell(question, Some(Detail::new()))
    }

    fn tell(&self, question: Question, mut detail: Option<Detail>) -> Result<Report, ReportError> {
        let inner = &*self.inner;
        let now = clock::now();
        let (whole, intervals) = match question {
            Question::SinceStart => (self.since_start(now, detail.as_mut()), 0),
            Question::Between(from, to) => self.between(from, to, now, detail.as_mut())?,
        };
        let asked = Asked { now, started: self.started(now), question, intervals };
        Ok(Report::new(&inner.about, &asked, &whole, detail))
    }

    fn since_start(&self, now: Timestamp, mut detail: Option<&mut Detail>) -> Interval {
        let inner = &*self.inner;
        let mut whole = Interval::empty(self.started(now), now);
        whole.counts = inner.telemetry.counts();
        whole.set = inner.telemetry.whole();
        whole.slowest = inner.telemetry.slowest();
        let (from, to) = (Timestamp(i64::MIN), Timestamp(i64::MAX));
        let mut reading = Reading::new(from, to);
        let kept: Vec<_> = inner.kept.lock().iter().cloned().collect();
        for kept in kept {
            // Histograms are in the whole already: without details, only the last line is looked at.
            let text = if detail.is_some() { &kept.text } else { kept.text.lines().next_back().unwrap_or_default() };
            for interval in text.lines().filter_map(|line| reading.line(line)) {
                whole.keep_slowest(&interval.slowest, inner.settings.slowest_max);
                if let Some(detail) = &mut detail {
                    detail.interval(&interval);
                }
            }
        }
        if let (Some(detail), Some(open)) = (detail, self.open_interval(from, to, now)) {
            detail.interval(&open);
        }
        whole
    }

    fn between(
        &self,
        from: Timestamp,
        to: Timestamp,
        now: Timestamp,
        detail: Option<&mut Detail>,
    ) -> Result<(Interval, usize), ReportError> {
        let inner = &*self.inner;
        let begins = self.begins(now);
        if to <= begins {
            return Err(ReportError::NotKept(clock::rfc3339(begins)));
        }
        let mut answer = Answer { whole: None, intervals: 0, slowest_max: inner.settings.slowest_max, detail };
        // What memory has is not read from the disk, which may not have taken it.
        let in_memory: Vec<_> = inner.kept.lock().iter().cloned().collect();
        let memory_begins = in_memory.first().map_or_else(|| inner.open.lock().start(now), |kept| kept.start);
        if let Some(directory) = self.directory()
            && from < memory_begins
        {
            Disk::read(directory, from, to.min(memory_begins), |interval| answer.join(interval))?;
        }
        let mut reading = Reading::new(from, to);
        for kept in in_memory.iter().filter(|kept| overlaps(kept.start, kept.end, from, to)) {
            kept.text.lines().filter_map(|line| reading.line(line)).for_each(|interval| answer.join(interval));
        }
        if let Some(open) = self.open_interval(from, to, now) {
            answer.join(open);
        }
        let Answer { whole, intervals, .. } = answer;
        Ok((whole.unwrap_or_else(|| Interval::empty(from.max(begins), to)), intervals))
    }

    /// The interval that has not ended yet, if it is asked about.
    fn open_interval(&self, from: Timestamp, to: Timestamp, now: Timestamp) -> Option<Interval> {
        let telemetry = &self.inner.telemetry;
        let open = self.inner.open.lock();
        let start = open.start(now);
        if !overlaps(start, now, from, to) {
            return None;
        }
        let mut interval = Interval::empty(start, now);
        interval.set = telemetry.interval();
        interval.counts = telemetry.counts().since(&open.counts);
        interval.slowest = telemetry.slowest();
        Some(interval)
    }

    /// When what is kept begins.
    fn begins(&self, now: Timestamp) -> Timestamp {
        let inner = &*self.inner;
        let memory = inner.kept.lock();
        // As long as none had to leave, memory has everything since the start.
        let in_memory = if memory.len() < inner.settings.kept_max { None } else { memory.front().map(|kept| kept.start) };
        let in_memory = in_memory.unwrap_or_else(|| self.started(now));
        self.directory().and_then(Disk::earliest).map_or(in_memory, |on_disk| on_disk.min(in_memory))
    }

    /// When the daemon started, by a wall clock that says it is `now`.
    fn started(&self, now: Timestamp) -> Timestamp {
        let up = i64::try_from(self.inner.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        Timestamp(now.0.saturating_sub(up))
    }

    fn directory(&self) -> Option<&Path> {
        self.inner.settings.directory.as_deref()
    }
}

/// An answer in the making. Intervals are joined as they come: each takes a megabyte and a half.
struct Answer<'a> {
    whole: Option<Interval>,
    intervals: usize,
    slowest_max: usize,
    detail: Option<&'a mut Detail>,
}

impl Answer<'_> {
    fn join(&mut self, part: Interval) {
        self.intervals += 1;
        if let Some(detail) = &mut self.detail {
            detail.interval(&part);
        }
        match &mut self.whole {
            Some(whole) => whole.join(&part, self.slowest_max),
            None => self.whole = Some(part),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
