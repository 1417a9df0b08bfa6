//! Before the loop: waits for this Node, whose addresses and pod networks the dataplane and the model are
//! built from. What else arrives meanwhile is held.

use std::time::{Duration, Instant};

use anyhow::bail;
use tracing::{info, warn};

use super::inbox::{Inbox, Wait};
use super::{Patience, Setup};
use crate::config::{Config, DetectLocal};
use crate::dataplane::LocalTraffic;
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
    let (until, listed) = match setup.node_patience {
        Patience::For(patience) => (Some(Instant::now() + patience), false),
        Patience::UntilListed => (None, true),
    };
    begun.gather(setup, inbox, until, listed, |node| !node.addresses.is_empty());
    if begun.ips.known().is_empty() {
        warn!(
            node = %setup.node_name,
            "Can't determine this node's IP, assuming loopback; if this is incorrect, please set the --bind-address flag"
        );
    }
    if setup.config.detect_local == DetectLocal::NodeCidr {
        let until = Some(Instant::now() + POD_CIDR_PATIENCE).filter(|_| !listed);
        begun.gather(setup, inbox, until, listed, |node| !node.pod_cidrs.is_empty());
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
    /// Holds changes until the Node suffices, the moment comes, the channel closes, or, if that is enough, the
    /// source has listed its Nodes.
    fn gather(
        &mut self,
        setup: &Setup,
        inbox: &mut Inbox,
        until: Option<Instant>,
        listed_is_enough: bool,
        suffices: impl Fn(&Node) -> bool,
    ) {
        let is_list_end = |change: &Change| *change == Change::ListDone(Kind::Node);
        let mut listed = self.changes.iter().any(is_list_end);
        loop {
            if self.node.as_ref().is_some_and(&suffices) || (listed && listed_is_enough) {
                return;
            }
            if inbox.wait(until) != Wait::Changes {
                return;
            }
            for change in inbox.take() {
                listed |= is_list_end(&change);
                if let Change::Node(node) = &change {
                    self.ips = NodeIps::of(Some(node), setup.config.node_ip_override);
                    self.node = Some(Node::clone(node));
                }
                self.changes.push(change);
            }
        }
    }
}

/// How pods are recognised, for IPv4 and IPv6.
pub(super) fn local_traffic(config: &Config, node: Option<&Node>) -> [LocalTraffic; 2] {
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
