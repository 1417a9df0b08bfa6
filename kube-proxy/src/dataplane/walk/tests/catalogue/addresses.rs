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
        (POD, "TCP 192.168.0.2:30080", "rejected"),
        (CLIENT, "TCP 192.168.0.2:30080", "rejected"),
        (HOST, "TCP 192.168.0.2:30080", "rejected"),
        (POD, "TCP 1.2.3.4:80", "rejected"),
        (CLIENT, "TCP 1.2.3.4:80", "rejected"),
        (CLIENT, "UDP 192.168.0.2:30080", "not ours"),
    ];
    let from_host = ["TCP 192.168.99.11:80", "TCP 1.2.3.4:80"].map(|to| (HOST, to, "rejected", "not ours"));
    let local = full().with_policies(Local, Local);
    for (title, service, endpoints) in [
        ("no endpoints", &full(), &[][..]),
        ("none ready", &full(), &["10.180.0.1 unready"]),
        ("no endpoints, both policies Local", &local, &[]),
    ] {
        let nodes = nodes_of(service, endpoints);
        expect(&nodes, title, &cases);
        expect_but(&nodes, title, Difference::HostToRefusedAddress, &from_host);
    }
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
        (POD, "TCP 172.31.0.0:80", "not ours"),
        // Not by way of a Service: whatever goes to an endpoint itself is left alone.
        ("10.180.0.1", "TCP 10.180.0.1:80", "not ours"),
        (CLIENT, "TCP 10.180.0.1:80", "not ours"),
    ];
    let nodes = Nodes::with(&Setup::default(), &services, &slices);
    expect(&nodes, "", &cases);
    let undefined = [
        (POD, "UDP 172.30.0.41:80"),
        (POD, "TCP 172.30.0.41:443"),
        (POD, "ping 172.30.0.41"),
        (HOST, "ping 172.30.0.41"),
        (CLIENT, "SCTP 172.30.0.41:80"),
    ];
    let undefined = undefined.map(|(from, to)| (from, to, "rejected", "not ours"));
    expect_but(&nodes, "", Difference::UndefinedPort, &undefined);
    let unallocated = [
        (POD, "TCP 172.30.0.40:80"),
        (HOST, "ping 172.30.0.40"),
        (CLIENT, "UDP 172.30.255.255:80"),
    ];
    let unallocated = unallocated.map(|(from, to)| (from, to, "dropped", "not ours"));
    expect_but(&nodes, "", Difference::UnallocatedClusterIp, &unallocated);
}

#[test]
fn ports_of_one_name_are_served_each() {
    let web = service("ns/web", "172.30.0.41", "p/TCP:80:3001 p/TCP:81:3002 p/UDP:80")
        .with_load_balancer("1.2.3.4");
    let nodes = nodes_of(&web, &["10.180.0.1 local"]);
    let served = "10.180.0.1:80 masqueraded";
    let cases = [
        (POD, "TCP 172.30.0.41:80", "10.180.0.1:80"),
        (POD, "TCP 172.30.0.41:81", "10.180.0.1:80"),
        (HOST, "TCP 172.30.0.41:80", served),
        (HOST, "TCP 172.30.0.41:81", served),
        (CLIENT, "TCP 1.2.3.4:80", served),
        (CLIENT, "TCP 1.2.3.4:81", served),
        (CLIENT, "TCP 192.168.0.2:3001", served),
        (CLIENT, "TCP 192.168.0.2:3002", served),
        // The slice has the port for TCP alone.
        (POD, "UDP 172.30.0.41:80", "rejected"),
    ];
    expect(&nodes, "", &cases);
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
    let nodes = Nodes::with(&setup, [&web], [&slices]);
    expect(&nodes, "ranges", &cases);
    let other = [(
        "1.2.3.4",
        "TCP 5.6.7.8:80",
        "dropped",
        "10.180.0.1:80 masqueraded",
    )];
    expect_but(&nodes, "ranges", Difference::HolderOfAnAddress, &other);
    let nodes = Nodes::with(&setup, [&web], []);
    let allowed = [(CLIENT, "TCP 1.2.3.4:80", "rejected")];
    expect(&nodes, "ranges, no endpoints", &allowed);
    let blocked = [(BLOCKED, "TCP 1.2.3.4:80", "dropped", "rejected")];
    let difference = Difference::SourceRangesWithoutEndpoints;
    expect_but(&nodes, "ranges, no endpoints", difference, &blocked);
    for open in ["192.168.0.0/24 0.0.0.0/0", "2001:db8::/32"] {
        let web = web.clone().with_source_ranges(open);
        let cases = [(BLOCKED, "TCP 1.2.3.4:80", "10.180.0.1:80 masqueraded")];
        expect(&Nodes::with(&setup, [&web], [&slices]), open, &cases);
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
        let nodes = Nodes::with(&setup, [&web], &slices);
        expect(&nodes, &format!("{setup:?}"), &always);
        let second = [
            (CLIENT, "TCP 192.168.1.2:3001", second4),
            (HOST, "TCP 192.168.1.2:3001", second4),
            (client6, "TCP [2001:db8:1::2]:3001", second6),
        ];
        expect(&nodes, &format!("{setup:?}"), &second);
        let without = Nodes::with(&setup, [&web], []);
        for (from, to, answer) in second {
            let answer = if answer == "not ours" { answer } else { "rejected" };
            let case = [(from, to, answer, "rejected")];
            let title = format!("no endpoints, {setup:?}");
            expect_but(&without, &title, Difference::RefusedNodePort, &case);
        }
    }
}

