//! Session affinity with real packets.

use std::collections::BTreeSet;

use lab::probe;

use super::packets::{Proxied, families_and_protocols, lab_family, service_address, service_port};
use super::*;

const ALL: [&str; 3] = ["a", "b", "c"];

/// A Service at a ClusterIP, a load-balancer IP with externalTrafficPolicy Local, and a node port, with these
/// pods and affinity for so many seconds.
fn sticky(proxied: &Proxied, pods: &[&str], affinity: Option<u32>) -> ServiceView {
    let ports = families_and_protocols().map(|(family, protocol, _)| {
        let addresses = [
            service_address(AddressKind::ClusterIp, virtual_ip(family), 80, OFF_CLUSTER),
            service_address(AddressKind::LoadBalancerIp, lb(family), 80, EXTERNAL_LOCAL),
            service_address(AddressKind::NodePort, None, 30080, EXTERNAL),
        ];
        ServicePortView {
            affinity,
            ..service_port(proxied, (family, protocol), pods, &addresses)
        }
    });
    view("web", ports.collect::<Vec<_>>())
}

fn virtual_ip(family: Family) -> IpAddr {
    lab::net::address::cluster_ip(1, lab_family(family))
}

fn lb(family: Family) -> IpAddr {
    lab::net::address::load_balancer_ip(1, lab_family(family))
}

/// Who answers a number of requests.
fn answering(
    proxied: &Proxied,
    from: &str,
    (family, protocol): (Family, probe::Protocol),
    to: &str,
    count: usize,
) -> BTreeSet<String> {
    let to = match to {
        "virtual-ip" => SocketAddr::new(virtual_ip(family), 80),
        "lb" => SocketAddr::new(lb(family), 80),
        node => SocketAddr::new(proxied.ip(node, family), 30080),
    };
    let ask = |_| {
        let outcome = proxied.ask(from, protocol, to);
        let what = format!("{protocol} from {from} to {to}: {outcome}");
        outcome
            .answer()
            .unwrap_or_else(|| panic!("{what}"))
            .server
            .clone()
    };
    (0..count).map(ask).collect()
}

#[test]
fn a_client_stays_with_its_endpoint_while_others_come_and_go() {
    let mut proxied = Proxied::new();
    let web = sticky(&proxied, &ALL, Some(600));
    proxied.update(&web);
    for (family, _, protocol) in families_and_protocols() {
        for (from, to) in [
            ("b", "virtual-ip"),
            ("client", "virtual-ip"),
            ("client", "node-1"),
            ("node-1", "lb"),
        ] {
            let who = answering(&proxied, from, (family, protocol), to, 12);
            assert_eq!(
                who.len(),
                1,
                "{protocol} over {family} from {from} to {to}: {who:?}"
            );
        }
        let local = answering(&proxied, "client", (family, protocol), "lb", 12);
        assert!(
            local.len() == 1 && !local.contains("c"),
            "{protocol} over {family}: {local:?}"
        );
    }
    let tcp = (Family::V4, probe::Protocol::Tcp);
    let mine = answering(&proxied, "client", tcp, "virtual-ip", 1);
    let mine = mine.first().unwrap().as_str();
    let others: Vec<&str> = ALL.into_iter().filter(|pod| *pod != mine).collect();
    // Others go and come back: the client does not notice.
    for pods in [
        vec![mine],
        vec![others[0], mine],
        vec![others[1], mine],
        ALL.to_vec(),
    ] {
        let web = sticky(&proxied, &pods, Some(600));
        proxied.update(&web);
        let who = answering(&proxied, "client", tcp, "virtual-ip", 8);
        assert_eq!(who, BTreeSet::from([mine.to_owned()]), "with {pods:?}");
    }
    // Its own goes: another one, and it stays with that when the first comes back.
    let web = sticky(&proxied, &others, Some(600));
    proxied.update(&web);
    let who = answering(&proxied, "client", tcp, "virtual-ip", 8);
    assert!(who.len() == 1 && !who.contains(mine), "{who:?}");
    let web = sticky(&proxied, &ALL, Some(600));
    proxied.update(&web);
    assert_eq!(answering(&proxied, "client", tcp, "virtual-ip", 8), who);
    // Switched off: everybody answers.
    let web = sticky(&proxied, &ALL, None);
    proxied.update(&web);
    assert_eq!(answering(&proxied, "client", tcp, "virtual-ip", 40).len(), 3);
}

