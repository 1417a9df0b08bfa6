//! What goes wrong, as far as a namespace can show it; the rest is shown by the program's tests.

use super::programs::Node;
use super::*;
use crate::dataplane::iptables::restore::Desired;
use crate::model::object::{Family, ServiceType};
use crate::model::testing::{name, service, slice};

#[test]
fn when_what_changed_is_refused_everything_is_written() {
    // Where nobody hears of it.
    let mut node = Node::new("legacy");
    node.commit();
    // Another hand empties a table, but leaves the canary.
    node.run("iptables", &["-t", "nat", "-F"]);
    node.run("iptables", &["-t", "nat", "-X"]);
    node.observe(&["10.244.2.9"]);
    let report = node.commit();
    let [v4, v6] = &report.families;
    assert_eq!((v4.full, v4.failures, v4.partial_failures), (true, 1, 1));
    assert_eq!((v6.full, v6.failures, v6.partial_failures), (false, 0, 0));
    assert!(node.saved().contains("10.244.2.9"));
}

/// Of one family, with this one left out.
fn users(dataplane: &Iptables, family: Family, extension: &str, left_out: &[&str]) -> Vec<String> {
    let left_out = left_out.iter().map(|text| name(text)).collect();
    let desired: Desired<'_> = dataplane.families[family as usize].desired(&dataplane.ledger, &left_out);
    let users = desired.users_of(extension);
    users.iter().map(ToString::to_string).collect()
}

#[test]
fn a_missing_extension_costs_the_services_that_need_it_or_everything() {
    let services = [
        service("ns/sticky", "10.96.0.1", "http/TCP:80").with_affinity(10),
        service("ns/two", "10.96.0.2 fd00:96::2", "http/TCP:80"),
        service("ns/none", "10.96.0.3", "dns/UDP:53:30053").of_type(ServiceType::NodePort),
    ];
    let slices = [
        slice("ns/sticky-4", "sticky", "http/TCP:8080", &["10.244.1.1"]),
        slice("ns/two-4", "two", "http/TCP:8080", &["10.244.1.1", "10.244.2.1"]),
        slice("ns/two-6", "two", "http/TCP:8080", &["fd00:10:244:1::1"]),
    ];
    let dataplane = planned(config(), &services, &slices);
    for (family, extension, left_out, expected) in [
        (Family::V4, "recent", [].as_slice(), ["ns/sticky"].as_slice()),
        (Family::V4, "statistic", &[], &["ns/two"]),
        (Family::V4, "statistic", &["ns/two"], &[]),
        (Family::V6, "statistic", &[], &[]),
        (Family::V4, "udp", &[], &["ns/none"]),
        (Family::V4, "tcp", &[], &["ns/sticky", "ns/two"]),
        // What every Service needs is nobody's fault.
        (Family::V4, "conntrack", &[], &[]),
        (Family::V4, "addrtype", &[], &[]),
        (Family::V4, "comment", &[], &[]),
        (Family::V4, "DNAT", &[], &[]),
    ] {
        let found = users(&dataplane, family, extension, left_out);
        assert_eq!(found, expected, "{family} {extension} without {left_out:?}");
    }
}
