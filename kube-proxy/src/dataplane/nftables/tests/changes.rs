//! What a change costs, what stays for a moment, and what a change leaves behind.

use super::*;

const LATER: Duration = Duration::from_millis(1100);

fn web(endpoints: &[&str]) -> ServiceView {
    view(
        "web",
        [port(Family::V4, endpoints, &[cluster_ip("10.96.0.1", 80)])],
    )
}

/// The elements of the endpoint map: slot and address.
fn slots(node: &Node) -> Vec<String> {
    let listed = node.nft(&["list", "map", "ip", "kube-proxy", "service-endpoints"]);
    let slot = |line: &str| {
        let (key, value) = line.split_once(" : ")?;
        let slot = key.rsplit(' ').next()?;
        let value = value.split_once(" .")?.0;
        Some(format!("{slot}: {value}"))
    };
    listed.lines().skip(3).filter_map(slot).collect()
}

fn chains(node: &Node) -> Vec<String> {
    let listed = node.nft(&["list", "chains", "ip"]);
    let name = |line: &str| {
        Some(
            line.trim()
                .strip_prefix("chain ")?
                .trim_end_matches(" {")
                .to_owned(),
        )
    };
    listed
        .lines()
        .filter_map(name)
        .filter(|name| name.starts_with("endpoints-"))
        .collect()
}

#[test]
fn a_flipped_endpoint_is_two_messages_and_nothing_else_moves() {
    let mut node = Node::new(config());
    node.update(&web(&["10.244.2.1:80", "10.244.2.2:80", "10.244.2.3:80"]));
    node.commit();
    node.update(&web(&["10.244.2.1:80", "10.244.2.3:80", "10.244.2.9:80"]));
    let report = node.commit();
    assert_eq!((report.messages, report.again_after), (2, None));
    assert_eq!(slots(&node), ["0: 10.244.2.1", "1: 10.244.2.9", "2: 10.244.2.3"]);
    assert_eq!(node.commit(), CommitReport::default());
}

#[test]
fn a_removed_endpoint_stays_until_no_packet_can_look_for_it() {
    let mut node = Node::new(config());
    node.update(&web(&["10.244.2.1:80", "10.244.2.2:80", "10.244.2.3:80"]));
    node.commit();
    // The last one moves to the gap, and its old slot retires.
    node.update(&web(&["10.244.2.2:80", "10.244.2.3:80"]));
    let report = node.commit();
    assert_eq!(report.again_after, Some(Duration::from_secs(1)));
    assert_eq!(slots(&node), ["0: 10.244.2.3", "1: 10.244.2.2", "2: 10.244.2.3"]);
    assert_eq!(chains(&node).len(), 2, "{:?}", chains(&node));
    let report = node.commit_after(LATER);
    assert_eq!(slots(&node), ["0: 10.244.2.3", "1: 10.244.2.2"]);
    assert_eq!(chains(&node), ["endpoints-2-masquerade-host-outside"]);
    assert_eq!((report.messages, report.again_after), (2, None));
}

#[test]
fn a_rule_of_another_hand_keeps_no_chain_in_the_table_and_that_is_counted() {
    let mut node = Node::new(config());
    node.update(&web(&["10.244.2.1:80", "10.244.2.2:80"]));
    node.commit();
    let unused = "endpoints-2-masquerade-host-outside";
    node.nft(&[&format!(
        "add chain ip kube-proxy other; add rule ip kube-proxy other jump {unused}"
    )]);
    node.update(&web(&["10.244.2.1:80"]));
    let report = node.commit();
    assert_eq!((report.drift, report.families[0].cleanup_failures), (1, 0));
    node.commit_after(LATER);
    for gone in [unused, "other"] {
        assert!(!chains(&node).contains(&gone.to_owned()), "{gone}");
    }
}

#[test]
fn a_slot_that_is_wanted_again_before_it_went_is_used_again() {
    let mut node = Node::new(config());
    node.update(&web(&["10.244.2.1:80", "10.244.2.2:80"]));
    node.commit();
    node.update(&web(&["10.244.2.1:80"]));
    node.commit();
    // The same endpoint again: its element is there already, only the verdict changes.
    node.update(&web(&["10.244.2.1:80", "10.244.2.2:80"]));
    assert_eq!(node.commit().messages, 2);
    // Another one in the retiring slot: its value changes.
    node.update(&web(&["10.244.2.1:80"]));
    node.commit();
    node.update(&web(&["10.244.2.1:80", "10.244.2.5:80"]));
    assert_eq!(node.commit().messages, 4);
    // Nothing is left to retire.
    node.commit_after(LATER);
    assert_eq!(slots(&node), ["0: 10.244.2.1", "1: 10.244.2.5"]);
    assert_eq!(node.commit_after(LATER * 2), CommitReport::default());
}

#[test]
fn a_deleted_service_leaves_nothing_behind() {
    let mut node = Node::new(config());
    node.commit();
    let empty = node.nft(&["list", "ruleset"]);
    let local = [
        cluster_ip("10.96.0.1", 80),
        address(AddressKind::NodePort, None, 30080, EXTERNAL_LOCAL),
        address(AddressKind::LoadBalancerIp, "203.0.113.1", 80, EXTERNAL_LOCAL),
    ];
    let ports = [port(Family::V4, &["*10.244.1.1:80", "10.244.2.1:80"], &local)];
    node.update(&view("web", ports));
    node.commit();
    assert_ne!(node.nft(&["list", "ruleset"]), empty);
    node.remove("web");
    node.commit();
    node.commit_after(LATER);
    // Chains go after what led to them, one after the other.
    node.commit_after(LATER * 2);
    let report = node.commit_after(LATER * 3);
    assert_eq!(node.nft(&["list", "ruleset"]), empty);
    assert_eq!(report.again_after, None);
}
