//! This node: its name, its addresses, and what the configuration makes of them (which addresses accept node
//! ports, how pods are recognised). What it learns from the kernel it learns here; the rest is pure.

pub mod addresses;
pub mod families;
pub mod privileges;
pub(crate) mod sockets;
pub mod sysctl;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use tracing::debug;

use crate::config::{DetectLocal, NodePorts};
use crate::dataplane::{LocalTraffic, NodePortAddresses};
use crate::model::object::{Family, Node};

/// The name of this node: the override, else the host name, trimmed and lower case.
///
/// # Errors
/// When the host name cannot be read or is empty.
pub fn name(hostname_override: Option<&str>) -> anyhow::Result<String> {
    if let Some(name) = hostname_override {
        return Ok(name.to_owned());
    }
    let name = nix::unistd::gethostname().context("cannot read the host name")?;
    let name = name.to_string_lossy().trim().to_lowercase();
    if name.is_empty() {
        bail!("empty hostname is invalid: set --hostname-override");
    }
    Ok(name)
}

/// Tells the kernel how soon to kill this process when memory is short. Not being allowed to is no reason not
/// to work.
pub fn set_oom_score_adj(score: i32) {
    if let Err(err) = std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        debug!(%err, score, "Failed to apply OOM score");
    }
}

/// The addresses by which the cluster knows this node, at most one of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeIps {
    /// IPv4, when known.
    pub v4: Option<Ipv4Addr>,
    /// IPv6, when known.
    pub v6: Option<Ipv6Addr>,
    /// The family of the node's first address.
    pub primary: Family,
}

impl NodeIps {
    /// The first address of the Node and the first of the other family; an override takes the place of the
    /// one of its family, and makes that the primary family.
    pub fn of(node: Option<&Node>, override_ip: Option<IpAddr>) -> Self {
        let mut ips = Self {
            v4: None,
            v6: None,
            primary: Family::V4,
        };
        let addresses = node.map(|node| node.addresses.as_slice()).unwrap_or_default();
        if let Some(first) = addresses.first() {
            ips.primary = Family::of(*first);
        }
        for ip in addresses {
            match ip {
                IpAddr::V4(ip) => ips.v4 = ips.v4.or(Some(*ip)),
                IpAddr::V6(ip) => ips.v6 = ips.v6.or(Some(*ip)),
            }
        }
        match override_ip {
            Some(IpAddr::V4(ip)) => ips.v4 = Some(ip),
            Some(IpAddr::V6(ip)) => ips.v6 = Some(ip),
            None => return ips,
        }
        ips.primary = override_ip.map_or(ips.primary, Family::of);
        ips
    }

    /// The address of a family, when known.
    pub fn get(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::V4),
            Family::V6 => self.v6.map(IpAddr::V6),
        }
    }

    /// All that are known.
    pub fn known(&self) -> Vec<IpAddr> {
        Family::ALL
            .iter()
            .filter_map(|family| self.get(*family))
            .collect()
    }
}

/// Which addresses accept node ports in a family, given all addresses of this machine. As upstream: a family
/// of which the configuration says nothing accepts them on all.
pub fn node_port_addresses(
    configured: &NodePorts,
    family: Family,
    ips: &NodeIps,
    local: &[IpAddr],
) -> NodePortAddresses {
    let networks = match configured {
        NodePorts::Primary => {
            return match ips.get(family).filter(|ip| !ip.is_loopback()) {
                Some(ip) => NodePortAddresses::Only(vec![ip]),
                None => NodePortAddresses::All,
            };
        }
        NodePorts::Networks(networks) => networks,
    };
    let networks: Vec<&IpNet> = networks
        .iter()
        .filter(|net| Family::of(net.addr()) == family)
        .collect();
    if networks.is_empty() || networks.iter().any(|net| net.prefix_len() == 0) {
        return NodePortAddresses::All;
    }
    let mut matching: Vec<IpAddr> = local
        .iter()
        .copied()
        .filter(|ip| !ip.is_loopback() && networks.iter().any(|net| net.contains(ip)))
        .collect();
    matching.sort_unstable();
    matching.dedup();
    NodePortAddresses::Only(matching)
}

/// The address of this node that its processes' packets to a node port at the loopback address are given as
/// their source: the one that the cluster knows, else the first of this machine that others can reach. `None`
/// when there is none.
pub fn localhost_source(family: Family, ips: &NodeIps, local: &[IpAddr]) -> Option<IpAddr> {
    let known = ips.get(family).filter(|ip| local.contains(ip));
    let reachable = |ip: &&IpAddr| match ip {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    let first = || {
        local
            .iter()
            .filter(|ip| Family::of(**ip) == family)
            .find(reachable)
    };
    known.filter(|ip| !ip.is_loopback()).or_else(|| first().copied())
}

/// How pods are recognised in a family.
pub fn local_traffic(configured: &DetectLocal, family: Family, node: Option<&Node>) -> LocalTraffic {
    let cidr = |cidr: Option<IpNet>| cidr.map_or(LocalTraffic::Unknown, LocalTraffic::Cidr);
    match configured {
        DetectLocal::ClusterCidr { v4, v6 } => cidr(match family {
            Family::V4 => *v4,
            Family::V6 => *v6,
        }),
        DetectLocal::NodeCidr => {
            let mut cidrs = node.iter().flat_map(|node| &node.pod_cidrs);
            cidr(cidrs.find(|net| Family::of(net.addr()) == family).copied())
        }
        DetectLocal::BridgeInterface(name) => LocalTraffic::Interface(name.clone()),
        DetectLocal::InterfaceNamePrefix(prefix) => LocalTraffic::InterfacePrefix(prefix.clone()),
    }
}
