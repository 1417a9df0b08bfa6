//! Conntrack from the books to the kernel's table.

mod adopted;
mod bytes;
mod due;
mod looks;
mod packets;
mod stage;
mod stale;
pub(super) mod table;

use std::net::{IpAddr, SocketAddr};

use super::flows::{Due, Flow, Flows, Frontend, Look};
use crate::model::change::{Change, Kind};
use crate::model::cluster::Cluster;
use crate::model::object::{EndpointSlice, Protocol, Service};
use crate::model::testing::{self, name, service, slice};

/// A cluster, and the books that follow it.
struct Followed {
    cluster: Cluster,
    flows: Flows,
}

impl Followed {
    fn new() -> Self {
        Self {
            cluster: Cluster::new(testing::config()),
            flows: Flows::default(),
        }
    }

    /// Takes changes in without putting them in force.
    fn note(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            self.cluster.apply(change);
        }
        for name in self.cluster.take_dirty() {
            self.flows.note(&name, self.cluster.resolve(&name).as_ref());
        }
    }

    /// Puts changes in force, and returns where to look, as text in order.
    fn due_after(&mut self, changes: impl IntoIterator<Item = Change>) -> Vec<String> {
        self.note(changes);
        self.flows.in_force();
        texts(&self.flows.take_due())
    }

    /// A look at everything that is due, on a machine with these addresses.
    fn look(&mut self, local: &[&str]) -> Look {
        self.flows.in_force();
        Look {
            due: self.flows.take_due(),
            local: local.iter().map(|ip| ip.parse::<IpAddr>().unwrap()).collect(),
        }
    }
}

fn texts(due: &Due) -> Vec<String> {
    let frontends = due.frontends.iter().map(|frontend| match frontend {
        Frontend::Address(protocol, at) => format!("{protocol} {at}"),
        Frontend::NodePort(protocol, family, port) => format!("{protocol} {family} *:{port}"),
    });
    let mut texts: Vec<_> = frontends
        .chain(due.networks.iter().map(ToString::to_string))
        .collect();
    texts.sort();
    texts
}

/// `PROTOCOL ASKED` when it goes where it asked to go, `PROTOCOL ASKED > ANSWERING` otherwise.
fn flow(text: &str) -> Flow {
    let (protocol, ends) = text.split_once(' ').unwrap();
    let (asked, answering) = ends.split_once(" > ").unwrap_or((ends, ends));
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    let mut protocols = Protocol::ALL.into_iter();
    Flow {
        protocol: protocols.find(|known| known.to_string() == protocol).unwrap(),
        asked: at(asked),
        answering: at(answering),
        zoned: false,
        answered: true,
    }
}

fn apply(service: Service) -> Change {
    Change::Service(Box::new(service))
}

fn delete(service: &str) -> Change {
    Change::Deleted(Kind::Service, name(service))
}

fn apply_slice(slice: EndpointSlice) -> Change {
    Change::EndpointSlice(Box::new(slice))
}

/// The endpoints of the Service `ns/dns`.
fn endpoints(endpoints: &[&str]) -> Change {
    apply_slice(slice("ns/dns-1", "dns", "u/UDP:53 s/SCTP:53 t/TCP:53", endpoints))
}

/// A Service for all protocols with a cluster IP, a node port, an external and a load-balancer address.
fn dns() -> Service {
    service("ns/dns", "10.0.0.10", "u/UDP:53:30053 s/SCTP:53 t/TCP:53:30053")
        .with_external_ips("198.51.100.1")
        .with_load_balancer("203.0.113.1")
}
