//! How many bytes each ServicePort carried, for metrics, where that is asked for, in all modes. With `nf_conntrack_acct` the
//! kernel adds to two counters that lie in the entry of a connection, which it looks up for every packet anyway; no rule is
//! walked for it. The events of ended entries are heard as they happen; those that live are listed when somebody asks for
//! the metrics, and only then.
//!
//! Whose a connection is says the destination that its client asked for: a frontend of a Service. Only those count that were
//! given another destination, and only bytes since this program began to count: what lived before is looked at once, at
//! the start, and connections older than the kernel's accounting have no counters.
//!
//! Events that come faster than they are read for long are lost, and the kernel does not say whose. With each of them goes
//! what its connection carried since somebody last asked for the metrics. No total goes down, and none counts twice
//! (`accounts.rs`).

mod accounts;
#[cfg(test)]
mod tests;
pub(super) mod wire;

use std::collections::HashSet;
use std::hash::RandomState;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::SockProtocol;
use tracing::{debug, error, info, warn};

pub use self::accounts::Bytes;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) use self::accounts::Counted;
#[cfg(not(any(test, feature = "fuzzing")))]
use self::accounts::Counted;
use self::accounts::{Key, Seen, add};
use self::wire::request;
use super::flows::Frontend;
use super::netlink::DELETE;
use crate::model::books::{self, PortTotal};
use crate::model::object::ObjectName;
use crate::model::view::ServiceView;
use crate::netlink::{Listener, NOT_EVEN_THE_KERNEL, Socket};
use crate::node::addresses::LocalAddresses;

/// `NFNLGRP_CONNTRACK_DESTROY`.
const GROUP: u32 = 3;
/// Events that come within this time are read together: the socket holds thousands, and each waking costs more than
/// what it is for.
const GATHERING: Duration = Duration::from_millis(100);
/// How often the thread looks whether anybody still wants its counts, in milliseconds.
const IDLE: u16 = 10_000;
const EVENTS: &str = "/proc/sys/net/netfilter/nf_conntrack_events";

/// Reads the bytes of all ServicePorts, on any thread of the network namespace.
pub type ReadBytes = Box<dyn Fn() -> Vec<PortTotal<Bytes>> + Send + Sync>;

type Books = books::Books<Frontend, Bytes>;

/// What the proxy's thread, the one that hears, and whoever asks for the metrics share.
#[derive(Debug)]
pub(super) struct Counting {
    /// Held for moments only, so that nobody who lists a large table holds up the proxy.
    books: Mutex<Books>,
    ear: Mutex<Ear>,
}

/// What hears and looks.
#[derive(Debug)]
struct Ear {
    listener: Listener,
    keys: RandomState,
    seen: Seen,
    local: LocalAddresses,
    /// The machine's addresses as they were last told.
    addresses: HashSet<IpAddr>,
    by_ipvs: bool,
    /// What lived at the start was looked at.
    begun: bool,
    /// The operator knows that events get lost, and that the table cannot be listed.
    told_of_loss: bool,
    complaint: Option<Errno>,
}

impl Counting {
    /// Begins to count in the network namespace of this thread; `None` where the kernel does not let us, which the log says.
    pub(super) fn start(local: LocalAddresses, by_ipvs: bool) -> io::Result<Option<Arc<Self>>> {
        let listener = match Listener::open(SockProtocol::NetlinkNetFilter, &[GROUP], NOT_EVEN_THE_KERNEL) {
            Ok(listener) => listener,
            Err(err) => {
                error!(%err, "Bytes are not counted: the ends of connections cannot be heard (CAP_NET_ADMIN, CONFIG_NF_CT_NETLINK)");
                return Ok(None);
            }
        };
        if std::fs::read_to_string(EVENTS).is_ok_and(|events| events.trim() == "0") {
            warn!(
                setting = EVENTS,
                "Bytes are counted of living connections alone: the kernel is told to announce no ends"
            );
        }
        let descriptor = listener.descriptor()?;
        let counting = Arc::new(Self {
            books: Mutex::default(),
            ear: Mutex::new(Ear {
                listener,
                keys: RandomState::new(),
                seen: Seen::default(),
                local,
                addresses: HashSet::new(),
                by_ipvs,
                begun: false,
                told_of_loss: false,
                complaint: None,
            }),
        });
        let counted = Arc::downgrade(&counting);
        std::thread::Builder::new()
            .name("bytes".to_owned())
            .spawn(move || hear(&descriptor, &counted))?;
        Ok(Some(counting))
    }

