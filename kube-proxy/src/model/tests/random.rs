//! Properties over random change sequences.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use proptest::prelude::*;

use crate::model::change::{Change, Kind};
use crate::model::cluster::Cluster;
use crate::model::ledger::Ledger;
use crate::model::object::{EndpointSlice, Node, ObjectName, Protocol, Service, ServiceType, TrafficPolicy};
use crate::model::testing::*;
use crate::model::view::{AddressKind, ServiceView};

const SERVICES: [&str; 4] = ["a/one", "a/two", "b/one", "b/two"];
const CLUSTER_IPS: [&str; 5] = ["10.0.0.1", "10.0.0.2", "10.0.0.1 fd00::1", "fd00::2 10.0.0.2", ""];
const PORTS: [&str; 5] = [
    "p/TCP:80",
    "p/TCP:80:30080",
    "p/TCP:80 q/UDP:80:30080",
    "p/TCP:80 q/TCP:80",
    "p/SCTP:80:30080 q/TCP:81:30080",
];
const EXTERNAL_IPS: [&str; 4] = ["", "1.1.1.1", "1.1.1.1 10.0.0.2", "fd00::9 1.1.1.1"];
const ENDPOINTS: [&str; 8] = [
    "10.1.0.1 local",
    "10.1.0.1 terminating",
    "10.1.0.2 zone:a",
    "10.1.0.3 zone:b node:this-node",
    "10.1.0.4 local unready",
    "10.1.0.5 local terminating zone:a",
    "fd00::1",
    "fd00::2 local zone:a",
];
const SLICE_PORTS: [&str; 3] = ["p/TCP:8080", "p/TCP:8080 q/UDP:53", "p/TCP:9090 q/TCP:81"];
const ZONES: [Option<&str>; 3] = [None, Some("a"), Some("b")];

fn any_service() -> impl Strategy<Value = Service> {
    let texts = (
        prop::sample::select(&SERVICES),
        prop::sample::select(&CLUSTER_IPS),
        prop::sample::select(&PORTS),
        prop::sample::select(&EXTERNAL_IPS),
        prop::sample::select(&EXTERNAL_IPS),
    );
    let policy = || prop::sample::select(vec![TrafficPolicy::Cluster, TrafficPolicy::Local]);
    let rest = (
        policy(),
        policy(),
        prop::option::of(0..3i64),
        any::<bool>(),
        prop::option::of(1..3u32),
    );
    (texts, rest).prop_map(
        |((name, ips, ports, external, balanced), (internal, outer, created, is_lb, affinity))| {
            let plain = service(name, ips, ports).with_external_ips(external);
            let service = if is_lb {
                plain
                    .with_load_balancer(balanced)
                    .with_source_ranges("192.168.0.0/16")
            } else {
                plain.of_type(ServiceType::NodePort)
            };
            Service {
                created,
                headless: ips.is_empty(),
                internal_traffic_policy: internal,
                external_traffic_policy: outer,
                health_check_node_port: 31000,
                session_affinity: affinity,
                ..service
            }
        },
    )
}

fn any_slice() -> impl Strategy<Value = EndpointSlice> {
    let endpoints = prop::sample::subsequence(&ENDPOINTS[..], 0..=4);
    let service = prop::option::weighted(0.9, prop::sample::select(vec!["one", "two"]));
    let place = (prop::sample::select(vec!["a", "b"]), 0..3u8);
    (place, service, prop::sample::select(&SLICE_PORTS), endpoints).prop_map(
        |((namespace, number), service, ports, endpoints)| EndpointSlice {
            service: service.map(Into::into),
            ..slice(&format!("{namespace}/slice-{number}"), "", ports, &endpoints)
        },
    )
}

/// Some steps of a source: single changes and whole lists.
#[derive(Clone, Debug)]
enum Step {
    Single(Change),
    Services(Vec<Service>),
    Slices(Vec<EndpointSlice>),
    /// A list whose objects cannot be read.
    Kept(Kind, Vec<ObjectName>),
}

