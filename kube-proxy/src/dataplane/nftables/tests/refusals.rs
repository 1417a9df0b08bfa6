//! Elements that the real kernel refuses: left out with what depends on them, the rest in force.

use super::*;

/// A Service at 203.0.113.`number` that the kernel refuses: one of its source ranges is of the other family,
/// too long for the set (and nothing that the model would hand out).
fn bad(number: u8) -> ServiceView {
    with_ranges(number, &["10.0.0.0/8", "fd00::/8"])
}

fn good(number: u8) -> ServiceView {
    with_ranges(number, &["10.0.0.0/8", "172.16.0.0/12"])
}

fn with_ranges(number: u8, ranges: &[&str]) -> ServiceView {
    let restricted = ServiceAddress {
        ip: Some(IpAddr::from([203, 0, 113, number])),
        source_ranges: Some(ranges.iter().map(|range| range.parse().unwrap()).collect()),
        ..address(AddressKind::LoadBalancerIp, None, 80, EXTERNAL)
    };
    let endpoints = ["10.244.2.1:80", "10.244.2.2:80"];
    view(
        &format!("service-{number}"),
        [port(Family::V4, &endpoints, &[restricted])],
    )
}

/// Which of the Services (by the last byte of their address) are in a set.
fn in_force(node: &Node, set: &str) -> Vec<u8> {
    let kind = if set.ends_with("-ips") && set.starts_with("service") {
        "map"
    } else {
        "set"
    };
    let kind = if set.ends_with("endpoints") { "map" } else { kind };
    let listed = node.nft(&["list", kind, "ip", "kube-proxy", set]);
    let mut found: Vec<u8> = listed
        .split("203.0.113.")
        .skip(1)
        .filter_map(|rest| rest.split(' ').next()?.parse().ok())
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Every set agrees on which Services are in force.
fn assert_in_force(node: &Node, services: &[u8]) {
    for set in [
        "service-ips",
        "service-endpoints",
        "restricted-ips",
        "source-ranges",
    ] {
        assert_eq!(in_force(node, set), services, "{set}");
    }
}

fn assert_refused(report: &CommitReport, services: &[&str]) {
    let mut refused: Vec<String> = report.refused.iter().map(|r| r.service.to_string()).collect();
    refused.sort_unstable();
    assert_eq!(refused, services, "{report:?}");
    for refusal in &report.refused {
        assert!(refusal.reason.contains("EINVAL"), "{refusal:?}");
    }
}

/// The ways to the kernel: where there is no table, where there is one, and as a change to our own; with a
/// kernel that names the guilty element and one that does not.
const WAYS: [(&str, bool); 6] = [
    ("empty", true),
    ("empty", false),
    ("occupied", true),
    ("occupied", false),
    ("change", true),
    ("change", false),
];

fn started(way: &str, tells: bool) -> Node {
    let mut node = Node::new(config());
    if !tells {
        let Node { namespace, dataplane } = &mut node;
        namespace
            .enter(|| dataplane.kernel.socket().unwrap().tell_less())
            .unwrap();
    }
    match way {
        "occupied" => _ = node.nft(&["add table ip kube-proxy; add chain ip kube-proxy old"]),
        "change" => _ = node.commit(),
        _ => {}
    }
    node
}

#[test]
fn refused_services_are_left_out_whole_and_all_others_are_in_force() {
    for (way, tells) in WAYS {
        let mut node = started(way, tells);
        for number in 1..=40 {
            node.update(&if number % 13 == 0 {
                bad(number)
            } else {
                good(number)
            });
        }
        let report = node.commit();
        let others: Vec<u8> = (1..=40).filter(|number| number % 13 != 0).collect();
        assert_in_force(&node, &others);
        let refused = ["default/service-13", "default/service-26", "default/service-39"];
        assert_refused(&report, &refused);
        assert!(report.refused_now >= 3, "{way} {tells}: {report:?}");
        assert!(report.again_after.is_some(), "{way} {tells}: {report:?}");
        if tells {
            let element = "source-ranges { 203.0.113.13 . TCP . 80 . fd00::/8 }";
            assert_eq!(report.refused[0].element, element, "{way}");
        }
    }
}

#[test]
fn what_was_refused_is_tried_again_with_growing_pauses_and_at_once_when_its_service_changes() {
    for (way, tells) in WAYS {
        let mut node = started(way, tells);
        node.update(&good(1));
        node.update(&bad(2));
        let report = node.commit();
        assert_refused(&report, &["default/service-2"]);
        let mut at = Duration::ZERO;
        let mut pause = report.again_after.unwrap();
        for _ in 0..4 {
            at += pause + Duration::from_millis(500);
            let report = node.commit_after(at);
            // Still refused, but that is no news.
            assert_eq!(report.refused, [], "{way} {tells}");
            assert!(report.refused_now > 0, "{way} {tells}");
            let longer = report.again_after.unwrap();
            assert!(longer > pause, "{way} {tells}: {longer:?} after {pause:?}");
            pause = longer;
        }
        node.update(&good(2));
        let report = node.commit_after(at);
        assert_eq!(
            (report.refused.len(), report.refused_now),
            (0, 0),
            "{way} {tells}"
        );
        assert_in_force(&node, &[1, 2]);
    }
}

#[test]
fn a_refused_change_leaves_the_state_before_it_in_force() {
    for tells in [true, false] {
        let mut node = started("change", tells);
        node.update(&good(1));
        node.update(&good(2));
        node.commit();
        let before = node.nft(&["list", "ruleset"]);
        node.update(&bad(2));
        assert_refused(&node.commit(), &["default/service-2"]);
        assert_eq!(node.nft(&["list", "ruleset"]), before);
        node.remove("service-2");
        let report = node.commit();
        assert_eq!((report.refused.len(), report.refused_now), (0, 0));
        assert_eq!(in_force(&node, "service-ips"), [1]);
        node.commit_after(Duration::from_secs(2));
        assert_in_force(&node, &[1]);
    }
}

#[test]
fn elements_that_another_hand_added_or_removed_are_put_right() {
    let mut node = started("change", true);
    node.update(&good(1));
    node.commit();
    node.nft(&["delete element ip kube-proxy service-ips { 203.0.113.1 . tcp . 80 }"]);
    node.nft(&["add element ip kube-proxy service-endpoints { 203.0.113.2 . tcp . 80 . 1 : 1.2.3.4 . 5 }"]);
    node.update(&good(2));
    node.remove("service-1");
    let report = node.commit();
    assert_eq!((report.refused.len(), report.refused_now), (0, 0));
    node.commit_after(Duration::from_secs(2));
    assert_in_force(&node, &[2]);
    let endpoints = node.nft(&["list", "map", "ip", "kube-proxy", "service-endpoints"]);
    assert!(!endpoints.contains("1.2.3.4"), "{endpoints}");
}

#[test]
fn a_table_that_another_hand_removed_comes_back_with_the_next_change() {
    for removal in [
        "flush ruleset",
        "delete table ip kube-proxy",
        "flush table ip kube-proxy; delete map ip kube-proxy service-ips",
    ] {
        let mut node = started("change", true);
        node.update(&good(1));
        node.commit();
        node.nft(&[removal]);
        node.update(&good(2));
        let report = node.commit();
        assert_eq!(report.refused, [], "{removal}");
        assert_eq!(report.drift, 1, "{removal}");
        assert_in_force(&node, &[1, 2]);
        assert!(
            node.nft(&["list", "ruleset"]).contains("table ip6 kube-proxy"),
            "{removal}"
        );
    }
}

#[test]
fn source_ranges_may_change_to_wider_and_narrower_ones() {
    let mut node = started("change", true);
    for ranges in [
        &["10.1.0.0/16"] as &[_],
        &["10.0.0.0/8"],
        &["10.2.0.0/16", "10.3.0.0/24"],
        &["10.3.0.0/16"],
    ] {
        node.update(&with_ranges(1, ranges));
        let report = node.commit();
        assert_eq!((report.refused.len(), report.refused_now), (0, 0), "{ranges:?}");
        let listed = node.nft(&["list", "set", "ip", "kube-proxy", "source-ranges"]);
        assert_eq!(listed.matches("203.0.113.1").count(), ranges.len(), "{listed}");
        assert!(ranges.iter().all(|range| listed.contains(range)), "{listed}");
    }
}
