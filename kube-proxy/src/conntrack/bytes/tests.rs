//! The accounting: ends and dumps come in, totals go out; and how entries are read.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::conntrack::bytes::accounts::Bytes;
use crate::conntrack::tests::table::write_tuple;
use crate::garbage::spoilt;
use crate::model::object::Protocol;
use crate::model::testing::{self, name, service, slice, view_of};
use crate::netlink::Attributes;

/// What is counted, without the kernel.
#[derive(Default)]
struct Ledger {
    books: Books,
    seen: Seen,
}

impl Ledger {
    /// Knows the Service `ns/web`.
    fn of_web() -> Self {
        let mut ledger = Self::default();
        ledger.update("ns/web", "10.0.0.1", "p/TCP:80:30080 q/UDP:53");
        ledger
    }

    fn update(&mut self, service_name: &str, ip: &str, ports: &str) {
        let view = view(service_name, ip, ports);
        self.books.update(&view.name, Some(&view), Frontend::of);
    }

    fn ends(&mut self, entry: Counted) {
        let bytes = self.seen.ended(&entry);
        add(&mut self.books, &entry, entry.asked.ip() == node(), bytes);
    }

    /// A look sees these, and meanwhile is told the end of others.
    fn looks(&mut self, living: &[Counted], ended: &[Counted]) {
        for entry in ended {
            self.ends(*entry);
        }
        let ended = ended.iter().map(|entry| entry.key).collect();
        let Self { books, seen } = self;
        seen.listed(living, &ended, true, |entry, bytes| {
            add(books, entry, entry.asked.ip() == node(), bytes);
        });
    }

    /// `PORT: TO/FROM` of each ServicePort.
    fn told(&self) -> Vec<String> {
        let text = |of: PortTotal<Bytes>| {
            let Bytes {
                to_endpoint,
                from_endpoint,
            } = of.total;
            format!("{}: {to_endpoint}/{from_endpoint}", of.port_name)
        };
        self.books.told().into_iter().map(text).collect()
    }
}

fn view(service_name: &str, ip: &str, ports: &str) -> ServiceView {
    let (namespace, short) = service_name.split_once('/').unwrap();
    let slices = [slice(
        &format!("{namespace}/{short}-a"),
        short,
        "p/TCP:80 q/UDP:53",
        &["10.1.0.1"],
    )];
    view_of(&service(service_name, ip, ports), &slices)
}

fn node() -> IpAddr {
    testing::ip("192.168.0.1")
}

/// What an entry with this number has: a client of the port 80 asked, unless something else is said.
fn entry(key: u64, to_endpoint: u64, from_endpoint: u64) -> Counted {
    Counted {
        key: Key(key),
        protocol: Protocol::Tcp,
        asked: "10.0.0.1:80".parse().unwrap(),
        dying: false,
        bytes: Bytes {
            to_endpoint,
            from_endpoint,
        },
    }
}

fn asking(protocol: Protocol, at: &str) -> Counted {
    let asked: SocketAddr = at.parse().unwrap();
    Counted {
        protocol,
        asked,
        ..entry(9, 1, 2)
    }
}

#[test]
fn a_connection_counts_as_it_goes_and_once() {
    let mut ledger = Ledger::of_web();
    assert_eq!(ledger.told(), ["p: 0/0", "q: 0/0"]);
    for _ in 0..2 {
        ledger.looks(&[entry(1, 100, 1000)], &[]);
        assert_eq!(ledger.told(), ["p: 100/1000", "q: 0/0"]);
    }
    ledger.looks(&[entry(1, 150, 1000), entry(2, 7, 0)], &[]);
    assert_eq!(ledger.told(), ["p: 157/1000", "q: 0/0"]);
    // One that a dump shows twice.
    ledger.looks(&[entry(1, 150, 1001), entry(1, 151, 1002), entry(2, 7, 0)], &[]);
    assert_eq!(ledger.told(), ["p: 158/1002", "q: 0/0"]);
    ledger.ends(entry(1, 160, 1010));
    ledger.ends(entry(2, 7, 5));
    ledger.ends(entry(3, 1, 1));
    assert_eq!(ledger.told(), ["p: 168/1016", "q: 0/0"]);
    ledger.looks(&[], &[]);
    assert_eq!(ledger.told(), ["p: 168/1016", "q: 0/0"]);
    assert_eq!(ledger.seen.len(), 0);
}

