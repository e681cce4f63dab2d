//! What the operating system says about the process, under the names that Prometheus gives it. Linux tells by files; elsewhere, and
//! for what cannot be read, nothing is shown.

use super::clock;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use std::{fmt, fs};

/// Clock ticks a second in `/proc`, the same on every machine that Linux runs on today.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads itself when it is asked.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(seconds) = cpu_seconds() {
            let help = "Processor time used, user and system together";
            let family = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
            ConstCounter::new(seconds).encode(family)?;
        }
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Memory in use", kib_of("VmRSS:")),
            ("process_virtual_memory_bytes", "Address space in use", kib_of("VmSize:")),
            ("process_open_fds", "File descriptors that are open", open_fds()),
            ("process_max_fds", "File descriptors that may be open", max_fds()),
            ("process_start_time_seconds", "Unix time of the start", start_time()),
        ] {
            if let Some(value) = value {
                ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
            }
        }
        Ok(())
    }
}

/// Field `nth` of `/proc/self/stat`, counted from the state, which follows the name in brackets.
fn stat(nth: usize) -> Option<f64> {
    fs::read_to_string("/proc/self/stat").ok()?.rsplit_once(')')?.1.split_whitespace().nth(nth)?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    Some((stat(11)? + stat(12)?) / TICKS_PER_SECOND)
}

/// From the time since boot, which a service that may see its own processes only can read as well.
fn start_time() -> Option<f64> {
    let up: f64 = fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
    let now = clock::now().0 as f64 / 1e6;
    Some(now - up + stat(19)? / TICKS_PER_SECOND)
}

fn kib_of(key: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib: f64 = status.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0)
}

fn open_fds() -> Option<f64> {
    // One of them is the directory that is being read.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

fn max_fds() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the start of the process is compared with now")]
    fn what_is_read_makes_sense() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        for (name, value, at_least, at_most) in [
            ("cpu", cpu_seconds(), 0.0, 3_600.0),
            ("memory", kib_of("VmRSS:"), 1e6, 1e11),
            ("address space", kib_of("VmSize:"), 1e6, 1e15),
            ("open", open_fds(), 3.0, 1e6),
            ("max", max_fds(), open_fds().unwrap_or(0.0), 1e10),
            ("start", start_time(), now - 3_600.0, now + 2.0),
        ] {
            assert!(value.is_some_and(|value| (at_least..=at_most).contains(&value)), "{name}: {value:?}");
        }
    }
}
