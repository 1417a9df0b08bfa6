//! What every program with Prometheus metrics tells of its own process, by the names that dashboards know.
//! Read from /proc when somebody asks.

use std::fs;

use super::Metrics;
use super::read::Kind;

/// A unit of times in `/proc/self/stat`: what programs see is hundredths on every architecture that there is.
const TICKS_PER_SECOND: f64 = 100.0;

impl Metrics {
    /// Registers the metrics of this process.
    #[rustfmt::skip] // A table: one metric, one line.
    pub(super) fn read_process(&self) -> Result<(), prometheus::Error> {
        use Kind::{Counter, Gauge};
        self.read_value("process_cpu_seconds_total", "Processor time of user and system, in seconds", Counter, || {
            Some((stat(13)? + stat(14)?) / TICKS_PER_SECOND)
        })?;
        self.read_value("process_open_fds", "Open file descriptors", Gauge, || {
            // The one that counts is among them.
            Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
        })?;
        self.read_value("process_max_fds", "Most file descriptors that may be open", Gauge, || limit("Max open files"))?;
        self.read_value("process_virtual_memory_bytes", "Size of the address space in bytes", Gauge, || memory("VmSize:"))?;
        self.read_value("process_virtual_memory_max_bytes", "Most bytes that the address space may have", Gauge, || limit("Max address space"))?;
        self.read_value("process_resident_memory_bytes", "Memory in use in bytes", Gauge, || memory("VmRSS:"))?;
        self.read_value("process_threads", "Threads", Gauge, || stat(19))?;
        let started = started();
        self.read_value("process_start_time_seconds", "When this process began, in seconds of Unix time", Gauge, move || started)
    }
}

/// A field of `/proc/self/stat`, counted from 0.
fn stat(field: usize) -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in parentheses, which may hold anything.
    let (_, behind_name) = text.rsplit_once(") ")?;
    behind_name.split(' ').nth(field - 2)?.parse().ok()
}

/// When this process began, in seconds of Unix time.
fn started() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .parse()
        .ok()?;
    Some(booted + stat(21)? / TICKS_PER_SECOND)
}

/// A size of `/proc/self/status`, in bytes.
fn memory(name: &str) -> Option<f64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: f64 = kilobytes.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024.0)
}

/// A limit that is in force; without one, the number that stands for none.
fn limit(name: &str) -> Option<f64> {
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let limits = text.lines().find_map(|line| line.strip_prefix(name))?;
    match limits.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX as f64),
        number => number.parse().ok(),
    }
}
