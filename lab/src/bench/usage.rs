//! What a process has used, read from outside.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::ClockId;
use nix::unistd::Pid;
use serde::Serialize;

/// Ticks in a second of times in `/proc`: always this on Linux.
const TICKS: u64 = 100;
/// How often the memory of child processes is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// Memory of a process in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Memory {
    /// Resident now: everything, the program's own pages included.
    pub(super) rss: u64,
    /// The most that was resident since the start.
    pub(super) peak: u64,
    /// Of `rss`, what is not a page of a file.
    pub(super) anonymous: u64,
}

/// CPU time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cpu {
    /// Of all threads of a process, living and dead, to the nanosecond.
    pub(super) own: Duration,
    /// Of its child processes that have ended, to the tick (10 ms).
    pub(super) children: Duration,
}

impl Cpu {
    /// All of it.
    pub(super) fn all(self) -> Duration {
        self.own + self.children
    }

    /// What was used since an earlier look.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            own: self.own.saturating_sub(before.own),
            children: self.children.saturating_sub(before.children),
        }
    }
}

/// CPU time that a process has used.
pub(super) fn cpu(process: u32) -> Result<Cpu> {
    let pid = Pid::from_raw(i32::try_from(process)?);
    let own = ClockId::pid_cpu_clock_id(pid).and_then(ClockId::now);
    let own = Duration::from(own.with_context(|| format!("read the CPU clock of process {process}"))?);
    let [_, children] = ticks(process)?;
    Ok(Cpu { own, children })
}

/// CPU time of a process that has ended and that nobody has waited for, its children included.
pub(super) fn cpu_of_ended(process: u32) -> Result<Duration> {
    Ok(ticks(process)?.into_iter().sum())
}

/// CPU time of a process and of its children that have ended, user and system.
fn ticks(process: u32) -> Result<[Duration; 2]> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, which may hold anything, ends with the last parenthesis; utime and stime are fields 14 and 15, then
    // come cutime and cstime.
    let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
    let fields = fields.split_whitespace().skip(11);
    let ticks: Vec<u64> = fields.take(4).map(|field| field.parse().unwrap_or(0)).collect();
    let time = |at: usize| Duration::from_millis(ticks.iter().skip(at).take(2).sum::<u64>() * 1000 / TICKS);
    Ok([time(0), time(2)])
}

/// Memory of the process alone.
pub(super) fn memory(process: u32) -> Result<Memory> {
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(Memory {
        rss: field(&status, "VmRSS:"),
        peak: field(&status, "VmHWM:"),
        anonymous: field(&status, "RssAnon:"),
    })
}

/// The time that all CPUs together have idled.
pub(super) fn idle_time() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let idle = stat
        .split_whitespace()
        .nth(4)
        .and_then(|idle| idle.parse::<u64>().ok());
    Ok(Duration::from_millis(
        idle.context("find the idle time in /proc/stat")? * 1000 / TICKS,
    ))
}

/// A field of `/proc/PID/status` that is given in KiB, in bytes; 0 when it is not there.
fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Watches the memory of the child processes (such as `nft`) that a process starts.
#[derive(Debug)]
pub(super) struct Children {
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Children {
    /// Begins to watch.
    pub(super) fn watch(process: u32) -> Self {
        let (peak, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (most, stopped) = (Arc::clone(&peak), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                most.fetch_max(children_rss(process), Ordering::Relaxed);
                thread::sleep(GLANCE);
            }
        });
        Self {
            peak,
            stop,
            thread: Some(thread),
        }
    }

    /// The most bytes that were seen resident in all of them together.
    pub(super) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot panic.
            let _ = thread.join();
        }
    }
}

/// Memory of the children of all threads; what has ended meanwhile counts as nothing. Nor does a child that does not
/// run a program of its own yet: until then it shares its parent's memory.
fn children_rss(process: u32) -> u64 {
    let program = |id: &str| fs::read_link(format!("/proc/{id}/exe")).ok();
    let parent = program(&process.to_string());
    let threads = fs::read_dir(format!("/proc/{process}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: String = children.collect();
    let children = children
        .split_whitespace()
        .filter(|child| program(child) != parent);
    let rss = |child: &str| memory(child.parse().ok()?).ok();
    children.filter_map(rss).map(|memory| memory.rss).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_seen_to_use_cpu_and_memory_and_its_children_memory() {
        let me = std::process::id();
        let before = cpu(me).unwrap();
        let mut ballast = vec![1_u8; 32 << 20];
        for round in 0..4_u8 {
            ballast
                .iter_mut()
                .for_each(|byte| *byte = byte.wrapping_mul(31).wrapping_add(round));
        }
        assert!(cpu(me).unwrap().own > before.own);
        let memory = memory(me).unwrap();
        assert!(
            memory.rss > ballast.len() as u64 && memory.peak >= memory.rss,
            "{memory:?}"
        );
        assert!(
            memory.anonymous > ballast.len() as u64 && memory.anonymous <= memory.rss,
            "{memory:?}"
        );

        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let children = Children::watch(me);
        while children.peak() == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
