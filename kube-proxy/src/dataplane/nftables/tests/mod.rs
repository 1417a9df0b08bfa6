//! What the tests share: views in few words, and a dataplane in a network namespace of its own.

mod affinity;
mod beside_ipvs;
mod changes;
mod errors;
mod flood;
mod garbage;
mod listing;
mod localhost;
mod packets;
mod plan;
mod random;
mod refusals;
mod service_cidrs;
mod takeover;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use lab::net::Namespace;

use super::others::Others;
use super::{Config, Nftables};
use crate::dataplane::{CommitReport, Dataplane, LocalTraffic, NodePortAddresses};
use crate::model::object::{Family, ObjectName, Protocol};
use crate::model::view::{
    AddressKind, Delivery, Endpoint, EndpointList, ServiceAddress, ServicePortView, ServiceView,
};

const CLUSTER: Delivery = to(EndpointList::Cluster, false);
const CLUSTER_MASQUERADED: Delivery = to(EndpointList::Cluster, true);
const LOCAL: Delivery = to(EndpointList::Local, false);
/// A ClusterIP in a cluster whose pods are known.
const OFF_CLUSTER: [Delivery; 3] = [CLUSTER, CLUSTER_MASQUERADED, CLUSTER_MASQUERADED];
/// An external address with externalTrafficPolicy Cluster.
const EXTERNAL: [Delivery; 3] = [CLUSTER_MASQUERADED; 3];
/// An external address with externalTrafficPolicy Local.
const EXTERNAL_LOCAL: [Delivery; 3] = [CLUSTER, CLUSTER_MASQUERADED, LOCAL];

const fn to(endpoints: EndpointList, masquerade: bool) -> Delivery {
    Delivery::To {
        endpoints,
        masquerade,
    }
}

fn name(name: &str) -> ObjectName {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    ObjectName::new(namespace, name)
}

fn view(service: &str, ports: impl IntoIterator<Item = ServicePortView>) -> ServiceView {
    let ports: Vec<ServicePortView> = ports.into_iter().collect();
    let addresses = ports.iter().flat_map(|port| &port.addresses);
    let cluster_ips = addresses.filter(|address| address.kind == AddressKind::ClusterIp);
    ServiceView {
        name: name(service),
        created: None,
        cluster_ips: cluster_ips.filter_map(|address| address.ip).collect(),
        ports,
        conflicts: Vec::new(),
        health_check: None,
        ipvs_scheduler: None,
    }
}

/// A TCP port named `http` with these endpoints: `address:port`, behind a `*` if it is of this node.
fn port(family: Family, endpoints: &[&str], addresses: &[ServiceAddress]) -> ServicePortView {
    let mut cluster_endpoints: Vec<Endpoint> = endpoints.iter().map(|text| endpoint(text)).collect();
    cluster_endpoints.sort_unstable();
    let local_endpoints = cluster_endpoints
        .iter()
        .copied()
        .filter(|at| at.is_local)
        .collect();
    ServicePortView {
        port_name: "http".into(),
        protocol: Protocol::Tcp,
        family,
        cluster_endpoints,
        local_endpoints,
        flow_endpoints: Vec::new(),
        affinity: None,
        addresses: addresses.to_vec(),
    }
}

fn endpoint(text: &str) -> Endpoint {
    let at: SocketAddr = text.trim_start_matches('*').parse().unwrap();
    Endpoint {
        ip: at.ip(),
        port: at.port(),
        is_local: text.starts_with('*'),
        ipvs_weight: None,
    }
}

fn address(
    kind: AddressKind,
    ip: impl Into<Option<&'static str>>,
    port: u16,
    by_source: [Delivery; 3],
) -> ServiceAddress {
    let [from_pods, from_host, from_outside] = by_source;
    ServiceAddress {
        kind,
        ip: ip.into().map(|ip| ip.parse().unwrap()),
        port,
        source_ranges: None,
        from_pods,
        from_host,
        from_outside,
    }
}

fn cluster_ip(ip: &'static str, port: u16) -> ServiceAddress {
    address(AddressKind::ClusterIp, ip, port, OFF_CLUSTER)
}

/// Pods of 10.244.0.0/16 and fd00:10:244::/48.
fn config() -> Config {
    let pods = |network: &str| LocalTraffic::Cidr(network.parse().unwrap());
    Config {
        local_traffic: [pods("10.244.0.0/16"), pods("fd00:10:244::/48")],
        ..Config::default()
    }
}

/// A dataplane and the namespace that it works in.
struct Node {
    namespace: Namespace,
    dataplane: Nftables,
}

impl Node {
    fn new(config: Config) -> Self {
        Self {
            namespace: Namespace::create("nftables").unwrap(),
            dataplane: Nftables::new(config),
        }
    }

    fn update(&mut self, view: &ServiceView) {
        self.dataplane.update(&view.name, Some(view));
    }

    fn remove(&mut self, service: &str) {
        self.dataplane.update(&name(service), None);
    }

    fn commit(&mut self) -> CommitReport {
        self.commit_after(Duration::ZERO)
    }

    /// Commits as if so much time had passed; where a predecessor's tables are replaced, all of it.
    fn commit_after(&mut self, later: Duration) -> CommitReport {
        let now = Instant::now() + later;
        let Self { namespace, dataplane } = self;
        let commit = || {
            let mut report = dataplane.commit_at(now).unwrap();
            while dataplane.stands_in {
                let rest = dataplane.commit_at(now).unwrap();
                report = CommitReport {
                    drift: report.drift + rest.drift,
                    ..rest
                };
            }
            report
        };
        namespace.enter(commit).unwrap()
    }

    fn nft(&self, args: &[&str]) -> String {
        self.namespace.run("nft", args).unwrap()
    }
}
