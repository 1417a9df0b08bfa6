//! The packet counters that rules name and metrics show: objects of the kernel's nfnetlink_acct, made and read here.
//!
//! They belong to the network namespace and not to the rules, so they count on from one proxy to the next. Where
//! they are not to be had, everything works without.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use tracing::{debug, info};

use crate::dataplane::KernelCounter;
use crate::netlink::{Attributes, Failure, Socket, attributes, begin, end, flag};

/// `NFNL_MSG_ACCT_NEW` and `NFNL_MSG_ACCT_GET` of `NFNL_SUBSYS_ACCT`.
const NEW: u16 = 7 << 8;
const GET: u16 = NEW | 1;

/// Attributes of `nfnl_acct_type`.
mod attribute {
    pub(super) const NAME: u16 = 1;
    pub(super) const PACKETS: u16 = 2;
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counter {
    /// Packets that are dropped because conntrack finds them invalid.
    InvalidDropped,
    /// First packets of connections to node ports at the loopback network.
    LocalhostAccepted,
}

impl Counter {
    pub(super) const ALL: [Self; 2] = [Self::InvalidDropped, Self::LocalhostAccepted];

    /// In the kernel.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::InvalidDropped => "ct_state_invalid_dropped_pkts",
            Self::LocalhostAccepted => "localhost_nps_accepted_pkts",
        }
    }

    /// The match by which a rule counts.
    pub(super) fn rule_match(self) -> String {
        format!("-m nfacct --nfacct-name {}", self.name())
    }

    fn metric(self) -> (&'static str, &'static str) {
        match self {
            Self::InvalidDropped => (
                "iptables_ct_state_invalid_dropped_packets_total",
                "packets dropped by iptables to work around conntrack problems",
            ),
            Self::LocalhostAccepted => (
                "iptables_localhost_nodeports_accepted_packets_total",
                "Number of packets accepted on nodeports of loopback interface",
            ),
        }
    }
}

/// The counters that rules may name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted([bool; 2]);

impl Counted {
    /// All of them.
    pub(super) const ALL: Self = Self([true; 2]);

    /// All but these.
    pub(super) fn without(mut self, counters: &[Counter]) -> Self {
        for counter in counters {
            self.0[*counter as usize] = false;
        }
        self
    }

    pub(super) fn has(self, counter: Counter) -> bool {
        self.0[counter as usize]
    }

    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Those of a Service's rules that can be written: one that is there for its counter alone goes with it.
    pub(super) fn rules(self, rules: &str) -> impl Iterator<Item = &str> {
        let counts = self.has(Counter::LocalhostAccepted);
        let name = Counter::LocalhostAccepted.name();
        rules.lines().filter(move |rule| counts || !rule.contains(name))
    }
}

/// Makes the counters, and remembers which are not to be had.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Shared with those who read the counters: one that no rule names would show 0 for ever.
    without: Arc<[AtomicBool; 2]>,
}

impl Counters {
    /// Makes those that are missing, which leaves the others as they are. Says once what cannot be.
    pub(super) fn make(&mut self) -> Counted {
        let wanted: Vec<Counter> = Counter::ALL
            .into_iter()
            .filter(|counter| !self.goes_without(*counter))
            .collect();
        let (mut counted, mut failed, mut reason) = (Counted::default(), Vec::new(), None);
        for (counter, made) in wanted.iter().zip(make(&wanted)) {
            match made {
                Ok(()) => counted.0[*counter as usize] = true,
                Err(why) => {
                    failed.push(*counter);
                    reason.get_or_insert(why);
                }
            }
        }
        if let Some(reason) = reason {
            self.do_without(&failed, &reason);
        }
        counted
    }

    /// The rules go without these from now on.
    pub(super) fn do_without(&mut self, counters: &[Counter], reason: &str) {
        for counter in counters {
            self.without[*counter as usize].store(true, Ordering::Relaxed);
        }
        let metrics: Vec<&str> = counters.iter().map(|counter| counter.metric().0).collect();
        info!(
            metrics = metrics.join(" "),
            reason, "No nfacct counters here; the rules work without, and these metrics are missing"
        );
    }

    fn goes_without(&self, counter: Counter) -> bool {
        self.without[counter as usize].load(Ordering::Relaxed)
    }