impl Step {
    fn changes(self) -> Vec<Change> {
        let list = |kind, objects: Vec<Change>| {
            let start = std::iter::once(Change::ListStart(kind));
            start.chain(objects).chain([Change::ListDone(kind)]).collect()
        };
        match self {
            Self::Single(change) => vec![change],
            Self::Services(all) => list(Kind::Service, all.into_iter().map(upsert_service).collect()),
            Self::Kept(kind, all) => list(
                kind,
                all.into_iter().map(|name| Change::Kept(kind, name)).collect(),
            ),
            Self::Slices(all) => list(Kind::EndpointSlice, all.into_iter().map(upsert_slice).collect()),
        }
    }
}

fn upsert_service(service: Service) -> Change {
    Change::Service(Box::new(service))
}

fn upsert_slice(slice: EndpointSlice) -> Change {
    Change::EndpointSlice(Box::new(slice))
}

fn any_step() -> impl Strategy<Value = Step> {
    let zone = prop::sample::select(&ZONES).prop_map(|zone| {
        let zone = zone.map(Into::into);
        Change::Node(Box::new(Node {
            zone,
            ..Node::default()
        }))
    });
    let a_service = || prop::sample::select(&SERVICES).prop_map(name);
    let a_slice = || {
        let place = (prop::sample::select(vec!["a", "b"]), 0..3u8);
        place.prop_map(|(namespace, number)| name(&format!("{namespace}/slice-{number}")))
    };
    let gone = a_service().prop_map(|name| Change::Deleted(Kind::Service, name));
    let gone_slice = a_slice().prop_map(|name| Change::Deleted(Kind::EndpointSlice, name));
    let kept = prop::collection::vec(a_service(), 0..4).prop_map(|names| Step::Kept(Kind::Service, names));
    let kept_slices =
        prop::collection::vec(a_slice(), 0..4).prop_map(|names| Step::Kept(Kind::EndpointSlice, names));
    let ends =
        [Change::ListStart, Change::ListDone].map(|end| [end(Kind::Service), end(Kind::EndpointSlice)]);
    let end = prop::sample::select(ends.concat());
    prop_oneof![
        6 => any_service().prop_map(upsert_service).prop_map(Step::Single),
        6 => any_slice().prop_map(upsert_slice).prop_map(Step::Single),
        1 => zone.prop_map(Step::Single),
        2 => gone.prop_map(Step::Single),
        2 => gone_slice.prop_map(Step::Single),
        1 => prop::collection::vec(any_service(), 0..4).prop_map(Step::Services),
        1 => prop::collection::vec(any_slice(), 0..4).prop_map(Step::Slices),
        1 => kept,
        1 => kept_slices,
        1 => end.prop_map(Step::Single),
    ]
}

fn any_changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(any_step(), 1..24)
        .prop_map(|steps| steps.into_iter().flat_map(Step::changes).collect())
}

type Views = BTreeMap<ObjectName, ServiceView>;

fn views(cluster: &Cluster) -> Views {
    let resolved = SERVICES.iter().filter_map(|text| cluster.resolve(&name(text)));
    resolved.map(|view| (view.name.clone(), view)).collect()
}

/// Resolves what is dirty and keeps the views, as the proxy does.
fn follow(cluster: &mut Cluster, views: &mut Views) {
    for name in cluster.take_dirty() {
        match cluster.resolve(&name) {
            Some(view) => views.insert(name, view),
            None => views.remove(&name),
        };
    }
}

/// What is observed in the end, worked out the plain way.
fn final_state(changes: &[Change]) -> (Vec<Service>, Vec<EndpointSlice>, Option<Node>) {
    let (mut services, mut slices, mut node) = (BTreeMap::new(), BTreeMap::new(), None);
    let (mut named, mut named_slices) = (BTreeSet::new(), BTreeSet::new());
    for change in changes.iter().cloned() {
        match change {
            Change::Service(service) => {
                named.insert(service.name.clone());
                services.insert(service.name.clone(), *service);
            }
            Change::EndpointSlice(slice) => {
                named_slices.insert(slice.name.clone());
                slices.insert(slice.name.clone(), *slice);
            }
            Change::Node(seen) => node = Some(*seen),
            Change::ServiceCidr(_) => {}
            Change::Kept(Kind::Service, name) => drop(named.insert(name)),
            Change::Kept(_, name) => drop(named_slices.insert(name)),
            Change::Deleted(Kind::Service, name) => drop(services.remove(&name)),
            Change::Deleted(_, name) => drop(slices.remove(&name)),
            Change::ListStart(Kind::Service) => named.clear(),
            Change::ListStart(_) => named_slices.clear(),
            Change::ListDone(Kind::Service) => services.retain(|name, _| named.contains(name)),
            Change::ListDone(_) => slices.retain(|name, _| named_slices.contains(name)),
        }
    }
    (
        services.into_values().collect(),
        slices.into_values().collect(),
        node,
    )
}

