//! The kernel's table: what is read from it, and that what is deleted is what was meant.

use std::cell::RefCell;

use lab::net::Namespace;
use nix::errno::Errno;

use super::*;
use crate::conntrack::flows::Filter;
use crate::conntrack::netlink::{Deletions, Entry, request, sweep, walk};
use crate::model::object::Family;
use crate::netlink::{Attributes, Socket, begin, end, nfproto};

/// An entry as a test wants it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tracked {
    flow: Flow,
    client: SocketAddr,
    /// 0 for none.
    zone: u16,
}

/// An entry of a client; for the rest see [`flow`].
pub(super) fn tracked(client: &str, text: &str) -> Tracked {
    Tracked {
        flow: flow(text),
        client: client.parse().unwrap(),
        zone: 0,
    }
}

/// Writes entries into a namespace's table.
pub(super) fn inject(namespace: &Namespace, entries: impl IntoIterator<Item = Tracked>) {
    const NEW: u16 = 1 << 8;
    const CREATE: u16 = 0x400;
    let entries: Vec<_> = entries.into_iter().collect();
    let write = || {
        let mut socket = Socket::open().unwrap();
        for entries in entries.chunks(500) {
            let mut bytes = Vec::new();
            for entry in entries {
                let family = nfproto(Family::of(entry.client.ip()));
                let start = begin(&mut bytes, NEW, CREATE, 1, (family, 0));
                let mut message = Attributes::at_end(&mut bytes);
                let flow = entry.flow;
                message.nested(1, |original| {
                    write_tuple(original, flow.protocol.number(), [entry.client, flow.asked]);
                });
                message.nested(2, |reply| {
                    write_tuple(reply, flow.protocol.number(), [flow.answering, entry.client]);
                });
                if entry.zone > 0 {
                    message.bytes(18, &entry.zone.to_be_bytes());
                }
                // Confirmed, and with an answer.
                message.be32(3, 1 << 3 | 1 << 1);
                message.be32(7, 600);
                end(&mut bytes, start);
            }
            assert_eq!(socket.ask(&bytes).unwrap(), []);
        }
    };
    namespace.enter(write).unwrap();
}

/// The packets of one direction, from the first end to the second, of a protocol with this number.
pub(in crate::conntrack) fn write_tuple(tuple: &mut Attributes<'_>, protocol: u8, ends: [SocketAddr; 2]) {
    tuple.nested(1, |ip| {
        for (end, at) in (0..).zip(ends) {
            match at.ip() {
                IpAddr::V4(address) => ip.bytes(1 + end, &address.octets()),
                IpAddr::V6(address) => ip.bytes(3 + end, &address.octets()),
            }
        }
    });
    tuple.nested(2, |proto| {
        proto.bytes(1, &[protocol]);
        for (end, at) in (2..).zip(ends) {
            proto.bytes(end, &at.port().to_be_bytes());
        }
    });
}

/// Flows of this kind, wherever their clients asked.
fn all(family: Family, protocol: Protocol) -> Filter {
    Filter {
        family,
        protocol,
        ip: None,
        port: None,
    }
}

/// The flows of a namespace, in order, as [`flow`] reads them, with `zoned` behind where it is so.
pub(super) fn list(namespace: &Namespace, family: Family, protocol: Protocol) -> Vec<String> {
    let read = || {
        let texts = RefCell::new(Vec::new());
        let swept = sweep(all(family, protocol), |flow| {
            texts.borrow_mut().push(text(flow));
            false
        });
        assert_eq!((swept.deleted, swept.result), (0, Ok(())));
        texts.into_inner()
    };
    let mut texts = namespace.enter(read).unwrap();
    texts.sort();
    texts
}

fn text(flow: &Flow) -> String {
    let Flow {
        protocol,
        asked,
        answering,
        zoned,
        answered: _,
    } = flow;
    let zoned = if *zoned { " zoned" } else { "" };
    if asked == answering {
        format!("{protocol} {asked}{zoned}")
    } else {
        format!("{protocol} {asked} > {answering}{zoned}")
    }
}

/// How many entries a namespace has in a family, whatever they are.
pub(super) fn count(namespace: &Namespace, family: Family) -> usize {
    let read = || {
        let mut count = 0;
        let everything = request(all(family, Protocol::Udp), false);
        Socket::open().unwrap().dump(&everything, |_| count += 1).unwrap();
        count
    };
    namespace.enter(read).unwrap()
}

fn table() -> Namespace {
    Namespace::create("conntrack").unwrap()
}

const V4: Family = Family::V4;
const V6: Family = Family::V6;
const UDP: Protocol = Protocol::Udp;
const SCTP: Protocol = Protocol::Sctp;

