//! Where Services are, and where they are not.

use super::*;

/// NoEndpointsReject.
#[test]
fn a_service_without_endpoints_refuses_at_every_address() {
    let cases = [
        (POD, "TCP 172.30.0.41:80", "rejected"),
        (HOST, "TCP 172.30.0.41:80", "rejected"),
        (CLIENT, "TCP 172.30.0.41:80", "rejected"),
        (CLIENT, "TCP 192.168.99.11:80", "rejected"),
        (HOST, "TCP 192.168.99.11:80", "rejected"),
        (POD, "TCP 192.168.0.2:30080", "rejected"),
        (CLIENT, "TCP 192.168.0.2:30080", "rejected"),
        (HOST, "TCP 192.168.0.2:30080", "rejected"),
        (POD, "TCP 1.2.3.4:80", "rejected"),
        (CLIENT, "TCP 1.2.3.4:80", "rejected"),
        (HOST, "TCP 1.2.3.4:80", "rejected"),
        (CLIENT, "UDP 192.168.0.2:30080", "not ours"),
    ];
    expect(&node_of(&full(), &[]), "no endpoints", &cases);
    expect(&node_of(&full(), &["10.180.0.1 unready"]), "none ready", &cases);
    let local = full().with_policies(Local, Local);
    expect(&node_of(&local, &[]), "no endpoints, both policies Local", &cases);
}

/// ClusterIPGeneral.
#[test]
fn a_cluster_ip_leads_to_the_endpoints_of_the_port_and_of_no_other() {
    let services = [
        service("ns/one", "172.30.0.41", "http/TCP:80"),
        service("ns/two", "172.30.0.42", "http/TCP:80 https/TCP:443"),
        service("ns/dns", "172.30.0.43", "t/TCP:53 u/UDP:53 s/SCTP:53"),
    ];
    let slices = [
        slice("ns/one-a", "one", "http/TCP:80", &["10.180.0.1 local"]),
        slice(
            "ns/two-a",
            "two",
            "http/TCP:8080 https/TCP:8443",
            &["10.180.0.1 local", "10.180.2.1"],
        ),
        slice(
            "ns/dns-a",
            "dns",
            "t/TCP:8053 u/UDP:8054 s/SCTP:8055",
            &["10.180.2.1"],
        ),
    ];
    let cases = [
        (POD, "TCP 172.30.0.41:80", "10.180.0.1:80"),
        ("10.180.0.1", "TCP 172.30.0.41:80", "10.180.0.1:80 masqueraded"),
        (POD, "TCP 172.30.0.42:443", "10.180.0.1:8443 10.180.2.1:8443"),
        (POD, "TCP 172.30.0.42:80", "10.180.0.1:8080 10.180.2.1:8080"),
        (
            "10.180.0.1",
            "TCP 172.30.0.42:80",
            "10.180.2.1:8080; 10.180.0.1:8080 masqueraded",
        ),
        (POD, "TCP 172.30.0.43:53", "10.180.2.1:8053"),
        (POD, "UDP 172.30.0.43:53", "10.180.2.1:8054"),
        (POD, "SCTP 172.30.0.43:53", "10.180.2.1:8055"),
        (POD, "UDP 172.30.0.41:80", "rejected"),
        (POD, "TCP 172.30.0.41:443", "rejected"),
        (POD, "ping 172.30.0.41", "rejected"),
        (HOST, "ping 172.30.0.41", "rejected"),
        (CLIENT, "SCTP 172.30.0.41:80", "rejected"),
        // Nobody's, of those that ClusterIPs come from, and of others.
        (POD, "TCP 172.30.0.40:80", "dropped"),
        (HOST, "ping 172.30.0.40", "dropped"),
        (CLIENT, "UDP 172.30.255.255:80", "dropped"),
        (POD, "TCP 172.31.0.0:80", "not ours"),
        // Not by way of a Service: whatever goes to an endpoint itself is left alone.
        ("10.180.0.1", "TCP 10.180.0.1:80", "not ours"),
        (CLIENT, "TCP 10.180.0.1:80", "not ours"),
    ];
    expect(&Node::with(&Setup::default(), &services, &slices), "", &cases);
}

