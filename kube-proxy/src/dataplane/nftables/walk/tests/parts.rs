//! The walker's own parts: what a packet and the kernel's hooks are to it, and what it refuses to guess.

use super::super::hooks::{Choices, Hook};
use super::super::machine::{Machine, Registers};
use super::*;
use crate::dataplane::nftables::expr::{Comparison, Conntrack, Expr, Find, Header, Meta, Register, Remember};
use crate::dataplane::nftables::rules::Hook as Place;
use crate::model::object::TrafficPolicy;
use crate::model::testing::{service, slice};

const CLIENT: &str = "203.0.113.2";
const POD: &str = "10.180.0.99";
const HOST: &str = "192.168.0.2";

/// A ClusterIP and node port with one endpoint here and one elsewhere.
fn web(endpoints: &[&str]) -> Node {
    let web = service("ns/web", "172.30.0.41", "p/TCP:80:30080");
    let slice = slice("ns/web-a", "web", "p/TCP:8080", endpoints);
    Node::with(&Setup::default(), [&web], [&slice])
}

#[test]
fn a_trail_names_the_rules_that_had_a_say_and_what_they_found() {
    let node = web(&["10.180.0.1 local"]);
    let packet = node.packet(CLIENT, "TCP 172.30.0.41:80");
    assert_eq!(
        trails(&node.walk(&packet)),
        "  1.000 10.180.0.1:8080 masqueraded
    services: in service-ips { 172.30.0.41 . TCP . 80 } (ns/web:p), goto endpoints-1-masquerade-host-outside
    endpoints-1-masquerade-host-outside: \"masquerade\", mark 0x4000
    endpoints-1-masquerade-host-outside: in service-endpoints { 172.30.0.41 . TCP . 80 . 0 }, slot 0, one of 1, \
         dnat to 10.180.0.1:8080
    masquerading: mark 0x0, masquerade
"
    );
    let undefined = node.packet(POD, "ping 172.30.0.41");
    assert_eq!(
        trails(&node.walk(&undefined)),
        "  1.000 rejected
    cluster-ips-check: \"Reject traffic to invalid ports of ClusterIPs\", in cluster-ips { 172.30.0.41 }, reject
"
    );
}

#[test]
fn who_is_outside_of_the_source_ranges_reads_so_in_the_trail() {
    let web = service("ns/web", "172.30.0.41", "p/TCP:80")
        .with_load_balancer("1.2.3.4")
        .with_source_ranges("192.0.2.0/24");
    let node = Node::with(&Setup::default(), [&web], []);
    let paths = node.walk(&node.packet(CLIENT, "TCP 1.2.3.4:80"));
    let expected = "firewall-check: in firewall-ips { 1.2.3.4 . TCP . 80 }, not in source-ranges, drop";
    assert_eq!(
        paths[0].trail.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [expected]
    );
}

#[test]
fn a_remembered_client_reads_so_in_the_trail() {
    let web = service("ns/web", "172.30.0.41", "p/TCP:80").with_affinity(600);
    let slice = slice("ns/web-a", "web", "p/TCP:80", &["10.180.0.1", "10.180.0.2"]);
    let mut node = Node::with(&Setup::default(), [&web], [&slice]);
    let packet = node.packet(POD, "TCP 172.30.0.41:80");
    let first = node.walk(&packet).remove(1);
    let said = |path: &Path, words: &str| {
        let mut effects = path.trail.iter().flat_map(|step| &step.effects);
        effects.any(|effect| effect.to_string().starts_with(words))
    };
    assert!(said(&first, "remember in"), "{first:?}");
    node.surroundings.memory = first.memory.clone();
    let again = node.walk(&packet);
    assert!(
        again.iter().all(|path| path.outcome == first.outcome),
        "{}",
        trails(&again)
    );
    assert!(said(&again[0], "remembered in"), "{}", trails(&again));
}

#[test]
fn sources_are_replaced_on_the_way_out_only() {
    // Endpoints on the host network of this node and of another one.
    let node = web(&["192.168.0.2 local", "192.168.0.3"]);
    let to = "TCP 172.30.0.41:80";
    assert_eq!(
        node.answer(CLIENT, to),
        "192.168.0.2:8080; 192.168.0.3:8080 masqueraded"
    );
    assert_eq!(
        node.answer(HOST, to),
        "192.168.0.2:8080 192.168.0.3:8080 masqueraded"
    );
    assert_eq!(node.answer(POD, to), "192.168.0.2:8080 192.168.0.3:8080");
}

