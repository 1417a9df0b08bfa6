//! What the loop makes of this Node.

use super::*;

#[test]
fn the_node_is_waited_for_until_it_is_listed_and_then_as_long_as_there_is_patience() {
    let on = |ip: &str| NodePortAddresses::Only(vec![ip.parse().unwrap()]);
    let listed = Change::ListDone(Kind::Node);
    let table: &[(Duration, Vec<Change>, NodePortAddresses)] = &[
        (PATIENCE, vec![node(&["10.0.0.1"], &[])], on("10.0.0.1")),
        (
            PATIENCE,
            vec![listed.clone(), node(&["10.0.0.1"], &[])],
            on("10.0.0.1"),
        ),
        (Duration::ZERO, vec![node(&["10.0.0.1"], &[])], on("10.0.0.1")),
        (
            Duration::ZERO,
            vec![node(&["fd00::1"], &[])],
            NodePortAddresses::All,
        ),
        (
            Duration::ZERO,
            vec![node(&[], &[]), listed.clone()],
            NodePortAddresses::All,
        ),
        (Duration::from_millis(5), vec![listed], NodePortAddresses::All),
    ];
    for (patience, changes, addresses) in table {
        let running = Start {
            patience: *patience,
            ..Start::default()
        }
        .run();
        running.send([Change::ListStart(Kind::Service), Change::ListDone(Kind::Service)]);
        running.send([
            Change::ListStart(Kind::EndpointSlice),
            Change::ListDone(Kind::EndpointSlice),
        ]);
        for change in changes {
            assert!(running.is_quiet(), "{patience:?}: waits for {change:?}");
            running.send([change.clone()]);
        }
        let told = running.commit();
        assert_eq!(
            told.node_ports[0],
            (Family::V4, addresses.clone()),
            "{patience:?} {changes:?}"
        );
        running.end().unwrap();
    }
}

#[test]
fn a_node_without_addresses_is_not_enough_but_one_that_gets_them_is() {
    let running = Start {
        patience: PATIENCE,
        ..Start::default()
    }
    .run();
    running.send([node(&[], &[])]);
    running.send([Change::ListStart(Kind::Service), Change::ListDone(Kind::Service)]);
    running.send([
        Change::ListStart(Kind::EndpointSlice),
        Change::ListDone(Kind::EndpointSlice),
    ]);
    assert!(running.is_quiet());
    running.send([node(&["10.0.0.1"], &[])]);
    running.commit();
    running.send([node(&["10.0.0.2"], &[])]);
    let moved = NodePortAddresses::Only(vec!["10.0.0.2".parse().unwrap()]);
    assert_eq!(running.commit().node_ports[0], (Family::V4, moved));
    running.send([node(&["10.0.0.2"], &["10.1.0.0/24"])]);
    assert!(running.is_quiet(), "nothing of it matters");
    running.end().unwrap();
}

#[test]
fn pod_networks_are_waited_for_where_they_tell_pods_and_their_change_ends_the_program() {
    let running = Start {
        flags: "--detect-local-mode=NodeCIDR",
        patience: PATIENCE,
        ..Start::default()
    }
    .run();
    running.send([node(&["10.0.0.1"], &[])]);
    running.send([Change::ListStart(Kind::Service), Change::ListDone(Kind::Service)]);
    running.send([
        Change::ListStart(Kind::EndpointSlice),
        Change::ListDone(Kind::EndpointSlice),
    ]);
    assert!(running.is_quiet());
    running.send([node(&["10.0.0.1"], &["10.1.0.0/24"])]);
    running.commit();
    running.send([node(&["10.0.0.1"], &["10.2.0.0/24"])]);
    let error = running.thread.join().unwrap().unwrap_err();
    assert!(error.to_string().contains("podCIDRs"), "{error}");

    let running = Start {
        flags: "--detect-local-mode=NodeCIDR",
        patience: Duration::ZERO,
        ..Start::default()
    }
    .run();
    running.send([Change::ListDone(Kind::Node)]);
    let error = running.thread.join().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "timeout waiting for node node-1 to exist");
}
