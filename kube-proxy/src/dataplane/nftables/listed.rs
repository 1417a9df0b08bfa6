//! The elements of a set, as the kernel lists them.

use std::time::Duration;

use nix::errno::Errno;

use super::encode::{MessageType, request};
use super::entry::{
    NFTA_DATA_VALUE, NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_EXPIRATION, NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_TIMEOUT,
};
use super::transaction::{NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_TABLE};
use crate::model::object::Family;
use crate::netlink::{Socket, attributes, flag};

/// `nfgenmsg`, which begins the body of nf_tables' messages.
const NFGENMSG: usize = 4;
/// How often a list is begun anew because other transactions came in between.
const ATTEMPTS: usize = 8;

/// One element of a set or map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// The fields of the key, each padded to a register.
    pub(super) key: Vec<u8>,
    /// The same of the value; empty in a set.
    pub(super) value: Vec<u8>,
    /// After how long without use it goes; zero for never.
    pub(super) timeout: Duration,
    /// How much of that is left.
    pub(super) left: Duration,
}

/// The elements of a set or map; none when it, or the table, is not there.
pub(super) fn elements(
    socket: &mut Socket,
    family: Family,
    table: &str,
    set: &str,
) -> Result<Vec<Element>, Errno> {
    let list = request((MessageType::GetElement, flag::DUMP), family, 1, |message| {
        message.string(NFTA_SET_ELEM_LIST_TABLE, table);
        message.string(NFTA_SET_ELEM_LIST_SET, set);
    });
    for _ in 0..ATTEMPTS {
        let mut elements = Vec::new();
        match socket.dump(&list, |body| read(body, &mut elements)) {
            Ok(()) => return Ok(elements),
            Err(Errno::ENOENT) => return Ok(Vec::new()),
            // Another transaction came in between.
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EINTR)
}

/// Reads the elements that a message lists.
fn read(body: &[u8], elements: &mut Vec<Element>) {
    let find = |bytes, wanted| {
        let mut all = attributes(bytes);
        all.find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
    };
    let listed = find(
        body.get(NFGENMSG..).unwrap_or_default(),
        NFTA_SET_ELEM_LIST_ELEMENTS,
    );
    for (_, element) in attributes(listed.unwrap_or_default()) {
        let value = |kind| find(find(element, kind)?, NFTA_DATA_VALUE);
        let time = |kind| {
            let milliseconds = find(element, kind)?.first_chunk().copied()?;
            Some(Duration::from_millis(u64::from_be_bytes(milliseconds)))
        };
        elements.push(Element {
            key: value(NFTA_SET_ELEM_KEY).unwrap_or_default().to_vec(),
            value: value(NFTA_SET_ELEM_DATA).unwrap_or_default().to_vec(),
            timeout: time(NFTA_SET_ELEM_TIMEOUT).unwrap_or_default(),
            left: time(NFTA_SET_ELEM_EXPIRATION).unwrap_or_default(),
        });
    }
}
