//! The servers on each `healthCheckNodePort`: they tell a cloud load balancer how many endpoints of a Service this
//! node has, so that it sends traffic to nodes that can answer it. The loop says what is wanted once it is in
//! force; here are the sockets. One for each family, or for each address that accepts node ports, so a client
//! hears of the family by which it asks.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use http::StatusCode;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tracing::{error, info};

use super::pages::{Asked, Page, Pages};
use super::{BACKLOG, Ending, RETRY, accept};
use crate::dataplane::NodePortAddresses;
use crate::events::{Event, EventType, Recorder, Regarding};
use crate::health::Health;
use crate::model::object::{Family, ObjectName};
use crate::model::view::HealthCheck;

/// The loop's end: collects what changes, and passes it on when it is in force.
#[derive(Debug)]
pub struct HealthChecks {
    orders: UnboundedSender<Order>,
    /// What the servers were told last.
    told: HashMap<ObjectName, HealthCheck>,
    /// Changed since.
    changed: BTreeMap<ObjectName, Option<HealthCheck>>,
    node_ports: [Option<NodePortAddresses>; 2],
}

/// The servers' end, for [`run`](super::run).
#[derive(Debug)]
pub struct Orders(UnboundedReceiver<Order>);

#[derive(Debug)]
enum Order {
    Check(ObjectName, Option<HealthCheck>),
    Addresses(Family, NodePortAddresses),
}

/// Both ends. Nothing listens before the first [`HealthChecks::in_force`].
pub fn health_checks() -> (HealthChecks, Orders) {
    let (orders, receiver) = unbounded_channel();
    let checks = HealthChecks {
        orders,
        told: HashMap::new(),
        changed: BTreeMap::new(),
        node_ports: [None, None],
    };
    (checks, Orders(receiver))
}

impl HealthChecks {
    /// What a Service wants now; `None` when it is gone or wants nothing.
    pub fn note(&mut self, service: &ObjectName, check: Option<HealthCheck>) {
        if self.told.get(service) == check.as_ref() {
            self.changed.remove(service);
        } else {
            self.changed.insert(service.clone(), check);
        }
    }

    /// Which addresses of a family accept node ports.
    pub fn set_node_port_addresses(&mut self, family: Family, addresses: &NodePortAddresses) {
        self.node_ports[family as usize] = Some(addresses.clone());
    }

    /// What was noted is in force: packets find the endpoints that the servers tell of.
    pub fn in_force(&mut self) {
        // Without servers (they end with the program) there is nobody to tell.
        for family in Family::ALL {
            if let Some(addresses) = self.node_ports[family as usize].take() {
                let _ = self.orders.send(Order::Addresses(family, addresses));
            }
        }
        for (service, check) in std::mem::take(&mut self.changed) {
            match check {
                Some(check) => self.told.insert(service.clone(), check),
                None => self.told.remove(&service),
            };
            let _ = self.orders.send(Order::Check(service, check));
        }
    }
}

/// All servers.
pub(super) struct Servers {
    health: Arc<Health>,
    events: Recorder,
    wanted: BTreeMap<ObjectName, HealthCheck>,
    addresses: [NodePortAddresses; 2],
    open: HashMap<SocketAddr, Server>,
    /// Could not be opened, and it was said.
    failed: HashMap<SocketAddr, ObjectName>,
    /// Gone when the program is about to end: then nothing is opened any more.
    ending: Option<Ending>,
}