#[test]
fn what_the_host_sends_to_itself_comes_in_again() {
    // Node ports without endpoints are refused where packets come in, and nowhere else.
    let node = web(&[]);
    let paths = node.walk(&node.packet(HOST, "TCP 192.168.1.2:30080"));
    assert_eq!(text(&paths), "rejected");
    assert_eq!(paths[0].trail[0].chain, "nodeport-endpoints-check");
}

#[test]
fn a_chain_that_was_left_by_goto_is_not_come_back_to() {
    // A node port behind an address that is served already, though to nobody outside.
    let by_address = service("ns/one", "172.30.0.41", "p/TCP:30080")
        .with_external_ips(HOST)
        .with_policies(TrafficPolicy::Cluster, TrafficPolicy::Local);
    let by_node_port = service("ns/two", "172.30.0.42", "p/TCP:80:30080");
    let slices = ["one", "two"].map(|name| {
        let endpoints = ["10.180.2.1"];
        slice(&format!("ns/{name}-a"), name, "p/TCP:80", &endpoints)
    });
    let node = Node::with(&Setup::default(), [&by_address, &by_node_port], &slices);
    assert_eq!(node.answer(CLIENT, "TCP 192.168.0.2:30080"), "dropped");
    assert_eq!(
        node.answer(CLIENT, "TCP 192.168.1.2:30080"),
        "10.180.2.1:80 masqueraded"
    );
}

#[test]
fn packets_of_a_known_connection_go_where_the_first_one_went() {
    let endpoint = "10.180.0.1:8080".parse().unwrap();
    let known = |redirected, masqueraded| Connection::Established {
        redirected,
        masqueraded,
    };
    for endpoints in [&[][..], &["10.180.0.1 local"], &["10.180.2.1"]] {
        let node = web(endpoints);
        for (connection, expected) in [
            (known(Some(endpoint), true), "10.180.0.1:8080 masqueraded"),
            (known(Some(endpoint), false), "10.180.0.1:8080"),
            (known(None, false), "not ours"),
        ] {
            let packet = Packet {
                connection,
                ..node.packet(CLIENT, "TCP 172.30.0.41:80")
            };
            assert_eq!(
                text(&node.walk(&packet)),
                expected,
                "{connection:?} with {endpoints:?}"
            );
        }
    }
}

#[test]
fn a_mark_that_another_program_set_is_obeyed_and_cleared() {
    let node = web(&["10.180.0.1 local"]);
    let marked = Packet {
        mark: 0x4001,
        ..node.packet(POD, "TCP 198.51.100.7:443")
    };
    let paths = node.walk(&marked);
    assert_eq!((text(&paths).as_str(), paths[0].mark), ("masqueraded", 1));
}

#[test]
fn local_policy_is_seen_through_the_sources() {
    let web = service("ns/web", "172.30.0.41", "p/TCP:80")
        .with_load_balancer("1.2.3.4")
        .with_policies(TrafficPolicy::Cluster, TrafficPolicy::Local);
    let slice = slice("ns/web-a", "web", "p/TCP:80", &["10.180.2.1"]);
    for (detector, interface, expected) in [
        (
            LocalTraffic::InterfacePrefix("veth".to_owned()),
            "veth7",
            "10.180.2.1:80",
        ),
        (
            LocalTraffic::InterfacePrefix("veth".to_owned()),
            "eth0",
            "dropped",
        ),
        (
            LocalTraffic::Interface("cbr0".to_owned()),
            "cbr0",
            "10.180.2.1:80",
        ),
        (LocalTraffic::Interface("cbr0".to_owned()), "cbr01", "dropped"),
    ] {
        let setup = Setup {
            local_traffic: [detector.clone(), LocalTraffic::Unknown],
            ..Setup::default()
        };
        let node = Node::with(&setup, [&web], [&slice]);
        let packet = Packet {
            origin: Origin::Interface(interface.to_owned()),
            ..node.packet(POD, "TCP 1.2.3.4:80")
        };
        assert_eq!(text(&node.walk(&packet)), expected, "{detector:?}, {interface}");
    }
}

