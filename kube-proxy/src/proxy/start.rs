//! Before the loop: waits for this Node, whose addresses and pod networks the dataplane and the model are
//! built from. What else arrives meanwhile is held.

use std::time::{Duration, Instant};

use anyhow::bail;
use tracing::{info, warn};

use super::Setup;
use super::inbox::{Inbox, Wait};
use crate::config::{Config, DetectLocal};
use crate::dataplane::{Host, LocalTraffic};
use crate::model::change::{Change, Kind};
use crate::model::object::{Family, Node};
use crate::node::{self, NodeIps};

/// How long to wait for the Node to get its pod networks, where they are needed.
const POD_CIDR_PATIENCE: Duration = Duration::from_secs(300);

/// What was learnt and held while waiting.
pub(super) struct Begun {
    pub(super) node: Option<Node>,
    pub(super) ips: NodeIps,
    pub(super) changes: Vec<Change>,
}

/// Waits for the Node's addresses and, where pods are recognised by them, its pod networks.
pub(super) fn await_node(setup: &Setup, inbox: &mut Inbox) -> anyhow::Result<Begun> {
    let mut begun = Begun {
        node: None,
        ips: NodeIps::of(None, setup.config.node_ip_override),
        changes: Vec::new(),
    };
    begun.gather(setup, inbox, setup.node_patience, |node| {
        !node.addresses.is_empty()
    });
    if begun.ips.known().is_empty() {
        warn!(
            node = %setup.node_name,
            "Can't determine this node's IP, assuming loopback; if this is incorrect, please set the --bind-address flag"
        );
    }
    if setup.config.detect_local == DetectLocal::NodeCidr {
        // Who does not wait for the Node at all waits for nothing about it.
        let patience = if setup.node_patience.is_zero() {
            Duration::ZERO
        } else {
            POD_CIDR_PATIENCE
        };
        begun.gather(setup, inbox, patience, |node| !node.pod_cidrs.is_empty());
        match &begun.node {
            None => bail!("timeout waiting for node {} to exist", setup.node_name),
            Some(node) if node.pod_cidrs.is_empty() => {
                bail!(
                    "timeout waiting for PodCIDR allocation on node {}",
                    setup.node_name
                )
            }
            Some(node) => info!(node = %node.name, pod_cidrs = ?node.pod_cidrs, "NodeInfo"),
        }
    }
    Ok(begun)
}

impl Begun {
    /// Holds changes until the Node suffices, or `patience` is over, which begins when the source has listed
    /// its Nodes: until then nobody knows whether there is one.
    fn gather(
        &mut self,
        setup: &Setup,
        inbox: &mut Inbox,
        patience: Duration,
        suffices: impl Fn(&Node) -> bool,
    ) {
        let is_list_end = |change: &Change| *change == Change::ListDone(Kind::Node);
        let listed = self.changes.iter().any(is_list_end);
        let mut until = listed.then(|| Instant::now() + patience);
        while !self.node.as_ref().is_some_and(&suffices) {
            if until.is_some_and(|until| until <= Instant::now()) {
                return;
            }
            match inbox.wait(until) {
                Wait::Changes | Wait::Addresses | Wait::Heard => {}
                Wait::Elapsed | Wait::Closed => return,
            }
            for change in inbox.take() {
                if is_list_end(&change) {
                    until = until.or_else(|| Some(Instant::now() + patience));
                }
                if let Change::Node(node) = &change {
                    self.ips = NodeIps::of(Some(node), setup.config.node_ip_override);
                    self.node = Some(Node::clone(node));
                }
                self.changes.push(change);
            }
        }
    }
}

/// What the dataplane has to know about the machine, whose kernel has these families.
///
/// # Errors
/// When the node's primary family is not among them.
pub(super) fn host(config: &Config, begun: &Begun, families: Vec<Family>) -> anyhow::Result<Host> {
    let primary = begun.ips.primary;
    if !families.contains(&primary) {
        bail!("no support for primary IP family {primary}: this kernel has {families:?} alone");
    }
    match *families {
        [family] => {
            info!(
                "This kernel has no IPv6 (CONFIG_IPV6 is off, or ipv6.disable=1); Services get {family} rules only"
            );
            info!(ip_family = %family, "kube-proxy running in single-stack mode");
        }
        _ => info!(primary_ip_family = %primary, "kube-proxy running in dual-stack mode"),
    }
    Ok(Host {
        local_traffic: local_traffic(config, begun.node.as_ref()),
        families,
        primary,
    })
}

/// How pods are recognised, for IPv4 and IPv6.
fn local_traffic(config: &Config, node: Option<&Node>) -> [LocalTraffic; 2] {
    let traffic = Family::ALL.map(|family| node::local_traffic(&config.detect_local, family, node));
    if matches!(config.detect_local, DetectLocal::ClusterCidr { .. }) {
        if traffic.iter().all(|traffic| *traffic == LocalTraffic::Unknown) {
            warn!("Detect-local-mode set to ClusterCIDR, but no cluster CIDR specified");
        } else {
            for (family, _) in Family::ALL
                .iter()
                .zip(&traffic)
                .filter(|(_, traffic)| **traffic == LocalTraffic::Unknown)
            {
                info!(ip_family = %family, "Detect-local-mode set to ClusterCIDR, but no cluster CIDR for family");
            }
        }
    }
    traffic
}
