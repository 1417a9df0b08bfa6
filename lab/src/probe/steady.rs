//! New connections at a steady pace in the background, while something else happens.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Outcome, Request, Shares, here};
use crate::net::Namespace;

/// A thread that makes one request after the other until it is stopped.
#[derive(Debug)]
pub struct Steady {
    control: Arc<Control>,
    thread: Option<JoinHandle<io::Result<SteadyReport>>>,
}

#[derive(Debug)]
struct Control {
    made: AtomicUsize,
    /// Stop when so many are made.
    most: AtomicUsize,
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
        let control = Arc::new(Control {
            made: AtomicUsize::new(0),
            most: AtomicUsize::new(usize::MAX),
        });
        let (from, controlled) = (from.clone(), Arc::clone(&control));
        let thread = thread::spawn(move || from.enter(|| run(request, pause, &controlled))?);
        Self {
            control,
            thread: Some(thread),
        }
    }

    /// Waits until the request that is under way is finished.
    ///
    /// # Errors
    /// When it takes longer than the patience.
    pub fn finish_one(&self, patience: Duration) -> io::Result<()> {
        let (made, since) = (self.control.made.load(Ordering::Relaxed), Instant::now());
        while self.control.made.load(Ordering::Relaxed) == made {
            if since.elapsed() > patience {
                let message = format!("no request of a steady flow was finished within {patience:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Stops after this many more requests, and reports.
    ///
    /// # Errors
    /// When requests could not be made at all.
    pub fn stop_after(mut self, more: usize) -> io::Result<SteadyReport> {
        let most = self.control.made.load(Ordering::Relaxed) + more;
        self.control.most.store(most, Ordering::Relaxed);
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
        self.control.most.store(0, Ordering::Relaxed);
    }
}

fn run(request: Request, pause: Duration, control: &Control) -> io::Result<SteadyReport> {
    let mut report = SteadyReport::default();
    let start = Instant::now();
    while control.made.load(Ordering::Relaxed) < control.most.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let outcome = here(request)?;
        report.slowest = report.slowest.max(asked.elapsed());
        report.shares.count(&outcome);
        if outcome.answer().is_none() {
            report.failures.push((asked - start, outcome));
        }
        control.made.fetch_add(1, Ordering::Relaxed);
        thread::sleep(pause);
    }
    Ok(report)
}
