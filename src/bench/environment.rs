//! Where a run took place: figures mean nothing without it.

use super::summary::rounded;
use serde::{Deserialize, Serialize};
use std::{fs, path::Path, thread, time::Duration};

/// The machine and the versions of what ran on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// The machine's name.
    pub host: String,
    /// Model of its processor.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// How clock frequencies are chosen, where the kernel says.
    pub governor: Option<String>,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Load average over a minute before the run, in which a run before it is counted too.
    pub load_before: Option<f64>,
    /// Share of the processors' time that was used just before the run, 0 to 1: what else is going on.
    #[serde(default)]
    pub busy_before: Option<f64>,
    /// File system of the run's own directory: of its SQLite file, and of the synced writes.
    #[serde(default)]
    pub disk: Option<String>,
    /// Version of the daemon, where it ran by itself.
    pub daemon: Option<String>,
    /// Version of the store.
    pub store: Option<String>,
    /// Version of the broker.
    pub broker: Option<String>,
    /// Version of the Redis that a floor was measured on.
    pub redis: Option<String>,
}

impl Environment {
    /// What the operating system tells. Versions are filled in by who asks for them.
    #[must_use]
    pub fn look() -> Self {
        let first = |path: &str, key: &str| {
            let text = fs::read_to_string(path).ok()?;
            let line = text.lines().find(|line| line.starts_with(key))?.to_owned();
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = first("/proc/meminfo", "MemTotal").and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        Self {
            host: line("/proc/sys/kernel/hostname").unwrap_or_default(),
            cpu: first("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: thread::available_parallelism().map_or(1, usize::from),
            kernel: line("/proc/sys/kernel/osrelease").unwrap_or_default(),
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            memory_mib: memory.unwrap_or_default() / 1024,
            load_before: load(),
            busy_before: busy(BUSY_LOOK),
            ..Self::default()
        }
    }
}

/// Processor time that a process has used until now (this one, when none is named), where the operating system tells.
#[must_use]
pub fn cpu_time(process: Option<u32>) -> Option<Duration> {
    let process = process.map_or_else(|| "self".to_owned(), |id| id.to_string());
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may have spaces; after it, user and system time are the twelfth and thirteenth.
    let (_, fields) = text.rsplit_once(')')?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(Duration::from_millis(ticks * 1_000 / TICKS_PER_S))
}

/// How long the processors are looked at before a run.
const BUSY_LOOK: Duration = Duration::from_millis(500);

/// The unit of times in `/proc`, on every architecture of Linux that this runs on.
const TICKS_PER_S: u64 = 100;

/// The type of the file system that a directory is on, where the operating system tells.
#[must_use]
pub fn file_system(directory: &Path) -> Option<String> {
    mounted(&fs::read_to_string("/proc/self/mountinfo").ok()?, &directory.canonicalize().ok()?)
}

/// Whether what is on it is in memory only: nothing there survives a power cut.
#[must_use]
pub fn in_memory(file_system: &str) -> bool {
    matches!(file_system, "tmpfs" | "ramfs")
}

/// The type of the innermost mount above a path; of several at the same place, the last.
fn mounted(mounts: &str, path: &Path) -> Option<String> {
    let parsed = mounts.lines().filter_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let point = place.split(' ').nth(4)?.replace("\\040", " ");
        Some((point, kind.split(' ').next()?))
    });
    let above = parsed.filter(|(point, _)| path.starts_with(point));
    above.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind.to_owned())
}

/// The load average over a minute, where the operating system tells.
#[must_use]
pub fn load() -> Option<f64> {
    line("/proc/loadavg")?.split_whitespace().next()?.parse().ok()
}

/// The share of all processors' time that is used from now on, for a while.
#[expect(clippy::disallowed_methods, reason = "nothing may run here while it is looked how much runs elsewhere")]
fn busy(for_a_while: Duration) -> Option<f64> {
    let before = processors()?;
    thread::sleep(for_a_while);
    let after = processors()?;
    let all = after.1.checked_sub(before.1).filter(|ticks| *ticks > 0)?;
    Some(rounded(after.0.saturating_sub(before.0) as f64 / all as f64, 2))
}

/// Ticks that all processors were used for, and that there were, since the start of the machine.
fn processors() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    used_of_all(text.lines().find_map(|line| line.strip_prefix("cpu "))?)
}

/// Of user, nice, system, idle, iowait, irq, softirq and steal, the fourth and fifth are unused; what comes after is in the first two.
fn used_of_all(fields: &str) -> Option<(u64, u64)> {
    let ticks: Vec<u64> = fields.split_whitespace().take(8).map(|ticks| ticks.parse().ok()).collect::<Option<_>>()?;
    let (all, unused) = (ticks.iter().sum::<u64>(), ticks.get(3)? + ticks.get(4)?);
    Some((all - unused, all))
}

fn line(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_process_grows_with_its_work() {
        let before = cpu_time(None);
        let mut sum = 0_u64;
        while cpu_time(None) <= before && sum < 1 << 40 {
            (0..1_000_000).for_each(|number| sum = std::hint::black_box(sum + number));
        }
        assert!(before.is_some() && cpu_time(None) > before);
        assert_eq!(cpu_time(Some(u32::MAX)), None);
    }

    #[test]
    fn waiting_for_a_disk_is_not_being_busy() {
        assert_eq!(used_of_all(" 100 1 50 800 30 2 3 4 9 0"), Some((160, 990)));
        assert_eq!((used_of_all("100 1 50"), used_of_all("a b c d e f g h")), (None, None));
        assert!(busy(Duration::from_millis(50)).is_some_and(|share| (0.0..=1.0).contains(&share)));
    }

    #[test]
    fn the_innermost_mount_counts_and_of_two_the_last() {
        let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                      23 22 0:20 / /tmp rw - tmpfs tmpfs rw\n\
                      24 22 0:21 / /data rw - xfs /dev/sdb rw\n\
                      25 24 0:22 / /data rw master:3 - btrfs /dev/sdc rw\n\
                      26 22 0:23 / /with\\040space rw - ramfs none rw\n";
        for (path, expected) in [
            ("/home/x", "ext4"),
            ("/tmp", "tmpfs"),
            ("/tmp/a/b", "tmpfs"),
            ("/tmpx", "ext4"),
            ("/data/x", "btrfs"),
            ("/with space/x", "ramfs"),
        ] {
            assert_eq!(mounted(mounts, Path::new(path)).as_deref(), Some(expected), "{path}");
        }
        assert_eq!(mounted("", Path::new("/")), None);
        assert!(in_memory("tmpfs") && in_memory("ramfs") && !in_memory("ext4"));
    }
}