#[test]
fn every_combination_of_random_numbers_is_one_way() {
    let node = web(&[]);
    let (table, mut choices) = (node.table(Family::V4), Choices::default());
    let mut ways = Vec::new();
    loop {
        let mut machine = machine(&table, &node, &mut choices);
        let draw = |machine: &mut Machine<'_>, modulus| {
            let random = Expr::Random {
                modulus,
                offset: 10,
                to: Register(0),
            };
            machine.execute(&random).unwrap();
            machine.registers.number(Register(0)).unwrap()
        };
        let first = draw(&mut machine, 2);
        let second = draw(&mut machine, if first == 10 { 3 } else { 1 });
        ways.push((first, second, choices.share()));
        if !choices.turn() {
            break;
        }
    }
    let sixth = 0.5 * (1.0 / 3.0);
    assert_eq!(
        ways,
        [(10, 10, sixth), (10, 11, sixth), (10, 12, sixth), (11, 10, 0.5)]
    );
}

#[test]
fn registers_are_filled_up_and_read_only_where_they_were_loaded() {
    let mut registers = Registers::default();
    registers.load(Register(1), &[6]).unwrap();
    assert_eq!(registers.read(Register(1), 4).unwrap(), [6, 0, 0, 0]);
    for (at, length) in [(0, 4), (1, 5), (2, 1), (15, 8)] {
        assert!(
            registers.read(Register(at), length).is_err(),
            "{length} from {at}"
        );
    }
    assert!(registers.load(Register(15), &[0; 8]).is_err());
    assert!(registers.load(Register(15), &[0; 4]).is_ok());
}

fn machine<'a>(table: &'a Table, node: &'a Node, choices: &'a mut Choices) -> Machine<'a> {
    let packet = node.packet(CLIENT, "TCP 172.30.0.41:80");
    Machine::new(table, &packet, &node.surroundings, choices)
}

/// Where which expressions have no place, in chains of which type.
fn misplaced() -> Vec<(Hook, &'static str, Expr)> {
    let first = Register(0);
    let dnat = || Expr::Dnat {
        family: Family::V4,
        address: first,
        port: Register(1),
    };
    let load = |header, offset| Expr::Payload {
        header,
        offset,
        length: 4,
        to: first,
    };
    let lookup = |set, find| Expr::Lookup {
        set,
        key: first,
        find,
    };
    let remember = |map| Expr::Remember {
        map,
        key: first,
        value: Register(4),
        how: Remember::NoLonger,
    };
    let random = |modulus, offset| Expr::Random {
        modulus,
        offset,
        to: first,
    };
    let (nat, filter) = ("nat", "filter");
    vec![
        (Hook::Prerouting, nat, Expr::Masquerade),
        (Hook::Postrouting, filter, Expr::Masquerade),
        (Hook::Forward, filter, dnat()),
        (Hook::Postrouting, nat, dnat()),
        (Hook::Prerouting, filter, Expr::Reject(Family::V4)),
        (Hook::Forward, filter, Expr::Reject(Family::V6)),
        (Hook::Forward, filter, lookup("no-such-set", Find::Member)),
        (Hook::Forward, filter, lookup("cluster-ips", Find::Verdict)),
        (Hook::Forward, filter, remember("service-endpoints")),
        (Hook::Forward, filter, random(0, 0)),
        (Hook::Forward, filter, random(2, u32::MAX)),
        (Hook::Forward, filter, load(Header::Network, 0)),
        (Hook::Forward, filter, load(Header::Network, 16 + 1)),
        (Hook::Forward, filter, load(Header::Transport, 0)),
        (Hook::Forward, filter, Expr::SetMeta(Meta::L4proto, first)),
        (Hook::Forward, filter, Expr::SetMeta(Meta::Mark, Register(8))),
        (
            Hook::Forward,
            filter,
            Expr::Compare(Register(8), Comparison::Equal, vec![0]),
        ),
        (
            Hook::Postrouting,
            nat,
            Expr::LoadMeta(Meta::InputInterface, first),
        ),
    ]
}

