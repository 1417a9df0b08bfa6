//! What becomes of traffic, by address and source: the matrix of policies, endpoints and masquerading.

use crate::model::change::Change;
use crate::model::cluster::{Cluster as ObservedCluster, TrafficConfig};
use crate::model::object::{Service, ServiceType, TrafficPolicy};
use crate::model::testing::*;
use crate::model::view::{AddressKind, ServiceView};

use AddressKind::{ClusterIp, ExternalIp, LoadBalancerIp, NodePort};
use TrafficPolicy::{Cluster, Local};

/// Deliveries from pods, the host and outside.
type Row = [&'static str; 3];

/// Name, internal and external policy, endpoints, and what becomes of traffic inside and from outside.
type Case = (
    &'static str,
    TrafficPolicy,
    TrafficPolicy,
    &'static [&'static str],
    Row,
    Row,
);

/// Internal and external policy, endpoints, and whether traffic inside and from outside lacks some.
type LackCase = (
    TrafficPolicy,
    TrafficPolicy,
    &'static [&'static str],
    (bool, bool),
);

/// A Service with every kind of address.
fn full(internal: TrafficPolicy, external: TrafficPolicy) -> Service {
    Service {
        internal_traffic_policy: internal,
        external_traffic_policy: external,
        ..service("ns/web", "172.30.0.1", "p/TCP:80:30080")
            .with_external_ips("192.168.99.11")
            .with_load_balancer("1.2.3.4")
    }
}

fn resolved(config: TrafficConfig, service: &Service, endpoints: &[&str]) -> ServiceView {
    let mut cluster = ObservedCluster::new(config);
    observe(
        &mut cluster,
        [service],
        &[slice("ns/web-a", "web", "p/TCP:80", endpoints)],
    );
    cluster.resolve(&service.name).unwrap()
}

/// The rows of the cluster IP and of the three external kinds, which must be alike.
fn rows(view: &ServiceView) -> (Row, Row) {
    let external = deliveries(view, ExternalIp);
    assert_eq!(deliveries(view, LoadBalancerIp), external);
    assert_eq!(deliveries(view, NodePort), external);
    (deliveries(view, ClusterIp), external)
}

const HERE_AND_THERE: &[&str] = &["10.0.0.1 local", "10.0.0.2"];
const THERE: &[&str] = &["10.0.0.2"];

#[test]
fn sources_are_told_apart_as_the_policies_want() {
    let kept_inside = ["cluster", "cluster snat", "cluster snat"];
    let local_inside = ["local", "local snat", "local snat"];
    let all_masqueraded = ["cluster snat"; 3];
    let short_circuit = ["cluster", "cluster snat", "local"];
    let cases: &[Case] = &[
        (
            "both Cluster",
            Cluster,
            Cluster,
            HERE_AND_THERE,
            kept_inside,
            all_masqueraded,
        ),
        (
            "external Local",
            Cluster,
            Local,
            HERE_AND_THERE,
            kept_inside,
            short_circuit,
        ),
        (
            "internal Local",
            Local,
            Cluster,
            HERE_AND_THERE,
            local_inside,
            all_masqueraded,
        ),
        (
            "both Local",
            Local,
            Local,
            HERE_AND_THERE,
            local_inside,
            short_circuit,
        ),
        (
            "none here, both Cluster",
            Cluster,
            Cluster,
            THERE,
            kept_inside,
            all_masqueraded,
        ),
        (
            "none here, external Local",
            Cluster,
            Local,
            THERE,
            kept_inside,
            ["cluster", "cluster snat", "drop"],
        ),
        (
            "none here, internal Local",
            Local,
            Cluster,
            THERE,
            ["drop"; 3],
            all_masqueraded,
        ),
        (
            "none here, both Local",
            Local,
            Local,
            THERE,
            ["drop"; 3],
            ["cluster", "cluster snat", "drop"],
        ),
        (
            "none, both Cluster",
            Cluster,
            Cluster,
            &[],
            ["reject"; 3],
            ["reject"; 3],
        ),
        (
            "none, external Local",
            Cluster,
            Local,
            &[],
            ["reject"; 3],
            ["reject"; 3],
        ),
        (
            "none, internal Local",
            Local,
            Cluster,
            &[],
            ["reject"; 3],
            ["reject"; 3],
        ),
        (
            "none, both Local",
            Local,
            Local,
            &[],
            ["reject"; 3],
            ["reject"; 3],
        ),
    ];
    for (case, internal, external, endpoints, inside, outside) in cases {
        let view = resolved(config(), &full(*internal, *external), endpoints);
        assert_eq!(rows(&view), (*inside, *outside), "{case}");
    }
}

#[test]
fn masquerading_follows_the_configuration() {
    let undetected = TrafficConfig {
        detects_pods: [false, true],
        ..config()
    };
    let all = TrafficConfig {
        masquerade_all: true,
        ..config()
    };
    let all_undetected = TrafficConfig {
        masquerade_all: true,
        ..undetected.clone()
    };
    let outside = ["cluster snat"; 3];
    let cases: [(&str, &TrafficConfig, Row, Row, Row); 3] = [
        // Without a detector nobody is a pod: no short-circuit, and nothing is known to come from off-cluster.
        (
            "no detector",
            &undetected,
            ["cluster"; 3],
            ["local"; 3],
            ["local", "cluster snat", "local"],
        ),
        (
            "masqueradeAll",
            &all,
            ["cluster snat"; 3],
            ["local snat"; 3],
            ["cluster", "cluster snat", "local"],
        ),
        (
            "masqueradeAll without detector",
            &all_undetected,
            ["cluster snat"; 3],
            ["local snat"; 3],
            ["local", "cluster snat", "local"],
        ),
    ];
    for (case, config, plain, internal_local, external_local) in cases {
        let view = |internal, external| resolved(config.clone(), &full(internal, external), HERE_AND_THERE);
        assert_eq!(rows(&view(Cluster, Cluster)), (plain, outside), "{case}");
        assert_eq!(
            rows(&view(Local, Cluster)),
            (internal_local, outside),
            "{case}, internal Local"
        );
        assert_eq!(
            rows(&view(Cluster, Local)),
            (plain, external_local),
            "{case}, external Local"
        );
        assert_eq!(
            rows(&view(Local, Local)),
            (internal_local, external_local),
            "{case}, both Local"
        );
    }
}

