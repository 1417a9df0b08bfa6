//! The books: what a change can have made stale, and when it is looked at.

use super::*;
use crate::model::object::{Family, ServicePort, TrafficPolicy};

/// A change of a cluster.
struct Case {
    what: &'static str,
    before: Vec<Change>,
    change: Vec<Change>,
    /// Where to look after it.
    due: &'static [&'static str],
}

fn case(
    what: &'static str,
    before: impl IntoIterator<Item = Change>,
    change: impl IntoIterator<Item = Change>,
    due: &'static [&'static str],
) -> Case {
    Case {
        what,
        before: before.into_iter().collect(),
        change: change.into_iter().collect(),
        due,
    }
}

/// Every frontend of [`dns`].
const ALL: &[&str] = &[
    "SCTP 10.0.0.10:53",
    "SCTP 198.51.100.1:53",
    "SCTP 203.0.113.1:53",
    "UDP 10.0.0.10:53",
    "UDP 198.51.100.1:53",
    "UDP 203.0.113.1:53",
    "UDP IPv4 *:30053",
];

fn changes_of_endpoints() -> Vec<Case> {
    let after = |first| [apply(dns()), endpoints(first)];
    let two: &[_] = &["10.1.0.1", "10.1.0.2 local"];
    let one: &[_] = &["10.1.0.1"];
    let begins: &[_] = &["10.1.0.1", "10.1.0.2 local terminating"];
    let stops: &[_] = &["10.1.0.1", "10.1.0.2 local stopped"];
    let hints: &[_] = &["10.1.0.1 node:this-node", "10.1.0.2 local node:other"];
    vec![
        case("nothing", after(two), after(two), &[]),
        case("one comes", after(one), [endpoints(two)], &[]),
        case("one goes", after(two), [endpoints(one)], ALL),
        case("the last one goes", after(one), [endpoints(&[])], ALL),
        case("the first one comes", [apply(dns())], [endpoints(one)], ALL),
        case(
            "one replaces another",
            after(one),
            [endpoints(&["10.1.0.3"])],
            ALL,
        ),
        case("one begins to terminate", after(two), [endpoints(begins)], &[]),
        case("it stops serving", after(begins), [endpoints(stops)], ALL),
        case(
            "it goes when it served no more",
            after(stops),
            [endpoints(one)],
            &[],
        ),
        case(
            "hints send new flows elsewhere",
            after(two),
            [endpoints(hints)],
            &[],
        ),
    ]
}

fn changes_of_services() -> Vec<Case> {
    let before = || [apply(dns()), endpoints(&["10.1.0.1", "10.1.0.2 local"])];
    let with = |change: fn(&mut Service)| {
        let mut service = dns();
        change(&mut service);
        [apply(service)]
    };
    let tcp_only = [
        apply(service("ns/web", "10.0.0.20", "h/TCP:80:30080")),
        apply_slice(slice("ns/web-1", "web", "h/TCP:80", &["10.1.0.9"])),
        delete("ns/web"),
    ];
    vec![
        case("it comes", [endpoints(&["10.1.0.1"])], [apply(dns())], ALL),
        case("it comes without endpoints", [], [apply(dns())], ALL),
        case("it goes", before(), [delete("ns/dns")], ALL),
        case("TCP comes and goes", [], tcp_only, &[]),
        case(
            "policies and affinity change",
            before(),
            with(|dns| {
                dns.external_traffic_policy = TrafficPolicy::Local;
                dns.session_affinity = Some(10);
            }),
            &[],
        ),
        case(
            "a TCP port changes",
            before(),
            with(|dns| (dns.ports[2].port, dns.ports[2].node_port) = (54, 30054)),
            &[],
        ),
        case(
            "a UDP port comes",
            before(),
            with(|dns| {
                dns.ports.push(ServicePort {
                    name: "v".into(),
                    port: 54,
                    node_port: 0,
                    ..dns.ports[0].clone()
                });
            }),
            &["UDP 10.0.0.10:54", "UDP 198.51.100.1:54", "UDP 203.0.113.1:54"],
        ),
        case(
            "an external IP replaces another",
            before(),
            with(|dns| dns.external_ips = vec![testing::ip("198.51.100.2")]),
            &[
                "SCTP 198.51.100.1:53",
                "SCTP 198.51.100.2:53",
                "UDP 198.51.100.1:53",
                "UDP 198.51.100.2:53",
            ],
        ),
        case(
            "the node port changes",
            before(),
            with(|dns| dns.ports[0].node_port = 30054),
            &["UDP IPv4 *:30053", "UDP IPv4 *:30054"],
        ),
    ]
}

