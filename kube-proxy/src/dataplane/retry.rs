//! When something that the kernel refused is tried again, in every mode.

use std::time::{Duration, Instant};

/// First and longest wait.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// The next try, after a pause that doubles with each refusal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    pub(super) due: Instant,
    /// What to wait after the next refusal.
    wait: Duration,
}

impl Retry {
    /// After a first refusal.
    pub(super) fn after_first(now: Instant) -> Self {
        Self {
            due: now + FIRST,
            wait: FIRST * 2,
        }
    }

    /// It was refused once more.
    pub(super) fn refused_again(&mut self, now: Instant) {
        self.due = now + self.wait;
        self.wait = (self.wait * 2).min(LONGEST);
    }
}
