//! Addresses that two Services, or two ports of one, ask for.

use crate::model::change::{Change, Kind};
use crate::model::cluster::Cluster;
use crate::model::object::{ObjectName, Service};
use crate::model::testing::*;

/// The addresses and the conflicts of a Service, as text.
fn standing(cluster: &Cluster, service: &str) -> (Vec<String>, Vec<String>) {
    let view = cluster.resolve(&name(service)).unwrap();
    let conflict = |conflict: &crate::model::view::Conflict| {
        let ip = conflict
            .ip
            .map_or_else(|| conflict.family.to_string(), |ip| ip.to_string());
        format!(
            "{} {ip} {} held by {}",
            conflict.protocol, conflict.port, conflict.winner
        )
    };
    (addresses(&view), view.conflicts.iter().map(conflict).collect())
}

fn with_external_ip(full_name: &str, cluster_ip: &str, created: i64) -> Service {
    service(full_name, cluster_ip, "p/TCP:80")
        .with_external_ips("1.2.3.4")
        .created(created)
}

fn delete(cluster: &mut Cluster, text: &str) -> Vec<ObjectName> {
    cluster.apply(Change::Deleted(Kind::Service, name(text)));
    cluster.take_dirty()
}

#[test]
fn the_older_service_has_a_contested_address_and_the_loser_says_so() {
    let (old, young) = (
        with_external_ip("b/old", "10.0.0.1", 1),
        with_external_ip("a/young", "10.0.0.2", 2),
    );
    for order in [[&old, &young], [&young, &old]] {
        let cluster = cluster(&order.map(Clone::clone), &[]);
        let (addresses, conflicts) = standing(&cluster, "b/old");
        assert_eq!(
            addresses,
            ["p/TCP ClusterIp 10.0.0.1 80", "p/TCP ExternalIp 1.2.3.4 80"]
        );
        assert!(conflicts.is_empty());
        let (addresses, conflicts) = standing(&cluster, "a/young");
        assert_eq!(addresses, ["p/TCP ClusterIp 10.0.0.2 80"]);
        assert_eq!(conflicts, ["TCP 1.2.3.4 80 held by b/old"]);
    }
}

#[test]
fn a_cluster_ip_stays_in_use_when_an_older_service_has_its_only_port() {
    let young = service("a/young", "10.0.0.2 fd00::2", "p/TCP:80").created(2);
    let old = service("b/old", "10.0.0.1", "p/TCP:80").with_external_ips("10.0.0.2 fd00::2");
    let cluster = cluster([&young, &old.created(1)], &[]);
    let (addresses, _) = standing(&cluster, "a/young");
    assert_eq!(addresses, ["p/TCP ClusterIp fd00::2 80"]);
    let view = cluster.resolve(&young.name).unwrap();
    assert_eq!(view.cluster_ips, [ip("10.0.0.2"), ip("fd00::2")]);
}

#[test]
fn a_service_of_unknown_age_is_the_youngest_and_names_settle_a_tie() {
    let ageless = |text, ip| Service {
        created: None,
        ..with_external_ip(text, ip, 0)
    };
    let cluster = cluster(
        &[
            ageless("c/x", "10.0.0.1"),
            ageless("a/x", "10.0.0.2"),
            with_external_ip("d/x", "10.0.0.3", 9),
        ],
        &[],
    );
    assert_eq!(standing(&cluster, "d/x").1.len(), 0);
    for loser in ["a/x", "c/x"] {
        assert_eq!(standing(&cluster, loser).1, ["TCP 1.2.3.4 80 held by d/x"]);
    }
    let mut cluster = cluster;
    assert_eq!(
        delete(&mut cluster, "d/x"),
        [name("a/x"), name("c/x"), name("d/x")]
    );
    assert_eq!(standing(&cluster, "a/x").1.len(), 0);
    assert_eq!(standing(&cluster, "c/x").1, ["TCP 1.2.3.4 80 held by a/x"]);
}

#[test]
fn the_loser_gets_the_address_when_the_winner_lets_go() {
    let (old, young) = (
        with_external_ip("a/old", "10.0.0.1", 1),
        with_external_ip("a/young", "10.0.0.2", 2),
    );
    let without = Service {
        external_ips: Vec::new(),
        ..old.clone()
    };
    let other_port = service("a/old", "10.0.0.1", "p/TCP:81")
        .with_external_ips("1.2.3.4")
        .created(1);
    for letting_go in [
        without,
        other_port,
        Service {
            headless: true,
            ..old.clone()
        },
    ] {
        let mut cluster = cluster([&old, &young], &[]);
        cluster.take_dirty();
        observe(&mut cluster, &[letting_go], &[]);
        assert_eq!(cluster.take_dirty(), [name("a/old"), name("a/young")]);
        assert_eq!(standing(&cluster, "a/young").1.len(), 0);
        assert_eq!(standing(&cluster, "a/young").0.len(), 2);
        // And loses it when the older one wants it again.
        observe(&mut cluster, [&old], &[]);
        assert_eq!(cluster.take_dirty(), [name("a/old"), name("a/young")]);
        assert_eq!(standing(&cluster, "a/young").1, ["TCP 1.2.3.4 80 held by a/old"]);
    }
}

