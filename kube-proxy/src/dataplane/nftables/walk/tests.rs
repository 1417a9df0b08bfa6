//! The walker's own parts: what a packet and the kernel's hooks are to it, and what it refuses to guess.

use super::machine::{Machine, Registers};
use super::*;
use crate::dataplane::nftables::Nftables;
use crate::dataplane::nftables::expr::{Comparison, Conntrack, Expr, Find, Header, Meta, Register, Remember};
use crate::dataplane::nftables::rules::Hook as Place;
use crate::dataplane::walk::tests::{Node, Planned, Setup, text, trails};
use crate::dataplane::walk::{Choices, Hook, Origin, Packet, Path, Traveller, walk};
use crate::model::object::Family;
use crate::model::testing::{self, service, slice};

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
    let expected = "firewall-check: in restricted-ips { 1.2.3.4 . TCP . 80 }, not in source-ranges, drop";
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

fn dataplane(node: &Node) -> &Nftables {
    match &node.planned {
        Planned::Nftables(dataplane) => dataplane,
        Planned::Iptables(_) => panic!("a node of the other mode"),
    }
}

fn table(node: &Node) -> Table {
    Table::planned(dataplane(node), Family::V4).unwrap()
}

fn traveller<'a>(node: &'a Node, choices: &'a mut Choices) -> Traveller<'a> {
    let packet = node.packet(CLIENT, "TCP 172.30.0.41:80");
    Traveller::new(&packet, &node.surroundings, choices)
}

fn machine<'a, 'b>(table: &'a Table, traveller: &'a mut Traveller<'b>) -> Machine<'a, 'b> {
    let place = Place {
        kind: "",
        number: 0,
        priority: 0,
    };
    Machine::new(table, traveller, place)
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
        let (table, mut choices) = (table(&node), Choices::default());
        let mut traveller = traveller(&node, &mut choices);
        traveller.hook = hook;
        let mut machine = machine(&table, &mut traveller);
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
    let (table, mut choices) = (table(&node), Choices::default());
    let mut traveller = traveller(&node, &mut choices);
    let mut machine = machine(&table, &mut traveller);
    let state = Expr::LoadConntrack(Conntrack::State, Register(0));
    for (hook, priority, tracked) in [
        (Hook::Prerouting, -300, false),
        (Hook::Output, -300, false),
        (Hook::Prerouting, -110, true),
        (Hook::Input, -300, true),
    ] {
        machine.on.hook = hook;
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
    let error = walk(&table(&node), &packet, &node.surroundings).unwrap_err();
    assert_eq!(error.to_string(), "a packet to fd00::1 in the rules of IPv4");
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
    node.planned
        .dataplane()
        .set_localhost_node_ports(Family::V4, None);
    assert_eq!(answer(&node, localhost, to, Origin::Host), "not ours");
    let source = Some(testing::ip(HOST));
    node.planned
        .dataplane()
        .set_localhost_node_ports(Family::V4, source);
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
    node.planned.dataplane().set_service_cidrs(Family::V4, &cidrs);
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