fn mixed() -> Vec<Tracked> {
    let zoned = Tracked {
        zone: 7,
        ..tracked("10.2.0.1:1000", "UDP 10.0.0.10:53 > 10.1.0.7:53")
    };
    vec![
        tracked("10.2.0.1:1000", "UDP 10.0.0.10:53 > 10.1.0.1:53"),
        zoned,
        tracked("10.2.0.1:1001", "UDP 10.0.0.10:53"),
        tracked("10.2.0.1:1000", "SCTP 10.0.0.10:53 > 10.1.0.1:53"),
        tracked("10.2.0.1:1000", "TCP 10.0.0.10:53 > 10.1.0.1:53"),
        tracked("[fd00::2:1]:1000", "UDP [fd00::10]:53 > [fd00::1]:53"),
        tracked("[fd00::2:1]:1000", "SCTP [fd00::10]:53 > [fd00::1]:53"),
    ]
}

#[test]
fn flows_are_read_by_family_and_protocol_with_where_they_go() {
    let table = table();
    inject(&table, mixed());
    let cases: [(Family, Protocol, &[&str]); 4] = [
        (
            V4,
            UDP,
            &[
                "UDP 10.0.0.10:53",
                "UDP 10.0.0.10:53 > 10.1.0.1:53",
                "UDP 10.0.0.10:53 > 10.1.0.7:53 zoned",
            ],
        ),
        (V4, SCTP, &["SCTP 10.0.0.10:53 > 10.1.0.1:53"]),
        (V6, UDP, &["UDP [fd00::10]:53 > [fd00::1]:53"]),
        (V6, SCTP, &["SCTP [fd00::10]:53 > [fd00::1]:53"]),
    ];
    for (family, protocol, expected) in cases {
        assert_eq!(list(&table, family, protocol), expected);
    }
}

#[test]
fn the_kernel_sorts_out_what_is_not_asked_for_and_without_its_filter_no_more_is_looked_at() {
    let table = table();
    inject(&table, mixed());
    inject(
        &table,
        [
            tracked("10.2.0.1:1002", "UDP 10.0.0.10:54 > 10.1.0.1:53"),
            tracked("10.2.0.1:1003", "UDP 10.0.0.11:53 > 10.1.0.1:53"),
            tracked("[fd00::2:1]:1001", "UDP [fd00::11]:53 > [fd00::1]:53"),
        ],
    );
    let filter = |family, protocol, ip: &str, port| Filter {
        ip: ip.parse().ok(),
        port,
        ..all(family, protocol)
    };
    let cases = [
        (filter(V4, UDP, "", None), 5),
        (filter(V4, UDP, "10.0.0.10", None), 4),
        (filter(V4, UDP, "", Some(53)), 4),
        (filter(V4, UDP, "10.0.0.10", Some(53)), 3),
        (filter(V4, UDP, "10.0.0.12", Some(53)), 0),
        (filter(V4, SCTP, "", None), 1),
        (filter(V4, SCTP, "10.0.0.11", None), 0),
        (filter(V4, SCTP, "10.0.0.10", Some(53)), 1),
        (filter(V6, UDP, "", None), 2),
        // Whole families of addresses would be missed if an IPv6 address were left to the kernel.
        (filter(V6, UDP, "fd00::10", Some(53)), 2),
        (filter(V6, UDP, "fd00::10", Some(54)), 0),
    ];
    for (wanted, expected) in cases {
        let messages = || {
            let mut count = 0;
            let request = request(wanted, true);
            Socket::open().unwrap().dump(&request, |_| count += 1).unwrap();
            count
        };
        assert_eq!(table.enter(messages).unwrap(), expected, "{wanted:?}");
        let unfiltered = || {
            let protocols = RefCell::new(Vec::new());
            let remember = |flow: &Flow| {
                protocols.borrow_mut().push(flow.protocol);
                false
            };
            walk(wanted, false, &mut 0, remember).unwrap();
            protocols.into_inner()
        };
        let seen = table.enter(unfiltered).unwrap();
        assert!(seen.len() >= expected && seen.iter().all(|protocol| *protocol == wanted.protocol));
    }
}

#[test]
fn what_is_stale_is_deleted_in_its_zone_and_all_else_stays() {
    let table = table();
    inject(&table, mixed());
    let delete = |to: &str| {
        let to: SocketAddr = to.parse().unwrap();
        let swept = table
            .enter(|| sweep(all(V4, UDP), |flow| flow.answering == to))
            .unwrap();
        assert_eq!(swept.result, Ok(()));
        swept.deleted
    };
    assert_eq!(delete("10.1.0.7:53"), 1);
    assert_eq!(
        list(&table, V4, UDP),
        ["UDP 10.0.0.10:53", "UDP 10.0.0.10:53 > 10.1.0.1:53"]
    );
    assert_eq!(delete("10.1.0.1:53"), 1);
    assert_eq!(list(&table, V4, UDP), ["UDP 10.0.0.10:53"]);
    assert_eq!(delete("10.1.0.1:53"), 0);
    assert_eq!(
        (count(&table, V4), count(&table, V6)),
        (3, 2),
        "SCTP, TCP and IPv6 stay"
    );
}