/// LoadBalancer.
#[test]
fn source_ranges_guard_load_balancer_addresses_alone() {
    let web = service("ns/web", "172.30.0.41", "p/TCP:80:3001")
        .with_external_ips("192.168.99.11")
        .with_load_balancer("1.2.3.4 5.6.7.8")
        .with_source_ranges("192.168.0.0/24 203.0.113.0/25 2001:db8::/32");
    let mut cases = vec![
        (POD, "TCP 172.30.0.41:80", "10.180.0.1:80"),
        (CLIENT, "TCP 192.168.0.2:3001", "10.180.0.1:80 masqueraded"),
        (BLOCKED, "TCP 192.168.0.2:3001", "10.180.0.1:80 masqueraded"),
        (BLOCKED, "TCP 192.168.99.11:80", "10.180.0.1:80 masqueraded"),
        // Only this port of the address is guarded.
        (BLOCKED, "TCP 1.2.3.4:81", "not ours"),
        (BLOCKED, "UDP 1.2.3.4:80", "not ours"),
    ];
    for [to, itself] in [["TCP 1.2.3.4:80", "1.2.3.4"], ["TCP 5.6.7.8:80", "5.6.7.8"]] {
        cases.extend([
            (CLIENT, to, "10.180.0.1:80 masqueraded"),
            ("203.0.113.127", to, "10.180.0.1:80 masqueraded"),
            ("203.0.113.128", to, "dropped"),
            ("203.0.112.255", to, "dropped"),
            (BLOCKED, to, "dropped"),
            (POD, to, "dropped"),
            (HOST, to, "10.180.0.1:80 masqueraded"),
            // The other address of the node is outside of the ranges.
            ("192.168.1.2", to, "dropped"),
            // The node holds the address itself, as some clouds have it.
            (itself, to, "10.180.0.1:80 masqueraded"),
        ]);
    }
    let setup = Setup {
        interface_addresses: ips("192.168.0.2 192.168.1.2 1.2.3.4 5.6.7.8"),
        ..Setup::default()
    };
    let slices = slice("ns/web-a", "web", "p/TCP:80", &["10.180.0.1 local"]);
    expect(&Node::with(&setup, [&web], [&slices]), "ranges", &cases);
    let cases = [
        (CLIENT, "TCP 1.2.3.4:80", "rejected"),
        (BLOCKED, "TCP 1.2.3.4:80", "dropped"),
    ];
    expect(&Node::with(&setup, [&web], []), "ranges, no endpoints", &cases);
    for open in ["192.168.0.0/24 0.0.0.0/0", "2001:db8::/32"] {
        let web = web.clone().with_source_ranges(open);
        let cases = [(BLOCKED, "TCP 1.2.3.4:80", "10.180.0.1:80 masqueraded")];
        expect(&Node::with(&setup, [&web], [&slices]), open, &cases);
    }
}

/// NodePorts: which of the node's addresses, by family and configuration.
#[test]
fn node_ports_are_served_at_the_chosen_addresses() {
    let web = service("ns/web", "172.30.0.41 fd00:172:30::41", "p/TCP:80:3001");
    let slices = [
        slice("ns/web-4", "web", "p/TCP:80", &["10.180.0.1 local"]),
        slice("ns/web-6", "web", "p/TCP:80", &["fd00:10:180::1 local"]),
    ];
    let (yes4, yes6) = ("10.180.0.1:80 masqueraded", "[fd00:10:180::1]:80 masqueraded");
    let client6 = "2001:db8:2::2";
    let always = [
        (POD, "TCP 172.30.0.41:80", "10.180.0.1:80"),
        (
            "fd00:10:180::99",
            "TCP [fd00:172:30::41]:80",
            "[fd00:10:180::1]:80",
        ),
        (CLIENT, "TCP 192.168.0.2:3001", yes4),
        (HOST, "TCP 192.168.0.2:3001", yes4),
        (POD, "TCP 192.168.0.2:3001", yes4),
        (client6, "TCP [2001:db8::2]:3001", yes6),
        ("2001:db8::2", "TCP [2001:db8::2]:3001", yes6),
        // Other nodes' are none of ours.
        (CLIENT, "TCP 192.168.0.3:3001", "not ours"),
    ];
    let only = |addresses| NodePortAddresses::Only(ips(addresses));
    let all = NodePortAddresses::All;
    for (chosen, second4, second6) in [
        ([all.clone(), all.clone()], yes4, yes6),
        ([only("192.168.0.2"), all], "not ours", yes6),
        ([only("192.168.0.2"), only("2001:db8::2")], "not ours", "not ours"),
        (
            [only("192.168.0.2 192.168.1.2"), only("2001:db8::2")],
            yes4,
            "not ours",
        ),
    ] {
        let setup = Setup {
            node_port_addresses: chosen,
            ..Setup::default()
        };
        let node = Node::with(&setup, [&web], &slices);
        expect(&node, &format!("{setup:?}"), &always);
        let second = [
            (CLIENT, "TCP 192.168.1.2:3001", second4),
            (HOST, "TCP 192.168.1.2:3001", second4),
            (client6, "TCP [2001:db8:1::2]:3001", second6),
        ];
        expect(&node, &format!("{setup:?}"), &second);
        let without = Node::with(&setup, [&web], []);
        let refused = |answer: &str| {
            if answer == "not ours" {
                "not ours"
            } else {
                "rejected"
            }
        };
        let second = second.map(|(from, to, answer)| (from, to, refused(answer)));
        expect(&without, &format!("no endpoints, {setup:?}"), &second);
    }
}

