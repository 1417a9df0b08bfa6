//! By which way packets go, and what they carry when they come to its end.

use super::*;

/// A ClusterIP and node port with these endpoints.
fn web(endpoints: &[&str]) -> Nodes {
    let web = service("ns/web", "172.30.0.41", "p/TCP:80:30080");
    let slice = slice("ns/web-a", "web", "p/TCP:8080", endpoints);
    Nodes::with(&Setup::default(), [&web], [&slice])
}

#[test]
fn sources_are_replaced_on_the_way_out_only() {
    // Endpoints on the host network of this node and of another one.
    let nodes = web(&["192.168.0.2 local", "192.168.0.3"]);
    let to = "TCP 172.30.0.41:80";
    let cases = [
        (CLIENT, to, "192.168.0.2:8080; 192.168.0.3:8080 masqueraded"),
        (HOST, to, "192.168.0.2:8080 192.168.0.3:8080 masqueraded"),
        (POD, to, "192.168.0.2:8080 192.168.0.3:8080"),
    ];
    expect(&nodes, "", &cases);
}

#[test]
fn what_the_host_sends_to_itself_comes_in_again() {
    // Node ports without endpoints are refused where packets come in, and nowhere else.
    expect(&web(&[]), "", &[(HOST, "TCP 192.168.1.2:30080", "rejected")]);
}

#[test]
fn packets_of_a_known_connection_go_where_the_first_one_went() {
    let endpoint = "10.180.0.1:8080".parse().unwrap();
    let known = |redirected, masqueraded| Connection::Established {
        redirected,
        masqueraded,
    };
    for endpoints in [&[][..], &["10.180.0.1 local"], &["10.180.2.1"]] {
        for (mode, node) in &web(endpoints).0 {
            for (connection, expected) in [
                (known(Some(endpoint), true), "10.180.0.1:8080 masqueraded"),
                (known(Some(endpoint), false), "10.180.0.1:8080"),
                (known(None, false), "not ours"),
                (Connection::Related, "not ours"),
            ] {
                let packet = Packet {
                    connection,
                    ..node.packet(CLIENT, "TCP 172.30.0.41:80")
                };
                let is = text(&node.walk(&packet));
                assert_eq!(is, expected, "{mode}: {connection:?} with {endpoints:?}");
            }
        }
    }
}

/// DropInvalidRule.
#[test]
fn what_conntrack_cannot_place_is_passed_on_unless_the_mode_drops_it() {
    for (mode, node) in &web(&["10.180.0.1 local"]).0 {
        let drops = Difference::InvalidPackets.is_in(*mode);
        for (to, forwarded) in [("TCP 172.30.0.41:80", true), ("TCP 192.168.0.2:30080", false)] {
            let packet = Packet {
                connection: Connection::Invalid,
                ..node.packet(CLIENT, to)
            };
            let expected = if drops && forwarded { "dropped" } else { "not ours" };
            assert_eq!(text(&node.walk(&packet)), expected, "{mode}: {to}");
        }
    }
}

/// MasqueradeRule.
#[test]
fn a_mark_that_another_program_set_is_obeyed_and_cleared() {
    for (mode, node) in &web(&["10.180.0.1 local"]).0 {
        let marked = Packet {
            mark: 0x4001,
            ..node.packet(POD, "TCP 198.51.100.7:443")
        };
        let paths = node.walk(&marked);
        assert_eq!(
            (text(&paths).as_str(), paths[0].mark),
            ("masqueraded", 1),
            "{mode}"
        );
    }
}

