//! Which addresses a Service gets.

use crate::model::change::{Change, Kind};
use crate::model::cluster::Cluster;
use crate::model::object::{Family, IpMode, LoadBalancerIngress, Service, ServiceType, TrafficPolicy};
use crate::model::testing::*;
use crate::model::view::HealthCheck;

struct Case {
    name: &'static str,
    service: Service,
    addresses: &'static [&'static str],
}

fn ingress(text: &str, ip_mode: IpMode) -> LoadBalancerIngress {
    LoadBalancerIngress {
        ip: ip(text),
        ip_mode,
    }
}

fn load_balancer(ip_mode: IpMode) -> Service {
    Service {
        load_balancer_ingress: vec![ingress("10.1.2.4", ip_mode)],
        ..service(
            "ns1/lb",
            "172.16.55.11",
            "port3/UDP:8675:30061 port4/UDP:8676:30062",
        )
    }
    .of_type(ServiceType::LoadBalancer)
}

const LOAD_BALANCER_WITHOUT_VIP: &[&str] = &[
    "port3/UDP ClusterIp 172.16.55.11 8675",
    "port3/UDP NodePort IPv4 * 30061",
    "port4/UDP ClusterIp 172.16.55.11 8676",
    "port4/UDP NodePort IPv4 * 30062",
];

const LOAD_BALANCER_WITH_VIP: &[&str] = &[
    "port3/UDP ClusterIp 172.16.55.11 8675",
    "port3/UDP LoadBalancerIp 10.1.2.4 8675",
    "port3/UDP NodePort IPv4 * 30061",
    "port4/UDP ClusterIp 172.16.55.11 8676",
    "port4/UDP LoadBalancerIp 10.1.2.4 8676",
    "port4/UDP NodePort IPv4 * 30062",
];

/// A Service with addresses of both families everywhere but in its cluster IPs.
fn of_both_families(cluster_ips: &str) -> Service {
    service("test/both", cluster_ips, "p/TCP:12345")
        .with_external_ips("8.8.8.8 2001:db8::8")
        .with_load_balancer("8.8.4.4 2001:db8::4")
        .with_source_ranges("0.0.0.0/1 2001:db8::/32")
}

