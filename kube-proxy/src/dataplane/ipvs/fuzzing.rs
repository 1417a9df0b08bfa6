//! What IPVS and route netlink say, as fuzzing makes it.

use super::entry::At;
use super::steps::{Held, Step};
use super::{device, message};
use crate::model::object::Family;
use crate::netlink::generic::Requests;
use crate::netlink::messages;

/// What follows the `nlmsghdr` and the `genlmsghdr` of a request.
const HEADERS: usize = 20;

/// Reads the body of a message.
///
/// # Panics
/// When what was read, and is written as a request, reads as something else.
pub(crate) fn read(body: &[u8]) {
    let entry = body.get(4..).unwrap_or_default();
    if let Some((at, held)) = message::server(entry) {
        server_again(at, &held);
    }
    for family in Family::ALL {
        assert_eq!(message::listed(entry, family), message::listed(entry, family));
    }
    let _ = device::index_of(body);
    if let Some((index, ip)) = device::address(body) {
        let mut bytes = Vec::new();
        device::change(&mut bytes, (0, 0, 1), index, ip);
        let again = messages(&bytes)
            .next()
            .and_then(|message| device::address(message.body()));
        assert_eq!(again, Some((index, ip)), "an address of the device");
    }
}

fn server_again(at: At, held: &Held) {
    let mut requests = Requests::to(0);
    message::request(&mut requests, at, &Step::NewServer(held.settings.clone()));
    let again = message::server(requests.bytes().get(HEADERS..).unwrap_or_default());
    let usual = Held {
        is_usual: true,
        ..held.clone()
    };
    assert_eq!(again, Some((at, usual)), "a virtual server");
}
