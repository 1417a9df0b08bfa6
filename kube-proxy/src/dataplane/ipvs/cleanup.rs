//! How what this mode, ours or upstream's, left in the kernel goes, when another mode has taken over or with `--cleanup`;
//! and nothing of others'.
//!
//! Connections that began through IPVS go on: before their virtual server is removed they become conntrack's own
//! ([`keep_connections`]). Those of this host's own processes have an address of kube-ipvs0 as their source, since that
//! is what the kernel gives to who speaks to an own address. So when another mode takes over, such an address stays as long as
//! a socket uses it ([`retire_device`]): new connections get another source, and what would be new at the address is refused.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use nix::errno::Errno;
use tracing::{debug, info, warn};

use super::device::{DEVICE, Device};
use super::entry::At;
use super::kernel::{Kernel, failed};
use super::message;
use super::route::Routes;
use super::steps::Step;
use super::sysctl;
use crate::conntrack;
use crate::dataplane::{CommitError, nftables};
use crate::model::object::Protocol;
use crate::node::sockets;

/// Ports that node ports are given unless a cluster is set up otherwise. Where a predecessor left no tables that tell its
/// node ports, a virtual server at one of them is taken for its own.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// Lets the connections through virtual servers of kube-proxy outlive these. Done before another mode's rules are in force, no
/// packet that comes in a wrong moment is taken for a new connection; those that begin after it are left to
/// [`remove_servers`].
///
/// # Errors
/// When the kernel refuses.
pub(in crate::dataplane) fn keep_connections() -> Result<(), CommitError> {
    if let Some(kernel) = looked_at()? {
        keep(&ours(&kernel, nftables::node_ports()?.as_deref()))?;
    }
    Ok(())
}

/// Removes the virtual servers at addresses of kube-ipvs0 and those of node ports. The device has to go later, since it tells
/// the former, and so have the tables of nftables, which tell the latter. A node without IPVS has none.
///
/// # Errors
/// When the kernel refuses. If it does not let connections go on alone, that is only told.
pub(in crate::dataplane) fn remove_servers() -> Result<(), CommitError> {
    let Some(mut kernel) = looked_at()? else {
        return Ok(());
    };
    let servers = ours(&kernel, nftables::node_ports()?.as_deref());
    if let Err(err) = keep(&servers) {
        warn!(%err, "Connections through IPVS end with their virtual servers");
    }
    delete(&mut kernel, &servers)
}

/// Removes the device, whoever uses its addresses.
///
/// # Errors
/// When the kernel refuses.
pub(in crate::dataplane) fn remove_device() -> Result<(), CommitError> {
    let mut device = open_device()?;
    let addresses = addresses(&mut device)?;
    remove(device, &addresses)
}

/// Removes the addresses that no connection of this host needs, and the device when none is left; how many stay. The first time it
/// is cautious, and keeps those as well that anything was sent from lately; `again` must be a second later at least.
///
/// # Errors
/// When the kernel refuses.
pub(in crate::dataplane) fn retire_device(again: bool) -> Result<usize, CommitError> {
    let mut device = open_device()?;
    let addresses = addresses(&mut device)?;
    if !addresses.is_empty() {
        let mut routes = open_routes()?;
        let changed = routes.set_source(addresses.iter().copied());
        changed.map_err(|errno| failed("give connections to ClusterIPs another source", errno))?;
        let used = used(&addresses, again)?;
        if !used.is_empty() {
            let refused_at: Vec<IpAddr> = used.iter().copied().collect();
            if let Err(err) = nftables::refuse_at(&refused_at) {
                debug!(%err, "Nothing refuses new connections to the addresses of kube-ipvs0 that stay");
            }
            let unused: Vec<IpAddr> = addresses.difference(&used).copied().collect();
            let changed = device.change(&[], &unused);
            let changed = changed.and_then(|_| routes.remove(unused));
            changed.map_err(|errno| failed(&format!("remove addresses of {DEVICE}"), errno))?;
            return Ok(used.len());
        }
    }
    remove(device, &addresses)?;
    Ok(0)
}

