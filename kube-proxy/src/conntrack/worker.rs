//! The thread that looks through the kernel's table when the books say so: when, how often, and what is told
//! about it.

use std::cell::Cell;
use std::collections::HashSet;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tracing::{debug, error, info, warn};

use super::flows::{Due, Filter, Flow, Look};
use super::netlink::{Swept, sweep};
use super::{Books, Shared};
use crate::metrics::Metrics;
use crate::model::object::{Family, Protocol};
use crate::node::addresses::LocalAddresses;

/// A packet that read the old rules is entered in the table only when it leaves the machine: microseconds later,
/// or some milliseconds when its processor was busy or taken away. A look that comes earlier misses it. What
/// becomes due meanwhile is looked at together.
const SETTLING: Duration = Duration::from_millis(50);
/// Where flows were stale there is traffic, and a few of its packets may have been held up for longer: by a program
/// that filters them (NFQUEUE), or between a verdict and an endpoint, which a dataplane may retire a second after it.
/// So a look that found something is repeated once.
const SECOND_LOOK: Duration = Duration::from_secs(2);
/// A request that went to an endpoint just before that left may still be answered, if the endpoint finishes what it began:
/// a flow that has had no answer yet is spared for so long.
const ANSWER: Duration = Duration::from_secs(1);
/// How often a walk is tried at once that fails for reasons that pass, with growing pauses, ...
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);
/// ... and when it is tried again after that.
const RETRY: Duration = Duration::from_secs(10);

/// Looks whenever something is due, until the books are closed.
pub(super) fn run(shared: &Shared, metrics: &Metrics, local: &LocalAddresses) {
    let mut worker = Worker {
        shared,
        metrics,
        local,
        again: Vec::new(),
        complaint: None,
    };
    let mut not_before = Instant::now();
    while worker.await_due() && worker.sleep_until(not_before.max(Instant::now() + SETTLING)) {
        let begun = Instant::now();
        worker.look();
        // However large the table and frequent the changes: at most half of one processor.
        not_before = Instant::now() + begun.elapsed();
    }
}

struct Worker<'a> {
    shared: &'a Shared,
    metrics: &'a Metrics,
    local: &'a LocalAddresses,
    /// What is looked at once more, and when.
    again: Vec<(Instant, Due)>,
    /// The failure that the operator knows of.
    complaint: Option<Errno>,
}

