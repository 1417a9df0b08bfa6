//! The books: which flows are stale.

use super::*;

#[test]
fn a_flow_is_stale_when_it_goes_where_no_ready_or_serving_endpoint_is() {
    let mut followed = Followed::new();
    followed.note([
        apply(dns()),
        endpoints(&["10.1.0.1", "10.1.0.2 terminating", "10.1.0.3 stopped"]),
    ]);
    let look = followed.look(&["192.168.0.2"]);
    let table = [
        ("UDP 10.0.0.10:53 > 10.1.0.1:53", false),
        ("UDP 10.0.0.10:53 > 10.1.0.2:53", false),
        ("UDP 10.0.0.10:53 > 10.1.0.3:53", true),
        ("UDP 10.0.0.10:53 > 10.1.0.9:53", true),
        ("UDP 10.0.0.10:53 > 10.1.0.1:54", true),
        // Never redirected.
        ("UDP 10.0.0.10:53", true),
        ("SCTP 10.0.0.10:53", true),
        ("SCTP 10.0.0.10:53 > 10.1.0.1:53", false),
        ("SCTP 10.0.0.10:53 > 10.1.0.9:53", true),
        ("UDP 198.51.100.1:53 > 10.1.0.9:53", true),
        ("UDP 203.0.113.1:53 > 10.1.0.9:53", true),
        ("UDP 203.0.113.1:53 > 10.1.0.2:53", false),
        // TCP, another port, another address.
        ("TCP 10.0.0.10:53 > 10.1.0.9:53", false),
        ("UDP 10.0.0.10:54 > 10.1.0.9:53", false),
        ("UDP 10.0.0.11:53 > 10.1.0.9:53", false),
        ("UDP 10.1.0.9:53", false),
        // Node ports: of this machine only, loopback included.
        ("UDP 192.168.0.2:30053 > 10.1.0.9:53", true),
        ("UDP 192.168.0.2:30053 > 10.1.0.1:53", false),
        ("UDP 192.168.0.2:30053", true),
        ("UDP 127.0.0.1:30053 > 10.1.0.9:53", true),
        ("UDP 192.168.0.3:30053 > 10.1.0.9:53", false),
        ("UDP 192.168.0.3:30053", false),
        ("UDP 10.1.0.9:30053", false),
        ("SCTP 192.168.0.2:30053", false),
        ("UDP [::1]:30053 > [fd00::9]:53", false),
    ];
    for (text, expected) in table {
        assert_eq!(followed.flows.is_stale(&flow(text), &look), expected, "{text}");
    }
}

#[test]
fn flows_to_what_no_service_has_any_more_are_stale_unless_they_go_where_they_asked_to_go() {
    let mut followed = Followed::new();
    followed.due_after([apply(dns()), endpoints(&["10.1.0.1"])]);
    followed.note([delete("ns/dns")]);
    let look = followed.look(&["192.168.0.2"]);
    let table = [
        ("UDP 10.0.0.10:53 > 10.1.0.1:53", true),
        ("UDP 198.51.100.1:53 > 10.1.0.1:53", true),
        ("UDP 192.168.0.2:30053 > 10.1.0.1:53", true),
        // The host that really has the address, and a program of this one, which a node port hid before.
        ("UDP 198.51.100.1:53", false),
        ("UDP 192.168.0.2:30053", false),
    ];
    for (text, expected) in table {
        assert_eq!(followed.flows.is_stale(&flow(text), &look), expected, "{text}");
    }
}

#[test]
fn a_flow_is_judged_by_what_is_known_when_it_is_read_and_not_when_the_look_was_asked_for() {
    let mut followed = Followed::new();
    followed.due_after([apply(dns()), endpoints(&["10.1.0.1", "10.1.0.2"])]);
    followed.note([endpoints(&["10.1.0.1"])]);
    let look = followed.look(&[]);
    let to_new = flow("UDP 10.0.0.10:53 > 10.1.0.3:53");
    assert!(followed.flows.is_stale(&to_new, &look));
    // Its commit may follow at once, and the look sees flows that came by it.
    followed.note([endpoints(&["10.1.0.1", "10.1.0.3"])]);
    assert!(!followed.flows.is_stale(&to_new, &look));
}

