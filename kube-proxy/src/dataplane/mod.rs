//! The dataplanes: one folder a mode, each of the same shape: `mod.rs` (packet path, limits), `plan.rs`
//! (pure), `apply.rs` (the only file that touches the kernel), tests.

#[cfg(test)]
mod flood;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod iptables;
pub mod ipvs;
pub mod leftovers;
pub mod listing;
pub mod nftables;
mod retry;
#[cfg(test)]
mod walk;

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use self::listing::{Difference, Listing};
use crate::config::{Config, Mode};
use crate::model::books::PortTotal;
use crate::model::object::{Family, ObjectName};
use crate::model::view::ServiceView;
use crate::node;

/// The mode for a configuration that names none, and why: nftables where the kernel has all that it needs.
pub fn choose_mode() -> (Mode, String) {
    let nftables = nftables::Config {
        families: node::families::of_this_kernel(),
        ..nftables::Config::default()
    };
    match nftables.supported() {
        Ok(()) => (
            Mode::Nftables,
            "this kernel has all that nftables mode needs".to_owned(),
        ),
        // What another mode could do is no better known, and this error tells the operator what to do.
        Err(error @ CommitError::Permission { .. }) => (Mode::Nftables, error.to_string()),
        Err(error) => (Mode::Iptables, format!("nftables mode is not possible: {error}")),
    }
}

/// What a dataplane has to know about the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// How pods are told from others, for IPv4 and IPv6.
    pub local_traffic: [LocalTraffic; 2],
    /// The families that the kernel has.
    pub families: Vec<Family>,
    /// The family of the node's first address: without it there is nothing to be done.
    pub primary: Family,
}

/// The dataplane of the configured mode. One line a mode.
pub fn open(config: &Config, host: Host) -> Box<dyn Dataplane> {
    let Host {
        local_traffic,
        families,
        primary,
    } = host;
    match config.mode {
        Mode::Nftables => Box::new(nftables::Nftables::new(nftables::Config {
            masquerade_mark: 1 << config.masquerade_bit,
            local_traffic,
            localhost_node_ports: config.localhost_node_ports,
            count_connections: config.count_connections,
            families,
            ..nftables::Config::default()
        })),
        Mode::Iptables => Box::new(iptables::Iptables::new(iptables::Config {
            masquerade_mark: 1 << config.masquerade_bit,
            local_traffic,
            localhost_node_ports: config.localhost_node_ports && config.node_ports_cover_localhost(),
            families,
            primary,
            sync_period: config.sync_period,
            drops_invalid: iptables::Config::drops_invalid_here(),
        })),
        Mode::Ipvs => Box::new(ipvs::Ipvs::new(ipvs::Config {
            masquerade_mark: 1 << config.masquerade_bit,
            local_traffic,
            families,
            scheduler: config.ipvs.scheduler.clone(),
            exclude_cidrs: config.ipvs.exclude_cidrs.clone(),
            strict_arp: config.ipvs.strict_arp,
            timeouts: config.ipvs.timeouts,
            sync_period: config.sync_period,
        })),
    }
}

/// Makes the settings of the kernel that the configured mode needs and that need more privileges than it has later.
///
/// # Errors
/// When the kernel lacks what these settings are of.
pub fn prepare(config: &Config) -> Result<(), CommitError> {
    match config.mode {
        Mode::Nftables => ipvs::let_connections_live(),
        Mode::Iptables => {
            ipvs::let_connections_live();
            if config.localhost_node_ports && config.node_ports_cover_localhost() {
                iptables::route_localnet();
            }
        }
        Mode::Ipvs => ipvs::prepare(config.ipvs.strict_arp)?,
    }
    Ok(())
}

/// A mode: translates resolved Services and keeps the kernel equal to them.
pub trait Dataplane {
    /// Plans one Service anew (`None`: it is gone) and queues the difference to what it held. Pure.
    fn update(&mut self, service: &ObjectName, view: Option<&ServiceView>);

    /// Sets which addresses of this family accept node ports, and queues the difference. Pure.
    fn set_node_port_addresses(&mut self, family: Family, addresses: NodePortAddresses);

    /// Sets all addresses of this node's own interfaces, of both families, for a mode that has to tell them from those
    /// that it adds itself. Queues the difference; whether there is one. Pure.
    fn set_local_addresses(&mut self, _addresses: &[IpAddr]) -> bool {
        false
    }

    /// Serves node ports at this family's loopback address as well, for processes of this host, whose packets then
    /// bear `source`, an address of the node. `None`: not at all. Pure.
    fn set_localhost_node_ports(&mut self, family: Family, source: Option<IpAddr>);

    /// Sets the networks of this family out of which ClusterIPs come: packets to an address in them that no
    /// Service has are dropped. They must be disjoint. Queues the difference. Pure.
    fn set_service_cidrs(&mut self, family: Family, cidrs: &[IpNet]);

    /// Puts everything queued in force. The first call also replaces whatever a predecessor in this mode left, without
    /// a moment without rules, and so must come after every known Service was updated. What one in another mode left is
    /// the business of [`leftovers`], afterwards.
    ///
    /// What it did goes into `report`, also when it fails.
    ///
    /// # Errors
    /// When nothing could be put in force (no permission, kernel lacks something). What was queued stays
    /// queued. Elements refused one by one are not an error; the report names them.
    fn commit(&mut self, report: &mut CommitReport) -> Result<(), CommitError>;

    /// A descriptor that becomes readable when others may have changed what is in force; once for each socket that hears
    /// of it, and then `None`. To be asked for after each commit.
    fn listener(&mut self) -> Option<OwnedFd> {
        None
    }

    /// When to call [`hear`](Self::hear) although no listener has anything to tell.
    fn look_due(&self) -> Option<Instant> {
        None
    }

