//! The first commit: whatever was there before is replaced, without a moment without rules.

use lab::net::{self, Lab, Topology};
use lab::probe::{self, Connection, Request, Steady};
use lab::serve::Server;

use super::super::takeover::remove_tables;
use super::*;

/// A predecessor's tables in upstream's shape: a chain per Service, verdict maps, sets, endpoints in rules.
const PREDECESSOR: &str = r#"
table ip kube-proxy {
    comment "rules for kube-proxy"
    set cluster-ips { type ipv4_addr; elements = { 10.96.0.1, 10.96.0.2 } }
    set affinity-ABCDEFGH-default/gone/tcp/__10.244.2.11/8080 { type ipv4_addr; flags dynamic,timeout; timeout 30s; }
    map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
    map no-endpoint-services {
        type ipv4_addr . inet_proto . inet_service : verdict
        elements = { 10.96.0.2 . tcp . 80 comment "default/gone:http" : goto reject-chain }
    }
    chain reject-chain { reject; }
    chain service-ABCDEFGH-default/web/tcp/http {
        meta l4proto tcp dnat ip to numgen random mod 1 map { 0 : 10.244.1.11 . 8080 }
    }
    chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
    chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
    chain nat-output { type nat hook output priority -100; jump services; }
    chain masquerading { ip saddr 10.244.0.0/16 return; masquerade fully-random; }
    chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
    chain filter-forward { type filter hook forward priority 0; ct state new ip daddr @cluster-ips reject; }
}
add element ip kube-proxy service-ips { 10.96.0.1 . tcp . 80 : goto service-ABCDEFGH-default/web/tcp/http }
table ip6 kube-proxy {
    chain reject-chain { reject; }
}
table ip other {
    chain mine { drop; }
}
"#;

fn web(endpoints: &[&str]) -> ServiceView {
    view(
        "web",
        [port(Family::V4, endpoints, &[cluster_ip("10.96.0.1", 80)])],
    )
}

#[test]
fn the_tables_after_a_take_over_are_those_of_a_fresh_start_and_others_stay() {
    let mut fresh = Node::new(config());
    fresh.nft(&["add table ip other; add chain ip other mine; add rule ip other mine drop"]);
    fresh.update(&web(&["10.244.1.11:8080"]));
    fresh.commit();
    let mut successor = Node::new(config());
    let predecessor = &successor.namespace;
    predecessor
        .run_with_input("nft", &["-f", "-"], PREDECESSOR)
        .unwrap();
    successor.update(&web(&["10.244.1.11:8080"]));
    let report = successor.commit();
    assert_eq!(
        (report.refused, report.refused_now, report.again_after),
        (vec![], 0, None)
    );
    let tables = |node: &Node| {
        let list = |family| node.nft(&["list", "table", family, "kube-proxy"]);
        [
            list("ip"),
            list("ip6"),
            node.nft(&["list", "table", "ip", "other"]),
        ]
    };
    assert_eq!(tables(&successor), tables(&fresh));
}

#[test]
fn our_own_tables_are_taken_over_by_a_restarted_process() {
    let mut node = Node::new(config());
    node.update(&web(&["10.244.1.11:8080", "10.244.1.12:8080"]));
    node.commit();
    let before = node.nft(&["list", "ruleset"]);
    node.dataplane = Nftables::new(config());
    node.update(&web(&["10.244.1.11:8080", "10.244.1.12:8080"]));
    node.commit();
    assert_eq!(node.nft(&["list", "ruleset"]), before);
    // It knows what it put there.
    node.update(&web(&["10.244.1.11:8080", "10.244.1.13:8080"]));
    assert_eq!(node.commit().messages, 2);
}

#[test]
fn no_request_fails_and_no_connection_breaks_while_successors_take_over() {
    let lab = Lab::build(&Topology::with_pods(&[("a", 1), ("b", 1)])).unwrap();
    let _server = Server::start(lab.member("a").unwrap(), &[8080]).unwrap();
    let node = &lab.member("node-1").unwrap().namespace;
    node.run_with_input("nft", &["-f", "-"], PREDECESSOR).unwrap();
    let a = lab.member("a").unwrap().ip(net::Family::V4);
    let request = Request {
        protocol: probe::Protocol::Tcp,
        to: "10.96.0.1:80".parse().unwrap(),
        timeout: Duration::from_secs(3),
    };
    let from = &lab.member("b").unwrap().namespace;
    let open = Connection::open(from, request.protocol, request.to, request.timeout);
    let open = open.unwrap().unwrap();
    let steady = Steady::start(from, request, Duration::ZERO);
    for _ in 0..20 {
        let mut successor = Nftables::new(config());
        let web = web(&[&format!("*{a}:8080")]);
        successor.update(&web.name, Some(&web));
        let report = node
            .enter(|| crate::dataplane::commit(&mut successor))
            .unwrap()
            .unwrap();
        assert_eq!(report.refused, []);
    }
    let report = steady.stop_after(1).unwrap();
    assert!(report.shares.answered() > 0);
    assert_eq!(report.failures, []);
    assert!(open.ask(request.timeout).unwrap().answer().is_some());
}

/// What is left when a process is stopped while it takes over: which tables, and which of them the kernel calls.
#[test]
fn whatever_a_predecessor_left_that_was_stopped_while_it_took_over_is_taken_over_in_turn() {
    let views = |node: &mut Node, endpoint: &str| node.update(&web(&[endpoint]));
    let mut fresh = Node::new(config());
    views(&mut fresh, "10.244.1.11:8080");
    fresh.commit();
    let expected = fresh.nft(&["list", "ruleset"]);
    let stand_in = || Config {
        table: "kube-proxy-stand-in".to_owned(),
        ..config()
    };
    let uncalled = |node: &Node, table: &str| {
        for family in ["ip", "ip6"] {
            for chain in node
                .nft(&["list", "table", family, table])
                .split("chain ")
                .skip(1)
            {
                if chain.contains(" hook ") {
                    let name = chain.split(' ').next().unwrap();
                    node.nft(&["delete", "chain", family, table, name]);
                }
            }
        }
    };
    for (table, its_stand_in) in [
        (None, Some(true)),
        (None, Some(false)),
        (Some(true), Some(true)),
        (Some(true), Some(false)),
        (Some(false), Some(true)),
        (Some(false), Some(false)),
        (Some(false), None),
    ] {
        let mut node = Node::new(config());
        for (config, called) in [(config(), table), (stand_in(), its_stand_in)] {
            if let Some(called) = called {
                let name = config.table.clone();
                node.dataplane = Nftables::new(config);
                views(&mut node, "10.244.1.12:8080");
                node.commit();
                if !called {
                    uncalled(&node, &name);
                }
            }
        }
        node.dataplane = Nftables::new(config());
        views(&mut node, "10.244.1.11:8080");
        node.commit();
        let found = node.nft(&["list", "ruleset"]);
        assert_eq!(found, expected, "{table:?}, stand-in {its_stand_in:?}");
    }
}

#[test]
fn tables_are_removed_with_their_stand_ins_and_not_those_of_others() {
    let mut node = Node::new(config());
    node.nft(&["add table ip other; add chain ip other mine; add rule ip other mine drop"]);
    let before = node.nft(&["list", "ruleset"]);
    for table in ["kube-proxy", "kube-proxy-stand-in"] {
        node.dataplane = Nftables::new(Config {
            table: table.to_owned(),
            ..config()
        });
        node.update(&web(&["10.244.1.11:8080"]));
        node.commit();
    }
    node.namespace.enter(remove_tables).unwrap().unwrap();
    assert_eq!(node.nft(&["list", "ruleset"]), before);
}