#[test]
fn what_the_kernel_would_refuse_or_nobody_knows_is_an_error() {
    for (hook, kind, expr) in misplaced() {
        let node = web(&["10.180.0.1 local"]);
        let (table, mut choices) = (node.table(Family::V4), Choices::default());
        let mut machine = machine(&table, &node, &mut choices);
        machine.hook = hook;
        machine.place.kind = kind;
        // The key of `cluster-ips` that is in it, and zeros for what is longer.
        let loaded = [&[172, 30, 0, 41][..], &[0; 28]].concat();
        machine.registers.load(Register(0), &loaded).unwrap();
        assert!(machine.execute(&expr).is_err(), "{expr:?} at {hook:?}");
    }
}

#[test]
fn conntrack_comes_before_the_rules_or_after_them_as_their_priorities_say() {
    let node = web(&[]);
    let (table, mut choices) = (node.table(Family::V4), Choices::default());
    let mut machine = machine(&table, &node, &mut choices);
    let state = Expr::LoadConntrack(Conntrack::State, Register(0));
    for (hook, priority, tracked) in [
        (Hook::Prerouting, -300, false),
        (Hook::Output, -300, false),
        (Hook::Prerouting, -110, true),
        (Hook::Input, -300, true),
    ] {
        machine.hook = hook;
        machine.place = Place {
            kind: "filter",
            number: hook as u32,
            priority,
        };
        machine.registers = Registers::default();
        machine.execute(&state).unwrap();
        let loaded = machine.registers.number(Register(0)).is_ok();
        assert_eq!(loaded, tracked, "{hook:?} {priority}");
    }
}

#[test]
fn a_packet_is_walked_in_the_table_of_its_family() {
    let node = web(&[]);
    let packet = node.packet("fd00:10:180::99", "TCP [fd00::1]:80");
    let error = node
        .table(Family::V4)
        .walk(&packet, &node.surroundings)
        .unwrap_err();
    assert_eq!(error.to_string(), "a packet to fd00::1 in the table of IPv4");
}

#[test]
fn a_process_of_the_host_is_led_from_the_loopback_address_to_the_endpoints_and_nobody_else_is() {
    let mut node = web(&["10.180.0.1 local", "10.180.1.1"]);
    let answer = |node: &Node, from: &str, to: &str, origin| {
        let packet = Packet {
            origin,
            ..node.packet(from, to)
        };
        text(&node.walk(&packet))
    };
    let (localhost, to) = ("127.0.0.1", "TCP 127.0.0.1:30080");
    let outside = || Origin::Interface("eth0".to_owned());
    node.dataplane.set_localhost_node_ports(Family::V4, None);
    assert_eq!(answer(&node, localhost, to, Origin::Host), "not ours");
    let source = Some(testing::ip(HOST));
    node.dataplane.set_localhost_node_ports(Family::V4, source);
    let served = "10.180.0.1:8080 10.180.1.1:8080 masqueraded";
    assert_eq!(answer(&node, localhost, to, Origin::Host), served);
    for (from, to) in [(CLIENT, to), (localhost, to), (HOST, to)] {
        assert_eq!(answer(&node, from, to, outside()), "not ours", "{from}");
    }
    for to in [
        "TCP 127.0.0.1:30081",
        "UDP 127.0.0.1:30080",
        "TCP 127.0.0.2:30080",
    ] {
        assert_eq!(answer(&node, localhost, to, Origin::Host), "not ours", "{to}");
    }
}

#[test]
fn addresses_of_a_service_cidr_that_no_service_has_are_dropped_from_the_first_to_the_last() {
    let mut node = web(&["10.180.0.1 local"]);
    let cidrs = ["172.30.0.0/16", "255.0.0.0/8"].map(|cidr| cidr.parse().unwrap());
    node.dataplane.set_service_cidrs(Family::V4, &cidrs);
    for (to, becomes) in [
        ("TCP 172.30.0.41:80", "10.180.0.1:8080"),
        ("TCP 172.30.0.41:81", "rejected"),
        ("TCP 172.30.0.42:80", "dropped"),
        ("UDP 172.30.0.0:80", "dropped"),
        ("ping 172.30.255.255", "dropped"),
        ("TCP 172.29.255.255:80", "not ours"),
        ("TCP 172.31.0.0:80", "not ours"),
        ("UDP 255.255.255.255:80", "dropped"),
    ] {
        assert_eq!(node.answer(POD, to), becomes, "{to}");
    }
}
