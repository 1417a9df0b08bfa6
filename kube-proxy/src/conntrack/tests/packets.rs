//! Real flows through a proxied node: what becomes of the entries that they have, and of their next packets. Each
//! is played for UDP and SCTP over both families.

use std::net::UdpSocket;
use std::time::Duration;

use lab::net::address;
use lab::probe::{Outcome, RefusedBy};

use super::stage::{Held, Stage, TCP, Transport, by, lab_family, transports, wait};
use super::table::{inject, list, tracked};
use super::*;
use crate::model::object::Family;

/// A Service `ns/dns` in both families with addresses of every kind; its TCP port has no node port.
pub(super) fn everywhere() -> Service {
    let ips = |at: fn(u8, lab::net::Family) -> IpAddr| {
        let ips = Family::ALL.map(|family| at(1, lab_family(family)).to_string());
        ips.join(" ")
    };
    service(
        "ns/dns",
        &ips(address::cluster_ip),
        "u/UDP:80:30080 s/SCTP:80:30080 t/TCP:80",
    )
    .with_external_ips(&ips(address::external_ip))
    .with_load_balancer(&ips(address::load_balancer_ip))
}

/// A Service with the second cluster IP of each family.
fn other() -> Service {
    let ips = Family::ALL.map(|family| address::cluster_ip(2, lab_family(family)).to_string());
    service("ns/other", &ips.join(" "), "u/UDP:80 s/SCTP:80 t/TCP:80")
}

/// The endpoints of a Service, the same in both families: names of pods, with words as [`testing::endpoint`]
/// takes them.
pub(super) fn pods(stage: &Stage, service: &str, pods: &[&str]) -> [Change; 2] {
    Family::ALL.map(|family| {
        let endpoints: Vec<_> = pods
            .iter()
            .map(|text| {
                let (pod, words) = text.split_once(' ').unwrap_or((text, ""));
                format!("{} {words}", stage.ip(pod, family))
            })
            .collect();
        let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
        let mut slice = slice(
            &format!("ns/{service}-{family}"),
            service,
            "u/UDP:8080 s/SCTP:8080 t/TCP:8080",
            &endpoints,
        );
        slice.family = family;
        apply_slice(slice)
    })
}

/// Where each kind of address of [`everywhere`] is asked from.
pub(super) fn ways(stage: &Stage, over: Transport) -> Vec<(&'static str, SocketAddr)> {
    let family = over.lab_family;
    vec![
        ("x", SocketAddr::new(address::cluster_ip(1, family), 80)),
        ("node-1", SocketAddr::new(address::cluster_ip(1, family), 80)),
        ("client", SocketAddr::new(address::external_ip(1, family), 80)),
        (
            "client",
            SocketAddr::new(address::load_balancer_ip(1, family), 80),
        ),
        ("client", SocketAddr::new(stage.ip("node-1", over.family), 30080)),
        ("x", SocketAddr::new(stage.ip("node-1", over.family), 30080)),
    ]
}

/// Flows over all transports in all ways, answered by this pod.
fn hold_all(stage: &Stage, pod: &str) -> Vec<Held> {
    let mut all = Vec::new();
    for over in transports() {
        for (from, to) in ways(stage, over) {
            let held = stage.hold(over, from, to, by(pod));
            let to_pod = format!(
                "{} > {}",
                held.asked,
                SocketAddr::new(stage.ip(pod, over.family), 8080)
            );
            assert!(stage.entries(&held).contains(&to_pod), "{}", held.what);
            all.push(held);
        }
    }
    all
}

fn refused_by_rule(outcome: &Outcome) -> bool {
    *outcome == Outcome::Refused(RefusedBy::Icmp)
}

#[test]
fn flows_go_to_another_endpoint_when_theirs_is_gone_and_others_and_tcp_stay_as_they_are() {
    let stage = Stage::set();
    stage.begin([apply(everywhere()), apply(other())]);
    stage.send(pods(&stage, "dns", &["a"]));
    stage.send(pods(&stage, "other", &["a"]));
    let held = hold_all(&stage, "a");
    let untouched: Vec<_> = transports()
        .map(|over| {
            let to = SocketAddr::new(address::cluster_ip(2, over.lab_family), 80);
            stage.hold(over, "x", to, by("a"))
        })
        .collect();
    let to = SocketAddr::new(address::cluster_ip(1, TCP.lab_family), 80);
    let tcp = stage.hold(TCP, "x", to, by("a"));
    stage.send(pods(&stage, "dns", &["c"]));
    for flow in &held {
        stage.is_forgotten(flow);
    }
    for flow in &held {
        flow.comes_to(by("c"));
    }
    for flow in untouched {
        assert_eq!(stage.entries(&flow).len(), 1, "{}", flow.what);
        assert!(by("a")(&flow.ask()), "{}", flow.what);
    }
    assert!(by("a")(&tcp.ask()));
}