#[test]
fn an_end_that_a_dump_overtakes_or_is_overtaken_by_counts_once() {
    let mut ledger = Ledger::of_web();
    ledger.ends(entry(1, 100, 0));
    let dying = Counted {
        dying: true,
        ..entry(1, 100, 0)
    };
    ledger.looks(&[dying], &[]);
    assert_eq!(ledger.told()[0], "p: 100/0");
    // The dump read it before its end.
    ledger.looks(&[entry(2, 30, 0)], &[entry(2, 40, 0)]);
    assert_eq!(ledger.told()[0], "p: 140/0");
    // Its counters were read after those of its end, which a packet under way still raised.
    ledger.looks(&[entry(3, 11, 0)], &[]);
    ledger.ends(entry(3, 10, 0));
    assert_eq!(ledger.told()[0], "p: 151/0");
    assert_eq!(ledger.seen.len(), 0);
}

#[test]
fn an_entry_in_the_place_of_another_with_the_same_number_counts_as_what_it_is() {
    let mut ledger = Ledger::of_web();
    ledger.looks(&[entry(1, 100, 100)], &[]);
    ledger.ends(entry(1, 110, 110));
    ledger.looks(&[entry(1, 5, 5)], &[]);
    assert_eq!(ledger.told()[0], "p: 115/115");
    // The old one ended during the dump, which shows the new one already.
    ledger.looks(&[entry(1, 3, 3)], &[entry(1, 6, 6)]);
    assert_eq!(ledger.told()[0], "p: 116/116");
    ledger.looks(&[entry(1, 4, 4)], &[]);
    assert_eq!(ledger.told()[0], "p: 120/120");
    // The old one's end was lost; what it had since the look is lost with it.
    ledger.looks(&[entry(1, 2, 3)], &[]);
    assert_eq!(ledger.told()[0], "p: 122/123");
    ledger.ends(entry(1, 3, 3));
    assert_eq!(ledger.told()[0], "p: 123/123");
}

#[test]
fn what_is_remembered_is_bounded_by_what_lives_whatever_gets_lost() {
    let mut ledger = Ledger::of_web();
    for round in 0..10 {
        let living: Vec<Counted> = (0..100).map(|n| entry(round * 100 + n, 1, 1)).collect();
        ledger.looks(&living, &[]);
        // No end of the last hundred was told.
        assert!(ledger.seen.len() <= 200, "{}", ledger.seen.len());
    }
    assert_eq!(ledger.told()[0], "p: 1000/1000");
    ledger.looks(&[], &[]);
    ledger.looks(&[], &[]);
    assert_eq!(ledger.seen.len(), 0);
    // What one dump left out is still known.
    ledger.looks(&[entry(1, 50, 0)], &[]);
    ledger.looks(&[], &[]);
    ledger.looks(&[entry(1, 51, 0)], &[]);
    assert_eq!(ledger.told()[0], "p: 1051/1000");
    // One that broke off says of nothing that it is gone.
    let Ledger { seen, .. } = &mut ledger;
    for _ in 0..5 {
        seen.listed(&[], &HashSet::new(), false, |_, _| {});
    }
    assert_eq!(ledger.seen.len(), 1);
}