fn unproxied_cases() -> Vec<Case> {
    let headless = |ports| Service {
        headless: true,
        ..service("ns2/headless", "", ports)
    };
    let case = |name, service| Case {
        name,
        service,
        addresses: &[],
    };
    vec![
        case("a headless Service", headless("rpc/UDP:1234")),
        case("a headless Service with SCTP", headless("sip/SCTP:7777")),
        case("a headless Service without ports", headless("")),
        case(
            "a Service without cluster IP",
            service("ns2/none", "", "p/TCP:80:30080").with_external_ips("8.8.8.8"),
        ),
        case(
            "an ExternalName Service, whatever its cluster IP",
            service("ns2/alias", "172.16.55.4", "portz/UDP:1235:5321").of_type(ServiceType::ExternalName),
        ),
        case(
            "a cluster IP that is not of the family it is listed for",
            Service {
                ip_families: vec![Family::V6],
                ..service("ns2/wrong", "172.16.55.4", "p/TCP:80")
            },
        ),
    ]
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "a ClusterIP Service",
            service: service("ns2/cluster-ip", "172.16.55.4", "p1/UDP:1234 p2/UDP:1235"),
            addresses: &[
                "p1/UDP ClusterIp 172.16.55.4 1234",
                "p2/UDP ClusterIp 172.16.55.4 1235",
            ],
        },
        Case {
            name: "a node port counts whatever the type",
            service: service("ns2/node-port", "172.16.55.10", "port1/UDP:345:678 port2/TCP:344"),
            addresses: &[
                "port1/UDP ClusterIp 172.16.55.10 345",
                "port1/UDP NodePort IPv4 * 678",
                "port2/TCP ClusterIp 172.16.55.10 344",
            ],
        },
        Case {
            name: "a load-balancer address of mode VIP, which is the default",
            service: load_balancer(IpMode::default()),
            addresses: LOAD_BALANCER_WITH_VIP,
        },
        Case {
            name: "a load-balancer address of mode Proxy is left to the load balancer",
            service: load_balancer(IpMode::Proxy),
            addresses: LOAD_BALANCER_WITHOUT_VIP,
        },
        Case {
            name: "a load-balancer address counts whatever the type",
            service: load_balancer(IpMode::Vip).of_type(ServiceType::ClusterIp),
            addresses: LOAD_BALANCER_WITH_VIP,
        },
        Case {
            name: "one port number for three protocols",
            service: service("ns/dns", "10.0.0.10", "a/TCP:53 b/UDP:53 c/SCTP:53"),
            addresses: &[
                "a/TCP ClusterIp 10.0.0.10 53",
                "b/UDP ClusterIp 10.0.0.10 53",
                "c/SCTP ClusterIp 10.0.0.10 53",
            ],
        },
        Case {
            name: "an IPv4 cluster IP: all of IPv6 is filtered out",
            service: of_both_families("10.0.0.1"),
            addresses: &[
                "p/TCP ClusterIp 10.0.0.1 12345",
                "p/TCP LoadBalancerIp 8.8.4.4 12345 from 0.0.0.0/1",
                "p/TCP ExternalIp 8.8.8.8 12345",
            ],
        },
        Case {
            name: "an IPv6 cluster IP: all of IPv4 is filtered out",
            service: of_both_families("2001:db8:85a3::8a2e:370:7334"),
            addresses: &[
                "p/TCP ClusterIp 2001:db8:85a3::8a2e:370:7334 12345",
                "p/TCP LoadBalancerIp 2001:db8::4 12345 from 2001:db8::/32",
                "p/TCP ExternalIp 2001:db8::8 12345",
            ],
        },
        Case {
            name: "cluster IPs of both families, IPv6 listed first",
            service: of_both_families("2001:db8::1 10.0.0.1"),
            addresses: &[
                "p/TCP ClusterIp 10.0.0.1 12345",
                "p/TCP LoadBalancerIp 8.8.4.4 12345 from 0.0.0.0/1",
                "p/TCP ExternalIp 8.8.8.8 12345",
                "p/TCP ClusterIp 2001:db8::1 12345",
                "p/TCP LoadBalancerIp 2001:db8::4 12345 from 2001:db8::/32",
                "p/TCP ExternalIp 2001:db8::8 12345",
            ],
        },
        Case {
            name: "an object from before ipFamilies",
            service: Service {
                ip_families: Vec::new(),
                cluster_ips: Vec::new(),
                ..service("ns/old", "10.0.0.1", "p/TCP:80")
            },
            addresses: &["p/TCP ClusterIp 10.0.0.1 80"],
        },
        Case {
            name: "a second cluster IP that could not be parsed costs only its family",
            service: Service {
                cluster_ips: vec![Some(ip("10.0.0.1")), None],
                ip_families: vec![Family::V4, Family::V6],
                ..service("ns/half", "10.0.0.1", "p/TCP:80")
            },
            addresses: &["p/TCP ClusterIp 10.0.0.1 80"],
        },
        Case {
            name: "an address listed twice, and as external IP too, is there once, guarded",
            service: service("ns/twice", "10.0.0.1", "p/TCP:80")
                .with_load_balancer("8.8.8.8 8.8.8.8")
                .with_external_ips("8.8.8.8")
                .with_source_ranges("203.0.113.0/24"),
            addresses: &[
                "p/TCP ClusterIp 10.0.0.1 80",
                "p/TCP LoadBalancerIp 8.8.8.8 80 from 203.0.113.0/24",
            ],
        },
    ]
}