#[test]
fn flows_to_a_terminating_endpoint_live_on_until_it_serves_no_more() {
    let stage = Stage::set();
    stage.begin([apply(everywhere())]);
    stage.send(pods(&stage, "dns", &["a"]));
    let held = hold_all(&stage, "a");
    stage.send(pods(&stage, "dns", &["a terminating", "b", "c"]));
    // Another one goes at once, so that the flows are looked at.
    stage.send(pods(&stage, "dns", &["a terminating", "c"]));
    stage.settle(101);
    for over in transports() {
        let (from, to) = ways(&stage, over)[0];
        let new = stage.open(over, from, to);
        assert!(by("c")(&new.ask()), "new: {}", new.what);
    }
    for flow in &held {
        assert!(by("a")(&flow.ask()), "{}", flow.what);
    }
    stage.send(pods(&stage, "dns", &["a stopped", "c"]));
    for flow in &held {
        flow.comes_to(by("c"));
    }
}

#[test]
fn flows_are_refused_when_the_last_endpoint_is_gone_and_answered_when_the_first_comes() {
    let stage = Stage::set();
    stage.begin([apply(everywhere())]);
    stage.send(pods(&stage, "dns", &["a"]));
    let held = hold_all(&stage, "a");
    stage.send(pods(&stage, "dns", &[]));
    for flow in &held {
        stage.is_forgotten(flow);
    }
    for flow in &held {
        flow.comes_to(refused_by_rule);
    }
    // A rule that refuses leaves no entry. Who got past it before it was there does.
    let early = |family: Family| {
        let client = SocketAddr::new(stage.ip("x", family), 1000);
        let vip = SocketAddr::new(address::cluster_ip(1, lab_family(family)), 80);
        [Protocol::Udp, Protocol::Sctp]
            .map(|protocol| tracked(&client.to_string(), &format!("{protocol} {vip}")))
    };
    inject(stage.node(), Family::ALL.into_iter().flat_map(early));
    for over in transports() {
        assert_eq!(
            list(stage.node(), over.family, over.protocol).len(),
            1,
            "{over:?}"
        );
    }
    stage.send(pods(&stage, "dns", &["b"]));
    for over in transports() {
        wait(|| match list(stage.node(), over.family, over.protocol) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        });
    }
    for flow in &held {
        flow.comes_to(by("b"));
    }
}

#[test]
fn flows_to_a_deleted_service_reach_its_endpoints_no_more() {
    let stage = Stage::set();
    stage.begin([apply(everywhere())]);
    stage.send(pods(&stage, "dns", &["a"]));
    let held = hold_all(&stage, "a");
    stage.send([delete("ns/dns")]);
    for flow in &held {
        stage.is_forgotten(flow);
    }
    for flow in &held {
        flow.comes_to(|outcome| outcome.answer().is_none());
    }
}

#[test]
fn flows_that_nobody_took_before_go_to_a_service_that_takes_their_destination_now() {
    let stage = Stage::set();
    // Some rules, so that the node tracks flows at all.
    stage.begin([apply(other())]);
    stage.send(pods(&stage, "other", &["a"]));
    for over in transports() {
        let to = SocketAddr::new(address::cluster_ip(2, over.lab_family), 80);
        stage.hold(over, "x", to, by("a"));
    }
    let mut held = Vec::new();
    for over in transports() {
        for (from, to) in ways(&stage, over) {
            let flow = stage.hold(over, from, to, |outcome| outcome.answer().is_none());
            assert!(stage.entries(&flow).contains(&flow.asked), "{}", flow.what);
            held.push(flow);
        }
    }
    let plain = Service {
        external_ips: Vec::new(),
        load_balancer_ingress: Vec::new(),
        service_type: crate::model::object::ServiceType::ClusterIp,
        ports: service("ns/dns", "", "u/UDP:80 s/SCTP:80").ports,
        ..everywhere()
    };
    stage.send(pods(&stage, "dns", &["b"]));
    stage.send([apply(plain)]);
    let (at_cluster_ip, elsewhere): (Vec<_>, Vec<_>) = held.into_iter().partition(|flow| {
        let ip = address::cluster_ip(1, flow.over.lab_family);
        flow.asked.ends_with(&SocketAddr::new(ip, 80).to_string())
    });
    for flow in &at_cluster_ip {
        flow.comes_to(by("b"));
    }
    for flow in &elsewhere {
        assert!(
            stage.entries(flow).contains(&flow.asked),
            "too early: {}",
            flow.what
        );
    }
    stage.send([apply(everywhere())]);
    for flow in &elsewhere {
        flow.comes_to(by("b"));
    }
    for flow in &at_cluster_ip {
        assert!(by("b")(&flow.ask()), "{}", flow.what);
    }
}