/// One listening socket.
struct Server {
    service: ObjectName,
    endpoints: Arc<AtomicUsize>,
    task: JoinHandle<Infallible>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Servers {
    pub(super) fn new(health: Arc<Health>, events: Recorder, ending: Ending) -> Self {
        Self {
            ending: Some(ending),
            health,
            events,
            wanted: BTreeMap::new(),
            addresses: [NodePortAddresses::All, NodePortAddresses::All],
            open: HashMap::new(),
            failed: HashMap::new(),
        }
    }

    /// Follows the orders until the program ends.
    pub(super) async fn run(mut self, mut orders: Orders) -> Infallible {
        let mut ordering = true;
        loop {
            let retry = async {
                match self.failed.is_empty() {
                    true => std::future::pending().await,
                    false => tokio::time::sleep(RETRY).await,
                }
            };
            let mut ending = self.ending.clone();
            let end = async {
                match &mut ending {
                    Some(ending) => ending.begins().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                order = orders.0.recv(), if ordering => match order {
                    Some(order) => {
                        self.take(order);
                        while let Ok(order) = orders.0.try_recv() {
                            self.take(order);
                        }
                    }
                    // The loop has ended, and the program is about to.
                    None => ordering = false,
                },
                () = retry => {}
                () = end => self.ending = None,
            }
            self.settle();
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Check(service, Some(check)) => {
                self.wanted.insert(service, check);
            }
            Order::Check(service, None) => {
                self.wanted.remove(&service);
            }
            Order::Addresses(family, addresses) => self.addresses[family as usize] = addresses,
        }
    }

    /// Opens what is missing, closes what is not wanted, and sets the counts.
    fn settle(&mut self) {
        let sockets = self.sockets();
        let stays = |address: &SocketAddr, service: &ObjectName| {
            sockets.get(address).is_some_and(|(wanted, _)| wanted == service)
        };
        self.open.retain(|address, server| {
            let stays = stays(address, &server.service);
            if !stays {
                info!(service = %server.service, %address, "Closing healthcheck");
            }
            stays
        });
        self.failed.retain(|address, service| stays(address, service));
        for (address, (service, endpoints)) in sockets {
            match self.open.get(&address) {
                Some(server) => server.endpoints.store(endpoints, Ordering::Relaxed),
                None => self.open(address, service, endpoints),
            }
        }
    }

    /// Which sockets are wanted: the Service and the count of each. Of two Services that want one, the first has it.
    fn sockets(&self) -> BTreeMap<SocketAddr, (ObjectName, usize)> {
        let mut sockets = BTreeMap::new();
        for (service, check) in &self.wanted {
            for family in Family::ALL {
                let Some(endpoints) = check.local_endpoints[family as usize] else {
                    continue;
                };
                for ip in addresses(family, &self.addresses[family as usize]) {
                    sockets
                        .entry(SocketAddr::new(ip, check.port))
                        .or_insert_with(|| (service.clone(), endpoints));
                }
            }
        }
        sockets
    }

    fn open(&mut self, address: SocketAddr, service: ObjectName, endpoints: usize) {
        let Some(ending) = self.ending.clone() else {
            return;
        };
        let listener = match listen(address) {
            Ok(listener) => listener,
            Err(err) => {
                if self.failed.insert(address, service.clone()).is_none() {
                    error!(%service, %address, %err, "Failed to start healthcheck; trying again every 5 s");
                    self.events.record(Event {
                        note: format!("failed to start healthcheck \"{service}\" on {address}: {err}"),
                        regarding: Regarding::Service(service),
                        event_type: EventType::Warning,
                        reason: "FailedToStartServiceHealthcheck",
                        action: "Listen",
                    });
                }
                return;
            }
        };
        self.failed.remove(&address);
        info!(%service, %address, "Opening healthcheck");
        let endpoints = Arc::new(AtomicUsize::new(endpoints));
        let pages = CheckPages {
            service: service.clone(),
            endpoints: Arc::clone(&endpoints),
            health: Arc::clone(&self.health),
        };
        let task =
            tokio::spawn(async move { accept(listener, "healthcheck", Arc::new(pages), ending).await });
        let server = Server {
            service,
            endpoints,
            task,
        };
        self.open.insert(address, server);
    }
}

/// Where a family's servers listen.
fn addresses(family: Family, node_ports: &NodePortAddresses) -> Vec<IpAddr> {
    match (node_ports, family) {
        (NodePortAddresses::Only(addresses), _) => addresses.clone(),
        (NodePortAddresses::All, Family::V4) => vec![Ipv4Addr::UNSPECIFIED.into()],
        (NodePortAddresses::All, Family::V6) => vec![Ipv6Addr::UNSPECIFIED.into()],
    }
}

/// Listens in one family, so that the other family's server finds the port free.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        let socket = TcpSocket::new_v6()?;
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
        socket
    };
    socket.set_reuseaddr(true)?;
    // A successor listens beside its predecessor; both tell the truth.
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Any path of one server.
#[derive(Debug)]
struct CheckPages {
    service: ObjectName,
    endpoints: Arc<AtomicUsize>,
    health: Arc<Health>,
}

impl Pages for CheckPages {
    fn page(&self, _: &Asked<'_>) -> Page {
        let endpoints = self.endpoints.load(Ordering::Relaxed);
        let healthy = self.health.report(Instant::now()).healthy;
        let status = if endpoints > 0 && healthy {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let ObjectName { namespace, name } = &self.service;
        // Names of Kubernetes hold nothing that JSON would escape. The form is upstream's, which some tools match as text.
        let body = format!(
            "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\t\
             \"localEndpoints\": {endpoints},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
        );
        Page::json(status, body).with_weight(endpoints)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: HealthCheck = HealthCheck {
        port: 31000,
        local_endpoints: [Some(2), None],
    };

    fn take(orders: &mut Orders) -> Vec<(String, Option<HealthCheck>)> {
        let mut taken = Vec::new();
        while let Ok(order) = orders.0.try_recv() {
            if let Order::Check(service, check) = order {
                taken.push((service.name.to_string(), check));
            }
        }
        taken
    }

    #[test]
    fn servers_hear_of_what_changed_and_only_once_it_is_in_force() {
        let (mut checks, mut orders) = health_checks();
        let web = ObjectName::new("shop", "web");
        checks.note(&web, Some(WEB));
        checks.note(&ObjectName::new("shop", "other"), None);
        assert_eq!(take(&mut orders), []);
        checks.in_force();
        assert_eq!(take(&mut orders), [("web".to_owned(), Some(WEB))]);
        checks.note(&web, Some(WEB));
        checks.note(&web, None);
        checks.note(&web, Some(WEB));
        checks.in_force();
        assert_eq!(take(&mut orders), [], "it is as it was told");
        checks.note(&web, None);
        checks.in_force();
        assert_eq!(take(&mut orders), [("web".to_owned(), None)]);
    }

    #[test]
    fn a_socket_that_two_services_want_is_the_first_ones() {
        let mut servers = Servers::new(
            Arc::new(Health::new(std::time::Duration::from_secs(30), true)),
            crate::events::recorder().0,
            super::super::ending().1,
        );
        for (name, endpoints) in [("web", 2), ("api", 1)] {
            let check = HealthCheck {
                port: 31000,
                local_endpoints: [Some(endpoints), Some(5)],
            };
            servers.take(Order::Check(ObjectName::new("shop", name), Some(check)));
        }
        let chosen =
            NodePortAddresses::Only(vec!["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()]);
        servers.take(Order::Addresses(Family::V4, chosen));
        let sockets: Vec<_> = servers.sockets().into_iter().collect();
        let api = ObjectName::new("shop", "api");
        let expected = [("192.0.2.1:31000", 1), ("192.0.2.2:31000", 1), ("[::]:31000", 5)];
        assert_eq!(
            sockets,
            expected.map(|(address, count)| (address.parse().unwrap(), (api.clone(), count)))
        );
    }
}