    /// Takes what the listeners heard, and looks at what nobody tells of when it is time to. After how long to commit for
    /// it, if something has to be put right.
    fn hear(&mut self) -> Option<Duration> {
        None
    }

    /// In the tables of which variant of iptables its chains are, for IPv4 and IPv6, in a mode that has such chains and once it
    /// has found that out.
    fn variants(&self) -> [Option<iptables::Variant>; 2] {
        [None; 2]
    }

    /// What the kernel counts for this mode, to be shown among the metrics. To be called in the network namespace
    /// that is programmed.
    fn counters(&self) -> Vec<KernelCounter> {
        Vec::new()
    }

    /// What is planned so far, for people and programs to read. Pure.
    fn planned(&self) -> Listing;

    /// How the kernel differs from what is planned. Reads, in the network namespace of this thread, and writes nothing.
    ///
    /// # Errors
    /// When the kernel cannot be read.
    fn differences(&mut self) -> Result<Vec<Difference>, CommitError>;

    /// What reads how many connections each ServicePort got, where that is counted. To be called in the network
    /// namespace that is programmed.
    fn connections(&self) -> Option<ReadConnections> {
        None
    }
}

/// Reads the connections of all ServicePorts, on any thread.
pub type ReadConnections = Box<dyn Fn() -> Vec<PortTotal<u64>> + Send + Sync>;

/// A number that the kernel counts for a mode, read when somebody asks for it.
pub struct KernelCounter {
    /// The name of its metric, without `kubeproxy_`.
    pub name: &'static str,
    /// What the metric says of itself.
    pub help: &'static str,
    /// Reads it, on any thread. `None` where the kernel has no such counter.
    pub read: Box<dyn Fn() -> Option<u64> + Send + Sync>,
}

/// Which of the node's own addresses accept node ports, in one family. Never loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// Every local address.
    All,
    /// These only.
    Only(Vec<IpAddr>),
}

/// How traffic of pods is told from other traffic, in one family (`detectLocalMode`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalTraffic {
    /// It is not: nobody counts as a pod, and nothing to a ClusterIP is masqueraded for being from outside.
    Unknown,
    /// Pods have source addresses in this network.
    Cidr(IpNet),
    /// Pods' packets come in through this interface.
    Interface(String),
    /// Pods' packets come in through interfaces whose names start so.
    InterfacePrefix(String),
}

/// What a commit did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitReport {
    /// Kernel messages (or commands) sent; 0 when nothing had changed.
    pub messages: usize,
    /// What the kernel refused, newly in this commit; left out, everything else is in force.
    pub refused: Vec<Refusal>,
    /// How many elements are left out at present, older refusals included.
    pub refused_now: usize,
    /// Call `commit` again after this long, even without changes (retry of refusals, deferred removals).
    pub again_after: Option<Duration>,
    /// How often it found that another hand had changed what was in force.
    pub drift: u64,
    /// For IPv4 and IPv6.
    pub families: [FamilyReport; 2],
}

impl CommitReport {
    /// What an attempt came to that carries all these families together, so that they fail together. `full`: it was to
    /// write everything.
    fn carried(&mut self, programmed: &[Family], full: bool, failed: bool) {
        for family in Family::ALL {
            let of_family = &mut self.families[family as usize];
            of_family.off = !programmed.contains(&family);
            if !of_family.off {
                of_family.full |= full;
                of_family.failures = u64::from(failed);
            }
        }
    }
}

/// What a commit did in one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilyReport {
    /// The family is not programmed here; all else is as by default.
    pub off: bool,
    /// Everything was written, not only what had changed.
    pub full: bool,
    /// How often nothing could be put in force.
    pub failures: u64,
    /// How many of these attempts were to write only what had changed.
    pub partial_failures: u64,
    /// How often something without use could not be deleted; that is tried again, and disturbs nothing.
    pub cleanup_failures: u64,
    /// The rules of each table, in a mode that counts them and when some were written.
    pub rules: Vec<TableRules>,
}

/// How many rules a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRules {
    /// Its name in the mode.
    pub table: &'static str,
    /// All of ours.
    pub total: usize,
    /// Those that this commit wrote.
    pub written: usize,
}

/// One thing the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The Service that wanted it.
    pub service: ObjectName,
    /// The element, readable.
    pub element: String,
    /// The kernel's reason.
    pub reason: String,
}

/// Why a commit put nothing in force.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// CAP_NET_ADMIN, or what else it takes, is missing in this network namespace.
    #[error("{tried}: permission denied: kube-proxy needs {capabilities} in the node's network namespace")]
    Permission {
        /// What was tried.
        tried: String,
        /// What it takes.
        capabilities: &'static str,
    },
    /// The kernel lacks a feature.
    #[error("{tried}: this kernel lacks {feature}")]
    Unsupported {
        /// What was tried.
        tried: String,
        /// The missing option or expression, e.g. `nf_tables (CONFIG_NF_TABLES)`.
        feature: String,
    },
    /// A program, or a part of one, is not installed.
    #[error("{tried}: this machine lacks {what}")]
    NotInstalled {
        /// What was tried.
        tried: String,
        /// What is missing, and how to get it.
        what: String,
    },
    /// The kernel refused the transaction as a whole, and no element is to blame.
    #[error("{tried}: {reason}")]
    Refused {
        /// What was tried.
        tried: String,
        /// The kernel's reason.
        reason: String,
    },
}

/// What a commit did.
#[cfg(test)]
pub(crate) fn commit(dataplane: &mut impl Dataplane) -> Result<CommitReport, CommitError> {
    let mut report = CommitReport::default();
    while {
        dataplane.commit(&mut report)?;
        report.again_after == Some(Duration::ZERO)
    } {}
    Ok(report)
}
