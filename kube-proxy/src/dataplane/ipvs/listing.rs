//! The virtual servers that are planned, as a listing. The rules beside them are nftables'.

use super::Ipvs;
use super::device::DEVICE;
use super::entry::{Key, Value};
use crate::dataplane::listing::{Listing, Place};
use crate::dataplane::nftables::Destination;

/// What stands where the others have a table.
const TABLE: &str = "ipvs";

impl Ipvs {
    /// Adds the virtual servers, those of node ports at every address that accepts node ports, and the addresses of the
    /// device.
    pub(super) fn list_servers(&self, listing: &mut Listing) {
        for entry in self.desired.ledger.iter() {
            let family = entry.key.family();
            match (entry.key, entry.value) {
                (Key::Server(at), Value::Server(server)) => {
                    let ips = match at.address {
                        Destination::Ip(ip) => vec![ip],
                        Destination::Node(family) => self.desired.node_ports(family).to_vec(),
                    };
                    let mut lines = vec![format!("scheduler {}", server.settings.scheduler.name())];
                    lines.extend(
                        server
                            .settings
                            .persistence
                            .map(|seconds| format!("persistent {seconds}s")),
                    );
                    for (endpoint, weight) in &server.endpoints {
                        let endpoint = std::net::SocketAddr::new(endpoint.ip, endpoint.port);
                        lines.push(format!("{endpoint} weight {weight}"));
                    }
                    for ip in ips {
                        let name = format!("{} {}", at.protocol, std::net::SocketAddr::new(ip, at.port));
                        let place = Place::new(family, TABLE, "virtual server", &name);
                        listing.entry(place).or_default().lines.clone_from(&lines);
                    }
                }
                (Key::Address(ip), _) => {
                    let place = Place::new(family, TABLE, "device", DEVICE);
                    listing.entry(place).or_default().lines.push(ip.to_string());
                }
                (Key::Server(_), Value::Present) => {}
            }
        }
    }
}
