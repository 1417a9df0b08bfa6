//! The receiving end of the sources' channel, for plain code that waits for changes, for addresses of this node that
//! come or go, for what others do to the rules, or for a moment.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::task::Poll;
use std::time::Instant;

use anyhow::Context as _;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::Receiver;
use tracing::warn;

use crate::model::change::Change;
use crate::node::addresses::LocalAddresses;

/// At most so many changes are taken at once, so that a flood cannot put off the kernel for ever.
const MOST: usize = 8192;

pub(super) struct Inbox {
    changes: Receiver<Change>,
    taken: Vec<Change>,
    addresses: LocalAddresses,
    /// What the dataplane hears by.
    listeners: Vec<AsyncFd<OwnedFd>>,
    /// Only for waiting.
    waiter: Runtime,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// There is something to take.
    Changes,
    /// Addresses of this node came or went.
    Addresses,
    /// The dataplane's listener has something to tell.
    Heard,
    /// The moment came.
    Elapsed,
    /// Nothing will come any more.
    Closed,
}

impl Inbox {
    pub(super) fn new(changes: Receiver<Change>, addresses: LocalAddresses) -> anyhow::Result<Self> {
        let waiter = Builder::new_current_thread().enable_all().build();
        Ok(Self {
            changes,
            taken: Vec::new(),
            addresses,
            listeners: Vec::new(),
            waiter: waiter.context("cannot start the loop's timer")?,
        })
    }

    /// Waits for what this descriptor hears as well, from now on.
    pub(super) fn listen(&mut self, descriptor: OwnedFd) {
        let _entered = self.waiter.enter();
        match crate::node::addresses::register(descriptor) {
            Ok(listener) => self.listeners.push(listener),
            Err(err) => warn!(%err, "Cannot wait for what others change; it is noticed at the next change"),
        }
    }

    /// Waits for changes and gathers all that are there, unless addresses change or a moment comes first.
    pub(super) fn wait(&mut self, until: Option<Instant>) -> Wait {
        let (changes, taken, addresses) = (&mut self.changes, &mut self.taken, &mut self.addresses);
        let listeners = &self.listeners;
        self.waiter.block_on(async {
            tokio::select! {
                // These are rare, and must not wait for the end of a flood of changes.
                biased;
                () = changed(addresses) => Wait::Addresses,
                () = heard(listeners) => Wait::Heard,
                count = changes.recv_many(taken, MOST) => match count {
                    0 => Wait::Closed,
                    _ => Wait::Changes,
                },
                () = come(until) => Wait::Elapsed,
            }
        })
    }

    /// What was gathered, in order.
    pub(super) fn take(&mut self) -> std::vec::Drain<'_, Change> {
        if self.taken.capacity() > MOST {
            self.taken.shrink_to(MOST);
        }
        self.taken.drain(..)
    }
}

async fn changed(addresses: &mut LocalAddresses) {
    if addresses.changed().await.is_err() {
        // Nobody tells any more.
        std::future::pending::<()>().await;
    }
}

/// Waits until one of them has something to tell.
async fn heard(listeners: &[AsyncFd<OwnedFd>]) {
    poll_fn(|context| {
        let mut heard = Poll::Pending;
        for listener in listeners {
            if let Poll::Ready(Ok(mut ready)) = listener.poll_read_ready(context) {
                // Before it is read, so that what comes meanwhile wakes again.
                ready.clear_ready();
                heard = Poll::Ready(());
            }
        }
        heard
    })
    .await;
}

async fn come(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
