//! The kernel settings without which IPVS does not do what Services need. What another hand set stays set when this
//! process ends: the connections that count on it live on.

use tracing::warn;

use super::kernel::failed;
use super::message::FAMILY;
use crate::dataplane::CommitError;
use crate::netlink::generic::Generic;
use crate::node::sysctl;

/// What is always set. (Upstream's `conn_reuse_mode` is for kernels before 5.9, which lack what the rules need.)
const ALWAYS: [(&str, u64); 4] = [
    // Conntrack learns of what IPVS rewrites, and so masquerading and the rules about new connections work.
    ("net/ipv4/vs/conntrack", 1),
    // A packet to an endpoint that is gone makes its client choose anew.
    ("net/ipv4/vs/expire_nodest_conn", 1),
    // A client that stays with an endpoint which gets no new connections chooses anew.
    ("net/ipv4/vs/expire_quiescent_template", 1),
    ("net/ipv4/ip_forward", 1),
];
/// No answers about the addresses of Services to those who ask for their hardware address.
const STRICT_ARP: [(&str, u64); 2] = [
    ("net/ipv4/conf/all/arp_ignore", 1),
    ("net/ipv4/conf/all/arp_announce", 2),
];

/// Lets IPVS remember connections whose virtual server goes: as it forgets them, it deletes what conntrack holds of them,
/// which another mode goes on with. A kernel without IPVS has nothing to set.
pub(in crate::dataplane) fn let_connections_live() {
    let (name, value) = ("net/ipv4/vs/expire_nodest_conn", 0);
    match sysctl::set(name, value) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            warn!(sysctl = name, value, %err, "Cannot set a sysctl without which connections through IPVS end");
        }
        _ => {}
    }
}

/// Makes the settings before there is a proxy. IPVS is asked for first: its settings are there once its module is.
///
/// # Errors
/// When there is no IPVS. A setting that cannot be made is reported, and no error.
pub fn prepare(strict_arp: bool) -> Result<(), CommitError> {
    Generic::open(FAMILY).map_err(|errno| failed("prepare for mode ipvs", errno))?;
    set(strict_arp);
    Ok(())
}

/// Sets what differs.
pub(super) fn set(strict_arp: bool) {
    let strict: &[_] = if strict_arp { &STRICT_ARP } else { &[] };
    for (name, value) in ALWAYS.iter().chain(strict) {
        if let Err(err) = sysctl::set(name, *value) {
            warn!(sysctl = name, value, %err, "Cannot set a sysctl that IPVS needs");
        }
    }
}