    /// A Service is this now (`None`: gone).
    pub(super) fn update(&self, service: &ObjectName, view: Option<&ServiceView>) {
        lock(&self.books).update(service, view, Frontend::of);
    }

    /// What reads the counts.
    pub(super) fn reader(self: &Arc<Self>) -> ReadBytes {
        let counting = Arc::clone(self);
        Box::new(move || {
            lock(&counting.ear).look(&counting.books);
            lock(&counting.books).told()
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked with the lock held at worst left something uncounted.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears until nobody wants the counts any more.
fn hear(descriptor: &OwnedFd, counting: &Weak<Counting>) {
    if let Some(counting) = counting.upgrade() {
        lock(&counting.ear).begin(&counting.books);
    }
    loop {
        let mut waiting = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
        let woken = poll(&mut waiting, PollTimeout::from(IDLE));
        if woken.is_ok_and(|ready| ready > 0) {
            std::thread::sleep(GATHERING);
        }
        let Some(counting) = counting.upgrade() else {
            return;
        };
        if let Err(err) = lock(&counting.ear).hear(&counting.books, None) {
            error!(%err, "Bytes are counted of living connections alone: the ends of others cannot be heard any more");
            return;
        }
    }
}

impl Ear {
    /// Looks at what lives at the start, which others counted if anybody did.
    fn begin(&mut self, books: &Mutex<Books>) {
        if !self.begun {
            self.list(books);
        }
    }

    /// Counts what connections carried until now.
    fn look(&mut self, books: &Mutex<Books>) {
        self.begin(books);
        self.list(books);
    }

    /// Counts what ended, and collects whose end it was. Before all is looked at that lived at the start, it counts nothing.
    fn hear(&mut self, books: &Mutex<Books>, mut ended: Option<&mut HashSet<Key>>) -> Result<(), Errno> {
        self.note_addresses();
        let Self {
            listener,
            keys,
            seen,
            addresses,
            begun,
            ..
        } = self;
        let lost = listener.hear(|message| {
            if message.kind != DELETE {
                return;
            }
            if let Some(entry) = Counted::read(message.body(), keys) {
                let bytes = seen.ended(&entry);
                if let Some(ended) = &mut ended {
                    ended.insert(entry.key);
                }
                if *begun {
                    let local = is_local(addresses, entry.asked.ip());
                    add(&mut lock(books), &entry, local, bytes);
                }
            }
        })?;
        if lost && !std::mem::replace(&mut self.told_of_loss, true) {
            warn!(
                "More connections end than can be heard of: bytes that they carried since the metrics were last asked for are not counted"
            );
        }
        Ok(())
    }

    /// Counts what living connections carried since the last look; at the first look only takes note of it.
    fn list(&mut self, books: &Mutex<Books>) {
        let start = Instant::now();
        // A failure shows again where events are waited for.
        let _ = self.hear(books, None);
        let mut living = Vec::new();
        let listed = Socket::open().and_then(|mut table| {
            table.dump(&request(self.by_ipvs), |message| {
                living.extend(Counted::read(message, &self.keys));
            })
        });
        let mut ended = HashSet::new();
        let _ = self.hear(books, Some(&mut ended));
        let connections = living.len();
        let Self {
            seen,
            addresses,
            begun,
            ..
        } = self;
        seen.listed(&living, &ended, listed.is_ok(), |entry, bytes| {
            if *begun {
                add(
                    &mut lock(books),
                    entry,
                    is_local(addresses, entry.asked.ip()),
                    bytes,
                );
            }
        });
        *begun |= listed.is_ok();
        debug!(connections, elapsed = ?start.elapsed(), "Listed living connections for their bytes");
        self.tell(listed.err());
    }

    /// Tells the operator once when the table cannot be listed, and once when it can again.
    fn tell(&mut self, failure: Option<Errno>) {
        if std::mem::replace(&mut self.complaint, failure) == failure {
            return;
        }
        match failure {
            None => info!("Bytes of living connections are counted again"),
            Some(err) => warn!(%err, "Living connections cannot be listed; their bytes count later"),
        }
    }

    fn note_addresses(&mut self) {
        if self.addresses.is_empty() || self.local.has_changed().unwrap_or_default() {
            self.addresses = self.local.borrow_and_update().iter().copied().collect();
        }
    }
}

/// Node ports are at these addresses.
fn is_local(addresses: &HashSet<IpAddr>, ip: IpAddr) -> bool {
    ip.is_loopback() || addresses.contains(&ip)
}
