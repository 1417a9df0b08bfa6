//! How many connections each ServicePort got, for metrics, where that is asked for. The kernel counts in the elements
//! of the two maps that every first packet of a connection to a Service is looked up in anyway, so no packet costs more
//! for it; they are listed when somebody asks for the metrics, and only then.
//!
//! An element that is replaced counts from zero: what it counted since the last look is lost. That happens when the
//! number of a ServicePort's endpoints changes. Bytes are not to be had this way: the packets that follow the first are
//! conntrack's, which does not look up anything; `conntrack/bytes` has them from there.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::entry::{Destination, Frontend};
use super::kernel::Kernel;
use super::memory::Fields;
use super::object::Object;
use crate::dataplane::{CommitError, ConnectionCount, ReadConnections};
use crate::model::object::{Family, ObjectName, Protocol};
use crate::model::view::ServiceView;

/// So many ServicePorts at most have a series, in the order of their names.
const MOST: usize = 10_000;

/// The dataplane's end.
#[derive(Debug)]
pub(super) struct Connections {
    table: String,
    families: Vec<Family>,
    counts: Arc<Mutex<Counts>>,
}

/// A ServicePort in one family.
type Port = (ObjectName, Arc<str>, Protocol, Family);

#[derive(Debug, Default)]
struct Counts {
    /// Whose address it is.
    owners: HashMap<Frontend, Port>,
    /// The addresses of a Service.
    addresses: HashMap<ObjectName, Vec<Frontend>>,
    /// What each address had counted at the last look.
    seen: HashMap<Frontend, u64>,
    totals: BTreeMap<Port, u64>,
}

impl Connections {
    pub(super) fn new(table: &str, families: &[Family]) -> Self {
        Self {
            table: table.to_owned(),
            families: families.to_vec(),
            counts: Arc::default(),
        }
    }

    /// A Service has these addresses now.
    pub(super) fn update(&self, service: &ObjectName, view: Option<&ServiceView>) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.update(service, view);
    }

    /// What reads the counts, on any thread of this network namespace.
    pub(super) fn reader(&self) -> ReadConnections {
        let counts = Arc::clone(&self.counts);
        let (table, families) = (self.table.clone(), self.families.clone());
        Box::new(move || {
            let listed = list(&table, &families);
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            // Without the list the counts stand where they stood.
            counts.add(&listed.unwrap_or_default());
            counts.told()
        })
    }
}

impl Counts {
    fn update(&mut self, service: &ObjectName, view: Option<&ServiceView>) {
        for frontend in self.addresses.remove(service).unwrap_or_default() {
            self.owners.remove(&frontend);
        }
        let mut addresses = Vec::new();
        let mut ports = Vec::new();
        for port in view.iter().flat_map(|view| &view.ports) {
            let of = (
                service.clone(),
                Arc::clone(&port.port_name),
                port.protocol,
                port.family,
            );
            for address in &port.addresses {
                let frontend = Frontend {
                    address: address.ip.map_or(Destination::Node(port.family), Destination::Ip),
                    protocol: port.protocol,
                    port: address.port,
                };
                self.owners.insert(frontend, of.clone());
                addresses.push(frontend);
            }
            ports.push(of);
        }
        let gone = |port: &Port| port.0 == *service && !ports.contains(port);
        let first = (service.clone(), "".into(), Protocol::Tcp, Family::V4);
        let of_service = self
            .totals
            .range(first..)
            .take_while(|(port, _)| port.0 == *service);
        let gone: Vec<Port> = of_service.map(|(port, _)| port.clone()).filter(gone).collect();
        for port in gone {
            self.totals.remove(&port);
        }
        for port in ports {
            self.totals.entry(port).or_default();
        }
        if !addresses.is_empty() {
            self.addresses.insert(service.clone(), addresses);
        }
    }

    /// Adds what was counted since the last look.
    fn add(&mut self, listed: &[(Frontend, u64)]) {
        for (frontend, count) in listed {
            let before = self.seen.insert(*frontend, *count).unwrap_or_default();
            // Less than before: the element is another one.
            let more = if *count < before { *count } else { count - before };
            if let Some(port) = self.owners.get(frontend)
                && let Some(total) = self.totals.get_mut(port)
            {
                *total += more;
            }
        }
        self.seen.retain(|frontend, _| self.owners.contains_key(frontend));
    }

    fn told(&self) -> Vec<ConnectionCount> {
        let counts =
            self.totals.iter().map(
                |((service, port_name, protocol, family), count)| ConnectionCount {
                    service: service.clone(),
                    port_name: Arc::clone(port_name),
                    protocol: *protocol,
                    family: *family,
                    count: *count,
                },
            );
        counts.take(MOST).collect()
    }
}

/// The counts of all addresses.
fn list(table: &str, families: &[Family]) -> Result<Vec<(Frontend, u64)>, CommitError> {
    let mut kernel = Kernel::default();
    let mut listed = Vec::new();
    for &family in families {
        for object in [Object::ServiceIps, Object::ServiceNodePorts] {
            for element in kernel.elements(family, table, object)? {
                let mut key = Fields(&element.key);
                let address = match object {
                    Object::ServiceIps => key.address(family).map(Destination::Ip),
                    _ => Some(Destination::Node(family)),
                };
                if let (Some(address), Some(protocol), Some(port)) = (address, key.protocol(), key.port()) {
                    let frontend = Frontend {
                        address,
                        protocol,
                        port,
                    };
                    listed.push((frontend, element.packets));
                }
            }
        }
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::{name, service, slice, view_of};

    fn view(ports: &str) -> ServiceView {
        let slices = [slice("ns/web-a", "web", "p/TCP:80 q/UDP:53", &["10.1.0.1"])];
        view_of(&service("ns/web", "10.0.0.1", ports), &slices)
    }

    fn at(protocol: Protocol, port: u16) -> Frontend {
        Frontend {
            address: Destination::Ip("10.0.0.1".parse().unwrap()),
            protocol,
            port,
        }
    }

    #[test]
    fn a_count_goes_on_when_its_element_is_replaced_and_goes_with_its_port() {
        let mut counts = Counts::default();
        let web = name("ns/web");
        let (http, dns) = (at(Protocol::Tcp, 80), at(Protocol::Udp, 53));
        counts.update(&web, Some(&view("p/TCP:80 q/UDP:53")));
        let told = |counts: &Counts| -> Vec<(String, u64)> {
            let all = counts.told().into_iter();
            all.map(|count| (count.port_name.to_string(), count.count))
                .collect()
        };
        let expected = |p: u64, q: u64| vec![("p".to_owned(), p), ("q".to_owned(), q)];
        assert_eq!(told(&counts), expected(0, 0));
        counts.add(&[(http, 3), (dns, 1), (at(Protocol::Tcp, 81), 9)]);
        counts.add(&[(http, 5), (dns, 1)]);
        assert_eq!(told(&counts), expected(5, 1));
        counts.add(&[(http, 2), (dns, 4)]);
        assert_eq!(told(&counts), expected(7, 4));
        // An update that changes no address changes no count.
        counts.update(&web, Some(&view("p/TCP:80 q/UDP:53")));
        counts.add(&[(http, 2), (dns, 4)]);
        assert_eq!(told(&counts), expected(7, 4));
        counts.update(&web, Some(&view("p/TCP:80")));
        assert_eq!(told(&counts), [("p".to_owned(), 7)]);
        counts.update(&web, None);
        counts.add(&[]);
        assert!(told(&counts).is_empty() && counts.owners.is_empty() && counts.seen.is_empty());
    }
}