#[test]
fn a_flow_to_another_machine_s_port_of_the_same_number_is_no_business_of_ours() {
    let mut stage = Stage::set();
    let node = stage.lab.member("node-2").unwrap();
    let server = lab::serve::Server::start(node, &[30080]).unwrap();
    stage.servers.push(server);
    stage.begin([apply(everywhere())]);
    stage.send(pods(&stage, "dns", &["a"]));
    let ours: Vec<_> = hold_all(&stage, "a");
    let foreign: Vec<_> = transports()
        .map(|over| {
            let to = SocketAddr::new(stage.ip("node-2", over.family), 30080);
            stage.hold(over, "x", to, by("node-2"))
        })
        .collect();
    stage.send(pods(&stage, "dns", &["b"]));
    for flow in &ours {
        stage.is_forgotten(flow);
    }
    for flow in &foreign {
        assert_eq!(
            stage.entries(flow),
            std::slice::from_ref(&flow.asked),
            "{}",
            flow.what
        );
    }
}

#[test]
fn a_restart_ends_the_flows_that_became_stale_meanwhile_and_no_others() {
    let mut stage = Stage::set();
    stage.begin([apply(everywhere()), apply(other())]);
    stage.send(pods(&stage, "dns", &["a"]));
    stage.send(pods(&stage, "other", &["b"]));
    let moving = hold_all(&stage, "a");
    let staying: Vec<_> = transports()
        .map(|over| {
            let to = SocketAddr::new(address::cluster_ip(2, over.lab_family), 80);
            stage.hold(over, "x", to, by("b"))
        })
        .collect();
    stage.stop();
    stage.start();
    let states = [pods(&stage, "dns", &["c"]), pods(&stage, "other", &["b", "c"])];
    let services = [apply(everywhere()), apply(other())];
    stage.begin(services.into_iter().chain(states.into_iter().flatten()));
    for flow in &moving {
        stage.is_forgotten(flow);
    }
    for flow in &staying {
        assert_eq!(stage.entries(flow).len(), 1, "{}", flow.what);
        assert!(by("b")(&flow.ask()), "{}", flow.what);
    }
    for flow in &moving {
        flow.comes_to(by("c"));
    }
}

#[test]
fn nothing_is_looked_through_when_nothing_can_have_become_stale() {
    let stage = Stage::set();
    stage.begin([apply(everywhere())]);
    stage.send(pods(&stage, "dns", &["a"]));
    let held = hold_all(&stage, "a");
    stage.settle(101);
    let before = stage.looks(Family::V4);
    stage.send(pods(&stage, "dns", &["a", "b"]));
    stage.send([apply(everywhere())]);
    let mut web = service("ns/web", "10.96.0.3", "t/TCP:80:30081");
    stage.send([apply(web.clone())]);
    stage.send(pods(&stage, "web", &["a"]));
    web.ports[0].port = 81;
    stage.send([apply(web)]);
    stage.send(pods(&stage, "web", &["b"]));
    stage.send([delete("ns/web")]);
    stage.settle(103);
    assert_eq!(stage.looks(Family::V4), before);
    for flow in &held {
        assert!(by("a")(&flow.ask()), "{}", flow.what);
    }
    // And when something can have, it is.
    stage.send(pods(&stage, "dns", &["b"]));
    stage.settle(105);
    let (looks, deleted) = stage.looks(Family::V4);
    assert!(
        looks > before.0 && deleted > before.1,
        "{looks} looks, {deleted} deleted"
    );
}

#[test]
fn an_answer_that_an_endpoint_owes_when_it_leaves_arrives() {
    let stage = Stage::set();
    let ip = address::cluster_ip(1, lab_family(Family::V4));
    stage.begin([apply(service("ns/slow", &ip.to_string(), "u/UDP:80"))]);
    let endpoint = |pod: &str| {
        let address = stage.ip(pod, Family::V4).to_string();
        apply_slice(slice("ns/slow-1", "slow", "u/UDP:9090", &[&address]))
    };
    let socket = |member: &str, port: u16| {
        let socket = stage.lab.member(member).unwrap().namespace.enter(|| {
            let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            socket
        });
        socket.unwrap()
    };
    let (client, server) = (socket("x", 0), socket("a", 9090));
    stage.send([endpoint("a")]);
    let mut buffer = [0; 8];
    let mut from = None;
    wait(|| {
        client.send_to(b"request", (ip, 80)).unwrap();
        from = server.recv_from(&mut buffer).ok();
        from.map(drop).ok_or_else(|| "no request arrived".to_owned())
    });
    let deleted = || stage.looks(Family::V4);
    let (before, _) = deleted();
    stage.send([endpoint("c")]);
    wait(|| match deleted() {
        (looks, _) if looks > before => Ok(()),
        _ => Err("nobody looked".to_owned()),
    });
    let (_, client_of_server) = from.unwrap();
    server.send_to(b"answer", client_of_server).unwrap();
    let (length, answering) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], answering), (&b"answer"[..], (ip, 80).into()));
}
