//! What the dataplane is told at the start.

use std::time::Duration;

use ipnet::IpNet;

use crate::dataplane::LocalTraffic;
use crate::model::object::Family;
use crate::node;

/// How the IPVS dataplane works on this node. Fixed for its life.
#[derive(Clone, Debug)]
pub struct Config {
    /// The one bit of the packet mark by which packets to masquerade are known.
    pub masquerade_mark: u32,
    /// How pods are told from others, for IPv4 and IPv6.
    pub local_traffic: [LocalTraffic; 2],
    /// The families to program; nothing is done for the other one.
    pub families: Vec<Family>,
    /// How endpoints are chosen unless a Service says otherwise: a name of IPVS, e.g. `rr`.
    pub scheduler: String,
    /// Networks whose virtual servers are not removed, whoever made them.
    pub exclude_cidrs: Vec<IpNet>,
    /// Only interfaces that have an address answer ARP requests for it.
    pub strict_arp: bool,
    /// How long IPVS remembers silent connections: of TCP, of TCP once they end, of UDP. `None` leaves it as it is.
    pub timeouts: [Option<Duration>; 3],
    /// What is in force is looked at no less often, for what others changed.
    pub sync_period: Duration,
}

impl Default for Config {
    /// Bit 14, pods unknown, all families of this kernel, each endpoint in turn, 30 s.
    fn default() -> Self {
        Self {
            masquerade_mark: 1 << 14,
            local_traffic: [LocalTraffic::Unknown, LocalTraffic::Unknown],
            families: node::families::of_this_kernel(),
            scheduler: "rr".to_owned(),
            exclude_cidrs: Vec::new(),
            strict_arp: false,
            timeouts: [None; 3],
            sync_period: Duration::from_secs(30),
        }
    }
}
