//! New connections at a steady pace in the background, while something else happens.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Outcome, Request, Shares, here};
use crate::net::Namespace;

/// A thread that makes one request after the other until it is stopped.
#[derive(Debug)]
pub struct Steady {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<SteadyReport>>>,
}

/// What became of the requests of a [`Steady`].
#[derive(Clone, Debug, Default)]
pub struct SteadyReport {
    /// All of them, counted.
    pub shares: Shares,
    /// The requests that were not answered: when, counted from the start, and what happened.
    pub failures: Vec<(Duration, Outcome)>,
    /// The slowest answer.
    pub slowest: Duration,
}

impl Steady {
    /// Starts: one request, a pause, the next, each over a new connection.
    pub fn start(from: &Namespace, request: Request, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (from, stopped) = (from.clone(), Arc::clone(&stop));
        let thread = thread::spawn(move || from.enter(|| run(request, pause, &stopped))?);
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Stops after the request under way, and reports.
    ///
    /// # Errors
    /// When requests could not be made at all.
    pub fn stop(mut self) -> io::Result<SteadyReport> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else {
            return Ok(SteadyReport::default());
        };
        thread
            .join()
            .unwrap_or_else(|cause| std::panic::resume_unwind(cause))
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn run(request: Request, pause: Duration, stop: &AtomicBool) -> io::Result<SteadyReport> {
    let mut report = SteadyReport::default();
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let outcome = here(request)?;
        report.slowest = report.slowest.max(asked.elapsed());
        report.shares.count(&outcome);
        if outcome.answer().is_none() {
            report.failures.push((asked - start, outcome));
        }
        thread::sleep(pause);
    }
    Ok(report)
}
