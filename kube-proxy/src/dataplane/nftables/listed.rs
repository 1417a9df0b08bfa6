//! What the kernel lists: the elements of a set, chains, rules, and the names of sets.

use std::time::Duration;

use nix::errno::Errno;

use super::element::{
    NFTA_DATA_VALUE, NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_EXPIRATION, NFTA_SET_ELEM_EXPR, NFTA_SET_ELEM_FLAGS,
    NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_KEY_END, NFTA_SET_ELEM_TIMEOUT, NFTA_SET_ELEM_USERDATA,
};
use super::encode::{MessageType, request};
use super::expr::{NFTA_DATA_VERDICT, NFTA_VERDICT_CHAIN, NFTA_VERDICT_CODE};
use super::transaction::{NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_TABLE};
use crate::model::object::Family;
use crate::netlink::{Socket, attributes, flag};

/// `nfgenmsg`, which begins the body of nf_tables' messages.
const NFGENMSG: usize = 4;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_COUNTER_PACKETS: u16 = 2;
/// How often a list is begun anew because other transactions came in between.
const ATTEMPTS: usize = 8;
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;
/// `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE`, `NFTA_SET_TABLE`.
const NFTA_TABLE: u16 = 1;
/// nft's number of a comment among what it keeps with elements and rules.
const COMMENT: u8 = 0;

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
    /// The last key of an interval of several fields; empty if there is none.
    pub(super) last: Vec<u8>,
    /// It is the first key that is not in the interval before it any more.
    pub(super) is_end: bool,
    /// A verdict in words; empty in other maps.
    pub(super) verdict: String,
    /// The comment; empty if there is none.
    pub(super) comment: String,
    /// How many packets were looked up in it, where that is counted.
    pub(super) packets: u64,
}

impl Element {
    /// Reads the attributes of one element, as they are sent to the kernel and listed by it.
    pub(super) fn read(element: &[u8]) -> Self {
        let value = |kind| find(find(element, kind)?, NFTA_DATA_VALUE).map(<[u8]>::to_vec);
        let time = |kind| {
            let milliseconds = find(element, kind)?.first_chunk().copied()?;
            Some(Duration::from_millis(u64::from_be_bytes(milliseconds)))
        };
        let flags = find(element, NFTA_SET_ELEM_FLAGS).and_then(|flags| flags.first_chunk());
        let data = find(element, NFTA_SET_ELEM_DATA).unwrap_or_default();
        // The one expression that an element of ours can have is a counter.
        let counter = find(element, NFTA_SET_ELEM_EXPR).and_then(|counter| find(counter, NFTA_EXPR_DATA));
        let packets = counter.and_then(|counter| find(counter, NFTA_COUNTER_PACKETS)?.first_chunk().copied());
        Self {
            packets: packets.map_or(0, u64::from_be_bytes),
            key: value(NFTA_SET_ELEM_KEY).unwrap_or_default(),
            value: value(NFTA_SET_ELEM_DATA).unwrap_or_default(),
            timeout: time(NFTA_SET_ELEM_TIMEOUT).unwrap_or_default(),
            left: time(NFTA_SET_ELEM_EXPIRATION).unwrap_or_default(),
            last: value(NFTA_SET_ELEM_KEY_END).unwrap_or_default(),
            is_end: flags.is_some_and(|flags| u32::from_be_bytes(*flags) & NFT_SET_ELEM_INTERVAL_END != 0),
            verdict: verdict(data),
            comment: comment(find(element, NFTA_SET_ELEM_USERDATA).unwrap_or_default()),
        }
    }
}

/// The first attribute of a kind.
pub(super) fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut all = attributes(bytes);
    all.find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// A string, up to the zeros at its end.
pub(super) fn string(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The verdict in the data of an element or an expression, in words; empty if there is none.
pub(super) fn verdict(data: &[u8]) -> String {
    let Some(verdict) = find(data, NFTA_DATA_VERDICT) else {
        return String::new();
    };
    let chain = find(verdict, NFTA_VERDICT_CHAIN).map_or_else(String::new, string);
    let code = find(verdict, NFTA_VERDICT_CODE).and_then(|code| code.first_chunk());
    match code.map(|code| i32::from_be_bytes(*code)) {
        Some(0) => "drop".to_owned(),
        Some(1) => "accept".to_owned(),
        Some(-3) => format!("jump {chain}"),
        Some(-4) => format!("goto {chain}"),
        Some(-5) => "return".to_owned(),
        other => format!("verdict {other:?} {chain}"),
    }
}

/// The comment among what nft keeps for itself: entries of a type, a length and a value.
pub(super) fn comment(mut user_data: &[u8]) -> String {
    while let [kind, length, rest @ ..] = user_data {
        let (value, others) = rest.split_at_checked(usize::from(*length)).unwrap_or((rest, &[]));
        if *kind == COMMENT {
            return string(value);
        }
        user_data = others;
    }
    String::new()
}

/// Everything of a kind that a table has; nothing when it is not there. `read` gets the attributes of each.
pub(super) fn all<T>(
    socket: &mut Socket,
    kind: MessageType,
    family: Family,
    table: &str,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<Vec<T>, Errno> {
    // Chains, rules and sets name their table alike.
    let list = request((kind, flag::DUMP), family, 1, |message| {
        message.string(NFTA_TABLE, table);
    });
    whole_list(socket, &list, |body, all| {
        let body = body.get(NFGENMSG..).unwrap_or_default();
        // Chains are listed of all tables.
        if find(body, NFTA_TABLE).map(string).as_deref() == Some(table) {
            all.extend(read(body));
        }
    })
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
    whole_list(socket, &list, read)
}

/// What a dump lists, begun anew as long as other transactions come in between; nothing when that is not there.
fn whole_list<T>(
    socket: &mut Socket,
    list: &[u8],
    mut read: impl FnMut(&[u8], &mut Vec<T>),
) -> Result<Vec<T>, Errno> {
    for _ in 0..ATTEMPTS {
        let mut all = Vec::new();
        match socket.dump(list, |body| read(body, &mut all)) {
            Ok(()) => return Ok(all),
            Err(Errno::ENOENT) => return Ok(Vec::new()),
            // Another transaction came in between.
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EINTR)
}

/// Reads the elements that a message lists.
pub(super) fn read(body: &[u8], elements: &mut Vec<Element>) {
    let body = body.get(NFGENMSG..).unwrap_or_default();
    let listed = find(body, NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default();
    elements.extend(attributes(listed).map(|(_, element)| Element::read(element)));
}
