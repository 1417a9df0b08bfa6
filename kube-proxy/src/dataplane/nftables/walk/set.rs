//! A set or map as the kernel would hold it: read from the bytes that declare it and its elements.

use std::collections::HashMap;

use anyhow::{Context, bail, ensure};

use crate::dataplane::nftables::encode::{Attributes, MessageType, attributes, request};
use crate::dataplane::nftables::entry::{Key, Value};
use crate::dataplane::nftables::layout::Layout;
use crate::dataplane::nftables::object::Object;

/// `nlmsghdr` and `nfgenmsg`.
const HEADERS: usize = 20;
const NFT_SET_INTERVAL: u32 = 0x4;
const NFT_SET_MAP: u32 = 0x8;
const NFT_SET_CONCAT: u32 = 0x80;
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;
const NFT_SET_EVAL: u32 = 0x20;
/// `NFT_DATA_VERDICT`.
const VERDICT: u32 = 0xffff_ff00;

/// A set or map with what is planned to be in it.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) name: &'static str,
    /// Rules may write to it.
    pub(super) is_dynamic: bool,
    key_length: usize,
    carries: Carries,
    /// Of a set of intervals: the lengths of the fields, each of which begins a register.
    fields: Option<Vec<usize>>,
    /// Intervals end where another element says so, with the first key that is not in them.
    ends_apart: bool,
    exact: HashMap<Vec<u8>, Element>,
    intervals: Vec<(Vec<u8>, Vec<u8>, Element)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carries {
    Nothing,
    Verdict,
    Bytes(usize),
}

/// One element of a set.
#[derive(Debug)]
pub(super) struct Element {
    pub(super) data: Data,
    /// As nft shows it: the set, the key, and the comment.
    pub(super) text: String,
}

/// What an element of a map holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    Nothing,
    Bytes(Vec<u8>),
    Verdict(Verdict),
}

/// A verdict as the kernel takes it from an element or a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

impl Set {
    /// The set as it is declared, empty.
    pub(super) fn declared(object: Object, layout: &Layout) -> anyhow::Result<Self> {
        let message = encoded(layout, |message| object.declare(layout, false, message));
        let number = |kind| number(&message, kind);
        let flags = number(3).unwrap_or(0);
        let carries = match (flags & NFT_SET_MAP != 0, number(6)) {
            (false, _) => Carries::Nothing,
            (true, Some(VERDICT)) => Carries::Verdict,
            (true, _) => Carries::Bytes(number(7).context("a map without a length of its values")? as usize),
        };
        let key_length = number(5).context("a set without a length of its keys")? as usize;
        let concatenation = find(&message, 9).and_then(|description| find(description, 2));
        let fields = match (flags & NFT_SET_INTERVAL != 0, flags & NFT_SET_CONCAT != 0) {
            (false, _) => None,
            (true, true) => Some(field_lengths(concatenation.context("intervals without fields")?)),
            (true, false) => Some(vec![key_length]),
        };
        Ok(Self {
            name: object.name(),
            is_dynamic: flags & NFT_SET_EVAL != 0,
            key_length,
            carries,
            ends_apart: flags & (NFT_SET_INTERVAL | NFT_SET_CONCAT) == NFT_SET_INTERVAL,
            fields,
            exact: HashMap::new(),
            intervals: Vec::new(),
        })
    }

    /// Adds a planned element.
    pub(super) fn add(&mut self, key: &Key, value: &Value, layout: &Layout) -> anyhow::Result<()> {
        let message = encoded(layout, |message| key.encode(value, message));
        let element = find(&message, 1).context("not an element")?;
        let begin = find(element, 1).and_then(|key| find(key, 1)).context("no key")?;
        let end = match self.ends_apart {
            true => Some(self.end_apart(&message)?),
            false => find(element, 10).and_then(|key| find(key, 1)).map(<[u8]>::to_vec),
        };
        for bound in [Some(begin), end.as_deref()].into_iter().flatten() {
            let (is, declared) = (bound.len(), self.key_length);
            ensure!(
                is == declared,
                "a key of {is} bytes, where {declared} are declared"
            );
        }
        let data = self.data(find(element, 2))?;
        let comment = find(element, 6).and_then(comment);
        let text = match comment {
            Some(comment) => format!("{key} ({comment})"),
            None => key.to_string(),
        };
        let element = Element { data, text };
        match (&self.fields, end) {
            (None, None) => {
                let before = self.exact.insert(begin.to_vec(), element);
                ensure!(before.is_none(), "another element has the same key");
            }
            (Some(_), Some(end)) => self.intervals.push((begin.to_vec(), end, element)),
            (None, Some(_)) => bail!("an interval in a set of none"),
            (Some(_), None) => bail!("no interval in a set of intervals"),
        }
        Ok(())
    }