#[test]
fn flows_in_zones_of_their_own_are_stale_only_when_somebody_redirected_them_there() {
    let mut followed = Followed::new();
    followed.note([apply(dns()), endpoints(&["10.1.0.1"])]);
    let look = followed.look(&[]);
    let is_stale = |text| {
        let zoned = Flow {
            zoned: true,
            ..flow(text)
        };
        followed.flows.is_stale(&zoned, &look)
    };
    assert!(
        !is_stale("UDP 10.0.0.10:53"),
        "a pod network's switch, before the rules"
    );
    assert!(!is_stale("UDP 10.0.0.10:53 > 10.1.0.1:53"));
    assert!(is_stale("UDP 10.0.0.10:53 > 10.1.0.2:53"));
}

#[test]
fn an_address_that_changes_hands_is_judged_by_its_new_holder_whoever_is_noted_first() {
    // Services are noted in order of their names.
    for (old, new) in [("ns/dns", "ns/zone"), ("ns/dns", "ns/cache")] {
        let (_, short) = new.split_once('/').unwrap();
        let mut followed = Followed::new();
        let claim = service(new, "10.0.0.11", "u/UDP:53").with_external_ips("198.51.100.1");
        let slice_name = format!("{new}-1");
        followed.due_after([
            apply(dns().created(1)),
            endpoints(&["10.1.0.1", "10.1.0.2"]),
            apply(claim.clone().created(2)),
            apply_slice(slice(&slice_name, short, "u/UDP:53", &["10.1.0.2"])),
        ]);
        followed.note([delete(old)]);
        let look = followed.look(&[]);
        let is_stale = |text| followed.flows.is_stale(&flow(text), &look);
        assert!(is_stale("UDP 198.51.100.1:53 > 10.1.0.1:53"), "{new}");
        assert!(!is_stale("UDP 198.51.100.1:53 > 10.1.0.2:53"), "{new}");
        assert!(is_stale("UDP 198.51.100.1:53"), "{new}");
        assert!(is_stale("SCTP 198.51.100.1:53 > 10.1.0.2:53"), "{new}");
    }
}

#[test]
fn in_a_new_service_cidr_flows_that_were_redirected_for_nobody_are_stale_once() {
    let cidr = |text: &str| text.parse::<ipnet::IpNet>().unwrap();
    let mut followed = Followed::new();
    followed.due_after([apply(dns()), endpoints(&["10.1.0.1"])]);
    followed
        .flows
        .set_service_cidrs(vec![cidr("10.0.0.0/16"), cidr("fd00:96::/112")]);
    let look = followed.look(&[]);
    assert_eq!(texts(&look.due), ["10.0.0.0/16", "fd00:96::/112"]);
    let table = [
        ("UDP 10.0.0.99:53 > 10.1.0.1:53", true),
        ("SCTP [fd00:96::99]:53 > [fd00::1]:53", true),
        ("UDP 10.0.0.10:54 > 10.1.0.1:53", true),
        ("UDP 10.0.0.99:53", false),
        ("UDP 10.0.0.10:53 > 10.1.0.1:53", false),
        ("UDP 10.9.0.99:53 > 10.1.0.1:53", false),
        ("TCP 10.0.0.99:53 > 10.1.0.1:53", false),
    ];
    for (text, expected) in table {
        assert_eq!(followed.flows.is_stale(&flow(text), &look), expected, "{text}");
    }
    followed.flows.set_service_cidrs(vec![cidr("10.0.0.0/16")]);
    assert!(
        followed.due_after([]).is_empty(),
        "a known network, and one that is gone"
    );
    followed
        .flows
        .set_service_cidrs(vec![cidr("10.0.0.0/16"), cidr("10.8.0.0/16")]);
    assert_eq!(followed.due_after([]), ["10.8.0.0/16"]);
}