#[test]
fn local_policy_is_seen_through_the_sources() {
    let web = service("ns/web", "172.30.0.41", "p/TCP:80")
        .with_load_balancer("1.2.3.4")
        .with_policies(Anywhere, Local);
    let slice = slice("ns/web-a", "web", "p/TCP:80", &["10.180.2.1"]);
    let prefix = LocalTraffic::InterfacePrefix("veth".to_owned());
    let bridge = LocalTraffic::Interface("cbr0".to_owned());
    for (detector, interface, expected) in [
        (&prefix, "veth7", "10.180.2.1:80"),
        (&prefix, "eth0", "dropped"),
        (&bridge, "cbr0", "10.180.2.1:80"),
        (&bridge, "cbr01", "dropped"),
    ] {
        let setup = Setup {
            local_traffic: [detector.clone(), LocalTraffic::Unknown],
            ..Setup::default()
        };
        for (mode, node) in &Nodes::with(&setup, [&web], [&slice]).0 {
            let packet = Packet {
                origin: Origin::Interface(interface.to_owned()),
                ..node.packet(POD, "TCP 1.2.3.4:80")
            };
            let is = text(&node.walk(&packet));
            assert_eq!(is, expected, "{mode}: {detector:?}, {interface}");
        }
    }
}

#[test]
fn a_node_port_may_be_behind_an_address_that_is_served_already() {
    // Though to nobody outside.
    let by_address = service("ns/one", "172.30.0.41", "p/TCP:30080")
        .with_external_ips(HOST)
        .with_policies(Anywhere, Local);
    let by_node_port = service("ns/two", "172.30.0.42", "p/TCP:80:30080");
    let slices = ["one", "two"].map(|name| slice(&format!("ns/{name}-a"), name, "p/TCP:80", &["10.180.2.1"]));
    let nodes = Nodes::with(&Setup::default(), [&by_address, &by_node_port], &slices);
    let served = "10.180.2.1:80 masqueraded";
    let behind = [(CLIENT, "TCP 192.168.0.2:30080", "dropped", served)];
    expect_but(&nodes, "", Difference::NodePortBehindAddress, &behind);
    expect(&nodes, "", &[(CLIENT, "TCP 192.168.1.2:30080", served)]);
}

#[test]
fn an_address_comes_before_a_node_port_at_the_same_address() {
    let by_address = service("ns/one", "172.30.0.41", "p/TCP:30080").with_external_ips(HOST);
    let by_node_port = service("ns/two", "172.30.0.42", "p/TCP:80:30080");
    let slices = [("one", "10.180.2.1"), ("two", "10.180.2.2")]
        .map(|(name, endpoint)| slice(&format!("ns/{name}-a"), name, "p/TCP:80", &[endpoint]));
    let nodes = Nodes::with(&Setup::default(), [&by_address, &by_node_port], &slices);
    let cases = [
        (CLIENT, "TCP 192.168.0.2:30080", "10.180.2.1:80 masqueraded"),
        (CLIENT, "TCP 192.168.1.2:30080", "10.180.2.2:80 masqueraded"),
    ];
    expect(&nodes, "", &cases);
}

#[test]
fn a_client_comes_back_to_its_endpoint_by_any_address_of_the_port_and_in_time() {
    let web = service("ns/web", "172.30.0.41", "p/TCP:80:30080").with_affinity(600);
    for (mode, mut node) in nodes_of(&web, &["10.180.0.1", "10.180.0.2"]).0 {
        let seconds = |seconds| std::time::Duration::from_secs(seconds);
        let packet = node.packet(CLIENT, "TCP 172.30.0.41:80");
        for first in node.walk(&packet) {
            let expected = first.outcome.to_string();
            (node.surroundings.memory, node.surroundings.now) = (first.memory, seconds(599));
            let second = node.walk(&node.packet(CLIENT, "TCP 192.168.0.2:30080")).remove(0);
            assert_eq!(second.outcome.to_string(), expected, "{mode}");
            node.surroundings.memory = second.memory;
            for (now, expected) in [
                (1198, expected.as_str()),
                (1200, "10.180.0.1:80 10.180.0.2:80 masqueraded"),
            ] {
                node.surroundings.now = seconds(now);
                assert_eq!(text(&node.walk(&packet)), expected, "{mode}, after {now} s");
            }
            (node.surroundings.memory, node.surroundings.now) = (Memory::new(), seconds(0));
        }
    }
}
