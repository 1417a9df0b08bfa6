//! Node ports at the loopback address, with real packets.

use lab::net::Namespace;
use lab::probe::{self, Outcome};

use super::packets::{Proxied, families_and_protocols, service_address, service_port};
use super::*;

fn localhost(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([127, 0, 0, 1]),
        Family::V6 => "::1".parse().unwrap(),
    }
}

/// A node port on these pods.
fn node_port(proxied: &Proxied, pods: &[&str]) -> ServiceView {
    let ports = families_and_protocols().map(|(family, protocol, _)| {
        let delivery = if pods.is_empty() {
            [Delivery::Reject; 3]
        } else {
            EXTERNAL
        };
        let node_port = service_address(AddressKind::NodePort, None, 30080, delivery);
        service_port(proxied, (family, protocol), pods, &[node_port])
    });
    view("web", ports.collect::<Vec<_>>())
}

fn switch(proxied: &mut Proxied, on: bool) {
    for family in Family::ALL {
        let source = on.then(|| proxied.ip("node-1", family));
        proxied.dataplane.set_localhost_node_ports(family, source);
    }
}

#[test]
fn node_ports_at_the_loopback_address_come_and_go_with_a_source_and_with_their_endpoints() {
    let mut proxied = Proxied::new();
    let served = node_port(&proxied, &["a", "c"]);
    let unserved = node_port(&proxied, &[]);
    for (wanted, view, answers) in [
        (false, &served, false),
        (true, &served, true),
        (true, &unserved, false),
        (true, &served, true),
        (false, &served, false),
    ] {
        switch(&mut proxied, wanted);
        proxied.update(view);
        for (family, _, protocol) in families_and_protocols() {
            // The plan leaves it out.
            if protocol == probe::Protocol::Sctp {
                continue;
            }
            let outcome = proxied.ask("node-1", protocol, SocketAddr::new(localhost(family), 30080));
            let what = format!("{protocol} over {family}: {outcome}");
            match outcome.answer() {
                Some(answer) => assert!(
                    answers && answer.seen_as() == proxied.ip("node-1", family),
                    "{what}"
                ),
                None => assert!(!answers && matches!(outcome, Outcome::Refused(_)), "{what}"),
            }
        }
    }
}

#[test]
fn nobody_outside_reaches_a_node_port_at_the_loopback_address() {
    let mut proxied = Proxied::new();
    let web = node_port(&proxied, &["a", "c"]);
    switch(&mut proxied, true);
    proxied.update(&web);
    let node = proxied.lab.member("node-1").unwrap().namespace.clone();
    node.run("nft", &["add table inet look; add chain inet look pre { type filter hook prerouting priority -500; }; add rule inet look pre iif != lo ip daddr 127.0.0.1 counter"]).unwrap();
    // A neighbour that sends to the loopback address as if it were any other.
    let neighbour = proxied.lab.fabric();
    let sends = ["all", "br-nodes"].map(|link| format!("net/ipv4/conf/{link}/route_localnet"));
    neighbour
        .sysctls(&sends.each_ref().map(|path| (path.as_str(), "1")))
        .unwrap();
    for args in [
        "route del local 127.0.0.1 dev lo table local",
        "route del local 127.0.0.0/8 dev lo table local",
        "-6 route del local ::1 dev lo table local",
    ] {
        ip(neighbour, args);
    }
    for family in Family::ALL {
        let (to, via) = (localhost(family), proxied.ip("node-1", family));
        ip(neighbour, &format!("route add {to} via {via}"));
    }
    let asks = |expected: fn(&Outcome) -> bool| {
        for family in Family::ALL {
            for protocol in [probe::Protocol::Tcp, probe::Protocol::Udp] {
                let request = probe::Request {
                    protocol,
                    to: SocketAddr::new(localhost(family), 30080),
                    timeout: Duration::from_millis(300),
                };
                let outcome = probe::request(neighbour, request).unwrap();
                assert!(expected(&outcome), "{protocol} over {family}: {outcome}");
            }
        }
    };
    asks(|outcome| *outcome == Outcome::Timeout);
    // They did arrive. (Those of IPv6 the kernel drops before any rule sees them.)
    let seen = node
        .run("nft", &["list", "chain", "inet", "look", "pre"])
        .unwrap();
    assert!(
        seen.contains("ip daddr 127.0.0.1 counter") && !seen.contains("packets 0 "),
        "{seen}"
    );
    // Nor where somebody else, for reasons of their own, lets the loopback network in.
    node.sysctls(&[("net/ipv4/conf/all/route_localnet", "1")])
        .unwrap();
    asks(|outcome| outcome.answer().is_none());
}

fn ip(namespace: &Namespace, args: &str) {
    let args: Vec<&str> = args.split(' ').collect();
    namespace.run("ip", &args).unwrap();
}
