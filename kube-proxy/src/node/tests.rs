//! Nodes and configurations, and the addresses that follow.

use super::*;

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn node_ips_are_the_first_address_and_the_first_of_the_other_family() {
    type Row = (
        &'static [&'static str],
        Option<&'static str>,
        &'static [&'static str],
        Family,
    );
    let table: &[Row] = &[
        (&[], None, &[], Family::V4),
        (&["10.0.0.1", "10.0.0.2"], None, &["10.0.0.1"], Family::V4),
        (
            &["fd00::1", "10.0.0.1", "fd00::2"],
            None,
            &["10.0.0.1", "fd00::1"],
            Family::V6,
        ),
        (
            &["10.0.0.1", "fd00::1"],
            Some("10.9.9.9"),
            &["10.9.9.9", "fd00::1"],
            Family::V4,
        ),
        (
            &["10.0.0.1"],
            Some("fd00::9"),
            &["10.0.0.1", "fd00::9"],
            Family::V6,
        ),
        (&[], Some("10.9.9.9"), &["10.9.9.9"], Family::V4),
    ];
    for (addresses, override_ip, known, primary) in table {
        let node = Node {
            addresses: ips(addresses),
            ..Node::default()
        };
        let found = NodeIps::of(Some(&node), override_ip.map(|ip| ip.parse().unwrap()));
        assert_eq!(found.known(), ips(known), "{addresses:?}");
        assert_eq!(found.primary, *primary, "{addresses:?}");
    }
}

#[test]
fn node_ports_are_accepted_where_the_configuration_says_and_everywhere_in_a_family_it_does_not_name() {
    let node = |addresses: &[&str]| {
        let node = Node {
            addresses: ips(addresses),
            ..Node::default()
        };
        NodeIps::of(Some(&node), None)
    };
    let only = |texts: &[&str]| NodePortAddresses::Only(ips(texts));
    let networks = |texts: &[&str]| NodePorts::Networks(nets(texts));
    let local = ips(&[
        "127.0.0.1",
        "::1",
        "10.0.0.1",
        "10.0.0.9",
        "192.168.0.1",
        "fd00::1",
        "10.0.0.9",
    ]);
    let all = NodePortAddresses::All;
    let table = [
        (
            NodePorts::Primary,
            node(&["10.0.0.1"]),
            only(&["10.0.0.1"]),
            all.clone(),
        ),
        (
            NodePorts::Primary,
            node(&["10.0.0.1", "fd00::1"]),
            only(&["10.0.0.1"]),
            only(&["fd00::1"]),
        ),
        (NodePorts::Primary, node(&["127.0.0.1"]), all.clone(), all.clone()),
        (
            networks(&["10.0.0.0/8"]),
            node(&[]),
            only(&["10.0.0.1", "10.0.0.9"]),
            all.clone(),
        ),
        (
            networks(&["0.0.0.0/0", "fd00::/8"]),
            node(&[]),
            all.clone(),
            only(&["fd00::1"]),
        ),
        (
            networks(&["127.0.0.0/8", "::/0"]),
            node(&[]),
            only(&[]),
            all.clone(),
        ),
        (
            networks(&["172.16.0.0/12", "192.168.0.1/32"]),
            node(&[]),
            only(&["192.168.0.1"]),
            all,
        ),
    ];
    for (configured, ips, v4, v6) in table {
        assert_eq!(
            node_port_addresses(&configured, Family::V4, &ips, &local),
            v4,
            "{configured:?}"
        );
        assert_eq!(
            node_port_addresses(&configured, Family::V6, &ips, &local),
            v6,
            "{configured:?}"
        );
    }
}

#[test]
fn pods_are_recognised_by_the_first_network_of_the_family_or_by_their_interface() {
    let node = Node {
        pod_cidrs: nets(&["10.1.0.0/24", "10.2.0.0/24", "fd01::/64"]),
        ..Node::default()
    };
    let net = |text: &str| LocalTraffic::Cidr(text.parse().unwrap());
    let cluster = DetectLocal::ClusterCidr {
        v4: Some("10.0.0.0/8".parse().unwrap()),
        v6: None,
    };
    let table = [
        (cluster, net("10.0.0.0/8"), LocalTraffic::Unknown),
        (DetectLocal::NodeCidr, net("10.1.0.0/24"), net("fd01::/64")),
        (
            DetectLocal::BridgeInterface("br0".to_owned()),
            LocalTraffic::Interface("br0".to_owned()),
            LocalTraffic::Interface("br0".to_owned()),
        ),
        (
            DetectLocal::InterfaceNamePrefix("cali".to_owned()),
            LocalTraffic::InterfacePrefix("cali".to_owned()),
            LocalTraffic::InterfacePrefix("cali".to_owned()),
        ),
    ];
    for (configured, v4, v6) in table {
        assert_eq!(local_traffic(&configured, Family::V4, Some(&node)), v4);
        assert_eq!(local_traffic(&configured, Family::V6, Some(&node)), v6);
    }
    assert_eq!(
        local_traffic(&DetectLocal::NodeCidr, Family::V4, None),
        LocalTraffic::Unknown
    );
}

#[test]
fn the_machine_has_a_name() {
    let own = name(None).unwrap();
    assert_eq!(own, own.trim().to_lowercase());
    assert_eq!(name(Some("given")).unwrap(), "given");
}
