//! The set of networks out of which ClusterIPs come: which addresses are in it, however it came about.

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::dataplane::nftables::entry::Key;

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// What nft lists of the set.
fn listed(node: &Node, family: Family) -> Vec<IpNet> {
    let text = node.nft(&["list", "set", nft_family(family), "kube-proxy", "service-cidrs"]);
    let (_, elements) = text.split_once("elements = {").unwrap_or_default();
    let elements = elements.split_once('}').unwrap_or_default().0.split(',');
    let whole = |text: &str| text.parse().or_else(|_| text.parse().map(|ip: IpAddr| ip.into()));
    let mut nets: Vec<IpNet> = elements
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(|text| whole(text).unwrap_or_else(|_| panic!("{text:?} is no network")))
        .collect();
    nets.sort_unstable();
    nets
}

fn nft_family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// Whether the kernel finds an address in the set.
fn holds(node: &Node, ip: &str) -> bool {
    let family = nft_family(Family::of(ip.parse().unwrap()));
    let element = format!("{{ {ip} }}");
    let get = ["get", "element", family, "kube-proxy", "service-cidrs", &element];
    node.namespace.run("nft", &get).is_ok()
}

#[test]
fn a_network_holds_its_first_and_last_address_and_not_those_around_it() {
    let cases = [
        (
            "10.96.0.0/16",
            &["10.96.0.0", "10.96.255.255"],
            &["10.95.255.255", "10.97.0.0"] as &[_],
        ),
        (
            "10.96.0.7/32",
            &["10.96.0.7", "10.96.0.7"],
            &["10.96.0.6", "10.96.0.8"],
        ),
        (
            "0.0.0.0/8",
            &["0.0.0.0", "0.255.255.255"],
            &["1.0.0.0", "255.255.255.255"],
        ),
        (
            "240.0.0.0/4",
            &["240.0.0.0", "255.255.255.255"],
            &["239.255.255.255", "0.0.0.0"],
        ),
        ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &[]),
        (
            "fd00:10:96::/112",
            &["fd00:10:96::", "fd00:10:96::ffff"],
            &["fd00:10:95:ffff::", "fd00:10:96::1:0"],
        ),
        (
            "ff00::/8",
            &["ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
            &["fe00::", "::"],
        ),
        ("::/0", &["::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"], &[]),
    ];
    for (cidr, inside, outside) in cases {
        let cidr: IpNet = cidr.parse().unwrap();
        let family = Family::of(cidr.addr());
        let mut node = Node::new(config());
        node.commit();
        let empty = node.nft(&["list", "ruleset"]);
        node.dataplane.set_service_cidrs(family, &[cidr]);
        let report = node.commit();
        assert_eq!((report.messages, report.refused.len()), (1, 0), "{cidr}");
        assert_eq!(listed(&node, family), [cidr]);
        for ip in inside {
            assert!(holds(&node, ip), "{ip} is in {cidr}");
        }
        for ip in outside {
            assert!(!holds(&node, ip), "{ip} is not in {cidr}");
        }
        node.dataplane.set_service_cidrs(family, &[]);
        assert_eq!(node.commit().messages, 1);
        assert_eq!(node.nft(&["list", "ruleset"]), empty);
    }
}

#[test]
fn a_changed_network_costs_its_elements_and_rewrites_no_rule() {
    let mut node = Node::new(config());
    node.dataplane
        .set_service_cidrs(Family::V4, &nets(&["10.96.0.0/16", "172.30.0.0/16"]));
    node.commit();
    let changes: &[(&[&str], usize)] = &[
        // Wider, narrower; one more, beside another without a gap; the one between goes; none; as at first.
        (&["10.96.0.0/12", "172.30.0.0/16"], 2),
        (&["10.96.0.0/24", "172.30.0.0/16"], 2),
        (&["10.96.0.0/24", "10.96.1.0/25", "172.30.0.0/16"], 1),
        (&["10.96.0.0/24", "172.30.0.0/16"], 1),
        (&[], 1),
        (&["10.96.0.0/16", "172.30.0.0/16"], 1),
        (&["10.96.0.0/16", "172.30.0.0/16"], 0),
    ];
    for (cidrs, messages) in changes {
        node.dataplane.set_service_cidrs(Family::V4, &nets(cidrs));
        let report = node.commit();
        assert_eq!((report.messages, report.refused_now), (*messages, 0), "{cidrs:?}");
        assert_eq!(listed(&node, Family::V4), nets(cidrs));
    }
}

#[test]
fn a_network_that_another_hand_removed_is_no_obstacle() {
    let mut node = Node::new(config());
    node.dataplane
        .set_service_cidrs(Family::V4, &nets(&["10.96.0.0/16"]));
    node.commit();
    node.nft(&["flush set ip kube-proxy service-cidrs"]);
    node.dataplane
        .set_service_cidrs(Family::V4, &nets(&["10.112.0.0/12"]));
    let report = node.commit();
    assert_eq!((report.refused.len(), report.refused_now), (0, 0));
    assert_eq!(listed(&node, Family::V4), nets(&["10.112.0.0/12"]));
}

#[test]
fn a_key_takes_no_more_room_for_it() {
    assert_eq!(size_of::<Key>(), 32);
}

fn network() -> impl Strategy<Value = IpNet> {
    let v4 =
        (0..16u32, 28..=32u8).prop_map(|(low, length)| IpNet::new(IpAddr::from(low.to_be_bytes()), length));
    // The last addresses there are.
    let last = (0..16u128, 124..=128u8)
        .prop_map(|(low, length)| IpNet::new(IpAddr::from((u128::MAX - low).to_be_bytes()), length));
    prop_oneof![v4, last].prop_map(|net| net.unwrap().trunc())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_networks_can_follow_any_others(
        states in prop::collection::vec(prop::collection::vec(network(), 0..6), 1..12)
    ) {
        let mut node = Node::new(config());
        node.commit();
        for state in states {
            let all = IpNet::aggregate(&state);
            for family in Family::ALL {
                let of_family: Vec<IpNet> =
                    all.iter().copied().filter(|net| Family::of(net.addr()) == family).collect();
                node.dataplane.set_service_cidrs(family, &of_family);
            }
            let report = node.commit();
            prop_assert_eq!((report.refused.len(), report.refused_now), (0, 0));
            prop_assert_eq!([listed(&node, Family::V4), listed(&node, Family::V6)].concat(), all);
        }
    }
}
