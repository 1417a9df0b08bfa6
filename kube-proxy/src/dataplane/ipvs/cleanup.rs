//! Removes what this mode, ours or upstream's, left in the kernel, and nothing of others'.

use std::path::Path;

use nix::errno::Errno;
use tracing::info;

use super::device::{DEVICE, Device};
use super::entry::At;
use super::kernel::{Kernel, failed};
use super::message;
use super::steps::Step;
use crate::dataplane::{CommitError, nftables};
use crate::model::object::Protocol;

/// Ports that node ports are given unless a cluster is set up otherwise. Where a predecessor left no tables that tell its
/// node ports, a virtual server at one of them is taken for its own.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// Removes the virtual servers at addresses of kube-ipvs0 and those of node ports, and then that device. The tables of
/// nftables tell which node ports there were, so they have to go later. A node without IPVS has none.
///
/// # Errors
/// When the kernel refuses.
pub fn remove_all() -> Result<(), CommitError> {
    if Path::new("/proc/net/ip_vs").exists() {
        let mut kernel = Kernel::open()?;
        kernel.read(|_| true)?;
        let node_ports = nftables::node_ports()?;
        let removed: Vec<At> = ours(&kernel, node_ports.as_deref()).collect();
        delete(&mut kernel, &removed)?;
    }
    let device = Device::open().and_then(|mut device| device.remove());
    let is_removed = device.map_err(|errno| failed(&format!("remove {DEVICE}"), errno))?;
    if is_removed {
        info!(
            device = DEVICE,
            "Removed the device for IPVS that a kube-proxy left"
        );
    }
    Ok(())
}

fn ours<'a>(kernel: &'a Kernel, node_ports: Option<&'a [(Protocol, u16)]>) -> impl Iterator<Item = At> + 'a {
    let is_node_port = move |at: &At| match node_ports {
        Some(node_ports) => node_ports.contains(&(at.protocol, at.port)),
        None => NODE_PORTS.contains(&at.port),
    };
    // Without addresses of ours there was no kube-proxy: whoever else balances by IPVS is left alone.
    let all = kernel
        .servers
        .keys()
        .filter(|_| !kernel.addresses.is_empty())
        .copied();
    all.filter(move |at| kernel.addresses.contains(&at.ip) || is_node_port(at))
}

fn delete(kernel: &mut Kernel, servers: &[At]) -> Result<(), CommitError> {
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
