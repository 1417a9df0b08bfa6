//! The table, and the same figures as JSON.

use std::fmt::{self, Display, Formatter};
use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

use super::api::ApiKind;
use super::figures::{ApiFloor, Candidate, Moves, Phase, Restart, Restored, Start};
use super::usage::Memory;

/// Everything that was measured. Shown it is a table; serialized it has the same figures and more, times in
/// milliseconds unless their name says otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub(super) machine: Machine,
    /// The mode of our kube-proxy.
    pub(super) mode: &'static str,
    pub(super) services: usize,
    pub(super) endpoints: usize,
    /// Services that were asked.
    pub(super) sample: usize,
    /// What our dataplane and the kernel cost alone, as kube-proxy's example for that says it.
    pub(super) dataplane: Option<String>,
    pub(super) apis: Vec<ApiReport>,
}

/// What was measured on one API.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ApiReport {
    pub(super) api: ApiKind,
    pub(super) floor: ApiFloor,
    /// Ours first.
    pub(super) candidates: Vec<Candidate>,
}

/// Where it was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    pub(super) cpus: usize,
    pub(super) cpu: String,
    pub(super) kernel: String,
    /// The load average of the last minute when measuring began: other work on the machine.
    pub(super) load_before: f64,
    /// And when it was over, its own work included.
    pub(super) load_after: f64,
}

impl Machine {
    /// Looks at this machine.
    pub(super) fn look() -> Result<Self> {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find(|line| line.starts_with("model name"));
        let model = model.and_then(|line| line.split_once(": "));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        Ok(Self {
            cpus: std::thread::available_parallelism()?.get(),
            cpu: model.map_or("unknown CPU", |(_, name)| name).to_owned(),
            kernel: kernel.trim().to_owned(),
            load_before: load_average()?,
            load_after: 0.0,
        })
    }
}

/// The load average of the last minute.
pub(super) fn load_average() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    let first = text
        .split_whitespace()
        .next()
        .and_then(|first| first.parse().ok());
    first.context("read the load average")
}

impl Report {
    /// The failures of the kube-proxy that is the subject, not of the one beside it.
    pub fn failures(&self) -> Vec<String> {
        let ours = self.apis.iter().filter_map(|api| api.candidates.first());
        ours.flat_map(|candidate| candidate.failures.clone()).collect()
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Machine {
            cpus,
            cpu,
            kernel,
            load_before,
            load_after,
        } = &self.machine;
        let (services, endpoints, mode) = (self.services, self.endpoints, self.mode);
        writeln!(
            f,
            "{services} Services x {endpoints} endpoints, {mode}, {cpus} CPUs ({cpu}), Linux {kernel}"
        )?;
        writeln!(f, "load average before {load_before:.2}, after {load_after:.2}")?;
        if let Some(printed) = &self.dataplane {
            writeln!(f, "\nfloor: our dataplane alone, no API, no packets")?;
            for line in printed.lines() {
                let (label, value) = line.split_once(": ").unwrap_or((line, ""));
                writeln!(f, "  {label:<width$}{value}", width = LABEL - 2)?;
            }
        }
        for api in &self.apis {
            writeln!(f, "\n{}", api.api)?;
            api.fmt(f)?;
        }
        Ok(())
    }
}

/// Width of the first column, and of the others.
const LABEL: usize = 46;
const COLUMN: usize = 16;

impl Display for ApiReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let floor = &self.floor;
        let lists =
            |times: &super::figures::Times, bytes| format!("{} ({})", time(times.median), size(bytes));
        writeln!(f, "floor: the API alone, with a plain client")?;
        let (protobuf, json) = (floor.protobuf_bytes as u64, floor.json_bytes as u64);
        writeln!(
            f,
            "{:<LABEL$}{}",
            "  both lists, protobuf",
            lists(&floor.protobuf, protobuf)
        )?;
        writeln!(f, "{:<LABEL$}{}", "  both lists, JSON", lists(&floor.json, json))?;
        let streamed = time(floor.streamed.median);
        writeln!(
            f,
            "{:<LABEL$}{streamed}",
            "  both streamed at the same time, protobuf"
        )?;
        let event = format!("{} / {}", time(floor.event.median), time(floor.event.p99));
        writeln!(
            f,
            "{:<LABEL$}{event}",
            "  write to event at a watch, median / p99"
        )?;
        write!(f, "{:<LABEL$}", "")?;
        for candidate in &self.candidates {
            write!(f, "{:>COLUMN$}", candidate.name)?;
        }
        writeln!(
            f,
            "{}",
            if self.candidates.len() > 1 {
                "     ratio"
            } else {
                ""
            }
        )?;
        for row in ROWS {
            self.row(f, row)?;
        }
        for failure in self.candidates.iter().flat_map(|c| &c.failures) {
            writeln!(f, "FAILED: {failure}")?;
        }
        for candidate in &self.candidates {
            let starts = candidate.starts.iter().map(|start| start as &dyn Display);
            let moves = candidate.moves.iter().map(|moves| moves as &dyn Display);
            let restart = candidate.restart.iter().map(|restart| restart as &dyn Display);
            let restores = candidate
                .restores
                .iter()
                .map(|restores| &restores.all as &dyn Display);
            for phase in starts.chain(moves).chain(restart).chain(restores) {
                writeln!(f, "  {}: {phase}", candidate.name)?;
            }
        }
        Ok(())
    }
}