impl Worker<'_> {
    /// Waits until there is something to look at; `false` when the books are closed.
    fn await_due(&self) -> bool {
        let next = self.again.iter().map(|(when, _)| *when).min();
        self.wait(next, |books| !books.flows.due().is_empty())
    }

    /// `false` when the books are closed.
    fn sleep_until(&self, moment: Instant) -> bool {
        self.wait(Some(moment), |_| false)
    }

    /// Waits for a moment, or for what `suffices`; `false` when the books are closed.
    fn wait(&self, until: Option<Instant>, suffices: impl Fn(&Books) -> bool) -> bool {
        let mut books = self.shared.lock();
        while !books.closed && !suffices(&books) {
            let news = &self.shared.news;
            books = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return true,
                Some(left) => match news.wait_timeout(books, left) {
                    Ok((books, _)) => books,
                    Err(poison) => poison.into_inner().0,
                },
                None => news.wait(books).unwrap_or_else(|poison| poison.into_inner()),
            };
        }
        !books.closed
    }

    /// Looks at everything that is due by now.
    fn look(&mut self) {
        let new = self.shared.lock().flows.take_due();
        let mut ripe = Due::default();
        let now = Instant::now();
        self.again.retain_mut(|(when, again)| {
            let is_ripe = *when <= now;
            if is_ripe {
                ripe.merge(std::mem::take(again));
            }
            !is_ripe
        });
        let mut failure = None;
        for (due, is_first) in [(new, true), (ripe, false)] {
            if !due.is_empty() {
                failure = failure.or(self.look_for(due, is_first));
            }
        }
        self.tell(failure);
    }

    /// One look, and when the next one is due. The first look spares flows without an answer.
    fn look_for(&mut self, due: Due, is_first: bool) -> Option<Errno> {
        let local = if due.has_node_ports() {
            self.local.borrow().iter().copied().collect()
        } else {
            HashSet::new()
        };
        let look = Look { due, local };
        let spared = Cell::new(false);
        let spares = |flow: &Flow| {
            let spares = is_first && flow.awaits_answer();
            spared.set(spared.get() || spares);
            spares
        };
        let (mut deleted, mut failure) = (0, None);
        for family in Family::ALL {
            let swept = self.look_at(family, &look, &spares);
            deleted += swept.deleted;
            failure = failure.or(swept.result.err());
        }
        let pause = match failure {
            Some(errno) if is_hopeless(errno) => None,
            Some(_) => Some(RETRY),
            None if spared.get() => Some(ANSWER),
            None if deleted > 0 && is_first => Some(SECOND_LOOK),
            None => None,
        };
        let again = pause.map(|pause| (Instant::now() + pause, look.due));
        self.again.extend(again);
        failure
    }

    /// Looks at one family, and counts.
    fn look_at(&self, family: Family, look: &Look, spares: &dyn Fn(&Flow) -> bool) -> Swept {
        let mut all = Swept {
            deleted: 0,
            result: Ok(()),
        };
        let protocols = [Protocol::Udp, Protocol::Sctp].into_iter();
        let concerned: Vec<_> = protocols
            .filter_map(|protocol| look.due.filter(family, protocol))
            .collect();
        if concerned.is_empty() {
            return all;
        }
        let begun = Instant::now();
        for flows in concerned {
            let swept = self.sweep(flows, look, spares);
            all.deleted += swept.deleted;
            all.result = all.result.and(swept.result);
        }
        let (elapsed, deleted) = (begun.elapsed(), all.deleted);
        debug!(ip_family = %family, deleted, ?elapsed, "Looked for stale conntrack entries");
        let label = &[family.to_string()];
        let metrics = self.metrics;
        metrics
            .conntrack_duration
            .with_label_values(label)
            .observe(elapsed.as_secs_f64());
        metrics.conntrack_deleted.with_label_values(label).inc_by(deleted);
        all
    }

    /// Sweeps the table until a walk was whole, or has failed too often.
    fn sweep(&self, flows: Filter, look: &Look, spares: &dyn Fn(&Flow) -> bool) -> Swept {
        // The lock is held for as long as it takes to judge one flow, and only for those in question.
        let is_stale = |flow: &Flow| {
            look.concerns(flow) && self.shared.lock().flows.is_stale(flow, look) && !spares(flow)
        };
        let mut deleted = 0;
        let mut tries = 1;
        loop {
            let swept = sweep(flows, is_stale);
            deleted += swept.deleted;
            match swept.result {
                Err(errno)
                    if !is_hopeless(errno)
                        && tries < TRIES
                        && self.sleep_until(Instant::now() + PAUSE * tries) =>
                {
                    tries += 1;
                }
                result => return Swept { deleted, result },
            }
        }
    }

    /// Tells the operator once when looking begins to fail, and once when it works again.
    fn tell(&mut self, failure: Option<Errno>) {
        if std::mem::replace(&mut self.complaint, failure) == failure {
            return;
        }
        match failure {
            None => info!("Stale conntrack entries are deleted again"),
            Some(Errno::EPERM | Errno::EACCES) => error!(
                "Stale conntrack entries stay: kube-proxy needs CAP_NET_ADMIN in the node's network namespace"
            ),
            Some(errno) if is_hopeless(errno) => error!(
                err = errno.desc(),
                "Stale conntrack entries stay: this kernel lacks ctnetlink (CONFIG_NF_CT_NETLINK)"
            ),
            Some(errno) => warn!(
                err = errno.desc(), retry_after = ?RETRY,
                "Not all conntrack entries could be looked at; stale ones may be left"
            ),
        }
    }
}

/// It is no use trying again.
fn is_hopeless(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EPERM | Errno::EACCES | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Where log lines go.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_failure_is_told_once_with_its_reason_and_so_is_its_end() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .without_time()
            .finish();
        let (shared, metrics) = (Shared::default(), Metrics::new().unwrap());
        let (_, local) = tokio::sync::watch::channel(Vec::new().into());
        let mut worker = Worker {
            shared: &shared,
            metrics: &metrics,
            local: &local,
            again: Vec::new(),
            complaint: None,
        };
        let outcomes = [
            None,
            Some(Errno::EPERM),
            Some(Errno::EPERM),
            Some(Errno::EINVAL),
            None,
            None,
        ];
        let later = [Some(Errno::ENOBUFS), Some(Errno::ENOBUFS), None];
        tracing::subscriber::with_default(subscriber, || {
            outcomes
                .into_iter()
                .chain(later)
                .for_each(|outcome| worker.tell(outcome));
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let told: Vec<_> = text.lines().collect();
        let expected = [
            "CAP_NET_ADMIN",
            "CONFIG_NF_CT_NETLINK",
            "again",
            "may be left",
            "again",
        ];
        assert_eq!(told.len(), expected.len(), "{text}");
        for (line, words) in told.iter().zip(expected) {
            assert!(line.contains(words), "{line}");
        }
    }
}
