//! What any API server must bring about.

use std::net::IpAddr;

use kube_proxy::model::change::{Change, Kind};
use kube_proxy::model::object::{Family, IpMode, Protocol, ServiceType, TrafficPolicy};
use kube_proxy::source::api::{ClientOptions, Timing};
use lab::api::Resource;

use crate::observer::{Observed, in_default};
use crate::stage::{NODE, Stage, TIMING, node, service, service_cidr, slice};

/// Each behaviour as a test against the in-process API, and all of them in a table for the real one.
macro_rules! behaviours {
    ($($name:ident),* $(,)?) => {
        pub(crate) const ALL: &[(&str, fn(&Stage))] = &[$((stringify!($name), $name)),*];

        mod in_process {
            use crate::stage::Stage;

            $(
                #[test]
                fn $name() {
                    super::$name(&Stage::in_process());
                }
            )*
        }
    };
}

behaviours![
    an_empty_cluster_is_a_complete_first_state,
    the_first_state_is_everything_there_is,
    what_is_created_changed_and_deleted_is_told,
    a_service_of_another_proxy_is_not_told_and_goes_when_it_becomes_one,
    headless_services_and_their_slices_are_not_told,
    only_this_node_is_told,
    service_cidrs_are_told_and_go,
    json_says_the_same_as_protobuf,
    conditions_that_are_not_set_are_told_from_false,
    a_deletion_while_nobody_watched_shows_in_the_next_list,
    the_last_of_many_changes_is_what_remains,
    a_watch_that_the_server_closes_is_resumed_without_a_new_list,
];

fn an_empty_cluster_is_a_complete_first_state(stage: &Stage) {
    let observed = stage.observe().first_state();
    assert_eq!(observed.service_names(), Vec::<&str>::new());
    assert!(observed.slices.is_empty());
    assert!(observed.nodes.is_empty());
}

fn the_first_state_is_everything_there_is(stage: &Stage) {
    stage.apply(&service("a", "", ""));
    stage.apply(&service("b", "", ""));
    stage.apply(&slice("a-1", "a", "", &["10.244.0.5", "10.244.0.6"]));
    stage.apply(&node(NODE, "zone-1"));
    let observed = stage.observe().first_state();
    assert_eq!(observed.service_names(), ["a", "b"]);
    let slice = observed.slice("a-1").expect("the slice");
    assert_eq!(slice.service.as_deref(), Some("a"));
    assert_eq!(slice.endpoints.len(), 2);
    let node = &observed.nodes.values().next().expect("the node");
    assert_eq!(node.zone.as_deref(), Some("zone-1"));
    assert_eq!(node.addresses, [IpAddr::from([192, 0, 2, 1])]);
    for kind in [Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::ServiceCidr] {
        let of_kind = |change: &&Change| match change {
            Change::ListStart(other) | Change::ListDone(other) => *other == kind,
            Change::Service(_) => kind == Kind::Service,
            Change::EndpointSlice(_) => kind == Kind::EndpointSlice,
            Change::Node(_) => kind == Kind::Node,
            Change::ServiceCidr(_) => kind == Kind::ServiceCidr,
            Change::Kept(other, _) | Change::Deleted(other, _) => *other == kind,
        };
        let changes: Vec<&Change> = observed.changes.iter().filter(of_kind).collect();
        assert_eq!(changes.first(), Some(&&Change::ListStart(kind)));
        assert_eq!(changes.last(), Some(&&Change::ListDone(kind)));
    }
}

