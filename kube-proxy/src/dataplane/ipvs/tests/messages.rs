//! What is said to the kernel, byte by byte, and what it says.

use super::super::entry::At;
use super::super::message::{self, Listed};
use super::super::steps::{Held, Step};
use super::{at, backend, settings};
use crate::model::object::Family;
use crate::netlink::generic::Requests;
use crate::netlink::{attributes, messages};

/// The body of the one request that takes a step: command and attributes.
fn request(at: At, step: &Step) -> (u8, Vec<u8>) {
    let mut requests = Requests::to(0x42);
    assert_eq!(message::request(&mut requests, at, step), 1);
    let all: Vec<_> = messages(requests.bytes()).collect();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].kind, 0x42);
    let body = all[0].body();
    (body[0], body[4..].to_vec())
}

fn field(bytes: &[u8], wanted: u16) -> Vec<u8> {
    let mut all = attributes(bytes);
    let found = all.find(|(kind, _)| *kind == wanted);
    found.map(|(_, value)| value.to_vec()).unwrap_or_default()
}

#[test]
fn a_virtual_server_is_described_as_ip_vs_h_has_it() {
    let (command, body) = request(
        at("TCP 10.96.0.1:443"),
        &Step::NewServer(settings("mh", Some(10_800))),
    );
    assert_eq!(command, 1);
    let service = field(&body, 1);
    assert_eq!(field(&service, 1), 2u16.to_ne_bytes()); // AF_INET
    assert_eq!(field(&service, 2), 6u16.to_ne_bytes()); // TCP
    assert_eq!(
        field(&service, 3),
        [10, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(field(&service, 4), [1, 0xbb]);
    assert_eq!(field(&service, 6), b"mh\0");
    // Persistent, and by the ports of clients; every flag is meant.
    let flags = [0x11u32.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat();
    assert_eq!(field(&service, 7), flags);
    assert_eq!(field(&service, 8), 10_800u32.to_ne_bytes());
    assert_eq!(field(&service, 9), [255; 4]);
}

#[test]
fn a_virtual_server_and_an_endpoint_are_read_as_they_are_written() {
    for (place, endpoint, family) in [
        ("UDP 10.96.0.10:53", "10.180.0.1:5353", Family::V4),
        ("SCTP [fd00::1]:9", "[fd00::2]:90", Family::V6),
    ] {
        for settings in [settings("rr", None), settings("mh", Some(5))] {
            let (_, body) = request(at(place), &Step::NewServer(settings.clone()));
            let expected = Held {
                settings,
                is_usual: true,
                endpoints: Default::default(),
            };
            assert_eq!(message::server(&body), Some((at(place), expected)));
        }
        let step = Step::SetEndpoint(backend(endpoint), 7);
        let (command, mut body) = request(at(place), &step);
        assert_eq!(command, 6);
        // The kernel tells of connections as well.
        assert_eq!(message::listed(&body, family), None);
        let mut dest = field(&body, 2);
        let mut all = crate::netlink::Attributes::at_end(&mut dest);
        all.bytes(7, &3u32.to_ne_bytes());
        all.bytes(8, &4u32.to_ne_bytes());
        body.clear();
        crate::netlink::Attributes::at_end(&mut body).nested(2, |message| message.copy(&dest));
        let expected = Listed {
            backend: backend(endpoint),
            weight: 7,
            active: 3,
            inactive: 4,
        };
        assert_eq!(message::listed(&body, family), Some(expected));
    }
}

#[test]
fn a_virtual_server_of_another_hand_is_recognised_as_different_or_not_ours() {
    let (_, body) = request(at("TCP 10.96.0.1:80"), &Step::NewServer(settings("wlc", None)));
    let service = field(&body, 1);
    let with = |kind: u16, value: &[u8]| {
        let mut changed = Vec::new();
        let mut all = crate::netlink::Attributes::at_end(&mut changed);
        all.nested(1, |message| {
            // What comes first counts.
            message.bytes(kind, value);
            message.copy(&service);
        });
        message::server(&changed)
    };
    // The kernel's own flag that it is in its table does not count.
    let hashed = [2u32.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat();
    assert!(with(7, &hashed).unwrap().1.is_usual);
    let one_packet = [4u32.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat();
    assert!(!with(7, &one_packet).unwrap().1.is_usual);
    // Clients of a network together.
    assert!(!with(9, &[255, 255, 255, 0]).unwrap().1.is_usual);
    // By firewall mark.
    assert_eq!(with(5, &9u32.to_ne_bytes()), None);
}
