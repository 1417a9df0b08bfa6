//! nft lists every kind of object that there can be, in words that an operator understands and that it can
//! load again. nft 1.0.6 aborts on rules that it could not have written, and with it every `nft list ruleset`.

use super::*;
use crate::dataplane::nftables::chain::{Chain, Entitlement, Reach, Sources};
use crate::dataplane::nftables::transaction::Transaction;

/// What nft 1.0.6 prints for [`every_kind_of_element`]; `UPDATE_SNAPSHOTS=1` writes it anew.
const SNAPSHOT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/src/dataplane/nftables/tests/listing.txt"
);

/// One Service with every kind of address, in both families.
fn every_kind_of_element(node: &mut Node) {
    let elsewhere = [CLUSTER, CLUSTER_MASQUERADED, Delivery::Drop];
    let of_family = |family, endpoints: [&str; 2], ips: [&'static str; 5], range: &str| {
        let [cluster, lb, external, local, none] = ips;
        let restricted = ServiceAddress {
            source_ranges: Some(vec![range.parse().unwrap()]),
            ..address(AddressKind::LoadBalancerIp, lb, 80, EXTERNAL_LOCAL)
        };
        let web = [
            cluster_ip(cluster, 80),
            restricted,
            address(AddressKind::ExternalIp, external, 80, EXTERNAL),
            address(AddressKind::ExternalIp, local, 80, elsewhere),
            address(AddressKind::ExternalIp, none, 80, [Delivery::Reject; 3]),
            address(AddressKind::NodePort, None, 30080, EXTERNAL_LOCAL),
        ];
        let sticky = ServicePortView {
            port_name: "sticky".into(),
            affinity: Some(10_800),
            ..port(
                family,
                &endpoints,
                &[
                    cluster_ip(cluster, 81),
                    address(AddressKind::NodePort, None, 30082, EXTERNAL_LOCAL),
                ],
            )
        };
        let unnamed = ServicePortView {
            port_name: "".into(),
            protocol: Protocol::Udp,
            ..port(
                family,
                &[],
                &[address(AddressKind::NodePort, None, 30081, [Delivery::Drop; 3])],
            )
        };
        [port(family, &endpoints, &web), sticky, unnamed]
    };
    let v4 = of_family(
        Family::V4,
        ["*10.244.1.11:8080", "10.244.2.11:8080"],
        [
            "10.96.0.1",
            "203.0.113.1",
            "198.51.100.1",
            "198.51.100.2",
            "198.51.100.3",
        ],
        "192.0.2.0/24",
    );
    let v6 = of_family(
        Family::V6,
        ["*[fd00:10:244:1::11]:8080", "[fd00:10:244:2::11]:8080"],
        [
            "fd00:10:96::1",
            "2001:db8:1b::1",
            "2001:db8:e::1",
            "2001:db8:e::2",
            "2001:db8:e::3",
        ],
        "2001:db8:c::/64",
    );
    node.update(&view("web", v4.into_iter().chain(v6)));
    let addresses = vec!["192.168.50.11".parse().unwrap()];
    node.dataplane
        .set_node_port_addresses(Family::V4, NodePortAddresses::Only(addresses));
    for (family, source) in [(Family::V4, "192.168.50.11"), (Family::V6, "fd00:50::11")] {
        let source = Some(source.parse().unwrap());
        node.dataplane.set_localhost_node_ports(family, source);
    }
    let cidrs = [
        (Family::V4, ["10.96.0.0/16", "255.0.0.0/8"]),
        (Family::V6, ["fd00:10:96::/112", "ff00::/8"]),
    ];
    for (family, cidrs) in cidrs {
        let cidrs = cidrs.map(|cidr| cidr.parse().unwrap());
        node.dataplane.set_service_cidrs(family, &cidrs);
    }
}

#[test]
fn the_table_lists_as_recorded() {
    let mut node = Node::new(config());
    every_kind_of_element(&mut node);
    assert_eq!(node.commit().refused, []);
    let listed = node.nft(&["list", "ruleset"]);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(SNAPSHOT, &listed).unwrap();
    }
    assert_eq!(listed, std::fs::read_to_string(SNAPSHOT).unwrap());
    let table = node.nft(&["list", "table", "ip", "kube-proxy"]);
    assert!(listed.starts_with(&table), "{table}");
    assert!(node.nft(&["-j", "list", "ruleset"]).contains("service-endpoints"));
}