#[test]
fn a_service_made_anew_loses_its_seniority() {
    let (one, two) = (
        with_external_ip("a/one", "10.0.0.1", 1),
        with_external_ip("a/two", "10.0.0.2", 2),
    );
    let mut cluster = cluster(&[one.clone(), two], &[]);
    cluster.take_dirty();
    observe(&mut cluster, &[one.created(3)], &[]);
    assert_eq!(cluster.take_dirty(), [name("a/one"), name("a/two")]);
    assert_eq!(standing(&cluster, "a/one").1, ["TCP 1.2.3.4 80 held by a/two"]);
    assert_eq!(standing(&cluster, "a/two").1.len(), 0);
}

#[test]
fn a_change_that_decides_nothing_for_the_others_leaves_them_alone() {
    let (old, young) = (
        with_external_ip("a/old", "10.0.0.1", 1),
        with_external_ip("a/young", "10.0.0.2", 2),
    );
    let mut cluster = cluster([&old, &young], &[]);
    cluster.take_dirty();
    let affine = |service| Service {
        session_affinity: Some(60),
        ..service
    };
    observe(&mut cluster, &[affine(old)], &[]);
    assert_eq!(cluster.take_dirty(), [name("a/old")]);
    observe(&mut cluster, &[affine(young)], &[]);
    assert_eq!(cluster.take_dirty(), [name("a/young")]);
    assert_eq!(delete(&mut cluster, "a/young"), [name("a/young")]);
}

#[test]
fn every_way_to_an_address_is_one_address() {
    let old = service("a/old", "10.0.0.1", "p/TCP:80 q/UDP:80").created(1);
    let young = service("a/young", "10.0.0.2", "p/TCP:80 r/TCP:81")
        .with_load_balancer("10.0.0.1")
        .with_external_ips("10.0.0.1")
        .created(2);
    let cluster = cluster(&[old, young], &[]);
    let (addresses, conflicts) = standing(&cluster, "a/young");
    assert_eq!(
        addresses,
        [
            "p/TCP ClusterIp 10.0.0.2 80",
            "r/TCP ClusterIp 10.0.0.2 81",
            "r/TCP LoadBalancerIp 10.0.0.1 81"
        ]
    );
    assert_eq!(conflicts, ["TCP 10.0.0.1 80 held by a/old"]);
}

#[test]
fn services_may_share_an_address_on_different_ports_and_protocols() {
    let one = service("a/one", "10.0.0.1", "p/TCP:80").with_external_ips("1.2.3.4");
    let two = service("a/two", "10.0.0.2", "p/UDP:80 q/TCP:81").with_external_ips("1.2.3.4");
    let cluster = cluster(&[one, two], &[]);
    assert!(
        ["a/one", "a/two"]
            .iter()
            .all(|text| standing(&cluster, text).1.is_empty())
    );
}

#[test]
fn a_node_port_is_settled_by_protocol_and_family() {
    let one = service("a/one", "10.0.0.1 2001:db8::1", "p/TCP:80:30080").created(1);
    let two = service("a/two", "10.0.0.2", "p/TCP:80:30080 q/UDP:80:30080").created(2);
    let three = service("a/three", "2001:db8::3", "p/TCP:80:30080").created(3);
    let mut cluster = cluster(&[one, two, three], &[]);
    assert_eq!(standing(&cluster, "a/two").1, ["TCP IPv4 30080 held by a/one"]);
    assert_eq!(standing(&cluster, "a/three").1, ["TCP IPv6 30080 held by a/one"]);
    assert_eq!(
        standing(&cluster, "a/two").0,
        [
            "p/TCP ClusterIp 10.0.0.2 80",
            "q/UDP ClusterIp 10.0.0.2 80",
            "q/UDP NodePort IPv4 * 30080"
        ]
    );
    delete(&mut cluster, "a/one");
    assert!(
        ["a/two", "a/three"]
            .iter()
            .all(|text| standing(&cluster, text).1.is_empty())
    );
}

#[test]
fn a_port_twice_in_one_service_counts_once() {
    let service = service(
        "a/web",
        "10.0.0.1",
        "p/TCP:80:30080 q/TCP:80:30081 r/TCP:82:30080",
    );
    let cluster = cluster(&[service], &[]);
    let (addresses, conflicts) = standing(&cluster, "a/web");
    assert_eq!(
        addresses,
        [
            "p/TCP ClusterIp 10.0.0.1 80",
            "p/TCP NodePort IPv4 * 30080",
            "q/TCP NodePort IPv4 * 30081",
            "r/TCP ClusterIp 10.0.0.1 82"
        ]
    );
    assert_eq!(
        conflicts,
        ["TCP 10.0.0.1 80 held by a/web", "TCP IPv4 30080 held by a/web"]
    );
}
