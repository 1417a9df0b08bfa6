//! One transaction as netlink messages, and which change each part of it stands for. Pure.

use super::element::encode_remembered;
use super::encode::{Attributes, Batch, MessageType, flag, message_at};
use super::layout::Layout;
use super::memory::Remembered;
use super::object::{Object, user_data};
use super::pending::{Change, Held};
use super::rules::ChainRules;
use crate::model::object::Family;

/// What `nft list` shows beside the table; upstream's words.
const TABLE_COMMENT: &str = "rules for kube-proxy";
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_USERDATA: u16 = 6;
const NFTA_CHAIN_TABLE: u16 = 1;
pub(super) const NFTA_CHAIN_NAME: u16 = 3;
pub(super) const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
pub(super) const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_CHAIN_USERDATA: u16 = 12;
const NFTA_RULE_TABLE: u16 = 1;
pub(super) const NFTA_RULE_CHAIN: u16 = 2;
pub(super) const NFTA_RULE_EXPRESSIONS: u16 = 4;
pub(super) const NFTA_RULE_USERDATA: u16 = 7;
const NFTA_SET_TABLE: u16 = 1;
pub(super) const NFTA_SET_NAME: u16 = 2;
pub(super) const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
pub(super) const NFTA_SET_ELEM_LIST_SET: u16 = 2;
pub(super) const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
/// `NF_ACCEPT`.
const POLICY_ACCEPT: u32 = 1;

/// A transaction under construction.
#[derive(Debug)]
pub(super) struct Transaction<'a> {
    table: &'a str,
    batch: Batch,
    placed: Vec<Placed>,
}

/// Where a change went.
#[derive(Clone, Copy, Debug)]
struct Placed {
    sequence: u32,
    offset: u32,
    change: usize,
    removal: bool,
}

/// A transaction as it is sent.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) bytes: Vec<u8>,
    pub(super) messages: u32,
    placed: Vec<Placed>,
}