#[test]
fn where_no_address_is_chosen_there_are_no_node_ports() {
    let web = service("ns/web", "172.30.0.41 fd00:172:30::41", "p/TCP:80:3001");
    let slices = [
        slice("ns/web-4", "web", "p/TCP:80", &["10.180.0.1 local"]),
        slice("ns/web-6", "web", "p/TCP:80", &["fd00:10:180::1 local"]),
    ];
    let setup = Setup {
        node_port_addresses: [const { NodePortAddresses::Only(Vec::new()) }; 2],
        ..Setup::default()
    };
    let cases = [
        (CLIENT, "TCP 192.168.0.2:3001", "not ours"),
        (HOST, "TCP 192.168.1.2:3001", "not ours"),
        ("2001:db8:2::2", "TCP [2001:db8::2]:3001", "not ours"),
        (POD, "TCP 172.30.0.41:80", "10.180.0.1:80"),
    ];
    expect(&Nodes::with(&setup, [&web], &slices), "", &cases);
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
    let empty = service("ns/empty", "172.30.0.43 fd00:172:30::43", "p/TCP:80:3003");
    let slices = [
        slice("ns/web-4", "web", "p/TCP:80 s/SCTP:80", &["10.180.0.1 local"]),
        slice("ns/web-6", "web", "p/TCP:80", &["fd00:10:180::1 local"]),
        slice("ns/local-4", "local", "p/UDP:80", &["10.180.2.1"]),
    ];
    let (localhost, localhost6) = ("127.0.0.1", "::1");
    let served = "10.180.0.1:80 masqueraded";
    let cases = [
        (localhost, "TCP 127.0.0.1:3001", served),
        (localhost, "UDP 127.0.0.1:3002", "10.180.2.1:80 masqueraded"),
        (localhost, "TCP 127.0.0.1:3002", "not ours"),
    ];
    let differently = [
        (
            localhost6,
            "TCP [::1]:3001",
            "[fd00:10:180::1]:80 masqueraded",
            "not ours",
        ),
        (localhost, "SCTP 127.0.0.1:3001", "not ours", served),
        (localhost, "TCP 127.0.0.2:3001", "not ours", served),
    ];
    let refused = [
        (localhost, "TCP 127.0.0.1:3003", "not ours", "rejected"),
        (localhost6, "TCP [::1]:3003", "not ours", "rejected"),
    ];
    let services = [web, local, empty];
    let nodes = Nodes::with(&Setup::default(), &services, &slices);
    expect(&nodes, "switched on", &cases);
    expect_but(&nodes, "switched on", Difference::LoopbackNodePorts, &differently);
    expect_but(&nodes, "switched on", Difference::RefusedNodePort, &refused);
    let only = |ip| NodePortAddresses::Only(ips(ip));
    let chosen = Setup {
        node_port_addresses: [only("192.168.0.2"), only("2001:db8::2")],
        ..Setup::default()
    };
    expect(
        &Nodes::with(&chosen, &services, &slices),
        "at chosen addresses",
        &cases,
    );
    let setup = Setup {
        localhost: [None, None],
        ..Setup::default()
    };
    let nodes = Nodes::with(&setup, &services, &slices);
    let off = |(from, to)| (from, to, "not ours");
    let all = [
        (localhost, "TCP 127.0.0.1:3001"),
        (localhost, "SCTP 127.0.0.1:3001"),
        (localhost, "TCP 127.0.0.2:3001"),
        (localhost6, "TCP [::1]:3001"),
    ];
    expect(&nodes, "switched off", &all.map(off));
    expect_but(&nodes, "switched off", Difference::RefusedNodePort, &refused);
    // Endpoints are elsewhere, and whose packets are told apart only where they are served.
    let elsewhere = [(localhost, "UDP 127.0.0.1:3002", "not ours", "dropped")];
    expect_but(&nodes, "switched off", Difference::RefusedNodePort, &elsewhere);
}

/// LoadBalancerIngressRouteTypeProxy, and ExternalName Services.
#[test]
fn addresses_that_the_load_balancer_rewrites_itself_are_left_alone() {
    let mut web = full();
    web.load_balancer_ingress[0].ip_mode = crate::model::object::IpMode::Proxy;
    let nodes = nodes_of(&web, &["10.180.0.1 local"]);
    expect(&nodes, "ipMode Proxy", &[(CLIENT, "TCP 1.2.3.4:80", "not ours")]);
    let alias = full().of_type(ServiceType::ExternalName);
    let nodes = nodes_of(&alias, &["10.180.0.1 local"]);
    let external = [(CLIENT, "TCP 192.168.99.11:80", "not ours")];
    expect(&nodes, "ExternalName", &external);
    // Such a Service has no ClusterIP, whatever is left over in the field.
    let left_over = [(POD, "TCP 172.30.0.41:80", "dropped", "not ours")];
    expect_but(
        &nodes,
        "ExternalName",
        Difference::UnallocatedClusterIp,
        &left_over,
    );
}