#[test]
fn a_service_gets_the_addresses_that_it_asks_for() {
    for case in cases() {
        let view = view_of(&case.service, &[]);
        assert_eq!(addresses(&view), case.addresses, "{}", case.name);
        assert_eq!(view.conflicts, [], "{}", case.name);
    }
}

#[test]
fn what_is_not_proxied_has_no_view() {
    for case in unproxied_cases() {
        let view = cluster([&case.service], &[]).resolve(&case.service.name);
        assert_eq!(view, None, "{}", case.name);
    }
    assert_eq!(cluster(&[], &[]).resolve(&name("ns/unknown")), None);
}

#[test]
fn source_ranges_restrict_the_load_balancer_address_alone() {
    let cases = [
        ("none at all", "", ""),
        (
            "some",
            "10.0.0.0/8 203.0.113.0/25",
            " from 10.0.0.0/8,203.0.113.0/25",
        ),
        (
            "those of the other family only are no restriction",
            "2001:db8::/32",
            "",
        ),
        ("one of length zero opens to all", "10.0.0.0/8 0.0.0.0/0", ""),
        (
            "two that make up everything open to all",
            "0.0.0.0/1 128.0.0.0/1",
            "",
        ),
        (
            "one of length zero in the other family opens only that",
            "10.0.0.0/8 ::/0",
            " from 10.0.0.0/8",
        ),
        (
            "host bits are cut off, and one inside another is left out",
            "10.9.9.9/8 10.1.0.0/16",
            " from 10.0.0.0/8",
        ),
        (
            "when the node is inside, the address itself is allowed too",
            "192.168.0.0/24",
            " from 5.6.7.8/32,192.168.0.0/24",
        ),
        (
            "the node is inside a range that holds the address anyway",
            "0.0.0.0/2 192.168.0.2/32",
            " from 0.0.0.0/2,192.168.0.2/32",
        ),
    ];
    for (case, ranges, expected) in cases {
        let service = service("ns/lb", "10.0.0.1", "p/TCP:80:30080")
            .with_load_balancer("5.6.7.8")
            .with_external_ips("9.9.9.9")
            .with_source_ranges(ranges);
        let view = view_of(&service, &[]);
        let guarded = format!("p/TCP LoadBalancerIp 5.6.7.8 80{expected}");
        let open = [
            "p/TCP ClusterIp 10.0.0.1 80",
            "p/TCP ExternalIp 9.9.9.9 80",
            "p/TCP NodePort IPv4 * 30080",
        ];
        assert_eq!(addresses(&view), [open[0], &guarded, open[1], open[2]], "{case}");
    }
}

#[test]
fn source_ranges_follow_the_addresses_of_the_node() {
    let restricted = service("ns/lb", "10.0.0.1", "p/TCP:80")
        .with_load_balancer("5.6.7.8")
        .with_source_ranges("192.168.0.0/24");
    let open = service("ns/open", "10.0.0.2", "p/TCP:80").with_load_balancer("5.6.7.9");
    let mut cluster = cluster([&restricted, &open], &[]);
    let line = |cluster: &Cluster| addresses(&cluster.resolve(&restricted.name).unwrap()).remove(1);
    let expected = "p/TCP LoadBalancerIp 5.6.7.8 80 from";
    assert_eq!(line(&cluster), format!("{expected} 5.6.7.8/32,192.168.0.0/24"));
    cluster.take_dirty();
    for (ips, touched, ranges) in [
        (vec![ip("192.168.1.2")], true, "192.168.0.0/24"),
        (vec![ip("192.168.1.2")], false, "192.168.0.0/24"),
        (
            vec![ip("192.168.0.9"), ip("fd00::9")],
            true,
            "5.6.7.8/32,192.168.0.0/24",
        ),
        (vec![], true, "192.168.0.0/24"),
    ] {
        cluster.set_node_ips(ips.clone());
        let dirty = cluster.take_dirty();
        assert_eq!(dirty == [restricted.name.clone()], touched, "{ips:?}: {dirty:?}");
        assert_eq!(line(&cluster), format!("{expected} {ranges}"), "{ips:?}");
    }
}

