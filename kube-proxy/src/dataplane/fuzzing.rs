//! The dataplanes under fuzzing: two that plan objects, and what the kernel says to them.

use std::time::Duration;

use super::{Dataplane, LocalTraffic, iptables, nftables};
use crate::model::object::Family;

pub(crate) use super::ipvs::fuzzing::read as ipvs;
pub(crate) use super::nftables::fuzzing::read as nf_tables;

/// The body of a message of ipset.
pub(crate) fn ipset(body: &[u8]) {
    let _ = super::leftovers::ipsets::name(body);
}

/// Those that plan rules, without a Service.
pub(crate) fn all() -> [Box<dyn Dataplane>; 2] {
    let iptables = iptables::Config {
        masquerade_mark: 1 << 14,
        local_traffic: [LocalTraffic::Unknown, LocalTraffic::Unknown],
        localhost_node_ports: true,
        families: Family::ALL.to_vec(),
        primary: Family::V4,
        sync_period: Duration::from_secs(30),
        drops_invalid: true,
    };
    [
        Box::new(nftables::Nftables::new(nftables::Config::default())),
        Box::new(iptables::Iptables::new(iptables)),
    ]
}
