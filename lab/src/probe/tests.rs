//! Each outcome, provoked by plain nftables rules.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Connection, Outcome, Protocol, RefusedBy, Request, Steady, request, requests};
use crate::net::{Family, Lab, Topology, address};
use crate::sctp::has_sockets;
use crate::serve::Server;

/// DNAT to `a` and `c` in turn, and what a packet to other ports meets.
fn rules(family: Family) -> String {
    let ip = family.pick("ip", "ip6");
    let [a, c] = [address::pod(1, 1, family), address::pod(2, 1, family)];
    let vip = address::cluster_ip(1, family);
    format!(
        "table {ip} lab {{
           chain to-pods {{ {ip} daddr {vip} th dport 80 dnat to numgen inc mod 2 map {{ 0 : {a}, 1 : {c} }}; }}
           chain pre {{ type nat hook prerouting priority -100; jump to-pods; }}
           chain out {{ type nat hook output priority -100; jump to-pods; }}
           chain post {{ type nat hook postrouting priority 100; ct status dnat masquerade; }}
           chain check {{
             {ip} daddr {vip} meta l4proto {{ tcp, udp, sctp }} th dport 81 reject;
             {ip} daddr {vip} meta l4proto {{ tcp, udp, sctp }} th dport 82 drop;
             {ip} daddr {vip} meta l4proto {{ icmp, icmpv6 }} reject;
           }}
           chain forward {{ type filter hook forward priority 0; jump check; }}
           chain output {{ type filter hook output priority 0; jump check; }}
         }}"
    )
}

fn lab() -> (Lab, Vec<Server>) {
    let lab = Lab::build(&Topology::with_pods(&[("a", 1), ("b", 1), ("c", 2)])).unwrap();
    for family in Family::ALL {
        let node = &lab.member("node-1").unwrap().namespace;
        node.run_with_input("nft", &["-f", "-"], &rules(family)).unwrap();
    }
    let servers = lab.pods().map(|pod| Server::start(pod, &[80]).unwrap()).collect();
    (lab, servers)
}

#[test]
fn requests_are_answered_refused_dropped_or_unreachable_and_the_probe_tells_which() {
    let (lab, _servers) = lab();
    let refused_at_host = |protocol| match protocol {
        Protocol::Tcp | Protocol::Sctp => Outcome::Refused(RefusedBy::Reset),
        _ => Outcome::Refused(RefusedBy::Icmp),
    };
    for family in Family::ALL {
        let vip = address::cluster_ip(1, family);
        for from in ["b", "node-1", "client"] {
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                let ask = |to, port, timeout| {
                    let to = SocketAddr::new(to, port);
                    let timeout = Duration::from_millis(timeout);
                    let from = &lab.member(from).unwrap().namespace;
                    request(
                        from,
                        Request {
                            protocol,
                            to,
                            timeout,
                        },
                    )
                    .unwrap()
                };
                let what = format!("{protocol} over {family} from {from}");
                assert!(ask(vip, 80, 3000).answer().is_some(), "{what}");
                assert_eq!(ask(vip, 81, 3000), Outcome::Refused(RefusedBy::Icmp), "{what}");
                assert_eq!(ask(vip, 82, 200), Outcome::Timeout, "{what}");
                // A raw SCTP probe is no port that could be closed: it sees what comes to its host.
                if protocol != Protocol::Sctp || has_sockets() {
                    let closed = ask(address::node(1, family), 9, 3000);
                    assert_eq!(closed, refused_at_host(protocol), "{what}");
                }
                let nobody = address::pod(1, 77, family);
                if from != "client" {
                    let outcome = ask(nobody, 80, 3000);
                    assert!(matches!(outcome, Outcome::Unreachable(_)), "{what}: {outcome}");
                }
            }
            let request_ = Request {
                protocol: Protocol::Ping,
                to: SocketAddr::new(vip, 0),
                timeout: Duration::from_secs(3),
            };
            let outcome = request(&lab.member(from).unwrap().namespace, request_).unwrap();
            assert_eq!(
                outcome,
                Outcome::Refused(RefusedBy::Icmp),
                "ping over {family} from {from}"
            );
        }
    }
}

#[test]
fn many_requests_are_counted_by_who_answered() {
    let (lab, _servers) = lab();
    let vip = SocketAddr::new(address::cluster_ip(1, Family::V4), 80);
    let ask = Request {
        protocol: Protocol::Tcp,
        to: vip,
        timeout: Duration::from_secs(3),
    };
    let shares = requests(&lab.member("b").unwrap().namespace, ask, 20).unwrap();
    assert_eq!(shares.to_string(), "a: 10, c: 10");
}

#[test]
fn an_open_connection_goes_on_when_the_rules_are_gone_and_steady_new_ones_do_not() {
    let (lab, _servers) = lab();
    let timeout = Duration::from_secs(3);
    let to = SocketAddr::new(address::cluster_ip(1, Family::V4), 80);
    let from = &lab.member("b").unwrap().namespace;
    let open = |protocol| Connection::open(from, protocol, to, timeout).unwrap().unwrap();
    let held = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(open);
    let before: Vec<_> = held.iter().map(|c| c.ask(timeout).unwrap()).collect();
    let request = Request {
        protocol: Protocol::Tcp,
        to,
        timeout: Duration::from_millis(100),
    };
    let steady = Steady::start(from, request, Duration::ZERO);
    std::thread::sleep(Duration::from_millis(50));
    let node = &lab.member("node-1").unwrap().namespace;
    node.run("nft", &["flush chain ip lab to-pods"]).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let after: Vec<_> = held.iter().map(|c| c.ask(timeout).unwrap()).collect();
    assert_eq!(before, after);
    assert!(
        before.iter().all(|outcome| outcome.answer().is_some()),
        "{before:?}"
    );
    let report = steady.stop_after(1).unwrap();
    assert!(
        report.shares.answered() > 0 && report.shares.failed() > 0,
        "{}",
        report.shares
    );
    assert_eq!(report.shares.failed(), report.failures.len());
}
