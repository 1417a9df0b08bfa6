//! Messages of nf_tables, as bytes.
//!
//! A [`Batch`] is one transaction: the kernel takes all of its messages or none. This file knows how they are
//! framed and nothing of what they say.

use crate::model::object::Family;
pub(super) use crate::netlink::{Attributes, attributes, flag, nfproto};
use crate::netlink::{begin, end, messages};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
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
    GetChain = 4,
    DelChain = 5,
    NewRule = 6,
    GetRule = 7,
    DelRule = 8,
    NewSet = 9,
    GetSet = 10,
    NewElement = 12,
    GetElement = 13,
    DelElement = 14,
    NewGeneration = 15,
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
        body(&mut Attributes::at_end(&mut self.bytes));
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
            head(&mut Attributes::at_end(&mut self.bytes));
            let start = Attributes::at_end(&mut self.bytes).open_nested(list);
            while self.bytes.len() - start < FULL_LIST
                && let Some(next) = items.next()
            {
                placed(self.messages, narrow(self.bytes.len() - self.last), &next);
                item(&mut Attributes::at_end(&mut self.bytes), &next);
            }
            Attributes::at_end(&mut self.bytes).close(start);
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

    fn frame(&mut self, kind: u16, flags: u16, family: u8, resource: u16) {
        self.last = begin(&mut self.bytes, kind, flags, self.messages, (family, resource));
    }

    fn end_message(&mut self, start: usize) {
        end(&mut self.bytes, start);
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
    let start = begin(&mut bytes, kind, flags, sequence, (nfproto(family), 0));
    body(&mut Attributes::at_end(&mut bytes));
    end(&mut bytes, start);
    bytes
}

#[expect(clippy::cast_possible_truncation, reason = "a batch stays far below 4 GiB")]
fn narrow(length: usize) -> u32 {
    length as u32
}

/// The message with this sequence number, its head included.
pub(super) fn message_at(batch: &[u8], sequence: u32) -> Option<&[u8]> {
    let mut all = messages(batch).filter(|_| sequence != 0);
    all.find(|message| message.sequence == sequence)
        .map(|message| message.whole)
}
