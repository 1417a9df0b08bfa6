//! What comes out of measuring.

use std::time::Duration;

use serde::Serialize;

use super::usage::Memory;

/// Repeated measurements of one time, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Times {
    /// How many.
    pub(super) count: usize,
    pub(super) min: f64,
    pub(super) median: f64,
    /// The largest one that is left when the hundredth part, rounded down, is taken away from the top.
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Times {
    /// `None` of no measurements.
    pub(super) fn of(measured: &[Duration]) -> Option<Self> {
        let mut sorted: Vec<f64> = measured.iter().copied().map(milliseconds).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        let p99 = sorted[sorted.len() - 1 - sorted.len() / 100];
        Some(Self {
            count: sorted.len(),
            min,
            median,
            p99,
            max,
        })
    }
}

/// A time as figures show it.
pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// A phase either came to its end or ran out of time.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Phase<T> {
    /// It did.
    Done(T),
    /// It did not finish: after how long it was given up, and how far it had come.
    Unfinished {
        /// The time it was given, in seconds.
        within_seconds: f64,
        /// How far it had come.
        reached: String,
    },
}

impl<T> Phase<T> {
    /// What came out, if it finished.
    pub(super) fn done(&self) -> Option<&T> {
        match self {
            Self::Done(value) => Some(value),
            Self::Unfinished { .. } => None,
        }
    }
}

/// One start on an untouched node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Start {
    /// From the start of the process to the first answer of any sampled Service, in milliseconds.
    pub(super) first: f64,
    /// To the answer of the last one.
    pub(super) all: f64,
    /// CPU time until it had settled, child processes included, in milliseconds.
    pub(super) cpu: f64,
    /// The part of child processes.
    pub(super) children: f64,
}

/// One start on a node that is programmed, after a change that nobody watched.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Restart {
    /// From the start of the process to the first packet at the endpoint that was moved meanwhile, in milliseconds.
    pub(super) moved: f64,
    /// CPU time until it had settled, child processes included, in milliseconds.
    pub(super) cpu: f64,
    /// The part of child processes.
    pub(super) children: f64,
    /// Handshakes before that which no endpoint took.
    pub(super) lost: usize,
}

/// What `iptables-restore` takes alone for what upstream's kube-proxy writes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Restores {
    /// All rules at once, on a node without any.
    pub(super) all: Phase<Restored>,
    /// When one endpoint moves: the chains of its Service, and all that Services share.
    pub(super) one: Restored,
}

/// One run of `iptables-restore`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Restored {
    /// Time in milliseconds.
    pub(super) took: f64,
    /// CPU time in milliseconds.
    pub(super) cpu: f64,
}

/// Moves of one endpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Moves {
    /// From just before the write to the API to the first packet at the new endpoint.
    pub(super) latency: Times,
    /// CPU time of each move, child processes included, in milliseconds.
    pub(super) cpu: f64,
    /// The part of child processes.
    pub(super) children: f64,
    /// Handshakes during the moves that neither endpoint took.
    pub(super) lost: usize,
    /// All handshakes during the moves.
    pub(super) asked: usize,
    /// Time between two handshakes: so much later than the truth a figure can be.
    pub(super) cadence: Times,
}

/// Everything about one kube-proxy on one API.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Candidate {
    /// What it is called in the table.
    pub(super) name: String,
    /// Size of its program in bytes.
    pub(super) binary: u64,
    /// Starts.
    pub(super) starts: Vec<Phase<Start>>,
    /// Memory after the last start, settled.
    pub(super) synced: Option<Memory>,
    /// The most memory that its child processes had at once during the last start, in bytes.
    pub(super) children: u64,
    /// Moves of one endpoint.
    pub(super) moves: Option<Phase<Moves>>,
    /// Memory after the moves.
    pub(super) moved: Option<Memory>,
    /// A start with everything in force.
    pub(super) restart: Option<Phase<Restart>>,
    /// What its programs would take alone.
    pub(super) restores: Option<Restores>,
    /// Memory in a cluster with one Service.
    pub(super) idle: Option<Memory>,
    /// CPU time of a second in which nothing happens, in that cluster, in milliseconds.
    pub(super) idle_cpu: Option<f64>,
    /// Why a phase is missing.
    pub(super) failures: Vec<String>,
}

/// What the API costs without any kube-proxy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ApiFloor {
    /// Reading all Services and EndpointSlices one after the other as protobuf.
    pub(super) protobuf: Times,
    /// Their size in bytes.
    pub(super) protobuf_bytes: usize,
    /// The same as JSON.
    pub(super) json: Times,
    /// Their size in bytes.
    pub(super) json_bytes: usize,
    /// Both at the same time as streaming lists of protobuf, connections included.
    pub(super) streamed: Times,
    /// From just before the write to the event at a plain watch.
    pub(super) event: Times,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_p99_are_those_of_the_sorted_measurements() {
        let of = |ms: &[u64]| Times::of(&ms.iter().map(|&ms| Duration::from_millis(ms)).collect::<Vec<_>>());
        assert_eq!(of(&[]), None);
        let all: Vec<u64> = (1..=200).rev().collect();
        for (measured, median, p99) in [
            (&[7][..], 7.0, 7.0),
            (&[9, 1], 5.0, 9.0),
            (&[3, 1, 2], 2.0, 3.0),
            (&all, 100.5, 198.0),
        ] {
            let times = of(measured).unwrap();
            assert_eq!((times.median, times.p99), (median, p99), "{measured:?}");
        }
    }
}