#[test]
fn only_what_a_change_can_have_made_stale_is_looked_at() {
    for Case {
        what,
        before,
        change,
        due,
    } in changes_of_endpoints().into_iter().chain(changes_of_services())
    {
        let mut followed = Followed::new();
        followed.due_after(before);
        assert_eq!(followed.due_after(change), due, "{what}");
        assert!(followed.due_after([]).is_empty(), "{what}: looked at twice");
    }
}

#[test]
fn node_ports_are_looked_at_when_they_are_accepted_on_other_addresses() {
    let mut followed = Followed::new();
    followed.due_after([apply(dns()), endpoints(&["10.1.0.1"])]);
    followed.flows.node_ports_moved(Family::V6);
    assert!(followed.due_after([]).is_empty());
    followed.flows.node_ports_moved(Family::V4);
    assert_eq!(followed.due_after([]), ["UDP IPv4 *:30053"]);
}

#[test]
fn nothing_is_due_before_it_is_in_force() {
    let mut followed = Followed::new();
    followed.note([apply(dns()), endpoints(&["10.1.0.1"])]);
    assert!(followed.flows.due().is_empty());
    // A second attempt brings more with it.
    followed.note([apply(service("ns/other", "10.0.0.11", "u/UDP:53"))]);
    assert!(followed.flows.due().is_empty());
    let due = followed.due_after([]);
    assert_eq!(due.len(), ALL.len() + 1, "{due:?}");
}

#[test]
fn what_is_due_waits_and_is_merged() {
    let mut followed = Followed::new();
    followed.due_after([apply(dns()), endpoints(&["10.1.0.1"])]);
    followed.note([apply(service("ns/other", "10.0.0.11", "u/UDP:53"))]);
    followed.flows.in_force();
    followed.note([apply(dns().with_external_ips("198.51.100.1 198.51.100.2"))]);
    followed.flows.in_force();
    assert_eq!(
        texts(followed.flows.due()),
        ["SCTP 198.51.100.2:53", "UDP 10.0.0.11:53", "UDP 198.51.100.2:53"]
    );
}

#[test]
fn the_kernel_is_asked_for_no_more_than_what_all_frontends_of_a_family_and_protocol_share() {
    let text = |due: &Due, family, protocol| {
        let Some(filter) = due.filter(family, protocol) else {
            return "nothing".to_owned();
        };
        let ip = filter.ip.map_or("any".to_owned(), |ip| ip.to_string());
        let port = filter.port.map_or("any".to_owned(), |port| port.to_string());
        format!("{ip} {port}")
    };
    let table = [
        ("10.0.0.10", "u/UDP:53", ["10.0.0.10 53", "nothing", "nothing"]),
        ("10.0.0.10", "u/UDP:53:30053", ["any any", "nothing", "nothing"]),
        (
            "10.0.0.10",
            "u/UDP:53 v/UDP:54",
            ["10.0.0.10 any", "nothing", "nothing"],
        ),
        ("10.0.0.10", "u/UDP:53:53", ["any 53", "nothing", "nothing"]),
        (
            "10.0.0.10 fd00::10",
            "u/UDP:53 s/SCTP:54",
            ["10.0.0.10 53", "10.0.0.10 54", "fd00::10 53"],
        ),
        ("10.0.0.10", "t/TCP:53", ["nothing", "nothing", "nothing"]),
    ];
    for (ips, ports, expected) in table {
        let mut followed = Followed::new();
        followed.note([apply(service("ns/dns", ips, ports))]);
        let mut due = followed.look(&[]).due;
        let kinds = [
            (Family::V4, Protocol::Udp),
            (Family::V4, Protocol::Sctp),
            (Family::V6, Protocol::Udp),
        ];
        let filters = |due: &Due| kinds.map(|(family, protocol)| text(due, family, protocol));
        assert_eq!(filters(&due), expected, "{ips} {ports}");
        due.networks.insert("10.0.0.0/24".parse().unwrap());
        assert_eq!(filters(&due)[..2], ["any any", "any any"], "{ips} {ports}");
    }
}