#[test]
fn each_family_has_its_own_detector_and_endpoints() {
    let config = TrafficConfig {
        detects_pods: [true, false],
        ..config()
    };
    let service = service("ns/web", "172.30.0.1 fd00:30::1", "p/TCP:80");
    let mut cluster = ObservedCluster::new(config);
    let slices = [slice("ns/web-6", "web", "p/TCP:80", &["fd00::1"])];
    observe(&mut cluster, [&service], &slices);
    let mut view = cluster.resolve(&service.name).unwrap();
    let six = ServiceView {
        ports: vec![view.ports.remove(1)],
        ..view.clone()
    };
    assert_eq!(deliveries(&view, ClusterIp), ["reject"; 3]);
    assert_eq!(deliveries(&six, ClusterIp), ["cluster"; 3]);
}

#[test]
fn policy_local_outside_counts_for_the_types_that_have_it() {
    let with = |service_type, external_ips| Service {
        external_traffic_policy: Local,
        ..service("ns/web", "172.30.0.1", "p/TCP:80:30080")
            .with_external_ips(external_ips)
            .of_type(service_type)
    };
    let cases = [
        (with(ServiceType::NodePort, ""), "local"),
        (with(ServiceType::LoadBalancer, ""), "local"),
        (with(ServiceType::ClusterIp, "1.2.3.4"), "local"),
        (with(ServiceType::ClusterIp, ""), "cluster snat"),
    ];
    for (service, expected) in cases {
        let view = resolved(config(), &service, HERE_AND_THERE);
        assert_eq!(deliveries(&view, NodePort)[2], expected, "{service:?}");
    }
}

#[test]
fn terminating_endpoints_serve_until_they_are_gone() {
    let steps: &[(&str, &[&str], Row, Row, &str)] = &[
        (
            "ready ones exist",
            &["10.0.0.1 local", "10.0.0.2 local terminating", "10.0.0.3"],
            ["local", "local snat", "local snat"],
            ["cluster", "cluster snat", "local"],
            "p/TCP: 10.0.0.1:80* 10.0.0.3:80 | 10.0.0.1:80*",
        ),
        (
            "only terminating ones here",
            &["10.0.0.1 local terminating", "10.0.0.2 local stopped", "10.0.0.3"],
            ["local", "local snat", "local snat"],
            ["cluster", "cluster snat", "local"],
            "p/TCP: 10.0.0.3:80 | 10.0.0.1:80*",
        ),
        (
            "only terminating ones, elsewhere",
            &["10.0.0.3 terminating"],
            ["drop"; 3],
            ["cluster", "cluster snat", "drop"],
            "p/TCP: 10.0.0.3:80 |",
        ),
        (
            "none that serves",
            &["10.0.0.1 local stopped", "10.0.0.3 unready"],
            ["reject"; 3],
            ["reject"; 3],
            "p/TCP: |",
        ),
        ("all gone", &[], ["reject"; 3], ["reject"; 3], "p/TCP: |"),
    ];
    for (case, list, inside, outside, expected) in steps {
        let view = resolved(config(), &full(Local, Local), list);
        assert_eq!(rows(&view), (*inside, *outside), "{case}");
        assert_eq!(endpoints(&view), [*expected], "{case}");
    }
}

#[test]
fn a_port_says_when_policy_local_leaves_it_without_endpoints() {
    let cases: &[LackCase] = &[
        (Local, Cluster, THERE, (true, false)),
        (Cluster, Local, THERE, (false, true)),
        (Local, Local, THERE, (true, true)),
        (Local, Local, HERE_AND_THERE, (false, false)),
        (
            Local,
            Local,
            &["10.0.0.1 local", "10.0.0.2 local"],
            (false, false),
        ),
        (Local, Local, &[], (false, false)),
        (Cluster, Cluster, THERE, (false, false)),
    ];
    for (internal, external, endpoints, expected) in cases {
        let view = resolved(config(), &full(*internal, *external), endpoints);
        let port = &view.ports[0];
        let lacks = (port.lacks_internal_endpoints(), port.lacks_external_endpoints());
        assert_eq!(lacks, *expected, "{internal:?} {external:?} {endpoints:?}");
    }
}

#[test]
fn endpoints_that_come_and_go_turn_reject_on_and_off() {
    let web = full(Cluster, Cluster);
    let mut cluster = cluster([&web], &[]);
    for endpoints in [&[][..], HERE_AND_THERE, &["10.0.0.1 unready"], THERE] {
        let slice = slice("ns/web-a", "web", "p/TCP:80", endpoints);
        cluster.apply(Change::EndpointSlice(Box::new(slice)));
        let expected = if endpoints.len() > 1 || endpoints == THERE {
            "cluster snat"
        } else {
            "reject"
        };
        assert_eq!(
            deliveries(&cluster.resolve(&web.name).unwrap(), ClusterIp)[1],
            expected
        );
    }
}
