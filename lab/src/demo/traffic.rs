//! The demo's traffic: one flow of real requests for each way to the Service, and what became of them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::net::Namespace;
use crate::probe::{Outcome, Protocol, RefusedBy, Request, request};

/// Shares are those of the requests of this long.
const WINDOW: Duration = Duration::from_millis(1000);
/// Requests of a path that tell what happens there now.
pub(super) const LATELY: usize = 20;
/// Pause between two requests of a flow.
const PAUSE: Duration = Duration::from_millis(8);
const TIMEOUT: Duration = Duration::from_secs(2);

/// A way to the Service.
#[derive(Clone, Debug)]
pub(super) struct Path {
    /// Who asks: `pod`, `host`, `outside`.
    pub(super) from: &'static str,
    /// What is asked: `ClusterIP`, `NodePort`, `load balancer`.
    pub(super) kind: &'static str,
    pub(super) to: SocketAddr,
    pub(super) namespace: Namespace,
}

/// What became of the requests of one path.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    recent: VecDeque<(Instant, Option<String>)>,
    pub(super) answered: usize,
    /// Refused by a rule while the Service had no endpoints.
    pub(super) refused: usize,
    /// Everything else: what should not happen.
    pub(super) failed: usize,
    pub(super) last_failure: Option<String>,
}

impl Counts {
    /// Part of the recent requests that each server answered, and the part that was refused (`None`).
    pub(super) fn shares(&self, now: Instant) -> BTreeMap<Option<&str>, f64> {
        let recent = self
            .recent
            .iter()
            .filter(|(when, _)| now.duration_since(*when) < WINDOW);
        let mut counts: BTreeMap<Option<&str>, u32> = BTreeMap::new();
        for (_, server) in recent {
            *counts.entry(server.as_deref()).or_default() += 1;
        }
        let total: u32 = counts.values().sum();
        counts
            .into_iter()
            .map(|(server, count)| (server, f64::from(count) / f64::from(total)))
            .collect()
    }

    /// Who answered the last [`LATELY`] requests; `None` was refused.
    pub(super) fn lately(&self) -> impl Iterator<Item = Option<&str>> {
        self.recent
            .iter()
            .rev()
            .take(LATELY)
            .map(|(_, server)| server.as_deref())
    }

    /// Counts one more; `empty` says that the Service has no endpoints, so that a refusal is right.
    pub(super) fn take(&mut self, outcome: &Outcome, empty: bool) {
        let now = Instant::now();
        while self
            .recent
            .front()
            .is_some_and(|(when, _)| now.duration_since(*when) > WINDOW)
        {
            self.recent.pop_front();
        }
        match outcome {
            Outcome::Ok(answer) => {
                self.answered += 1;
                self.recent.push_back((now, Some(answer.server.clone())));
            }
            Outcome::Refused(RefusedBy::Icmp) if empty => {
                self.refused += 1;
                self.recent.push_back((now, None));
            }
            other => {
                self.failed += 1;
                self.last_failure = Some(other.to_string());
            }
        }
    }
}

/// All flows; they end with this value.
pub(super) struct Traffic {
    pub(super) paths: Vec<Path>,
    shared: Arc<Shared>,
}

struct Shared {
    stop: AtomicBool,
    /// The Service has no endpoints, so that a refusal is what should happen.
    empty: AtomicBool,
    counts: Vec<Mutex<Counts>>,
}

impl Traffic {
    /// Starts one flow a path.
    pub(super) fn start(paths: Vec<Path>) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            empty: AtomicBool::new(false),
            counts: paths.iter().map(|_| Mutex::default()).collect(),
        });
        for (index, path) in paths.iter().cloned().enumerate() {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                while !shared.stop.load(Ordering::Relaxed) {
                    let empty = shared.empty.load(Ordering::Relaxed);
                    let outcome = path
                        .ask()
                        .unwrap_or_else(|error| Outcome::Unreachable(error.to_string()));
                    lock(&shared.counts[index]).take(&outcome, empty || shared.empty.load(Ordering::Relaxed));
                    thread::sleep(PAUSE);
                }
            });
        }
        Self { paths, shared }
    }

    /// What became of each path's requests so far.
    pub(super) fn counts(&self) -> Vec<Counts> {
        self.shared
            .counts
            .iter()
            .map(|counts| lock(counts).clone())
            .collect()
    }

    /// Whether a refusal is now what should happen.
    pub(super) fn set_empty(&self, empty: bool) {
        self.shared.empty.store(empty, Ordering::Relaxed);
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Path {
    pub(super) fn ask(&self) -> io::Result<Outcome> {
        let ask = Request {
            protocol: Protocol::Tcp,
            to: self.to,
            timeout: TIMEOUT,
        };
        request(&self.namespace, ask)
    }
}

/// Asks without a pause while something changes, and notes when each server answered.
pub(super) struct Watcher {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<(Instant, Outcome)>>,
}

impl Watcher {
    pub(super) fn start(path: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (path, stopped) = (path.clone(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut answers = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(outcome) = path.ask() {
                    answers.push((Instant::now(), outcome));
                }
            }
            answers
        });
        Self { stop, thread }
    }

    /// Every outcome with its time.
    pub(super) fn stop(self) -> Vec<(Instant, Outcome)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// A thread that panicked while it counted leaves a count behind that is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