#[test]
fn a_client_has_one_endpoint_at_all_addresses_of_a_service_port_and_keeps_it_over_a_restart() {
    let mut proxied = Proxied::new();
    let web = sticky(&proxied, &ALL, Some(600));
    proxied.update(&web);
    let cases = || {
        let sources = ["b", "node-1"];
        families_and_protocols().flat_map(move |case| sources.map(move |from| (case, from)))
    };
    let mut first = Vec::new();
    for ((family, _, protocol), from) in cases() {
        let who = answering(&proxied, from, (family, protocol), "virtual-ip", 1);
        for to in ["virtual-ip", "lb", "node-1"] {
            let others = answering(&proxied, from, (family, protocol), to, 8);
            assert_eq!(others, who, "{protocol} over {family} from {from} to {to}");
        }
        first.push(who);
    }
    // Successors; for one of them all numbers are others, since the Service has another name.
    for successor in ["web", "other", "web"] {
        proxied.dataplane = Nftables::new(config());
        let web = ServiceView {
            name: name(successor),
            ..web.clone()
        };
        proxied.update(&web);
        for (((family, _, protocol), from), who) in cases().zip(&first) {
            for to in ["virtual-ip", "node-1"] {
                let now = answering(&proxied, from, (family, protocol), to, 4);
                assert_eq!(&now, who, "{protocol} over {family} from {from} to {to}");
            }
        }
    }
}

/// The kernel puts a transaction in force before it has seen to each of its elements.
#[test]
fn a_client_that_asks_while_a_large_table_is_replaced_keeps_its_endpoint() {
    let mut proxied = Proxied::new();
    let web = sticky(&proxied, &ALL, Some(600));
    let others: Vec<ServiceView> = (0..OTHERS).map(another_service).collect();
    let start = |proxied: &mut Proxied| {
        proxied.dataplane = Nftables::new(config());
        for other in &others {
            proxied.dataplane.update(&other.name, Some(other));
        }
        proxied.update(&web);
    };
    start(&mut proxied);
    // They are known before the first successor reads what is remembered.
    let tcp = probe::Protocol::Tcp;
    let before = Family::ALL.map(|family| answering(&proxied, "client", (family, tcp), "virtual-ip", 1));
    let from = &proxied.lab.member("client").unwrap().namespace;
    let asking = Family::ALL.map(|family| {
        let request = probe::Request {
            // A packet that is under way in the old rules may be lost; TCP sends it again.
            protocol: tcp,
            to: SocketAddr::new(virtual_ip(family), 80),
            timeout: Duration::from_secs(10),
        };
        probe::Steady::start(from, request, Duration::ZERO)
    });
    for _ in 0..8 {
        start(&mut proxied);
    }
    for (steady, before) in asking.into_iter().zip(before) {
        let report = steady.stop_after(1).unwrap();
        assert_eq!(report.failures, []);
        assert_eq!(
            report.shares.by_server.into_keys().collect::<BTreeSet<_>>(),
            before
        );
    }
}

/// How many Services make a table large: so many that the kernel takes some milliseconds for it.
const OTHERS: u8 = 200;

/// A Service with many endpoints, none of which is there.
fn another_service(number: u8) -> ServiceView {
    let at = |service: u8, pod: u8| format!("10.244.{service}.{pod}:8080");
    let endpoints: Vec<String> = (0..50).map(|pod| at(number, pod)).collect();
    let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
    let ip = IpAddr::from([10, 96, 1, number]);
    let address = service_address(AddressKind::ClusterIp, ip, 80, OFF_CLUSTER);
    view(
        &format!("other-{number}"),
        [port(Family::V4, &endpoints, &[address])],
    )
}

