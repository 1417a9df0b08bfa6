//! Requests at a steady pace in the background, while something else happens.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Connection, Outcome, Request, Shares, here};
use crate::net::Namespace;
use crate::serve::Answer;

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

impl Default for Control {
    fn default() -> Self {
        Self {
            made: AtomicUsize::new(0),
            most: AtomicUsize::new(usize::MAX),
        }
    }
}

/// What became of the requests of a [`Steady`].
#[derive(Clone, Debug, Default)]
pub struct SteadyReport {
    /// All of them, counted.
    pub shares: Shares,
    /// The requests that were not answered, or not by who should: when, counted from the start, and what happened.
    pub failures: Vec<(Duration, Outcome)>,
    /// The slowest answer.
    pub slowest: Duration,
}

impl Steady {
    /// Starts: one request, a pause, the next, each over a new connection.
    pub fn start(from: &Namespace, request: Request, pause: Duration) -> Self {
        let control = Arc::new(Control::default());
        let (from, controlled) = (from.clone(), Arc::clone(&control));
        let new = move || from.enter(|| run(|| here(request), |_, _| true, pause, &controlled))?;
        Self {
            control,
            thread: Some(thread::spawn(new)),
        }
    }

    /// Starts: one request, a pause, the next, all over one connection, to one server: as a long-lived QUIC peer
    /// does it.
    pub fn start_from_one_port(from: &Namespace, request: Request, pause: Duration) -> Self {
        let control = Arc::new(Control::default());
        let (from, controlled) = (from.clone(), Arc::clone(&control));
        let held = move || {
            let connection = Connection::open(&from, request.protocol, request.to, request.timeout)?;
            let connection = connection.map_err(|outcome| io::Error::other(outcome.to_string()))?;
            let same_server = |first: &Answer, now: &Answer| first.server == now.server;
            run(
                || connection.ask(request.timeout),
                same_server,
                pause,
                &controlled,
            )
        };
        Self {
            control,
            thread: Some(thread::spawn(held)),
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

    /// Has it stop after this many more requests. Does not wait for that.
    pub fn end_after(&self, more: usize) {
        let most = self.control.made.load(Ordering::Relaxed) + more;
        self.control.most.store(most, Ordering::Relaxed);
    }

    /// Stops after this many more requests, and reports.
    ///
    /// # Errors
    /// When requests could not be made at all.
    pub fn stop_after(self, more: usize) -> io::Result<SteadyReport> {
        self.end_after(more);
        self.report()
    }

    /// Waits for the end that [`Steady::end_after`] set, and reports.
    ///
    /// # Errors
    /// When requests could not be made at all.
    pub fn report(mut self) -> io::Result<SteadyReport> {
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

/// Asks until it is told to stop. An answer counts when it goes with the first one.
fn run(
    ask: impl Fn() -> io::Result<Outcome>,
    goes_with: impl Fn(&Answer, &Answer) -> bool,
    pause: Duration,
    control: &Control,
) -> io::Result<SteadyReport> {
    let mut report = SteadyReport::default();
    let mut first = None;
    let start = Instant::now();
    while control.made.load(Ordering::Relaxed) < control.most.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let outcome = ask()?;
        report.slowest = report.slowest.max(asked.elapsed());
        report.shares.count(&outcome);
        let counts = |answer: &Answer| goes_with(first.get_or_insert_with(|| answer.clone()), answer);
        if !outcome.answer().is_some_and(counts) {
            report.failures.push((asked - start, outcome));
        }
        control.made.fetch_add(1, Ordering::Relaxed);
        thread::sleep(pause);
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn an_answer_that_does_not_go_with_the_first_one_is_a_failure() {
        let control = Control::default();
        control.most.store(6, Ordering::Relaxed);
        let asked = Cell::new(0);
        let ask = || {
            asked.set(asked.get() + 1);
            Ok(match asked.get() {
                4 => Outcome::Timeout,
                number => Outcome::Ok(Answer {
                    server: if number == 3 { "b" } else { "a" }.to_owned(),
                    port: 8080,
                    source: ([10, 0, 0, 1], 1).into(),
                }),
            })
        };
        let same_server = |first: &Answer, now: &Answer| first.server == now.server;
        let report = run(ask, same_server, Duration::ZERO, &control).unwrap();
        assert_eq!(report.shares.to_string(), "a: 4, b: 1, timeout: 1");
        assert_eq!(report.failures.len(), 2);
    }
}