fn what_is_created_changed_and_deleted_is_told(stage: &Stage) {
    let observer = stage.observe();
    observer.first_state();
    stage.apply(&service("a", "", ""));
    stage.apply(&slice("a-1", "a", "", &["10.244.0.5"]));
    stage.apply(&node(NODE, "zone-1"));
    let observed = observer.until("all three", |observed| {
        observed.service("a").is_some() && observed.slice("a-1").is_some() && !observed.nodes.is_empty()
    });
    let cluster_ip = observed.service("a").and_then(|service| service.cluster_ip);

    stage.apply(&service("a", "", "externalIPs: [198.51.100.7]"));
    stage.apply(&slice("a-1", "a", "", &["10.244.0.5", "10.244.0.6"]));
    stage.apply(&node(NODE, "zone-2"));
    let zone = |observed: &Observed| observed.nodes.values().next().and_then(|node| node.zone.clone());
    let observed = observer.until("all three changed", |observed| {
        observed
            .service("a")
            .is_some_and(|service| !service.external_ips.is_empty())
            && observed
                .slice("a-1")
                .is_some_and(|slice| slice.endpoints.len() == 2)
            && zone(observed).as_deref() == Some("zone-2")
    });
    let service = observed.service("a").expect("still there");
    assert_eq!(service.cluster_ip, cluster_ip);

    stage.delete(Resource::Services, "a");
    stage.delete(Resource::EndpointSlices, "a-1");
    stage.delete(Resource::Nodes, NODE);
    let observed = observer.until("all three gone", |observed| {
        observed.service("a").is_none() && observed.slice("a-1").is_none() && observed.nodes.is_empty()
    });
    for kind in [Kind::Service, Kind::EndpointSlice, Kind::Node] {
        assert_eq!(observed.lists(kind), 1, "{kind:?} is watched, not listed anew");
    }
}

fn a_service_of_another_proxy_is_not_told_and_goes_when_it_becomes_one(stage: &Stage) {
    let other = "labels: {service.kubernetes.io/service-proxy-name: other}";
    let unnamed = "labels: {service.kubernetes.io/service-proxy-name: \"\"}";
    stage.apply(&service("ours", "", ""));
    stage.apply(&service("others", other, ""));
    stage.apply(&service("unnamed", unnamed, ""));
    let observer = stage.observe();
    assert_eq!(observer.first_state().service_names(), ["ours"]);

    stage.apply(&service("ours", other, ""));
    observer.until("the Service gone", |observed| observed.service("ours").is_none());
    stage.apply(&service("others", "", ""));
    let observed = observer.until("the other one", |observed| observed.service("others").is_some());
    assert_eq!(observed.service_names(), ["others"]);
}

fn headless_services_and_their_slices_are_not_told(stage: &Stage) {
    let headless = "service.kubernetes.io/headless: \"\"";
    stage.apply(&service("headless", "", "clusterIP: None"));
    stage.apply(&slice("headless-1", "headless", headless, &["10.244.0.5"]));
    let observer = stage.observe();
    let observed = observer.first_state();
    assert!(observed.service("headless").is_none());
    assert!(observed.slice("headless-1").is_none());

    stage.apply(&slice("a-1", "a", "", &["10.244.0.5"]));
    observer.until("the slice", |observed| observed.slice("a-1").is_some());
    stage.apply(&slice("a-1", "a", headless, &["10.244.0.5"]));
    observer.until("the slice gone", |observed| observed.slice("a-1").is_none());
}

fn only_this_node_is_told(stage: &Stage) {
    stage.apply(&node("node-2", "zone-1"));
    let observer = stage.observe();
    assert!(observer.first_state().nodes.is_empty());
    stage.apply(&node("node-3", "zone-1"));
    stage.apply(&node(NODE, "zone-1"));
    let observed = observer.until("the node", |observed| !observed.nodes.is_empty());
    let names: Vec<&str> = observed.nodes.keys().map(|name| name.name.as_ref()).collect();
    assert_eq!(names, [NODE]);
}