    /// The last key of an interval, from the element that ends it; without one it goes up to the last there is.
    fn end_apart(&self, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut elements = attributes(message).filter(|(kind, _)| *kind == 1).skip(1);
        let Some((_, element)) = elements.next() else {
            return Ok(vec![u8::MAX; self.key_length]);
        };
        ensure!(
            number(element, 3) == Some(NFT_SET_ELEM_INTERVAL_END),
            "two elements for one key"
        );
        let after = find(element, 1).and_then(|key| find(key, 1)).context("no key")?;
        let mut last = after.to_vec();
        for byte in last.iter_mut().rev() {
            *byte = byte.wrapping_sub(1);
            if *byte != u8::MAX {
                break;
            }
        }
        Ok(last)
    }

    /// How long keys and values are, in bytes.
    pub(super) fn lengths(&self) -> (usize, usize) {
        match self.carries {
            Carries::Bytes(length) => (self.key_length, length),
            Carries::Nothing | Carries::Verdict => (self.key_length, 0),
        }
    }

    /// The planned element that a key is in.
    pub(super) fn find(&self, key: &[u8]) -> Option<&Element> {
        let Some(fields) = &self.fields else {
            return self.exact.get(key);
        };
        let within = |(begin, end, _): &&(Vec<u8>, Vec<u8>, Element)| {
            let mut at = 0;
            fields.iter().all(|length| {
                let field = at..at + length;
                at += length.next_multiple_of(4);
                let value = &key[field.clone()];
                begin[field.clone()] <= *value && *value <= end[field]
            })
        };
        self.intervals.iter().find(within).map(|(_, _, element)| element)
    }

    fn data(&self, encoded: Option<&[u8]>) -> anyhow::Result<Data> {
        let value = encoded.and_then(|data| find(data, 1));
        let verdict = encoded.and_then(|data| find(data, 2));
        match (self.carries, value, verdict) {
            (Carries::Nothing, None, None) => Ok(Data::Nothing),
            (Carries::Bytes(length), Some(value), None) if value.len() == length => {
                Ok(Data::Bytes(value.to_vec()))
            }
            (Carries::Verdict, None, Some(verdict)) => Ok(Data::Verdict(Verdict::read(verdict)?)),
            (declared, ..) => bail!("{declared:?} is declared, and its value is {encoded:?}"),
        }
    }
}

impl Verdict {
    fn read(encoded: &[u8]) -> anyhow::Result<Self> {
        let code = find(encoded, 1).and_then(|code| Some(i32::from_be_bytes(*code.first_chunk()?)));
        let chain = || {
            let name = find(encoded, 2).and_then(|name| name.strip_suffix(&[0]));
            let name = name.context("a verdict that leads to no chain")?;
            Ok::<_, anyhow::Error>(String::from_utf8(name.to_vec())?)
        };
        match code {
            Some(0) => Ok(Self::Drop),
            Some(-3) => Ok(Self::Jump(chain()?)),
            Some(-4) => Ok(Self::Goto(chain()?)),
            Some(-5) => Ok(Self::Return),
            other => bail!("an unknown verdict {other:?}"),
        }
    }
}

/// What `write` writes, as attributes.
fn encoded(layout: &Layout, write: impl FnOnce(&mut Attributes<'_>)) -> Vec<u8> {
    let message = request((MessageType::NewElement, 0), layout.family, 0, write);
    message.get(HEADERS..).unwrap_or_default().to_vec()
}

fn find(encoded: &[u8], kind: u16) -> Option<&[u8]> {
    let mut all = attributes(encoded);
    all.find(|(found, _)| *found == kind).map(|(_, value)| value)
}

fn number(encoded: &[u8], kind: u16) -> Option<u32> {
    find(encoded, kind).and_then(|value| Some(u32::from_be_bytes(*value.first_chunk()?)))
}

fn field_lengths(concatenation: &[u8]) -> Vec<usize> {
    let fields = attributes(concatenation);
    fields
        .filter_map(|(_, field)| Some(number(field, 1)? as usize))
        .collect()
}

/// The comment in nft's own data, which holds type, length and value of each entry.
fn comment(user_data: &[u8]) -> Option<String> {
    let [0, length, rest @ ..] = user_data else {
        return None;
    };
    let text = rest.get(..usize::from(*length))?.strip_suffix(&[0])?;
    String::from_utf8(text.to_vec()).ok()
}