/// NodePorts: localhost.
#[test]
fn node_ports_are_served_at_the_loopback_address_unless_that_is_switched_off() {
    let web = service(
        "ns/web",
        "172.30.0.41 fd00:172:30::41",
        "p/TCP:80:3001 s/SCTP:80:3001",
    );
    let local = service("ns/local", "172.30.0.42", "p/UDP:80:3002")
        .of_type(ServiceType::NodePort)
        .with_policies(Anywhere, Local);
    let empty = service("ns/empty", "172.30.0.43", "p/TCP:80:3003");
    let slices = [
        slice("ns/web-4", "web", "p/TCP:80 s/SCTP:80", &["10.180.0.1 local"]),
        slice("ns/web-6", "web", "p/TCP:80", &["fd00:10:180::1 local"]),
        slice("ns/local-4", "local", "p/UDP:80", &["10.180.2.1"]),
    ];
    let (localhost, localhost6) = ("127.0.0.1", "::1");
    let cases = [
        (localhost, "TCP 127.0.0.1:3001", "10.180.0.1:80 masqueraded"),
        (localhost6, "TCP [::1]:3001", "[fd00:10:180::1]:80 masqueraded"),
        (localhost, "UDP 127.0.0.1:3002", "10.180.2.1:80 masqueraded"),
        (localhost, "TCP 127.0.0.1:3003", "not ours"),
        (localhost, "TCP 127.0.0.1:3002", "not ours"),
        (localhost, "SCTP 127.0.0.1:3001", "not ours"),
        (localhost, "TCP 127.0.0.2:3001", "not ours"),
    ];
    let services = [web, local, empty];
    let node = Node::with(&Setup::default(), &services, &slices);
    expect(&node, "switched on", &cases);
    let setup = Setup {
        localhost: [None, None],
        ..Setup::default()
    };
    let off = cases.map(|(from, to, _)| (from, to, "not ours"));
    expect(&Node::with(&setup, &services, &slices), "switched off", &off);
}

/// LoadBalancerIngressRouteTypeProxy, and ExternalName Services.
#[test]
fn addresses_that_the_load_balancer_rewrites_itself_are_left_alone() {
    let mut web = full();
    web.load_balancer_ingress[0].ip_mode = crate::model::object::IpMode::Proxy;
    let node = node_of(&web, &["10.180.0.1 local"]);
    expect(&node, "ipMode Proxy", &[(CLIENT, "TCP 1.2.3.4:80", "not ours")]);
    let alias = full().of_type(ServiceType::ExternalName);
    let node = node_of(&alias, &["10.180.0.1 local"]);
    let cases = [
        // Such a Service has no ClusterIP, whatever is left over in the field.
        (POD, "TCP 172.30.0.41:80", "dropped"),
        (CLIENT, "TCP 192.168.99.11:80", "not ours"),
    ];
    expect(&node, "ExternalName", &cases);
}
