//! The virtual servers and addresses that are planned, and those that the kernel holds, as listings. Writes nothing. The
//! rules beside them are nftables'.
//!
//! An endpoint that gets no new connections and finishes those that it has is as it should be, although nobody plans it; and
//! so are the virtual server and the address that it is reached by.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::Ipvs;
use super::device::DEVICE;
use super::entry::{At, Settings, Weight};
use super::kernel::Kernel;
use super::steps::{Held, leaves};
use crate::dataplane::listing::{Difference, Listing, Place, differences};
use crate::dataplane::nftables::Backend;
use crate::dataplane::{CommitError, Dataplane as _};
use crate::model::object::{Family, Protocol};

/// What stands where the others have a table.
const TABLE: &str = "ipvs";

/// The ports of addresses that nobody wants and that have connections to end.
type Stays = BTreeMap<IpAddr, Vec<(Protocol, u16)>>;

impl Ipvs {
    /// Adds the virtual servers, those of node ports at every address that accepts node ports, and the addresses of the
    /// device.
    pub(super) fn list_servers(&self, listing: &mut Listing) {
        let all = self.desired.all();
        for at in all.servers {
            if let Some((server, _)) = self.desired.server(at) {
                let endpoints = server.endpoints.iter().copied();
                list_server(listing, at, &server.settings, true, endpoints);
            }
        }
        let wanted = all.addresses.into_iter();
        list_addresses(listing, wanted.filter(|ip| self.desired.has_address(*ip)));
    }

    /// How the kernel differs from what is planned.
    pub(super) fn compared(&mut self) -> Result<Vec<Difference>, CommitError> {
        let mut kernel = Kernel::open()?;
        kernel.read(|at| self.is_ours(at))?;
        let stays = self.forget_what_finishes(&mut kernel)?;
        for (ip, ports) in &stays {
            self.guard_for_connections(*ip, ports.clone());
        }
        let mut found = self.rules.differences()?;
        let (mut wanted, mut held) = (Listing::new(), Listing::new());
        self.list_servers(&mut wanted);
        for (at, server) in &kernel.servers {
            let endpoints = server.endpoints.iter();
            let endpoints = endpoints.map(|(backend, weight)| (*backend, *weight));
            list_server(&mut held, *at, &server.settings, server.is_usual, endpoints);
        }
        let there = kernel.addresses.iter().copied().filter(|ip| {
            let is_ours = self.config.families.contains(&Family::of(*ip));
            is_ours && (self.desired.has_address(*ip) || !stays.contains_key(ip))
        });
        list_addresses(&mut held, there);
        found.extend(differences(&wanted, &held));
        Ok(found)
    }

    /// Leaves out endpoints that finish what they began or keep flows, and virtual servers that have only such and that
    /// nobody wants. The addresses and ports of these, as far as they are on the device for their sake.
    fn forget_what_finishes(&self, kernel: &mut Kernel) -> Result<Stays, CommitError> {
        let mut stays = Stays::new();
        for at in kernel.servers.keys().copied().collect::<Vec<_>>() {
            let wanted = self.desired.server(at).map(|(server, _)| server);
            if let (Some(held), Some(wanted)) = (kernel.servers.get_mut(&at), wanted) {
                let keeps = |backend: &Backend| wanted.keeping.binary_search(backend).is_ok();
                held.endpoints
                    .retain(|backend, weight| *weight != 0 || !keeps(backend));
            }
            let is_leaving = |held: &Held| leaves(held, wanted).next().is_some();
            if !kernel.servers.get(&at).is_some_and(is_leaving) {
                continue;
            }
            let mut finishing = kernel.endpoints(at)?;
            finishing.retain(|listed| listed.weight == 0 && listed.active + listed.inactive > 0);
            let Some(mut held) = kernel.servers.remove(&at) else {
                continue;
            };
            let leaving: Vec<Backend> = leaves(&held, wanted).copied().collect();
            for backend in leaving {
                if finishing.iter().any(|listed| listed.backend == backend) {
                    held.endpoints.remove(&backend);
                }
            }
            if wanted.is_some() || !held.endpoints.is_empty() {
                kernel.servers.insert(at, held);
            } else if kernel.addresses.contains(&at.ip) && !self.desired.is_local(at.ip) {
                stays.entry(at.ip).or_default().push((at.protocol, at.port));
            }
        }
        Ok(stays)
    }
}

fn list_server(
    listing: &mut Listing,
    at: At,
    settings: &Settings,
    is_usual: bool,
    endpoints: impl Iterator<Item = (Backend, Weight)>,
) {
    let place = Place::new(Family::of(at.ip), TABLE, "virtual server", &at.to_string());
    let lines = &mut listing.entry(place).or_default().lines;
    lines.push(format!("scheduler {}", settings.scheduler.name()));
    let persistence = settings.persistence;
    lines.extend(persistence.map(|seconds| format!("persistent {seconds}s")));
    if !is_usual {
        lines.push("flags of another hand".to_owned());
    }
    lines.extend(endpoints.map(|(endpoint, weight)| {
        let endpoint = SocketAddr::new(endpoint.ip, endpoint.port);
        format!("{endpoint} weight {weight}")
    }));
}

fn list_addresses(listing: &mut Listing, addresses: impl Iterator<Item = IpAddr>) {
    for ip in addresses {
        let place = Place::new(Family::of(ip), TABLE, "device", DEVICE);
        listing.entry(place).or_default().lines.push(ip.to_string());
    }
}
