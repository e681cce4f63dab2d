//! Intervals on disk: append-only files, a new one with each start and when one is full; the old ones go.

use super::{
    Settings,
    interval::{self, Interval, Reading},
};
use crate::domain::time::Timestamp;
use jiff::{civil::DateTime, tz::TimeZone};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Longest line that is read, bytes. A histogram of everything takes some ten kilobytes.
const LINE_BYTES_MAX: u64 = 4 << 20;
const NAME_START: &str = "latency-";
const NAME_END: &str = ".hlog";
const NAME_TIME: &str = "%Y%m%dT%H%M%SZ";
/// Files that may begin in one second.
const SAME_SECOND_MAX: u32 = 1000;

/// A directory of interval logs, and the file that is written.
#[derive(Debug)]
pub(super) struct Disk {
    directory: PathBuf,
    file_bytes_max: u64,
    directory_bytes_max: u64,
    keep: Duration,
    /// `None` after a failure: the next append begins a new file.
    file: Option<Open>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    bytes: u64,
}

/// A file of ours.
struct Found {
    path: PathBuf,
    start: Timestamp,
    modified: SystemTime,
    bytes: u64,
}

impl Disk {
    /// Of this directory. Nothing is touched yet.
    pub(super) fn new(directory: &Path, settings: &Settings) -> Self {
        let Settings { file_bytes_max, directory_bytes_max, keep, .. } = *settings;
        Self { directory: directory.to_owned(), file_bytes_max, directory_bytes_max, keep, file: None }
    }

    /// Appends an interval. The first one, and one that finds the file full, begins a file; then what is too old or too much goes.
    pub(super) fn append(&mut self, text: &str, start: Timestamp, now: Timestamp) -> io::Result<()> {
        let full = |open: &Open| open.bytes >= self.file_bytes_max;
        if self.file.as_ref().is_none_or(full) {
            // Named for where it begins: what it has is looked for by that.
            self.begin(start)?;
            self.prune(now);
        }
        let Some(open) = &mut self.file else { return Ok(()) };
        if let Err(error) = open.file.write_all(text.as_bytes()) {
            // Without what was torn the file can be used again: a full disk must not cost a file for each interval.
            if open.file.set_len(open.bytes).is_err() {
                self.file = None;
            }
            return Err(error);
        }
        open.bytes += text.len() as u64;
        Ok(())
    }

    /// When what is kept begins.
    pub(super) fn earliest(directory: &Path) -> Option<Timestamp> {
        found(directory).ok()?.first().map(|found| found.start)
    }

    /// Gives every interval that overlaps the stretch of time to `visit`, in order of the files.
    pub(super) fn read(directory: &Path, from: Timestamp, to: Timestamp, mut visit: impl FnMut(Interval)) -> io::Result<()> {
        let from_system = SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(from.0).unwrap_or(0));
        for file in found(directory)?.into_iter().filter(|file| file.start < to && file.modified >= from_system) {
            let opened = match File::open(&file.path) {
                Ok(opened) => opened,
                // Removed in the meantime because it was too old.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    tracing::warn!(event = "interval_file_unreadable", file = %file.path.display(), %error, "a report goes without it");
                    continue;
                }
            };
            let (mut lines, mut reading, mut line) = (BufReader::new(opened), Reading::new(from, to), Vec::new());
            loop {
                line.clear();
                if lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
                    break;
                }
                // What is no text is no line of ours.
                if let Some(interval) = str::from_utf8(&line).ok().and_then(|line| reading.line(line.trim_end())) {
                    visit(interval);
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, start: Timestamp) -> io::Result<()> {
        let stamp = jiff::Timestamp::from_microsecond(start.0).map_err(io::Error::other)?.strftime(NAME_TIME).to_string();
        let header = interval::header()?;
        fs::create_dir_all(&self.directory)?;
        for nth in 0..SAME_SECOND_MAX {
            let path = self.directory.join(format!("{NAME_START}{stamp}-{nth:03}{NAME_END}"));
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(mut file) => {
                    let written = file.write_all(&header);
                    if written.is_ok() {
                        self.file = Some(Open { path, file, bytes: header.len() as u64 });
                    } else {
                        // An empty file would only be in the way.
                        drop(fs::remove_file(&path));
                    }
                    return written;
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many files began in one second"))
    }

    /// Removes what is too old or too much. What cannot be removed stays, and is told.
    fn prune(&self, now: Timestamp) {
        let oldest = now.0.saturating_sub(i64::try_from(self.keep.as_micros()).unwrap_or(i64::MAX));
        let oldest = SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(oldest).unwrap_or(0));
        let all = found(&self.directory).unwrap_or_default();
        let mut bytes: u64 = all.iter().map(|file| file.bytes).sum();
        for file in all {
            let written = self.file.as_ref().is_some_and(|open| open.path == file.path);
            if written || (file.modified >= oldest && bytes <= self.directory_bytes_max) {
                continue;
            }
            match fs::remove_file(&file.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(event = "interval_file_stays", file = %file.path.display(), %error, "an old file cannot be removed");
                }
                _ => bytes = bytes.saturating_sub(file.bytes),
            }
        }
    }
}

/// The files that carry our names, the oldest first.
fn found(directory: &Path) -> io::Result<Vec<Found>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(start) = name.to_str().and_then(start_of) else { continue };
        // Gone in the meantime, or not a file: none of ours.
        let Ok(about) = entry.metadata() else { continue };
        let Ok(modified) = about.modified() else { continue };
        if about.is_file() {
            all.push(Found { path: entry.path(), start, modified, bytes: about.len() });
        }
    }
    all.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(all)
}

fn start_of(name: &str) -> Option<Timestamp> {
    let (stamp, nth) = name.strip_prefix(NAME_START)?.strip_suffix(NAME_END)?.split_once('-')?;
    nth.parse::<u32>().ok()?;
    let start = DateTime::strptime(NAME_TIME, stamp).ok()?.to_zoned(TimeZone::UTC).ok()?;
    Some(Timestamp(start.timestamp().as_microsecond()))
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