#[test]
fn an_entry_that_took_the_place_of_the_one_that_was_read_is_not_deleted() {
    let table = table();
    inject(
        &table,
        [tracked("10.2.0.1:1000", "UDP 10.0.0.10:53 > 10.1.0.1:53")],
    );
    let delete = |number_changed: bool| {
        let mut message = Vec::new();
        let everything = request(all(V4, UDP), true);
        Socket::open()
            .unwrap()
            .dump(&everything, |entry| message = entry.to_vec())
            .unwrap();
        let mut entry = Entry::read(&message).unwrap();
        let other = [entry.id[0] ^ 1, entry.id[1], entry.id[2], entry.id[3]];
        if number_changed {
            entry.id = &other;
        }
        let mut deletions = Deletions::new(V4).unwrap();
        deletions.add(&entry);
        let mut deleted = 0;
        deletions.finish(&mut deleted).unwrap();
        deleted
    };
    assert_eq!(table.enter(|| delete(true)).unwrap(), 0);
    assert_eq!(count(&table, V4), 1);
    assert_eq!(table.enter(|| delete(false)).unwrap(), 1);
    assert_eq!(count(&table, V4), 0);
}

#[test]
fn of_many_entries_exactly_the_stale_ones_are_deleted_while_others_come() {
    const MANY: u32 = 150_000;
    const MORE: u32 = 30_000;
    let table = table();
    let entry = |n: u32| {
        let client = std::net::Ipv4Addr::from(0x0a02_0000 + n / 250);
        let endpoint = if n < MANY && n.is_multiple_of(3) { 1 } else { 2 };
        tracked(
            &format!("{client}:{}", 1000 + n % 250),
            &format!("UDP 10.0.0.10:53 > 10.1.0.{endpoint}:53"),
        )
    };
    inject(&table, (0..MANY).map(entry));
    let gone: IpAddr = "10.1.0.1".parse().unwrap();
    let swept = std::thread::scope(|scope| {
        scope.spawn(|| inject(&table, (MANY..MANY + MORE).map(entry)));
        let sweep = || sweep(all(V4, UDP), |flow| flow.answering.ip() == gone);
        table.enter(sweep).unwrap()
    });
    assert_eq!((swept.deleted, swept.result), (u64::from(MANY / 3), Ok(())));
    assert_eq!(count(&table, V4), (MANY * 2 / 3 + MORE) as usize);
}

#[test]
fn messages_that_are_not_what_they_should_be_are_passed_over() {
    let mut whole = Vec::new();
    let mut message = Attributes::at_end(&mut whole);
    let Tracked { flow, client, .. } = tracked("10.2.0.1:1000", "UDP 10.0.0.10:53 > 10.1.0.1:53");
    message.bytes(0, &[]); // stands for the head
    message.nested(1, |original| {
        write_tuple(original, UDP.number(), [client, flow.asked]);
    });
    message.nested(2, |reply| {
        write_tuple(reply, UDP.number(), [flow.answering, client]);
    });
    message.be32(12, 99);
    let read = Entry::read(&whole).unwrap();
    assert_eq!((read.flow, read.id), (flow, &99u32.to_be_bytes()[..]));
    // Cut anywhere it lacks something, at least its number.
    for length in 0..whole.len() {
        assert_eq!(Entry::read(&whole[..length]), None, "{length}");
    }
}

/// Set in the process that a test starts without CAP_NET_ADMIN.
const WITHOUT_CAPABILITY: &str = "KUBE_PROXY_TEST_WITHOUT_CAPABILITY";

#[test]
fn without_cap_net_admin_a_walk_ends_at_once_with_the_reason() {
    const NAME: &str = "conntrack::tests::table::without_cap_net_admin_a_walk_ends_at_once_with_the_reason";
    if std::env::var_os(WITHOUT_CAPABILITY).is_some() {
        let swept = table().enter(|| sweep(all(V4, UDP), |_| true)).unwrap();
        assert_eq!((swept.deleted, swept.result), (0, Err(Errno::EPERM)));
        return;
    }
    let output = std::process::Command::new("setpriv")
        .args(["--bounding-set=-net_admin", "--inh-caps=-all", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", NAME])
        .env(WITHOUT_CAPABILITY, "1")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && printed.contains("1 passed"),
        "{printed}"
    );
}
