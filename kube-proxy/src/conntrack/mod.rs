//! Conntrack: deletes the tracked flows that a change made stale, for all modes.
//!
//! Rules decide about the first packet of a flow; the others follow what the kernel remembers of it. A TCP
//! connection to an endpoint that is gone ends itself, but a UDP or SCTP client that goes on from the same port goes
//! on into nothing, for ever, while each of its packets keeps the entry alive. So entries go
//!
//! - whose endpoint is neither ready nor serving any more, or left the Service;
//! - whose Service, or address or node port of it, is gone;
//! - that were left as they came, when their destination becomes a Service's or the Service gets its first endpoint;
//! - at the first commit, all of these kinds that a predecessor left.
//!
//! When IPVS goes, its connections become conntrack's own (`adopt.rs`).
//!
//! A flow that has had no answer yet is given a second: an endpoint that has left may still owe it one.
//!
//! A flow to an endpoint that is ready or serving is never cut, whatever policies and hints say about new ones, and
//! TCP never. Of node ports only flows to this machine's own addresses count.
//!
//! ```text
//! proxy's thread                          the books (flows.rs)                    conntrack's thread
//! note(view) before a commit ───────────▶ frontends, endpoints ◀── is it stale? ─┐
//! in_force() after a successful one ────▶ where to look ─────────▶ worker.rs ─▶ netlink.rs ⇄ kernel
//! ```
//!
//! The order matters. Deleting before the commit would let the next packet make the same entry again, by the old
//! rules. And the books hold what a commit is about to bring before it does so, and each entry is judged by them at
//! the moment when it is read: so a look that takes its time cuts no flow of rules that came after it was asked for.
//!
//! Where that is asked for, the bytes of each ServicePort are counted as well (`bytes`), on a thread and with books of their
//! own.

mod adopt;
mod bytes;
mod entry;
mod flows;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod netlink;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use ipnet::IpNet;

pub(crate) use self::adopt::{adopt, sources};
use self::bytes::Counting;
pub use self::bytes::{Bytes, ReadBytes};
use self::flows::Flows;
pub(crate) use self::netlink::load;
use crate::metrics::Metrics;
use crate::model::object::{Family, ObjectName};
use crate::model::view::ServiceView;
use crate::node::addresses::LocalAddresses;

/// Keeps the books, and wakes who looks at the kernel. No call waits for the kernel.
#[derive(Debug, Default)]
pub struct Conntrack {
    shared: Arc<Shared>,
    /// Where bytes are counted.
    counting: Option<Arc<Counting>>,
}

/// What the two threads share.
#[derive(Debug, Default)]
struct Shared {
    books: Mutex<Books>,
    /// There is something in the books to look at, or to end for.
    news: Condvar,
}

#[derive(Debug, Default)]
struct Books {
    flows: Flows,
    /// Nobody will write into them any more.
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Books> {
        // Whoever panicked with the lock held at worst left a flow unjudged.
        self.books.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Conntrack {
    /// With a thread that deletes what is stale, in the network namespace of the thread that calls this, whose
    /// addresses `local` tells.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(metrics: Arc<Metrics>, local: LocalAddresses) -> io::Result<Self> {
        let conntrack = Self::default();
        let shared = Arc::clone(&conntrack.shared);
        std::thread::Builder::new()
            .name("conntrack".to_owned())
            .spawn(move || worker::run(&shared, &metrics, &local))?;
        Ok(conntrack)
    }

    /// Counts the bytes of each ServicePort from now on, on a thread of its own and for the network namespace of the thread
    /// that calls this. Where the kernel does not let us, an error in the log says so. `by_ipvs`: IPVS redirects as well.
    ///
    /// # Errors
    /// When there is no thread to be had, or they are counted already.
    pub fn count_bytes(
        &mut self,
        metrics: &Metrics,
        local: LocalAddresses,
        by_ipvs: bool,
    ) -> anyhow::Result<()> {
        if let Some(counting) = Counting::start(local, by_ipvs)? {
            metrics.read_bytes(counting.reader())?;
            self.counting = Some(counting);
        }
        Ok(())
    }

    /// Takes in what a Service will be with the next commit (`None`: gone).
    pub fn note(&self, service: &ObjectName, view: Option<&ServiceView>) {
        if let Some(counting) = &self.counting {
            counting.update(service, view);
        }
        self.shared.lock().flows.note(service, view);
    }

    /// Node ports of a family will be accepted on other addresses than before.
    pub fn node_ports_moved(&self, family: Family) {
        self.shared.lock().flows.node_ports_moved(family);
    }

    /// The networks of all ServiceCIDRs, as they are with the next commit. In those that are new, flows go that
    /// somebody redirected to an endpoint although no Service has their destination.
    pub fn set_service_cidrs(&self, cidrs: Vec<IpNet>) {
        self.shared.lock().flows.set_service_cidrs(cidrs);
    }

    /// Another hand had changed the rules: until the next commit, flows may have begun that go nowhere.
    pub fn rules_were_lost(&self) {
        self.shared.lock().flows.rules_were_lost();
    }

    /// A commit put everything that was noted in force: what it made stale may go.
    pub fn in_force(&self) {
        let mut books = self.shared.lock();
        books.flows.in_force();
        if !books.flows.due().is_empty() {
            self.shared.news.notify_one();
        }
    }
}

#[cfg(test)]
impl Conntrack {
    /// Tells at any later time at how many frontends stale flows would be looked for.
    pub(crate) fn count_due(&self) -> impl Fn() -> usize + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.lock().flows.due().frontends.len()
    }
}

impl Drop for Conntrack {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.news.notify_one();
    }
}
