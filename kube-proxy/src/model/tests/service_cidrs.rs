//! Which networks ClusterIPs come from, put together from the ServiceCIDRs that are there.

use ipnet::IpNet;

use crate::model::change::{Change, Kind};
use crate::model::cluster::Cluster;
use crate::model::object::{ObjectName, ServiceCidr};
use crate::model::testing::config;

fn named(name: &str) -> ObjectName {
    ObjectName::new("", name)
}

fn cidr(name: &str, cidrs: &str) -> Change {
    Change::ServiceCidr(Box::new(ServiceCidr {
        name: named(name),
        cidrs: nets(cidrs),
    }))
}

fn nets(cidrs: &str) -> Vec<IpNet> {
    cidrs
        .split_whitespace()
        .map(|cidr| cidr.parse().unwrap())
        .collect()
}

/// Applies the changes; what is to be told then, as IPv4 and IPv6.
fn taken(cluster: &mut Cluster, changes: impl IntoIterator<Item = Change>) -> Option<[Vec<IpNet>; 2]> {
    for change in changes {
        cluster.apply(change);
    }
    cluster.take_service_cidrs()
}

fn both(v4: &str, v6: &str) -> Option<[Vec<IpNet>; 2]> {
    Some([nets(v4), nets(v6)])
}

#[test]
fn overlapping_and_adjacent_networks_become_disjoint_ones() {
    let table = [
        ("10.96.0.0/16 fd00::/112", "", both("10.96.0.0/16", "fd00::/112")),
        ("10.96.0.0/16", "10.96.128.0/24", both("10.96.0.0/16", "")),
        ("10.96.0.0/16", "10.96.0.0/12", both("10.96.0.0/12", "")),
        ("10.96.0.0/16", "10.97.0.0/16", both("10.96.0.0/15", "")),
        (
            "10.97.0.0/16",
            "10.98.0.0/16",
            both("10.97.0.0/16 10.98.0.0/16", ""),
        ),
        (
            "fd00::/112 10.96.0.0/16",
            "fd00::1:0/112",
            both("10.96.0.0/16", "fd00::/111"),
        ),
        ("10.96.0.0/16", "10.96.0.0/16", both("10.96.0.0/16", "")),
        ("", "", None),
    ];
    for (one, other, expected) in table {
        let mut cluster = Cluster::new(config());
        let changes = [cidr("one", one), cidr("other", other)];
        assert_eq!(taken(&mut cluster, changes), expected, "{one} and {other}");
    }
}

#[test]
fn only_what_makes_a_difference_is_told() {
    let mut cluster = Cluster::new(config());
    let mut taken = |change| taken(&mut cluster, [change]);
    assert_eq!(
        taken(cidr("kubernetes", "10.96.0.0/16")),
        both("10.96.0.0/16", "")
    );
    assert_eq!(taken(cidr("kubernetes", "10.96.0.0/16")), None);
    assert_eq!(taken(cidr("inside", "10.96.1.0/24")), None);
    assert_eq!(taken(Change::Deleted(Kind::ServiceCidr, named("unknown"))), None);
    assert_eq!(
        taken(Change::Deleted(Kind::ServiceCidr, named("kubernetes"))),
        both("10.96.1.0/24", "")
    );
    assert_eq!(taken(cidr("inside", "fd00::/112")), both("", "fd00::/112"));
    assert_eq!(
        taken(Change::Deleted(Kind::ServiceCidr, named("inside"))),
        both("", "")
    );
}

#[test]
fn a_list_removes_what_it_does_not_name_and_keeps_what_it_cannot_read() {
    let kind = Kind::ServiceCidr;
    let mut cluster = Cluster::new(config());
    let all = [
        cidr("a", "10.1.0.0/16"),
        cidr("b", "10.3.0.0/16"),
        cidr("c", "10.5.0.0/16"),
    ];
    taken(&mut cluster, all);
    let begun = [Change::ListStart(kind), cidr("a", "10.1.0.0/16")];
    assert_eq!(
        taken(&mut cluster, begun),
        None,
        "until the list is complete, the old ones stay"
    );
    let anew = [
        Change::ListStart(kind),
        cidr("b", "10.3.0.0/16"),
        Change::Kept(kind, named("c")),
        Change::Kept(kind, named("never-seen")),
        Change::ListDone(kind),
    ];
    assert_eq!(taken(&mut cluster, anew), both("10.3.0.0/16 10.5.0.0/16", ""));
    let empty = [Change::ListStart(kind), Change::ListDone(kind)];
    assert_eq!(taken(&mut cluster, empty), both("", ""));
}

#[test]
fn service_cidrs_touch_no_service_and_nothing_waits_for_them() {
    let mut cluster = Cluster::new(config());
    for kind in [Kind::Service, Kind::EndpointSlice] {
        cluster.apply(Change::ListStart(kind));
        cluster.apply(Change::ListDone(kind));
    }
    assert!(cluster.is_synced());
    cluster.apply(cidr("kubernetes", "10.96.0.0/16"));
    assert_eq!(cluster.take_dirty(), []);
}
