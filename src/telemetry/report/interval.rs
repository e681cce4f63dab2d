//! An interval, and how it is written: HdrHistogram's V2 interval log, which its tools read, with a comment at the end that has what
//! histograms cannot hold.

use super::counts::Counts;
use crate::{
    domain::time::Timestamp,
    telemetry::{Slow, Span, recorder::Set},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{
        Deserializer, V2DeflateSerializer,
        interval_log::{IntervalLogHistogram, IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag},
    },
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io, time::Duration};

/// The comment that ends an interval. One without it was torn, and does not count.
const END: &str = "[jitauth ";

/// What was recorded and counted in a stretch of time.
#[derive(Debug)]
pub(super) struct Interval {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    pub(super) set: Set,
    pub(super) counts: Counts,
    pub(super) slowest: Vec<Slow>,
}

/// The end of an interval, as it is written.
#[derive(Serialize, Deserialize)]
struct End {
    start_us: i64,
    end_us: i64,
    counts: Counts,
    sums_us: BTreeMap<String, u64>,
    slowest: Vec<Slow>,
}

impl Interval {
    pub(super) fn empty(start: Timestamp, end: Timestamp) -> Self {
        Self { start, end, set: Set::new(), counts: Counts::default(), slowest: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.counts.is_empty() && self.slowest.is_empty()
    }

    /// Joins another one, earlier or later, and keeps the slowest of both.
    pub(super) fn join(&mut self, other: &Self, slowest_max: usize) {
        (self.start, self.end) = (self.start.min(other.start), self.end.max(other.end));
        self.set.add(&other.set);
        self.counts.add(&other.counts);
        self.keep_slowest(&other.slowest, slowest_max);
    }

    pub(super) fn keep_slowest(&mut self, more: &[Slow], max: usize) {
        self.slowest.extend_from_slice(more);
        self.slowest.sort_by_key(|slow| std::cmp::Reverse(slow.slow_us()));
        self.slowest.truncate(max);
    }

    /// As lines of an interval log.
    pub(super) fn encode(&self) -> io::Result<String> {
        let (mut text, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
        let mut log = IntervalLogWriterBuilder::new().begin_log_with(&mut text, &mut serializer)?;
        let (start, lasted) = (since_epoch(self.start), since_epoch(Timestamp(self.end.0.saturating_sub(self.start.0))));
        let mut sums_us = BTreeMap::new();
        for span in Span::ALL.into_iter().filter(|span| !self.set.histogram(*span).is_empty()) {
            sums_us.insert(span.name().to_owned(), self.set.sum_us(span));
            log.write_histogram(self.set.histogram(span), start, lasted, Tag::new(span.name())).map_err(io::Error::other)?;
        }
        let (counts, slowest) = (self.counts.clone(), self.slowest.clone());
        let end = End { start_us: self.start.0, end_us: self.end.0, counts, sums_us, slowest };
        log.write_comment(&format!("{END}{}]", serde_json::to_string(&end)?))?;
        drop(log);
        String::from_utf8(text).map_err(io::Error::other)
    }
}

/// The first lines of a log file.
pub(super) fn header() -> io::Result<Vec<u8>> {
    let (mut text, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut builder = IntervalLogWriterBuilder::new();
    builder.add_comment("[Histogram log format version 1.3]").add_comment("[jitauth: latency in microseconds, a tag per span]");
    builder.begin_log_with(&mut text, &mut serializer)?;
    Ok(text)
}

/// Takes lines of a log one by one and gives the intervals in it that overlap a stretch of time. What cannot be read costs itself.
pub(super) struct Reading {
    from: Timestamp,
    to: Timestamp,
    /// The lines of the interval that has not ended yet: start in milliseconds, span, histogram.
    open: Vec<(i64, Span, Histogram<u64>)>,
}

impl Reading {
    pub(super) fn new(from: Timestamp, to: Timestamp) -> Self {
        Self { from, to, open: Vec::new() }
    }

    pub(super) fn line(&mut self, line: &str) -> Option<Interval> {
        if let Some(end) = line.strip_prefix('#').and_then(|comment| comment.strip_prefix(END)) {
            return self.end(end.trim_end().strip_suffix(']')?);
        }
        // A torn interval may leave lines behind; there are never more than spans in one.
        if self.open.len() > Span::ALL.len() {
            self.open.clear();
        }
        if let Some(read) = self.histogram(line) {
            self.open.push(read);
        }
        None
    }

    fn histogram(&self, line: &str) -> Option<(i64, Span, Histogram<u64>)> {
        // The iterator wants whole lines.
        let line = format!("{line}\n");
        let Some(Ok(LogEntry::Interval(entry))) = IntervalLogIterator::new(line.as_bytes()).next() else { return None };
        let start = i64::try_from(entry.start_timestamp().as_millis()).ok()?;
        if !overlaps(Timestamp(start * 1000), end_of(&entry), self.from, self.to) {
            return None;
        }
        let span = Span::ALL.into_iter().find(|span| entry.tag().is_some_and(|tag| tag.as_str() == span.name()))?;
        let bytes = STANDARD.decode(entry.encoded_histogram()).ok()?;
        let histogram = Deserializer::new().deserialize(&mut bytes.as_slice()).ok()?;
        Some((start, span, histogram))
    }

    fn end(&mut self, json: &str) -> Option<Interval> {
        let open = std::mem::take(&mut self.open);
        let End { start_us, end_us, counts, sums_us, slowest } = serde_json::from_str(json).ok()?;
        let (start, end) = (Timestamp(start_us), Timestamp(end_us));
        if !overlaps(start, end, self.from, self.to) {
            return None;
        }
        let mut interval = Interval { counts, slowest, ..Interval::empty(start, end) };
        // Milliseconds are all a line has, rounded one way or the other.
        for (_, span, histogram) in open.into_iter().filter(|(line_ms, ..)| line_ms.abs_diff(start_us / 1000) <= 1) {
            interval.set.add_span(span, &histogram, sums_us.get(span.name()).copied().unwrap_or(0));
        }
        Some(interval)
    }
}

/// Whether what began at `start` and ended at `end` lies at least partly between `from` and `to`.
pub(super) fn overlaps(start: Timestamp, end: Timestamp, from: Timestamp, to: Timestamp) -> bool {
    start < to && end > from
}

fn end_of(entry: &IntervalLogHistogram<'_>) -> Timestamp {
    // A millisecond more, for what was rounded off.
    let end = entry.start_timestamp() + entry.duration() + Duration::from_millis(1);
    Timestamp(i64::try_from(end.as_micros()).unwrap_or(i64::MAX))
}

fn since_epoch(at: Timestamp) -> Duration {
    Duration::from_micros(u64::try_from(at.0).unwrap_or(0))
}