#[test]
fn affinity_is_carried_to_every_port() {
    for (wanted, expected) in [(None, None), (Some(10800), Some(10800)), (Some(0), None)] {
        let service = Service {
            session_affinity: wanted,
            ..service("ns/web", "10.0.0.1 2001:db8::1", "a/TCP:80 b/UDP:80")
        };
        let view = view_of(&service, &[]);
        let affinities: Vec<_> = view.ports.iter().map(|port| port.affinity).collect();
        assert_eq!(affinities, [expected; 4]);
    }
}

#[test]
fn only_a_load_balancer_of_policy_local_wants_a_health_check() {
    let with = |service_type, external_traffic_policy, health_check_node_port| Service {
        service_type,
        external_traffic_policy,
        health_check_node_port,
        ..service("ns/lb", "10.0.0.1", "p/TCP:80:30080")
    };
    let wanted = HealthCheck {
        port: 345,
        local_endpoints: [Some(0), None],
    };
    let cases = [
        (
            with(ServiceType::LoadBalancer, TrafficPolicy::Local, 345),
            Some(wanted),
        ),
        (with(ServiceType::LoadBalancer, TrafficPolicy::Local, 0), None),
        (with(ServiceType::LoadBalancer, TrafficPolicy::Cluster, 345), None),
        (with(ServiceType::NodePort, TrafficPolicy::Local, 345), None),
    ];
    for (service, expected) in cases {
        let view = view_of(&service, &[]);
        assert_eq!(view.health_check, expected, "{service:?}");
    }
}

/// The views of all Services named so far, as addresses.
fn all_addresses(cluster: &Cluster, names: &[&str]) -> Vec<String> {
    let views = names.iter().filter_map(|text| cluster.resolve(&name(text)));
    views.flat_map(|view| addresses(&view)).collect()
}

#[test]
fn services_come_and_go() {
    let one = service("a/one", "172.16.55.1", "p1/UDP:1234 p2/UDP:1235");
    let two = service("b/two", "172.16.55.2", "p1/TCP:80");
    let headless = Service {
        headless: true,
        ..service("b/headless", "", "p/TCP:80")
    };
    let mut cluster = cluster(&[one, two, headless], &[]);
    let all = ["a/one", "b/two", "b/headless"];
    assert_eq!(
        cluster.take_dirty(),
        [name("a/one"), name("b/headless"), name("b/two")]
    );
    assert_eq!(all_addresses(&cluster, &all).len(), 3);

    observe(
        &mut cluster,
        &[service("a/one", "172.16.55.1", "p2/UDP:1235")],
        &[],
    );
    cluster.apply(Change::Deleted(Kind::Service, name("b/two")));
    cluster.apply(Change::Deleted(Kind::Service, name("b/never-seen")));
    assert_eq!(cluster.take_dirty(), [name("a/one"), name("b/two")]);
    assert_eq!(
        all_addresses(&cluster, &all),
        ["p2/UDP ClusterIp 172.16.55.1 1235"]
    );
}

#[test]
fn a_service_may_change_its_type_back_and_forth() {
    let plain = service("a/web", "172.16.55.1", "p/TCP:80");
    let balanced = service("a/web", "172.16.55.1", "p/TCP:80:30080").with_load_balancer("1.2.3.4");
    let alias = plain.clone().of_type(ServiceType::ExternalName);
    let mut cluster = Cluster::new(config());
    for (service, expected) in [
        (&plain, 1),
        (&balanced, 3),
        (&balanced, 3),
        (&alias, 0),
        (&plain, 1),
    ] {
        observe(&mut cluster, [service], &[]);
        assert_eq!(all_addresses(&cluster, &["a/web"]).len(), expected);
    }
}