/// Where a view's addresses are entered: whatever two views both hold is an error.
fn entries(view: &ServiceView) -> Vec<(String, String)> {
    let mut entries = Vec::new();
    for port in &view.ports {
        for address in &port.addresses {
            let ip = address
                .ip
                .map_or_else(|| port.family.to_string(), |ip| ip.to_string());
            let key = format!("{ip} {} {}", port.protocol, address.port);
            entries.push((key, format!("{} {} {address:?}", view.name, port.port_name)));
        }
    }
    entries
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changes_one_by_one_give_what_they_give_at_once(
        changes in any_changes(),
        chunk in 1..9usize,
    ) {
        let (mut stepwise, mut kept) = (Cluster::new(config()), Views::new());
        for change in changes.clone() {
            stepwise.apply(change);
            follow(&mut stepwise, &mut kept);
        }
        let (mut chunked, mut kept_by_chunk) = (Cluster::new(config()), Views::new());
        for chunk in changes.chunks(chunk) {
            chunk.iter().cloned().for_each(|change| {
                chunked.apply(change);
            });
            follow(&mut chunked, &mut kept_by_chunk);
        }
        let (services, slices, node) = final_state(&changes);
        let mut fresh = cluster(&services, &slices);
        fresh.apply(Change::Node(Box::new(node.unwrap_or_default())));

        let expected = views(&fresh);
        prop_assert_eq!(&views(&stepwise), &expected);
        prop_assert_eq!(&kept, &expected, "some Service was not marked");
        prop_assert_eq!(&kept_by_chunk, &expected, "some Service was not marked");
    }

    #[test]
    fn an_unchanged_service_resolves_to_an_equal_view_and_an_empty_difference(changes in any_changes()) {
        let mut cluster = Cluster::new(config());
        let mut ledger = Ledger::new();
        for change in changes.clone() {
            cluster.apply(change);
        }
        for (name, view) in views(&cluster) {
            let _ = ledger.replace(&name, view.created, entries(&view));
        }
        prop_assert_eq!(ledger.disputes().count(), 0, "two views hold one address");
        let (services, slices, _) = final_state(&changes);
        cluster.take_dirty();
        observe(&mut cluster, &services, &slices);
        prop_assert_eq!(cluster.take_dirty(), vec![]);
        for (name, view) in views(&cluster) {
            prop_assert!(ledger.replace(&name, view.created, entries(&view)).is_empty());
        }
    }

    #[test]
    fn a_view_keeps_its_promises(changes in any_changes()) {
        let mut cluster = Cluster::new(config());
        for change in changes {
            cluster.apply(change);
        }
        for view in views(&cluster).into_values() {
            for port in &view.ports {
                use crate::model::view::EndpointList::{Cluster as Everywhere, Local};
                for (list, endpoints) in [(Everywhere, &port.cluster_endpoints), (Local, &port.local_endpoints)] {
                    let used = port.addresses.iter().any(|address| address.delivers_to(list));
                    prop_assert_eq!(used, !endpoints.is_empty(), "a list is there when a delivery uses it");
                    let distinct: BTreeSet<_> = endpoints.iter().map(|endpoint| (endpoint.ip, endpoint.port)).collect();
                    prop_assert_eq!(distinct.len(), endpoints.len());
                    prop_assert!(endpoints.iter().all(|endpoint| list == Everywhere || endpoint.is_local));
                }
                let lists = port.cluster_endpoints.iter().chain(&port.local_endpoints);
                for endpoint in lists.filter(|_| port.protocol != Protocol::Tcp) {
                    let at = SocketAddr::new(endpoint.ip, endpoint.port);
                    prop_assert!(port.flow_endpoints.binary_search(&at).is_ok(), "new flows to {} would be cut", at);
                }
                for address in &port.addresses {
                    prop_assert_eq!(address.ip.is_none(), address.kind == AddressKind::NodePort);
                    prop_assert_ne!(address.source_ranges.as_deref(), Some(&[][..]));
                }
            }
        }
    }
}