    /// For the metrics. They are read by a socket that is opened here, in the network namespace of this thread,
    /// whichever thread asks.
    pub(super) fn readers(&self) -> Vec<KernelCounter> {
        let socket = Socket::open().map_err(|err| debug!(%err, "Cannot read the counters of nfacct"));
        let socket = Arc::new(Mutex::new(socket.ok()));
        let readers = Counter::ALL.into_iter().map(|counter| {
            let socket = Arc::clone(&socket);
            let of_rules = Self {
                without: Arc::clone(&self.without),
            };
            let (name, help) = counter.metric();
            let read = move || {
                if of_rules.goes_without(counter) {
                    return None;
                }
                // A socket is plain data to us: whoever panicked with the lock held left it usable.
                let mut socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
                packets(socket.as_mut()?, counter)
            };
            KernelCounter {
                name,
                help,
                read: Box::new(read),
            }
        });
        readers.collect()
    }
}

/// Makes each of them, unless it is there: whether it is there now.
fn make(counters: &[Counter]) -> Vec<Result<(), String>> {
    let mut bytes = Vec::new();
    for (sequence, counter) in (1..).zip(counters) {
        request(&mut bytes, NEW, flag::CREATE, sequence, *counter);
    }
    let asked = Socket::open().and_then(|mut socket| socket.ask(&bytes));
    let failures = match asked {
        Ok(failures) => failures,
        Err(errno) => return counters.iter().map(|_| Err(errno.to_string())).collect(),
    };
    let failure_of = |sequence| failures.iter().find(|failure| failure.sequence == sequence);
    (1..)
        .zip(counters)
        .map(|(sequence, _)| failure_of(sequence).map_or(Ok(()), outcome))
        .collect()
}

fn outcome(failure: &Failure) -> Result<(), String> {
    match failure.errno {
        // It is there: without NLM_F_REPLACE it is left as it is.
        Errno::EBUSY | Errno::EEXIST => Ok(()),
        // Nobody answers for the subsystem.
        Errno::EINVAL | Errno::EOPNOTSUPP => Err(format!(
            "this kernel lacks nfnetlink_acct (CONFIG_NETFILTER_NETLINK_ACCT): {}",
            failure.reason()
        )),
        _ => Err(failure.reason()),
    }
}

fn request(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, counter: Counter) {
    let start = begin(bytes, kind, flags, sequence, (0, 0));
    Attributes::at_end(bytes).string(attribute::NAME, counter.name());
    end(bytes, start);
}

/// How many packets it counted. `None` when it is not there.
fn packets(socket: &mut Socket, counter: Counter) -> Option<u64> {
    let (mut bytes, mut packets) = (Vec::new(), None);
    request(&mut bytes, GET, 0, 1, counter);
    let asked = socket.ask_for(&bytes, |_, answer| {
        // What follows `nfgenmsg`.
        let count = attributes(answer.get(4..).unwrap_or_default())
            .find(|(kind, _)| *kind == attribute::PACKETS)
            .and_then(|(_, value)| value.first_chunk::<8>());
        packets = count.map(|count| u64::from_be_bytes(*count));
    });
    if let Err(err) = asked {
        debug!(counter = counter.name(), %err, "Cannot read a counter of nfacct");
    }
    packets
}

#[cfg(test)]
mod tests {
    use lab::net::Namespace;

    use super::*;

    #[test]
    fn a_kernel_without_the_subsystem_and_a_counter_that_is_there_are_told_apart() {
        let namespace = Namespace::create("nfacct").unwrap();
        let ask = |kind: u16| {
            let mut bytes = Vec::new();
            request(&mut bytes, kind, flag::CREATE, 1, Counter::InvalidDropped);
            let asked = || Socket::open()?.ask(&bytes);
            namespace.enter(asked).unwrap().unwrap()
        };
        // Of a subsystem that no kernel has.
        let unknown = ask(0x7f << 8);
        let reason = outcome(&unknown[0]).unwrap_err();
        assert!(reason.contains("CONFIG_NETFILTER_NETLINK_ACCT"), "{reason}");
        assert_eq!(ask(NEW), []);
        let there = ask(NEW);
        assert_eq!(outcome(&there[0]), Ok(()));
    }
}