/// Who is to blame for a refused message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// This change (an index into the list that was given), in what it takes away or in what it adds.
    Change { index: usize, removal: bool },
    /// One of these; the kernel does not say which.
    OneOf(Vec<usize>),
    /// No change: a table, set, chain or rule.
    Structure,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(table: &'a str) -> Self {
        Self {
            table,
            batch: Batch::new(),
            placed: Vec::new(),
        }
    }

    /// The name of the tables that it is about.
    pub(super) fn table_name(&self) -> &'a str {
        self.table
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batch.messages() == 0
    }

    /// Makes the table where there is none. What it holds, if there is one, stays.
    pub(super) fn table(&mut self, family: Family) {
        let table = self.table;
        self.batch
            .message(MessageType::NewTable, family, flag::CREATE, |message| {
                message.string(NFTA_TABLE_NAME, table);
                comment(message, NFTA_TABLE_USERDATA, TABLE_COMMENT);
            });
    }

    /// Removes the table with all that it holds.
    pub(super) fn delete_table(&mut self, family: Family) {
        let table = self.table;
        self.batch.message(MessageType::DelTable, family, 0, |message| {
            message.string(NFTA_TABLE_NAME, table);
        });
    }

    /// Makes all sets and maps, empty.
    pub(super) fn sets(&mut self, family: Family, counted: bool) {
        let table = self.table;
        for object in Object::ALL {
            self.batch
                .message(MessageType::NewSet, family, flag::CREATE, |message| {
                    message.string(NFTA_SET_TABLE, table);
                    object.declare(Layout::of(family), counted, message);
                });
        }
    }

    /// Makes a chain and its rules.
    pub(super) fn chain(&mut self, family: Family, chain: &ChainRules) {
        let table = self.table;
        self.batch
            .message(MessageType::NewChain, family, flag::CREATE, |message| {
                message.string(NFTA_CHAIN_TABLE, table);
                message.string(NFTA_CHAIN_NAME, &chain.name);
                if let Some(hook) = chain.hook {
                    message.nested(NFTA_CHAIN_HOOK, |attributes| {
                        attributes.be32(1, hook.number);
                        attributes.bytes(2, &hook.priority.to_be_bytes());
                    });
                    message.be32(NFTA_CHAIN_POLICY, POLICY_ACCEPT);
                    message.string(NFTA_CHAIN_TYPE, hook.kind);
                }
                comment(message, NFTA_CHAIN_USERDATA, chain.comment);
            });
        self.rules(family, chain);
    }

    /// Replaces the rules of a chain.
    pub(super) fn replace_rules(&mut self, family: Family, chain: &ChainRules) {
        let table = self.table;
        self.batch.message(MessageType::DelRule, family, 0, |message| {
            message.string(NFTA_RULE_TABLE, table);
            message.string(NFTA_RULE_CHAIN, &chain.name);
        });
        self.rules(family, chain);
    }

    fn rules(&mut self, family: Family, chain: &ChainRules) {
        let table = self.table;
        for rule in &chain.rules {
            let flags = flag::CREATE | flag::APPEND;
            self.batch
                .message(MessageType::NewRule, family, flags, |message| {
                    message.string(NFTA_RULE_TABLE, table);
                    message.string(NFTA_RULE_CHAIN, &chain.name);
                    message.nested(NFTA_RULE_EXPRESSIONS, |list| {
                        for expr in &rule.exprs {
                            expr.encode(list);
                        }
                    });
                    comment(message, NFTA_RULE_USERDATA, rule.comment);
                });
        }
    }

    /// Removes a chain that nothing leads to any more, with its rules.
    pub(super) fn delete_chain(&mut self, family: Family, name: &str) {
        let table = self.table;
        self.batch.message(MessageType::DelChain, family, 0, |message| {
            message.string(NFTA_CHAIN_TABLE, table);
            message.string(NFTA_CHAIN_NAME, name);
        });
    }

    /// Writes those of `changes` that `included` names: first everything that goes, then what comes,
    /// verdicts last. A changed value is a removal and an addition.
    pub(super) fn changes(&mut self, changes: &[Change<'_>], included: &[usize]) {
        let mut removals: [Vec<usize>; BUCKETS] = [const { Vec::new() }; BUCKETS];
        let mut additions: [Vec<usize>; BUCKETS] = [const { Vec::new() }; BUCKETS];
        for &index in included {
            let change = &changes[index];
            let bucket = change.key.object() as usize * 2 + change.key.family() as usize;
            if *change.held != Held::Absent {
                removals[bucket].push(index);
            }
            if change.wanted.is_some() {
                additions[bucket].push(index);
            }
        }
        for (bucket, indices) in removals.iter().enumerate() {
            self.elements(MessageType::DelElement, bucket, indices, |list, index| {
                changes[index].key.encode_removal(list);
            });
        }
        for (bucket, indices) in additions.iter().enumerate() {
            self.elements(MessageType::NewElement, bucket, indices, |list, index| {
                if let Change {
                    key,
                    wanted: Some(value),
                    ..
                } = changes[index]
                {
                    key.encode(value, list);
                }
            });
        }
    }

    /// Adds what is remembered of clients.
    pub(super) fn remembered(&mut self, family: Family, remembered: &[Remembered]) {
        let Self { table, batch, .. } = self;
        batch.list(
            (MessageType::NewElement, family, flag::CREATE),
            |message| {
                message.string(NFTA_SET_ELEM_LIST_TABLE, table);
                message.string(NFTA_SET_ELEM_LIST_SET, Object::Affinity.name());
            },
            NFTA_SET_ELEM_LIST_ELEMENTS,
            remembered,
            |list, remembered| encode_remembered(remembered, list),
            |_, _, _| {},
        );
    }

    fn elements(
        &mut self,
        kind: MessageType,
        bucket: usize,
        indices: &[usize],
        encode: impl Fn(&mut Attributes<'_>, usize),
    ) {
        let (object, family) = (Object::ALL[bucket / 2], Family::ALL[bucket % 2]);
        let flags = match kind {
            MessageType::NewElement => flag::CREATE,
            _ => 0,
        };
        let Self { table, batch, placed } = self;
        placed.reserve(indices.len());
        batch.list(
            (kind, family, flags),
            |message| {
                message.string(NFTA_SET_ELEM_LIST_TABLE, table);
                message.string(NFTA_SET_ELEM_LIST_SET, object.name());
            },
            NFTA_SET_ELEM_LIST_ELEMENTS,
            indices.iter().copied(),
            |list, index| encode(list, *index),
            |sequence, offset, change| {
                placed.push(Placed {
                    sequence,
                    offset,
                    change: *change,
                    removal: kind == MessageType::DelElement,
                });
            },
        );
    }

    /// The transaction as it is sent.
    pub(super) fn seal(self) -> Sealed {
        Sealed {
            messages: self.batch.messages(),
            bytes: self.batch.finish(),
            placed: self.placed,
        }
    }
}

const BUCKETS: usize = Object::ALL.len() * 2;

impl Sealed {
    /// Whose fault it is that a message was refused, given the offset of the attribute to blame.
    pub(super) fn blame(&self, sequence: u32, offset: Option<u32>) -> Blame {
        let first = self.placed.partition_point(|placed| placed.sequence < sequence);
        let message = &self.placed[first..];
        let message = &message[..message.partition_point(|placed| placed.sequence == sequence)];
        let Some(head) = message.first() else {
            return Blame::Structure;
        };
        let Some(offset) = offset else {
            return Blame::OneOf(message.iter().map(|placed| placed.change).collect());
        };
        if offset < head.offset {
            return Blame::Structure;
        }
        let at = message.partition_point(|placed| placed.offset <= offset);
        let Placed { change, removal, .. } = message[at - 1];
        Blame::Change {
            index: change,
            removal,
        }
    }

    /// The bytes of a message.
    pub(super) fn message(&self, sequence: u32) -> Option<&[u8]> {
        message_at(&self.bytes, sequence)
    }
}

fn comment(message: &mut Attributes<'_>, kind: u16, text: &str) {
    if !text.is_empty() {
        message.written(kind, |data| {
            let mut text = text.as_bytes().to_vec();
            text.push(0);
            user_data(data, 0, &text);
        });
    }
}