#[test]
fn what_is_left_of_the_timeout_is_carried_over_a_restart() {
    let mut proxied = Proxied::new();
    let web = sticky(&proxied, &ALL, Some(600));
    proxied.update(&web);
    let tcp = (Family::V4, probe::Protocol::Tcp);
    answering(&proxied, "client", tcp, "virtual-ip", 1);
    let left = |proxied: &Proxied| {
        let node = &proxied.lab.member("node-1").unwrap().namespace;
        let listed = node
            .run("nft", &["list", "map", "ip", "kube-proxy", "affinity"])
            .unwrap();
        assert_eq!(listed.matches("timeout 10m").count(), 1, "{listed}");
        let expires = listed.split("expires ").nth(1).unwrap();
        expires.split(' ').next().unwrap().to_owned()
    };
    let before = left(&proxied);
    // All of it, as long as the kernel's clock has not ticked.
    assert!(before == "10m" || before.starts_with("9m5"), "{before}");
    std::thread::sleep(Duration::from_millis(1100));
    proxied.dataplane = Nftables::new(config());
    proxied.update(&web);
    let now = left(&proxied);
    assert!(now.starts_with("9m5") && !now.starts_with("9m59"), "{now}");
}

#[test]
fn a_client_that_was_silent_for_the_timeout_is_forgotten() {
    let mut proxied = Proxied::new();
    let web = sticky(&proxied, &ALL, Some(1));
    proxied.update(&web);
    let udp = (Family::V6, probe::Protocol::Udp);
    let mut seen = BTreeSet::new();
    // Random choices differ soon; the bound is for a kernel that never forgets.
    for _ in 0..20 {
        seen.extend(answering(&proxied, "client", udp, "virtual-ip", 1));
        if seen.len() > 1 {
            return;
        }
        std::thread::sleep(Duration::from_millis(1200));
    }
    panic!("{seen:?} only");
}

#[test]
fn what_session_affinity_does_to_a_packet_does_not_leave_the_node() {
    let mut proxied = Proxied::new();
    let web = sticky(&proxied, &ALL, Some(600));
    proxied.update(&web);
    let node = proxied.lab.member("node-1").unwrap().namespace.clone();
    node.run("nft", &["add table inet look; add chain inet look post { type filter hook postrouting priority 300; }; add rule inet look post ct status dnat meta priority != none counter; add rule inet look post ct status dnat counter"]).unwrap();
    for (family, _, protocol) in families_and_protocols() {
        for from in ["b", "node-1", "client"] {
            answering(&proxied, from, (family, protocol), "virtual-ip", 4);
        }
    }
    let listed = node
        .run("nft", &["list", "chain", "inet", "look", "post"])
        .unwrap();
    assert!(listed.contains("!= none counter packets 0 "), "{listed}");
    assert_eq!(listed.matches("counter packets 0 ").count(), 1, "{listed}");
}

/// Two entries of a client mean the same where it asked while a table was replaced.
#[test]
fn of_two_entries_of_a_client_the_one_that_lasts_longer_is_carried_over() {
    let mut node = Node::new(config());
    let web = ServicePortView {
        affinity: Some(600),
        ..port(Family::V4, &["10.244.1.11:8080"], &[cluster_ip("10.96.0.1", 80)])
    };
    let web = view("web", [web]);
    node.update(&web);
    node.commit();
    let listed = node.nft(&["list", "map", "ip", "kube-proxy", "affinity-endpoints"]);
    let (_, number) = listed.split_once("10.96.0.1 . tcp . 80 . ").unwrap();
    let (number, _) = number.split_once(' ').unwrap();
    let (group, _) = number.split_once(':').unwrap();
    let twins: Vec<String> = (1..=16)
        .flat_map(|client| {
            [(group, number, "5m"), ("8001", "8001:1", "9m")].map(|(group, number, left)| {
                format!("{group}:0 . 10.0.0.{client} timeout 10m expires {left} : {number}")
            })
        })
        .collect();
    node.nft(&[&format!(
        "add element ip kube-proxy affinity-endpoints {{ 10.96.0.1 . tcp . 80 . 8001:1 : 10.244.1.11 . 8080 }}; \
         add element ip kube-proxy affinity {{ {} }}",
        twins.join(", ")
    )]);
    node.dataplane = Nftables::new(config());
    node.update(&web);
    node.commit();
    let listed = node.nft(&["list", "map", "ip", "kube-proxy", "affinity"]);
    assert_eq!(listed.matches("expires 8m5").count(), 16, "{listed}");
    assert_eq!(listed.matches("expires").count(), 16, "{listed}");
}
