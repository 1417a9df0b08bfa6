//! How many connections each ServicePort got, for metrics, where that is asked for. The kernel counts in the elements
//! of the two maps that every first packet of a connection to a Service is looked up in anyway, so no packet costs more
//! for it; they are listed when somebody asks for the metrics, and only then.
//!
//! An element that is replaced counts from zero: what it counted since the last look is lost. That happens when the
//! number of a ServicePort's endpoints changes. Bytes are not to be had this way: the packets that follow the first are
//! conntrack's, which does not look up anything; `conntrack/bytes` has them from there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::entry::{Destination, Frontend};
use super::kernel::Kernel;
use super::memory::Fields;
use super::object::Object;
use crate::dataplane::{CommitError, ReadConnections};
use crate::model::books::Books;
use crate::model::object::{Family, ObjectName};
use crate::model::view::ServiceView;

/// The dataplane's end.
#[derive(Debug)]
pub(super) struct Connections {
    table: String,
    families: Vec<Family>,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    books: Books<Frontend, u64>,
    /// What each address had counted at the last look.
    seen: HashMap<Frontend, u64>,
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
        counts.books.update(service, view, Frontend::of);
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
            counts.books.told()
        })
    }
}

impl Counts {
    /// Adds what was counted since the last look.
    fn add(&mut self, listed: &[(Frontend, u64)]) {
        for (frontend, count) in listed {
            let before = self.seen.insert(*frontend, *count).unwrap_or_default();
            // Less than before: the element is another one.
            let more = if *count < before { *count } else { count - before };
            if let Some(total) = self.books.total(frontend) {
                *total += more;
            }
        }
        self.seen.retain(|frontend, _| self.books.knows(frontend));
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
    use crate::model::object::Protocol;
    use crate::model::testing::{name, service, slice, view_of};

    fn at(protocol: Protocol, port: u16) -> Frontend {
        Frontend {
            address: Destination::Ip("10.0.0.1".parse().unwrap()),
            protocol,
            port,
        }
    }

    #[test]
    fn a_count_goes_on_when_its_element_is_replaced() {
        let mut counts = Counts::default();
        let web = name("ns/web");
        let (http, dns) = (at(Protocol::Tcp, 80), at(Protocol::Udp, 53));
        let slices = [slice("ns/web-a", "web", "p/TCP:80 q/UDP:53", &["10.1.0.1"])];
        let view = view_of(&service("ns/web", "10.0.0.1", "p/TCP:80 q/UDP:53"), &slices);
        counts.books.update(&web, Some(&view), Frontend::of);
        let told = |counts: &Counts| -> Vec<(String, u64)> {
            let all = counts.books.told().into_iter();
            all.map(|count| (count.port_name.to_string(), count.total))
                .collect()
        };
        let expected = |p: u64, q: u64| vec![("p".to_owned(), p), ("q".to_owned(), q)];
        assert_eq!(told(&counts), expected(0, 0));
        counts.add(&[(http, 3), (dns, 1), (at(Protocol::Tcp, 81), 9)]);
        counts.add(&[(http, 5), (dns, 1)]);
        assert_eq!(told(&counts), expected(5, 1));
        counts.add(&[(http, 2), (dns, 4)]);
        assert_eq!(told(&counts), expected(7, 4));
        counts.books.update(&web, None, Frontend::of);
        counts.add(&[]);
        assert!(told(&counts).is_empty() && counts.seen.is_empty());
    }
}