fn service_cidrs_are_told_and_go(stage: &Stage) {
    stage.apply(&service_cidr("more", "10.98.0.0/16, \"fd00:98::/112\""));
    let observer = stage.observe();
    let observed = observer.first_state();
    let cidrs = |observed: &Observed, name| {
        let cidr = observed.service_cidr(name)?;
        Some(cidr.cidrs.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let both = ["10.98.0.0/16", "fd00:98::/112"].map(str::to_owned).to_vec();
    assert_eq!(cidrs(&observed, "more"), Some(both));
    stage.apply(&service_cidr("another", "10.99.0.0/24"));
    observer.until("another one", |observed| {
        cidrs(observed, "another") == Some(vec!["10.99.0.0/24".to_owned()])
    });
    stage.delete(Resource::ServiceCidrs, "more");
    let observed = observer.until("one gone", |observed| observed.service_cidr("more").is_none());
    assert!(observed.service_cidr("another").is_some());
    assert_eq!(observed.lists(Kind::ServiceCidr), 1);
}

/// A Service, a slice, a Node and a ServiceCIDR that use every field there is.
const EVERYTHING: [&str; 4] = [
    "apiVersion: v1
kind: Service
metadata:
  name: everything
  annotations: {example.com/note: something that nobody reads}
spec:
  type: LoadBalancer
  selector: {app: everything}
  externalIPs: [198.51.100.7]
  loadBalancerSourceRanges: [198.51.100.0/24]
  externalTrafficPolicy: Local
  internalTrafficPolicy: Local
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 77}}
  ports:
  - {name: http, port: 80, targetPort: web, nodePort: 30080}
  - {name: dns, port: 53, targetPort: 5353, protocol: UDP}
  - {name: sig, port: 99, protocol: SCTP}
status:
  loadBalancer:
    ingress:
    - {ip: 203.0.113.9}
    - {ip: 203.0.113.10, ipMode: Proxy}
    - {hostname: lb.example.com}
",
    "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: everything-1
  labels: {kubernetes.io/service-name: everything, endpointslice.kubernetes.io/managed-by: test}
addressType: IPv6
ports:
- {name: http, port: 8080, appProtocol: http}
- {name: dns, port: 5353, protocol: UDP}
endpoints:
- addresses: [\"fd00::5\"]
  conditions: {ready: true, serving: true, terminating: false}
  nodeName: node-1
  zone: zone-1
  targetRef: {kind: Pod, name: p, namespace: default}
  hints: {forZones: [{name: zone-1}], forNodes: [{name: node-1}]}
- addresses: [\"fd00::6\"]
  conditions: {ready: false, serving: true, terminating: true}
  nodeName: node-2
",
    "apiVersion: v1
kind: Node
metadata: {name: node-1, labels: {topology.kubernetes.io/zone: zone-1}}
spec:
  podCIDR: 10.244.0.0/24
  podCIDRs: [10.244.0.0/24, \"fd00:244::/64\"]
  taints: [{key: example.com/taint, effect: NoSchedule}]
status:
  addresses:
  - {type: ExternalIP, address: 198.51.100.1}
  - {type: Hostname, address: node-1}
  - {type: InternalIP, address: 192.0.2.1}
",
    "apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: everything, labels: {example.com/label: x}}
spec: {cidrs: [10.98.0.0/16, \"fd00:98::/112\"]}
",
];

fn json_says_the_same_as_protobuf(stage: &Stage) {
    for object in EVERYTHING {
        stage.apply(object);
    }
    let protobuf = stage.observe().first_state();
    let json = ClientOptions {
        content_type: "application/json".to_owned(),
        ..stage.options()
    };
    let json = stage.observe_with(json, TIMING).first_state();
    assert_eq!(json.services, protobuf.services);
    assert_eq!(json.slices, protobuf.slices);
    assert_eq!(json.nodes, protobuf.nodes);
    assert_eq!(json.service_cidrs, protobuf.service_cidrs);
    assert!(protobuf.service_cidr("everything").is_some());

    let service = protobuf.service("everything").expect("the Service");
    assert_eq!(service.service_type, ServiceType::LoadBalancer);
    assert!(service.created.is_some_and(|created| created > 1_700_000_000));
    assert!(service.cluster_ip.is_some());
    assert_eq!(service.ip_families, [Family::V4]);
    let ports: Vec<_> = service
        .ports
        .iter()
        .map(|port| (port.protocol, port.port))
        .collect();
    assert_eq!(
        ports,
        [(Protocol::Tcp, 80), (Protocol::Udp, 53), (Protocol::Sctp, 99)]
    );
    assert_eq!(service.ports[0].node_port, 30080);
    assert_ne!(service.health_check_node_port, 0);
    assert_eq!(service.session_affinity, Some(77));
    assert_eq!(service.external_traffic_policy, TrafficPolicy::Local);
    assert_eq!(service.internal_traffic_policy, TrafficPolicy::Local);
    assert_eq!(service.source_ranges.len(), 1);
    let modes: Vec<_> = service
        .load_balancer_ingress
        .iter()
        .map(|ingress| ingress.ip_mode)
        .collect();
    assert_eq!(modes, [IpMode::Vip, IpMode::Proxy]);
    let slice = protobuf.slice("everything-1").expect("the slice");
    let hints = slice.endpoints[0].hints.as_ref().expect("hints");
    assert_eq!((hints.zones.len(), hints.nodes.len()), (1, 1));
    assert!(slice.endpoints[1].terminating && !slice.endpoints[1].ready);
}

fn conditions_that_are_not_set_are_told_from_false(stage: &Stage) {
    stage.apply(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a-1, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
ports: [{port: 80}]
endpoints:
- {addresses: [10.244.0.5]}
- {addresses: [10.244.0.6], conditions: {ready: false, serving: false, terminating: true}}
",
    );
    let observed = stage.observe().first_state();
    let slice = observed.slice("a-1").expect("the slice");
    let conditions: Vec<_> = slice
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.ready, endpoint.serving, endpoint.terminating))
        .collect();
    assert_eq!(conditions, [(true, true, false), (false, false, true)]);
    assert_eq!(slice.ports[0].name.as_ref(), "");
}

fn a_deletion_while_nobody_watched_shows_in_the_next_list(stage: &Stage) {
    stage.apply(&service("a", "", ""));
    stage.apply(&service("b", "", ""));
    assert_eq!(stage.observe().first_state().service_names(), ["a", "b"]);
    stage.delete(Resource::Services, "a");
    assert_eq!(stage.observe().first_state().service_names(), ["b"]);
}

fn the_last_of_many_changes_is_what_remains(stage: &Stage) {
    let observer = stage.observe();
    observer.first_state();
    for last in 1..=50 {
        stage.apply(&slice("a-1", "a", "", &[&format!("10.244.1.{last}")]));
    }
    let last = IpAddr::from([10, 244, 1, 50]);
    let observed = observer.until("the last change", |observed| {
        let slice = observed.slice("a-1");
        slice.is_some_and(|slice| slice.endpoints[0].ip == last)
    });
    let told = |change: &Change| match change {
        Change::EndpointSlice(slice) if slice.name == in_default("a-1") => Some(slice.endpoints[0].ip),
        _ => None,
    };
    let told: Vec<IpAddr> = observed.changes.iter().filter_map(told).collect();
    assert!(told.is_sorted(), "{told:?}");
}

fn a_watch_that_the_server_closes_is_resumed_without_a_new_list(stage: &Stage) {
    let timing = Timing {
        watch: std::time::Duration::from_secs(1),
        ..TIMING
    };
    let observer = stage.observe_with(stage.options(), timing);
    observer.first_state();
    // For longer than two watches last.
    for round in 1..=5 {
        stage.apply(&slice("a-1", "a", "", &[&format!("10.244.1.{round}")]));
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    let last = IpAddr::from([10, 244, 1, 5]);
    let observed = observer.until("the last change", |observed| {
        let slice = observed.slice("a-1");
        slice.is_some_and(|slice| slice.endpoints[0].ip == last)
    });
    assert_eq!(observed.lists(Kind::EndpointSlice), 1);
    assert_eq!(observed.lists(Kind::Node), 1);
}