#[test]
fn what_is_in_force_does_not_differ_from_the_plan() {
    let mut node = Node::new(config());
    every_kind_of_element(&mut node);
    let planned = node.dataplane.planned();
    let all: Vec<String> = planned
        .iter()
        .flat_map(|(place, lines)| lines.lines.iter().map(move |line| format!("{place}: {line}")))
        .collect();
    for line in [
        "ip kube-proxy set service-cidrs: 10.96.0.0/16",
        "ip kube-proxy set service-cidrs: 255.0.0.0/8",
        "ip6 kube-proxy set service-cidrs: ff00::/8",
        "ip6 kube-proxy set source-ranges: 2001:db8:1b::1 . tcp . 80 . 2001:db8:c::/64",
        "ip kube-proxy map affinity-slots: 10.96.0.1 . tcp . 81 . 0 : ba07:dcaf",
        "ip kube-proxy map no-endpoint-services: 198.51.100.3 . tcp . 80 comment \"default/web:http\" : goto reject-chain",
        "ip kube-proxy chain localhost/output: ip saddr == 127.0.0.1 ip daddr == 127.0.0.1 \
         meta l4proto . th dport @localhost-nodeports ip saddr set 192.168.50.11",
        "ip6 kube-proxy chain endpoints-2-affinity-10800s-masquerade-host-outside: \
         update @affinity { meta priority & 0xffff0000 . ip6 saddr timeout 10800s : meta priority } \
         comment \"for a client without one\"",
        "ip kube-proxy chain nat-prerouting: type nat hook prerouting priority -100",
    ] {
        assert!(all.iter().any(|there| there == line), "{line} is not in {all:#?}");
    }
    node.commit();
    let Node { namespace, dataplane } = &mut node;
    assert_eq!(namespace.enter(|| dataplane.differences()).unwrap().unwrap(), []);
    node.nft(&["flush", "map", "ip6", "kube-proxy", "affinity-slots"]);
    let Node { namespace, dataplane } = &mut node;
    let found = namespace.enter(|| dataplane.differences()).unwrap().unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].missing.len(), 2, "{found:?}");
}

#[test]
fn what_nft_lists_it_can_load_again() {
    let mut node = Node::new(config());
    every_kind_of_element(&mut node);
    node.commit();
    assert_loads_again(&node);
}

#[test]
fn every_chain_that_can_be_needed_lists_however_pods_are_told_from_others() {
    for local_traffic in [
        ["10.244.0.0/16", "fd00:10:244::/48"].map(|net| LocalTraffic::Cidr(net.parse().unwrap())),
        ["10.244.16.0/20", "fd00:10:244::/61"].map(|net| LocalTraffic::Cidr(net.parse().unwrap())),
        ["10.244.1.7/32", "fd00:10:244::7/128"].map(|net| LocalTraffic::Cidr(net.parse().unwrap())),
        [LocalTraffic::Interface("cbr0".to_owned()), LocalTraffic::Unknown],
        [
            LocalTraffic::Unknown,
            LocalTraffic::InterfacePrefix("veth".to_owned()),
        ],
    ] {
        let mut node = Node::new(Config {
            local_traffic,
            ..Config::default()
        });
        node.commit();
        let mut transaction = Transaction::new("kube-proxy");
        for family in Family::ALL {
            for chain in every_chain(family) {
                transaction.chain(family, &node.dataplane.config.rules(family).chain(chain));
            }
        }
        let sealed = transaction.seal();
        let Node { namespace, dataplane } = &mut node;
        let failures = namespace.enter(|| dataplane.kernel.send(&sealed, &mut CommitReport::default()));
        assert_eq!(failures.unwrap().unwrap(), []);
        assert_loads_again(&node);
    }
}

/// nft lists the ruleset, also as JSON; loaded into an empty namespace, the text lists the same.
fn assert_loads_again(node: &Node) {
    let listed = node.nft(&["list", "ruleset"]);
    assert!(node.nft(&["-j", "list", "ruleset"]).starts_with('{'));
    let other = Namespace::create("reloaded").unwrap();
    other.run_with_input("nft", &["-f", "-"], &listed).unwrap();
    assert_eq!(other.run("nft", &["list", "ruleset"]).unwrap(), listed);
}

fn every_chain(family: Family) -> Vec<Chain> {
    let mut chains = Vec::new();
    for reach in [Reach::Address, Reach::NodePort] {
        for list in [EndpointList::Cluster, EndpointList::Local] {
            for bits in 0..8 {
                chains.push(Chain::Endpoints {
                    reach,
                    list,
                    masquerade: Sources {
                        pods: bits & 1 != 0,
                        host: bits & 2 != 0,
                        outside: bits & 4 != 0,
                    },
                    count: 3,
                    affinity: (bits == 6 && family == Family::V4).then_some(10_800),
                });
            }
        }
        let to = |list, masquerade| Entitlement::To {
            list,
            masquerade,
            count: 3,
        };
        let entitlements = [
            to(EndpointList::Cluster, false),
            to(EndpointList::Local, true),
            Entitlement::Nothing,
        ];
        for pods in entitlements {
            for host in entitlements {
                for outside in entitlements {
                    chains.push(Chain::BySource {
                        reach,
                        pods,
                        host,
                        outside,
                        affinity: None,
                    });
                }
            }
        }
    }
    chains
}
