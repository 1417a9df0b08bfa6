//! How kube-ipvs0 goes when another mode has taken over: with addresses and sockets, and without IPVS or dummy devices, which
//! few kernels have; a bridge bears its name.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use lab::net::Namespace;

use super::super::cleanup::{remove_device, retire_device};

/// A node with addresses of Services, the way to the world, and one address for each family.
fn node() -> Namespace {
    let node = Namespace::create("retiring").unwrap();
    let batch = "link set lo up\n\
        link add eth0 type bridge\n\
        link set eth0 up\n\
        addr add 192.168.0.2/24 dev eth0\n\
        addr add fd01::2/64 dev eth0 nodad\n\
        route add default via 192.168.0.1\n\
        route add ::/0 via fd01::1\n\
        link add kube-ipvs0 type bridge\n\
        addr add 10.96.0.1/32 dev kube-ipvs0\n\
        addr add 10.96.0.2/32 dev kube-ipvs0\n\
        addr add fd00::1/128 dev kube-ipvs0 nodad\n\
        addr add fd00::2/128 dev kube-ipvs0 nodad\n";
    node.run_with_input("ip", &["-batch", "-"], batch).unwrap();
    // As on a node that has Services: connections are tracked from their beginning.
    let tracked =
        "table inet others { chain input { type filter hook input priority 0; ct state new accept; }; }";
    node.run_with_input("nft", &["-f", "-"], tracked).unwrap();
    node
}

/// The route to an address, as `ip` shows it.
fn route(node: &Namespace, to: &str) -> String {
    node.run("ip", &["route", "get", to]).unwrap()
}

fn rules(node: &Namespace) -> String {
    node.run("nft", &["list", "ruleset"]).unwrap()
}

fn on_device(node: &Namespace, ip: &str) -> bool {
    let list = node.run("ip", &["-o", "addr", "show"]).unwrap();
    list.lines()
        .any(|line| line.contains("kube-ipvs0") && line.contains(&format!(" {ip}/")))
}

fn retire(node: &Namespace, again: bool) -> usize {
    node.enter(|| retire_device(again)).unwrap().unwrap()
}

#[test]
fn addresses_that_a_socket_of_the_host_sends_from_stay_until_it_is_closed() {
    let node = node();
    let connect = |ip: &str| {
        let at = format!("{ip}:80");
        node.enter(|| {
            let listener = TcpListener::bind(&at).unwrap();
            let stream = TcpStream::connect(&at).unwrap();
            (listener.accept().unwrap(), stream)
        })
        .unwrap()
    };
    let held = [connect("10.96.0.1"), connect("[fd00::1]")];
    for (again, expected) in [(false, 2), (true, 2)] {
        assert_eq!(retire(&node, again), expected);
        for (ip, stays) in [
            ("10.96.0.1", true),
            ("fd00::1", true),
            ("10.96.0.2", false),
            ("fd00::2", false),
        ] {
            assert_eq!(on_device(&node, ip), stays, "{ip}");
        }
    }
    // Who connects now does not need them.
    for (ip, source) in [("10.96.0.1", "192.168.0.2"), ("fd00::1", "fd01::2")] {
        let route = route(&node, ip);
        assert!(
            route.contains("local ") && route.contains(&format!("src {source} ")),
            "{route}"
        );
    }
    let refused = || rules(&node);
    for rule in [
        "ip daddr 10.96.0.1 ct state new reject",
        "ip6 daddr fd00::1 ct state new reject",
    ] {
        assert!(refused().contains(rule), "{}", refused());
    }
    drop(held);
    // The last packets may be under way.
    let is_done = |_| {
        std::thread::sleep(Duration::from_millis(10));
        retire(&node, true) == 0
    };
    assert!((0..1000).any(is_done), "{}", rules(&node));
    let links = node.run("ip", &["-o", "link"]).unwrap();
    assert!(!links.contains("kube-ipvs0"), "{links}");
    assert!(!refused().contains("lingering"), "{}", refused());
    for ip in ["10.96.0.1", "10.96.0.2", "fd00::1", "fd00::2"] {
        assert!(!route(&node, ip).contains("local "), "{ip}");
    }
}

#[test]
fn a_cleanup_waits_for_nobody() {
    let node = node();
    let held = node.enter(|| {
        let listener = TcpListener::bind("10.96.0.1:80").unwrap();
        (TcpStream::connect("10.96.0.1:80").unwrap(), listener)
    });
    assert_eq!(retire(&node, false), 1);
    node.enter(remove_device).unwrap().unwrap();
    assert!(!on_device(&node, "10.96.0.1"));
    assert!(!route(&node, "10.96.0.1").contains("local "));
    assert!(!rules(&node).contains("lingering"), "{}", rules(&node));
    drop(held);
}

#[test]
fn a_node_without_the_device_has_nothing_to_wait_for() {
    let node = Namespace::create("retiring").unwrap();
    assert_eq!(retire(&node, false), 0);
}
