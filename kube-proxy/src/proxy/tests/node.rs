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

#[test]
fn addresses_that_come_and_go_accept_node_ports_where_a_network_has_them() {
    let running = Start {
        flags: "--iptables-localhost-nodeports=false --nodeport-addresses=10.0.0.0/8,fd00::/8",
        ..Start::default()
    }
    .run();
    let only = |ips: &[&str]| NodePortAddresses::Only(ips.iter().map(|ip| ip.parse().unwrap()).collect());
    let told = running.begin(&[]);
    assert_eq!(
        told.node_ports,
        [(Family::V4, only(&[])), (Family::V6, only(&[]))]
    );
    type Row<'a> = (&'a [&'a str], &'a [(Family, NodePortAddresses)]);
    let table: &[Row<'_>] = &[
        (&["10.0.0.1", "192.168.0.1"], &[(Family::V4, only(&["10.0.0.1"]))]),
        (
            &["10.0.0.1", "10.0.0.2", "fd00::1"],
            &[
                (Family::V4, only(&["10.0.0.1", "10.0.0.2"])),
                (Family::V6, only(&["fd00::1"])),
            ],
        ),
        (&["10.0.0.2", "fd00::1"], &[(Family::V4, only(&["10.0.0.2"]))]),
        (&[], &[(Family::V4, only(&[])), (Family::V6, only(&[]))]),
    ];
    for (addresses, told) in table {
        running.has_addresses(addresses);
        assert_eq!(running.commit().node_ports, *told, "{addresses:?}");
    }
    running.has_addresses(&["192.168.0.1"]);
    assert!(running.is_quiet(), "it is in neither network");
    running.end().unwrap();
}

#[test]
fn addresses_of_the_machine_make_no_difference_where_all_or_those_of_the_node_count() {
    for flags in [
        "--iptables-localhost-nodeports=false",
        "--iptables-localhost-nodeports=false --nodeport-addresses=0.0.0.0/0,::/0",
    ] {
        let running = Start {
            flags,
            ..Start::default()
        }
        .run();
        running.begin(&[]);
        running.has_addresses(&["10.0.0.1", "fd00::1"]);
        assert!(running.is_quiet(), "{flags}");
        running.end().unwrap();
    }
}

#[test]
fn packets_to_node_ports_at_the_loopback_address_come_from_the_nodes_address_while_this_machine_has_it() {
    let running = Start::default().run();
    running.send([node(&["10.0.0.1"], &[])]);
    running.begin(&[]);
    let v4 = |ip: Option<&str>| [(Family::V4, ip.map(|ip| ip.parse().unwrap()))];
    let table: &[(&[&str], Option<&str>)] = &[
        (&["127.0.0.1", "169.254.0.1", "10.0.0.9"], Some("10.0.0.9")),
        (&["10.0.0.9", "10.0.0.1"], Some("10.0.0.1")),
        (&["127.0.0.1"], None),
    ];
    for (addresses, source) in table {
        running.has_addresses(addresses);
        assert_eq!(running.commit().localhost, v4(*source), "{addresses:?}");
    }
    running.end().unwrap();
}

#[test]
fn it_goes_on_when_nobody_tells_of_addresses_any_more() {
    let Running {
        changes,
        addresses,
        commits,
        thread,
        ..
    } = Start::default().run();
    drop(addresses);
    for kind in [Kind::Node, Kind::Service, Kind::EndpointSlice] {
        changes.blocking_send(Change::ListDone(kind)).unwrap();
    }
    commits.recv_timeout(PATIENCE).unwrap();
    changes.blocking_send(service("a", 80)).unwrap();
    assert_eq!(names(&commits.recv_timeout(PATIENCE).unwrap()), ["a"]);
    drop(changes);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_node_that_moves_has_its_source_ranges_resolved_anew() {
    let running = Start::default().run();
    running.begin(&["open"]);
    let Change::Service(mut restricted) = service("restricted", 81) else {
        panic!("a Service")
    };
    restricted.source_ranges = vec!["10.0.0.0/8".parse().unwrap()];
    running.send([Change::Service(restricted)]);
    assert_eq!(names(&running.commit()), ["restricted"]);
    running.send([node(&["10.0.0.1"], &[])]);
    let told = running.commit();
    assert_eq!(names(&told), ["restricted"]);
    assert_eq!(told.node_ports.len(), 1);
    running.end().unwrap();
}
