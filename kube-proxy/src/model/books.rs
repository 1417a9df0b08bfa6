//! Books of what is counted for each ServicePort: whose a frontend is, and how much each ServicePort has so far.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use super::object::{Family, ObjectName, Protocol};
use super::view::{ServiceAddress, ServicePortView, ServiceView};

/// So many ServicePorts at most are told of, in the order of their names.
const MOST: usize = 10_000;

/// What was counted for one ServicePort in one family, since this program began to count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortTotal<T> {
    /// The Service.
    pub service: ObjectName,
    /// Name of the port; empty when unnamed.
    pub port_name: Arc<str>,
    /// Protocol of the port.
    pub protocol: Protocol,
    /// Family of the addresses.
    pub family: Family,
    /// How much.
    pub total: T,
}

/// A ServicePort in one family.
type Port = (ObjectName, Arc<str>, Protocol, Family);

/// See the module's text. `F` is what a counter knows a frontend by, `T` what it counts.
#[derive(Debug)]
pub(crate) struct Books<F, T> {
    owners: HashMap<F, Port>,
    frontends: HashMap<ObjectName, Vec<F>>,
    totals: BTreeMap<Port, T>,
}

impl<F, T> Default for Books<F, T> {
    fn default() -> Self {
        Self {
            owners: HashMap::new(),
            frontends: HashMap::new(),
            totals: BTreeMap::new(),
        }
    }
}

impl<F: Copy + Eq + Hash, T: Copy + Default> Books<F, T> {
    /// A Service is this now (`None`: gone). The totals of its ports go on, and those of ports that it no longer has go.
    pub(crate) fn update(
        &mut self,
        service: &ObjectName,
        view: Option<&ServiceView>,
        frontend: impl Fn(&ServicePortView, &ServiceAddress) -> F,
    ) {
        for frontend in self.frontends.remove(service).unwrap_or_default() {
            // Another Service may have got it meanwhile.
            if self.owners.get(&frontend).is_some_and(|port| port.0 == *service) {
                self.owners.remove(&frontend);
            }
        }
        let (mut frontends, mut ports) = (Vec::new(), Vec::new());
        for port in view.iter().flat_map(|view| &view.ports) {
            let (name, protocol, family) = (&port.port_name, port.protocol, port.family);
            let of = (service.clone(), Arc::clone(name), protocol, family);
            for address in &port.addresses {
                let frontend = frontend(port, address);
                self.owners.insert(frontend, of.clone());
                frontends.push(frontend);
            }
            ports.push(of);
        }
        let first = (service.clone(), "".into(), Protocol::Tcp, Family::V4);
        let of_service = self.totals.range(first..).map(|(port, _)| port);
        let gone: Vec<Port> = of_service
            .take_while(|port| port.0 == *service)
            .filter(|port| !ports.contains(port))
            .cloned()
            .collect();
        for port in gone {
            self.totals.remove(&port);
        }
        for port in ports {
            self.totals.entry(port).or_default();
        }
        if !frontends.is_empty() {
            self.frontends.insert(service.clone(), frontends);
        }
    }

    /// The total to which belongs what is counted at a frontend; `None` where it is nobody's.
    pub(crate) fn total(&mut self, frontend: &F) -> Option<&mut T> {
        self.totals.get_mut(self.owners.get(frontend)?)
    }

    /// Whether a frontend is a Service's.
    pub(crate) fn knows(&self, frontend: &F) -> bool {
        self.owners.contains_key(frontend)
    }

    /// All totals, in the order of their names.
    pub(crate) fn told(&self) -> Vec<PortTotal<T>> {
        let totals = self
            .totals
            .iter()
            .map(|((service, port_name, protocol, family), total)| PortTotal {
                service: service.clone(),
                port_name: Arc::clone(port_name),
                protocol: *protocol,
                family: *family,
                total: *total,
            });
        totals.take(MOST).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::{name, service, slice, view_of};

    fn view(of: &str, ports: &str) -> ServiceView {
        let (namespace, short) = of.split_once('/').unwrap();
        let slice_name = format!("{namespace}/{short}-a");
        let slices = [slice(&slice_name, short, "p/TCP:80 q/UDP:53", &["10.1.0.1"])];
        view_of(&service(of, "10.0.0.1", ports), &slices)
    }

    fn update(books: &mut Books<u16, u64>, of: &str, ports: Option<&str>) {
        let view = ports.map(|ports| view(of, ports));
        books.update(&name(of), view.as_ref(), |_, address| address.port);
    }

    fn told(books: &Books<u16, u64>) -> Vec<String> {
        let told = books.told().into_iter();
        told.map(|of| format!("{}:{} {}", of.service, of.port_name, of.total))
            .collect()
    }

    #[test]
    fn totals_go_on_as_long_as_their_port_is_there_and_go_with_it() {
        let mut books = Books::default();
        update(&mut books, "ns/web", Some("p/TCP:80 q/UDP:53"));
        *books.total(&80).unwrap() += 3;
        assert_eq!(told(&books), ["ns/web:p 3", "ns/web:q 0"]);
        // The same port at another address.
        update(&mut books, "ns/web", Some("p/TCP:81"));
        assert!(books.total(&80).is_none() && books.total(&53).is_none());
        *books.total(&81).unwrap() += 1;
        assert_eq!(told(&books), ["ns/web:p 4"]);
        update(&mut books, "ns/web", None);
        assert!(told(&books).is_empty() && !books.knows(&81) && books.frontends.is_empty());
    }

    #[test]
    fn a_frontend_that_changes_hands_is_its_new_owners_whoever_is_heard_of_first() {
        let mut books = Books::default();
        update(&mut books, "ns/old", Some("p/TCP:80"));
        update(&mut books, "ns/new", Some("p/TCP:80"));
        update(&mut books, "ns/old", None);
        *books.total(&80).unwrap() += 1;
        assert_eq!(told(&books), ["ns/new:p 1"]);
    }
}
