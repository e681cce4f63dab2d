//! Where a run took place: figures mean nothing without it.

use serde::{Deserialize, Serialize};
use std::{fs, path::Path, thread};

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
    /// Load average over a minute before the run: what else was going on.
    pub load_before: Option<f64>,
    /// Version of the daemon, where it ran by itself.
    pub daemon: Option<String>,
    /// Version of the store.
    pub store: Option<String>,
    /// Version of the broker.
    pub broker: Option<String>,
    /// Version of Redis.
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
            ..Self::default()
        }
    }
}

/// The load average over a minute, where the operating system tells.
#[must_use]
pub fn load() -> Option<f64> {
    line("/proc/loadavg")?.split_whitespace().next()?.parse().ok()
}

fn line(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
