//! The receiving end of the sources' channel, for plain code that waits for changes or for a moment.

use std::time::Instant;

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::Receiver;

use crate::model::change::Change;

/// At most so many changes are taken at once, so that a flood cannot put off the kernel for ever.
const MOST: usize = 8192;

pub(super) struct Inbox {
    changes: Receiver<Change>,
    taken: Vec<Change>,
    /// Only for waiting with a deadline.
    timer: Runtime,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// There is something to take.
    Changes,
    /// The moment came.
    Elapsed,
    /// Nothing will come any more.
    Closed,
}

impl Inbox {
    pub(super) fn new(changes: Receiver<Change>) -> anyhow::Result<Self> {
        let timer = Builder::new_current_thread().enable_time().build();
        Ok(Self {
            changes,
            taken: Vec::new(),
            timer: timer.context("cannot start the loop's timer")?,
        })
    }

    /// Waits for changes, until a moment if one is given, and gathers all that are there.
    pub(super) fn wait(&mut self, until: Option<Instant>) -> Wait {
        let count = match until {
            None => self.changes.blocking_recv_many(&mut self.taken, MOST),
            Some(until) => {
                let (changes, taken) = (&mut self.changes, &mut self.taken);
                let received = self.timer.block_on(async {
                    tokio::time::timeout_at(until.into(), changes.recv_many(taken, MOST)).await
                });
                match received {
                    Ok(count) => count,
                    Err(_) => return Wait::Elapsed,
                }
            }
        };
        if count == 0 { Wait::Closed } else { Wait::Changes }
    }

    /// What was gathered, in order.
    pub(super) fn take(&mut self) -> std::vec::Drain<'_, Change> {
        if self.taken.capacity() > MOST {
            self.taken.shrink_to(MOST);
        }
        self.taken.drain(..)
    }
}