impl ApiReport {
    fn row(&self, f: &mut Formatter<'_>, (label, show, value): &Row) -> fmt::Result {
        write!(f, "{label:<LABEL$}")?;
        let values: Vec<_> = self.candidates.iter().map(value).collect();
        for value in &values {
            write!(f, "{:>COLUMN$}", value.map_or("-".to_owned(), show))?;
        }
        if let [Some(ours), Some(theirs), ..] = values[..]
            && ours > 0.0
        {
            write!(
                f,
                "{:>10}",
                format!("{:.*}x", usize::from(theirs < ours * 10.0), theirs / ours)
            )?;
        }
        writeln!(f)
    }
}

/// A label, how its value is shown, and where it comes from.
type Row = (&'static str, fn(f64) -> String, fn(&Candidate) -> Option<f64>);

const ROWS: &[Row] = &[
    ("start: every sampled Service answers, median", time, |c| {
        start(c, |s| s.all)
    }),
    ("start: the first one answers, median", time, |c| {
        start(c, |s| s.first)
    }),
    ("start: CPU time, median", time, |c| start(c, |s| s.cpu)),
    ("start: of which its child processes", time, |c| {
        start(c, |s| s.children).filter(|&ms| ms > 0.0)
    }),
    ("endpoint moved: to the first packet, median", time, |c| {
        moves(c, |m| m.latency.median)
    }),
    ("endpoint moved: p99", time, |c| moves(c, |m| m.latency.p99)),
    ("endpoint moved: maximum", time, |c| moves(c, |m| m.latency.max)),
    ("endpoint moved: CPU time", time, |c| moves(c, |m| m.cpu)),
    ("endpoint moved: of which its child processes", time, |c| {
        moves(c, |m| m.children).filter(|&ms| ms > 0.0)
    }),
    ("restart: a move meanwhile, to the first packet", time, |c| {
        restart(c, |r| r.moved)
    }),
    ("restart: CPU time", time, |c| restart(c, |r| r.cpu)),
    ("restart: of which its child processes", time, |c| {
        restart(c, |r| r.children).filter(|&ms| ms > 0.0)
    }),
    ("iptables-restore alone, all rules at once", time, |c| {
        Some(c.restores.as_ref()?.all.done()?.took)
    }),
    ("iptables-restore alone, all: CPU time", time, |c| {
        Some(c.restores.as_ref()?.all.done()?.cpu)
    }),
    ("iptables-restore alone, a move as upstream's", time, |c| {
        Some(c.restores.as_ref()?.one.took)
    }),
    ("iptables-restore alone, a move: CPU time", time, |c| {
        Some(c.restores.as_ref()?.one.cpu)
    }),
    ("memory (RSS) after the start", bytes, |c| {
        memory(c.synced, |m| m.rss)
    }),
    ("memory: its maximum", bytes, |c| memory(c.synced, |m| m.peak)),
    ("memory: maximum of child processes", bytes, |c| {
        Some(c.children as f64).filter(|&b| b > 0.0)
    }),
    ("memory after the moves", bytes, |c| memory(c.moved, |m| m.rss)),
    ("memory, idle, one Service", bytes, |c| memory(c.idle, |m| m.rss)),
    ("CPU time of an idle second", time, |c| c.idle_cpu),
    ("program", bytes, |c| Some(c.binary as f64)),
];

fn start(candidate: &Candidate, of: fn(&Start) -> f64) -> Option<f64> {
    let mut values: Vec<f64> = candidate.starts.iter().filter_map(Phase::done).map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn moves(candidate: &Candidate, of: fn(&Moves) -> f64) -> Option<f64> {
    candidate.moves.as_ref().and_then(Phase::done).map(of)
}

fn restart(candidate: &Candidate, of: fn(&Restart) -> f64) -> Option<f64> {
    candidate.restart.as_ref().and_then(Phase::done).map(of)
}

fn memory(memory: Option<Memory>, of: fn(&Memory) -> u64) -> Option<f64> {
    memory.as_ref().map(of).map(|bytes| bytes as f64)
}

fn time(milliseconds: f64) -> String {
    if milliseconds >= 1000.0 {
        format!("{:.2} s", milliseconds / 1000.0)
    } else {
        format!("{milliseconds:.2} ms")
    }
}

fn bytes(bytes: f64) -> String {
    format!("{:.1} MB", bytes / 1e6)
}

fn size(count: u64) -> String {
    bytes(count as f64)
}

impl<T: Display> Display for Phase<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(value) => value.fmt(f),
            Self::Unfinished {
                within_seconds,
                reached,
            } => {
                write!(f, "did not finish within {within_seconds} s: {reached}")
            }
        }
    }
}

impl Display for Start {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (all, first, cpu) = (time(self.all), time(self.first), time(self.cpu));
        write!(
            f,
            "start: all answer after {all}, the first after {first}, CPU {cpu}"
        )
    }
}

impl Display for Restart {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (moved, cpu) = (time(self.moved), time(self.cpu));
        write!(
            f,
            "restart: the endpoint that was moved meanwhile answers after {moved}, CPU {cpu}, {} handshakes lost",
            self.lost
        )
    }
}

impl Display for Restored {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (took, cpu) = (time(self.took), time(self.cpu));
        write!(f, "iptables-restore alone, all rules at once: {took}, CPU {cpu}")
    }
}

impl Display for Moves {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            latency,
            cpu,
            lost,
            asked,
            cadence,
            ..
        } = self;
        let (count, min, median) = (latency.count, time(latency.min), time(latency.median));
        let (p99, max, cpu) = (time(latency.p99), time(latency.max), time(*cpu));
        write!(
            f,
            "{count} moves: {min} at least, {median} median, {p99} p99, {max} at most, CPU {cpu} each; "
        )?;
        let cadence = time(cadence.median);
        write!(f, "asked {asked} times, every {cadence} (median), {lost} lost")
    }
}
