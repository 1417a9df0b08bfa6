//! Netlink attributes and messages of nf_tables, as bytes.
//!
//! A [`Batch`] is one transaction: the kernel takes all of its messages or none. This file knows how netlink
//! frames things (lengths, alignment, nesting, byte order) and nothing of what the messages say.

use crate::model::object::Family;

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
const NLMSG_HEADER: usize = 16;
const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = 0x3fff;
/// An attribute's length is 16 bits wide. Lists are cut well below that, into messages of their own.
const FULL_LIST: usize = 60_000;

/// Message types of nf_tables (`enum nf_tables_msg_types`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum MessageType {
    NewTable = 0,
    GetTable = 1,
    DelTable = 2,
    NewChain = 3,
    DelChain = 5,
    NewRule = 6,
    DelRule = 8,
    NewSet = 9,
    NewElement = 12,
    GetElement = 13,
    DelElement = 14,
}

/// Request flags of a message.
pub(super) mod flag {
    pub(in super::super) const REQUEST: u16 = 0x1;
    pub(in super::super) const ACK: u16 = 0x4;
    pub(in super::super) const DUMP: u16 = 0x300;
    pub(in super::super) const CREATE: u16 = 0x400;
    pub(in super::super) const APPEND: u16 = 0x800;
}

/// The number of a family in `nfgenmsg`.
pub(super) fn nfproto(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// Writes attributes at the end of a message.
pub(super) struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    /// An attribute with these bytes.
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.0.extend_from_slice(value);
        self.close(start);
    }

    /// A string, with the zero that the kernel wants at its end.
    pub(super) fn string(&mut self, kind: u16, value: &str) {
        let start = self.open(kind);
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(0);
        self.close(start);
    }

    /// A 32-bit number; nf_tables wants them in network order.
    pub(super) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// An attribute that holds attributes.
    pub(super) fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.open(kind | NLA_F_NESTED);
        body(&mut Attributes(self.0));
        self.close(start);
    }

    /// An attribute whose bytes are written in place.
    pub(super) fn written(&mut self, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.open(kind);
        body(self.0);
        self.close(start);
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        let length = u16::try_from(self.0.len() - start);
        debug_assert!(length.is_ok(), "an attribute of more than 64 KiB");
        // A length that does not fit is written as 0, which the kernel refuses: never a truncated attribute.
        self.0[start..start + 2].copy_from_slice(&length.unwrap_or(0).to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// One transaction under construction. Sequence numbers count its messages from 1; 0 is the batch's own.
#[derive(Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    messages: u32,
    /// Where the last message starts.
    last: usize,
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut batch = Self {
            bytes: Vec::new(),
            messages: 0,
            last: 0,
        };
        batch.frame(0x10, 0, 0, SUBSYSTEM);
        batch.end_message(0);
        batch
    }

    /// How many messages it holds, those that begin and end it not counted.
    pub(super) fn messages(&self) -> u32 {
        self.messages
    }

    /// Appends a message and returns its sequence number.
    pub(super) fn message(
        &mut self,
        kind: MessageType,
        family: Family,
        flags: u16,
        body: impl FnOnce(&mut Attributes<'_>),
    ) -> u32 {
        self.begin_message(kind, family, flags);
        body(&mut Attributes(&mut self.bytes));
        self.end_message(self.last);
        self.messages
    }

    /// Appends messages that each carry a part of one list. `head` writes the attributes before the list,
    /// `list` is the list's attribute type, `item` writes one element. Calls `placed` for each element with
    /// the message's sequence number and the element's offset in that message, by which the kernel names
    /// the one that it refuses.
    pub(super) fn list<T>(
        &mut self,
        (kind, family, flags): (MessageType, Family, u16),
        head: impl Fn(&mut Attributes<'_>),
        list: u16,
        items: impl IntoIterator<Item = T>,
        item: impl Fn(&mut Attributes<'_>, &T),
        mut placed: impl FnMut(u32, u32, &T),
    ) {
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            self.begin_message(kind, family, flags);
            head(&mut Attributes(&mut self.bytes));
            let start = Attributes(&mut self.bytes).open(list | NLA_F_NESTED);
            while self.bytes.len() - start < FULL_LIST
                && let Some(next) = items.next()
            {
                placed(self.messages, narrow(self.bytes.len() - self.last), &next);
                item(&mut Attributes(&mut self.bytes), &next);
            }
            Attributes(&mut self.bytes).close(start);
            self.end_message(self.last);
        }
    }

    /// Ends the batch, asks for an acknowledgement of its last message alone (an error is reported in any
    /// case), and returns the bytes to send.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let at = self.last + 6;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | flag::ACK;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
        self.frame(0x11, 0, 0, SUBSYSTEM);
        self.end_message(self.last);
        self.bytes
    }

    fn begin_message(&mut self, kind: MessageType, family: Family, flags: u16) {
        self.messages += 1;
        self.frame(SUBSYSTEM << 8 | kind as u16, flags, nfproto(family), 0);
    }

    /// `nlmsghdr` and `nfgenmsg`.
    fn frame(&mut self, kind: u16, flags: u16, family: u8, resource: u16) {
        self.last = self.bytes.len();
        write_header(&mut self.bytes, kind, flags, self.messages, family, resource);
    }

    fn end_message(&mut self, start: usize) {
        let length = narrow(self.bytes.len() - start);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// A single request outside of any transaction.
pub(super) fn request(
    (kind, flags): (MessageType, u16),
    family: Family,
    sequence: u32,
    body: impl FnOnce(&mut Attributes<'_>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let kind = SUBSYSTEM << 8 | kind as u16;
    write_header(&mut bytes, kind, flags, sequence, nfproto(family), 0);
    body(&mut Attributes(&mut bytes));
    let length = narrow(bytes.len());
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes
}

fn write_header(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, family: u8, resource: u16) {
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&(flags | flag::REQUEST).to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.push(family);
    bytes.push(0);
    bytes.extend_from_slice(&resource.to_be_bytes());
}

#[expect(clippy::cast_possible_truncation, reason = "a batch stays far below 4 GiB")]
fn narrow(length: usize) -> u32 {
    length as u32
}

/// Walks the attributes in a slice: type without flags, and value. Stops at the first malformed one.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The attributes' bytes of the message with this sequence number, with their offset in the message.
pub(super) fn message_at(batch: &[u8], sequence: u32) -> Option<&[u8]> {
    let mut rest = batch;
    while rest.len() >= NLMSG_HEADER {
        let word = |at: usize| Some(u32::from_ne_bytes(rest.get(at..at + 4)?.try_into().ok()?));
        let length = word(0)? as usize;
        if word(8)? == sequence && sequence != 0 {
            return rest.get(..length);
        }
        rest = rest.get(length.max(NLMSG_HEADER).next_multiple_of(4)..)?;
    }
    None
}