#[test]
fn a_connection_is_that_of_the_frontend_that_its_client_asked_for() {
    let mut ledger = Ledger::of_web();
    ledger.ends(asking(Protocol::Tcp, "10.0.0.1:80"));
    ledger.ends(asking(Protocol::Udp, "10.0.0.1:53"));
    ledger.ends(asking(Protocol::Tcp, "192.168.0.1:30080"));
    assert_eq!(ledger.told(), ["p: 2/4", "q: 1/2"]);
    for (protocol, at) in [
        (Protocol::Tcp, "10.0.0.1:53"),
        (Protocol::Udp, "10.0.0.1:80"),
        (Protocol::Sctp, "10.0.0.1:80"),
        (Protocol::Tcp, "10.0.0.2:80"),
        (Protocol::Tcp, "10.1.0.1:80"),
        // Another machine's.
        (Protocol::Tcp, "192.168.0.2:30080"),
        (Protocol::Tcp, "[::1]:30080"),
    ] {
        ledger.ends(asking(protocol, at));
    }
    assert_eq!(ledger.told(), ["p: 2/4", "q: 1/2"]);
    // An update that changes no address changes no count.
    ledger.update("ns/web", "10.0.0.1", "p/TCP:80:30080 q/UDP:53");
    assert_eq!(ledger.told(), ["p: 2/4", "q: 1/2"]);
    // Another Service has got the address, and then the first is said to be without it.
    ledger.update("ns/other", "10.0.0.1", "p/TCP:80");
    ledger.update("ns/web", "10.0.0.3", "p/TCP:80:30080");
    ledger.ends(asking(Protocol::Tcp, "10.0.0.1:80"));
    assert_eq!(ledger.told(), ["p: 1/2", "p: 2/4"]);
    ledger.books.update(&name("ns/web"), None, Frontend::of);
    ledger.books.update(&name("ns/other"), None, Frontend::of);
    ledger.ends(asking(Protocol::Tcp, "10.0.0.1:80"));
    assert!(ledger.told().is_empty());
}

#[test]
fn ten_thousand_service_ports_have_series_the_first_by_name() {
    let mut ledger = Ledger::default();
    let names: Vec<String> = (0..5001).map(|n| format!("ns/s{n:04}")).collect();
    for (n, service_name) in names.iter().enumerate().rev() {
        let ip = format!("10.0.{}.{}", n / 250, n % 250);
        ledger.update(service_name, &ip, "p/TCP:80 q/UDP:53");
    }
    let told = ledger.books.told();
    assert_eq!(told.len(), 10_000);
    assert_eq!(told[0].service, name("ns/s0000"));
    assert_eq!(told[9999].service, name("ns/s4999"));
}