fn open_device() -> Result<Device, CommitError> {
    Device::open().map_err(|errno| failed("open a socket for route netlink", errno))
}

fn open_routes() -> Result<Routes, CommitError> {
    Routes::open().map_err(|errno| failed("open a socket for route netlink", errno))
}

fn addresses(device: &mut Device) -> Result<BTreeSet<IpAddr>, CommitError> {
    device
        .addresses()
        .map_err(|errno| failed("list addresses", errno))
}

/// The addresses that processes of this host send from.
fn used(addresses: &BTreeSet<IpAddr>, again: bool) -> Result<BTreeSet<IpAddr>, CommitError> {
    let is_asked_for = |ip| addresses.contains(&ip);
    let sources = sockets::sources(is_asked_for).map_err(|err| CommitError::Refused {
        tried: "list the sockets of this node".to_owned(),
        reason: err.to_string(),
    });
    let mut used = sources?;
    if !again {
        // An answer to a socket that is bound to no address may still be under way.
        let tracked = conntrack::sources(is_asked_for);
        used.extend(tracked.map_err(|errno| failed("list connections", errno))?);
    }
    Ok(used)
}

fn remove(mut device: Device, addresses: &BTreeSet<IpAddr>) -> Result<(), CommitError> {
    let is_removed = device
        .remove()
        .map_err(|errno| failed(&format!("remove {DEVICE}"), errno))?;
    if is_removed {
        let routes = open_routes()?.remove(addresses.iter().copied());
        routes.map_err(|errno| failed("remove routes", errno))?;
        info!(
            device = DEVICE,
            "Removed the device for IPVS that a kube-proxy left"
        );
    }
    nftables::refuse_at(&[])
}

/// What IPVS holds, if the kernel has it.
fn looked_at() -> Result<Option<Kernel>, CommitError> {
    if !Path::new("/proc/net/ip_vs").exists() {
        return Ok(None);
    }
    let mut kernel = Kernel::open()?;
    kernel.servers = kernel.read_without_endpoints(|_| true)?;
    Ok(Some(kernel))
}

fn ours(kernel: &Kernel, node_ports: Option<&[(Protocol, u16)]>) -> BTreeSet<At> {
    // Without addresses of ours there was no kube-proxy: whoever else balances by IPVS is left alone.
    if kernel.addresses.is_empty() {
        return BTreeSet::new();
    }
    let is_node_port = |at: &At| match node_ports {
        Some(node_ports) => node_ports.contains(&(at.protocol, at.port)),
        None => NODE_PORTS.contains(&at.port),
    };
    let is_ours = |at: &&At| kernel.addresses.contains(&at.ip) || is_node_port(at);
    kernel.servers.keys().filter(is_ours).copied().collect()
}

/// Makes the connections through these virtual servers conntrack's own.
fn keep(servers: &BTreeSet<At>) -> Result<(), CommitError> {
    if servers.is_empty() {
        return Ok(());
    }
    sysctl::let_connections_live();
    let is_leaving = |protocol, to: SocketAddr| {
        servers.contains(&At {
            ip: to.ip(),
            protocol,
            port: to.port(),
        })
    };
    let tried = "let connections through IPVS outlive their virtual servers";
    let connections = conntrack::adopt(is_leaving).map_err(|errno| failed(tried, errno))?;
    info!(connections, "Connections through IPVS go on without it");
    Ok(())
}

fn delete(kernel: &mut Kernel, servers: &BTreeSet<At>) -> Result<(), CommitError> {
    if servers.is_empty() {
        return Ok(());
    }
    let mut requests = kernel.ipvs.requests();
    for at in servers {
        message::request(&mut requests, *at, &Step::DeleteServer);
    }
    let tried = "delete virtual servers of IPVS";
    let failures = kernel.ipvs.ask(&requests).map_err(|errno| failed(tried, errno))?;
    if let Some(failure) = failures.iter().find(|failure| failure.errno != Errno::ESRCH) {
        return Err(failed(tried, failure.errno));
    }
    info!(
        servers = servers.len(),
        "Removed the virtual servers that a kube-proxy left"
    );
    Ok(())
}