/// What happens to one of a few numbers that entries have.
#[derive(Clone, Debug)]
enum Event {
    Carries(u64, u64),
    Ends(u64),
    EndsUnheard(u64),
    Look,
    /// This one is not in the dump, as where the table is made larger.
    LookWithout(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let number = || 0..4_u64;
    proptest::collection::vec(
        prop_oneof![
            4 => (number(), 1..1000_u64).prop_map(|(key, bytes)| Event::Carries(key, bytes)),
            2 => number().prop_map(Event::Ends),
            1 => number().prop_map(Event::EndsUnheard),
            2 => Just(Event::Look),
            1 => number().prop_map(Event::LookWithout),
        ],
        0..60,
    )
}

proptest! {
    #[test]
    fn a_total_never_goes_down_and_is_all_that_was_carried_but_for_lost_ends(events in events()) {
        let mut ledger = Ledger::of_web();
        let mut table: BTreeMap<u64, u64> = BTreeMap::new();
        let (mut carried, mut lost) = (0, false);
        let total = |ledger: &Ledger| ledger.books.told()[0].total.to_endpoint;
        let look = |ledger: &mut Ledger, table: &BTreeMap<u64, u64>, without: Option<u64>| {
            let living = table.iter().filter(|(key, _)| Some(**key) != without);
            let living: Vec<Counted> = living.map(|(key, bytes)| entry(*key, *bytes, 0)).collect();
            ledger.looks(&living, &[]);
        };
        let mut left_out = None;
        for event in events {
            let before = total(&ledger);
            match event {
                Event::Carries(key, bytes) => {
                    *table.entry(key).or_default() += bytes;
                    carried += bytes;
                }
                Event::Ends(key) => {
                    if let Some(bytes) = table.remove(&key) {
                        ledger.ends(entry(key, bytes, 0));
                    }
                }
                Event::EndsUnheard(key) => lost |= table.remove(&key).is_some(),
                Event::Look => {
                    look(&mut ledger, &table, None);
                    left_out = None;
                }
                // Not two in a row.
                Event::LookWithout(key) if left_out.is_none() => {
                    look(&mut ledger, &table, Some(key));
                    left_out = Some(key);
                }
                Event::LookWithout(_) => {}
            }
            prop_assert!(total(&ledger) >= before);
            prop_assert!(total(&ledger) <= carried);
        }
        look(&mut ledger, &table, None);
        prop_assert!(lost || total(&ledger) == carried);
        prop_assert!(total(&ledger) <= carried);
    }

    #[test]
    fn messages_that_are_not_what_they_should_be_are_passed_over(bytes in spoilt(message(&MESSAGE))) {
        Counted::read(&bytes, &RandomState::new());
    }
}

/// What a message says.
#[derive(Clone, Copy)]
struct Said {
    client: &'static str,
    asked: &'static str,
    answering: &'static str,
    protocol: u8,
    status: u32,
    zone: Option<u16>,
    id: u32,
    counters: Option<[u64; 2]>,
}

const MESSAGE: Said = Said {
    client: "10.2.0.1:1000",
    asked: "10.0.0.1:80",
    answering: "10.1.0.1:8080",
    protocol: 6,
    status: 0x1ae,
    zone: None,
    id: 99,
    counters: Some([1234, 1 << 40]),
};

fn message(said: &Said) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut message = Attributes::at_end(&mut bytes);
    message.bytes(0, &[]); // stands for the head
    let tuple = |tuple: &mut Attributes<'_>, ends: [&str; 2]| {
        let ends = ends.map(|end| end.parse::<SocketAddr>().unwrap());
        write_tuple(tuple, said.protocol, ends);
    };
    message.nested(1, |original| tuple(original, [said.client, said.asked]));
    message.nested(2, |reply| tuple(reply, [said.answering, said.client]));
    message.be32(3, said.status);
    for (kind, bytes) in (9..).zip(said.counters.into_iter().flatten()) {
        message.nested(kind, |counters| {
            counters.bytes(1, &7_u64.to_be_bytes());
            counters.bytes(2, &bytes.to_be_bytes());
        });
    }
    if let Some(zone) = said.zone {
        message.bytes(18, &zone.to_be_bytes());
    }
    message.be32(12, said.id);
    bytes
}

#[test]
fn an_entry_is_read_with_whom_its_client_asked_and_what_it_carried() {
    let keys = RandomState::new();
    let read = |said: &Said| Counted::read(&message(said), &keys);
    let plain = read(&MESSAGE).unwrap();
    let expected = Counted {
        key: plain.key,
        ..entry(0, 1234, 1 << 40)
    };
    assert_eq!(plain, expected);
    assert_eq!(read(&MESSAGE), Some(expected), "with the same key");
    let ipv6 = Said {
        client: "[fd00::2]:1000",
        asked: "[fd00::10]:53",
        answering: "[fd00::1]:53",
        protocol: 17,
        ..MESSAGE
    };
    let read_6 = read(&ipv6).unwrap();
    assert_eq!(
        (read_6.protocol, read_6.asked.to_string()),
        (Protocol::Udp, "[fd00::10]:53".to_owned())
    );
    let dying = Said {
        status: 0x3ae,
        ..MESSAGE
    };
    assert!(read(&dying).unwrap().dying && !plain.dying);
    // Others have other keys.
    for other in [
        Said { id: 98, ..MESSAGE },
        Said {
            client: "10.2.0.1:1001",
            ..MESSAGE
        },
        Said {
            zone: Some(7),
            ..MESSAGE
        },
        Said {
            protocol: 132,
            ..MESSAGE
        },
    ] {
        assert_ne!(read(&other).unwrap().key, plain.key);
    }
    // Neither redirected, nor counted, nor of a protocol of Services.
    for none in [
        Said {
            answering: "10.0.0.1:80",
            ..MESSAGE
        },
        Said {
            counters: None,
            ..MESSAGE
        },
        Said {
            protocol: 1,
            ..MESSAGE
        },
    ] {
        assert_eq!(read(&none), None);
    }
    let whole = message(&MESSAGE);
    for length in 0..whole.len() {
        assert_eq!(Counted::read(&whole[..length], &keys), None, "{length}");
    }
}
