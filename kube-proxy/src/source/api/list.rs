//! A list's body, taken apart while it arrives: one object at a time is held, not the whole list (protobuf).
//! JSON lists are collected whole; they are only asked for in pages. Pure.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{WireType, decode_key, decode_varint};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::frame::{Encoding, MAX_OBJECT};
use super::object::MAGIC;
use crate::source::wire::ListMeta;

/// The longest JSON list that is collected.
const MAX_JSON: usize = 512 << 20;

/// Why a list's body cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListError {
    #[error("it does not begin with the protobuf magic of Kubernetes")]
    NoMagic,
    #[error("it is not valid protobuf: {0}")]
    Protobuf(#[from] prost::DecodeError),
    #[error("it is not valid protobuf: it holds a group")]
    Group,
    #[error("it is not a valid JSON list: {0}")]
    Json(#[from] serde_json::Error),
    #[error("an object of {0} bytes in it is over the limit")]
    TooLong(u64),
    #[error("it ends before it is complete")]
    Truncated,
}

/// Takes a list's body in pieces and gives out the encoded objects in it.
#[derive(Debug)]
pub(super) enum ListBody {
    Protobuf(ProtobufList),
    Json(JsonList),
}

impl ListBody {
    pub(super) fn new(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Protobuf => Self::Protobuf(ProtobufList::default()),
            Encoding::Json => Self::Json(JsonList::default()),
        }
    }

    /// Takes in the next piece of the body.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), ListError> {
        match self {
            Self::Protobuf(list) => list.buffer.extend_from_slice(piece),
            Self::Json(list) => {
                if list.body.len() + piece.len() > MAX_JSON {
                    return Err(ListError::TooLong(list.body.len() as u64));
                }
                list.body.extend_from_slice(piece);
            }
        }
        Ok(())
    }

    /// The next object that has arrived whole.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, ListError> {
        match self {
            Self::Protobuf(list) => list.next(),
            Self::Json(list) => Ok(list.items.pop_front()),
        }
    }

    /// The body has ended; objects may follow from [`Self::next`]. Gives the list's metadata.
    pub(super) fn end(&mut self) -> Result<ListMeta, ListError> {
        match self {
            Self::Protobuf(list) if list.place == Place::Tail && list.buffer.is_empty() => {
                Ok(std::mem::take(&mut list.meta))
            }
            Self::Protobuf(_) => Err(ListError::Truncated),
            Self::Json(list) => list.parse(),
        }
    }
}

/// A JSON list: collected, then cut into its items without copying them.
#[derive(Debug, Default)]
pub(super) struct JsonList {
    body: BytesMut,
    items: VecDeque<Bytes>,
}

#[derive(Deserialize)]
struct JsonParts<'a> {
    #[serde(default)]
    metadata: Option<ListMeta>,
    #[serde(default, borrow)]
    items: Option<VecDeque<&'a RawValue>>,
}

impl JsonList {
    fn parse(&mut self) -> Result<ListMeta, ListError> {
        let body = self.body.split().freeze();
        let parts: JsonParts<'_> = serde_json::from_slice(&body)?;
        let items = parts.items.unwrap_or_default();
        self.items = items
            .into_iter()
            .map(|item| body.slice_ref(item.get().as_bytes()))
            .collect();
        Ok(parts.metadata.unwrap_or_default())
    }
}

/// Where in a protobuf list the buffer begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Magic,
    /// Between fields of the envelope, before its contents.
    Envelope,
    /// Between fields of the list, with this many bytes of it to come.
    List(u64),
    /// Behind the list, between fields of the envelope.
    Tail,
}

/// A protobuf list: `k8s\0`, then an envelope whose second field is the list, whose second field repeated is
/// the objects.
#[derive(Debug, Default)]
pub(super) struct ProtobufList {
    buffer: BytesMut,
    place: Place,
    meta: ListMeta,
}

/// The start of a field: its number, its contents' length, and how many bytes that took.
struct FieldStart {
    number: u32,
    wire_type: WireType,
    head: usize,
    length: u64,
}

impl ProtobufList {
    fn next(&mut self) -> Result<Option<Bytes>, ListError> {
        loop {
            match self.place {
                Place::Magic => {
                    let Some(magic) = self.buffer.get(..MAGIC.len()) else {
                        return Ok(None);
                    };
                    if magic != MAGIC {
                        return Err(ListError::NoMagic);
                    }
                    self.buffer.advance(MAGIC.len());
                    self.place = Place::Envelope;
                }
                Place::List(0) => self.place = Place::Tail,
                Place::Envelope | Place::Tail => {
                    let Some(start) = field_start(&self.buffer)? else {
                        return Ok(None);
                    };
                    if start.number == 2 && self.place == Place::Envelope {
                        self.buffer.advance(start.head);
                        self.place = Place::List(start.length);
                    } else if self.field(&start)?.is_none() {
                        return Ok(None);
                    }
                }
                Place::List(remaining) => {
                    let Some(start) = field_start(&self.buffer)? else {
                        return Ok(None);
                    };
                    let whole = start.head as u64 + start.length;
                    let remaining = remaining.checked_sub(whole).ok_or(ListError::Truncated)?;
                    let Some(contents) = self.field(&start)? else {
                        return Ok(None);
                    };
                    self.place = Place::List(remaining);
                    match (start.number, start.wire_type) {
                        (1, WireType::LengthDelimited) => self.meta = ListMeta::decode(contents)?,
                        (2, WireType::LengthDelimited) => return Ok(Some(contents)),
                        _ => {}
                    }
                }
            }
        }
    }

    /// Takes a whole field out of the buffer, once it is there.
    fn field(&mut self, start: &FieldStart) -> Result<Option<Bytes>, ListError> {
        let length = match usize::try_from(start.length) {
            Ok(length) if length <= MAX_OBJECT => length,
            _ => return Err(ListError::TooLong(start.length)),
        };
        let whole = start.head + length;
        if self.buffer.len() < whole {
            self.buffer.reserve(whole - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(start.head);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// Reads a field's key and length, without taking them out of the buffer; `None` until they are there.
fn field_start(buffer: &[u8]) -> Result<Option<FieldStart>, ListError> {
    /// Two varints of at most ten bytes each.
    const LONGEST: usize = 20;
    let read = || {
        let mut rest = buffer;
        let (number, wire_type) = decode_key(&mut rest)?;
        let (head, length) = match wire_type {
            WireType::LengthDelimited => {
                let length = decode_varint(&mut rest)?;
                (buffer.len() - rest.len(), length)
            }
            WireType::Varint => {
                let before = rest.len();
                decode_varint(&mut rest)?;
                (buffer.len() - before, (before - rest.len()) as u64)
            }
            WireType::ThirtyTwoBit => (buffer.len() - rest.len(), 4),
            WireType::SixtyFourBit => (buffer.len() - rest.len(), 8),
            WireType::StartGroup | WireType::EndGroup => return Err(ListError::Group),
        };
        Ok(FieldStart {
            number,
            wire_type,
            head,
            length,
        })
    };
    match read() {
        Ok(start) => Ok(Some(start)),
        // A number that is cut off reads as an error, so more is waited for, up to the longest possible.
        Err(ListError::Protobuf(_)) if buffer.len() < LONGEST => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, contents: &[u8]) -> Vec<u8> {
        let mut encoded = vec![number << 3 | 2];
        prost::encoding::encode_varint(contents.len() as u64, &mut encoded);
        encoded.extend_from_slice(contents);
        encoded
    }

    fn body(list: &[u8]) -> Vec<u8> {
        let type_meta = [field(1, b"v1"), field(2, b"ServiceList")].concat();
        [
            MAGIC.to_vec(),
            field(1, &type_meta),
            field(2, list),
            field(3, b""),
            field(4, b""),
        ]
        .concat()
    }

    fn protobuf_list() -> Vec<u8> {
        let meta = [
            field(1, b""),
            field(2, b"42"),
            field(3, b"more"),
            vec![4 << 3, 200, 1],
        ]
        .concat();
        let long = vec![b'x'; 300];
        body(
            &[
                field(1, &meta),
                field(2, b"one"),
                field(2, b""),
                field(7, b"new"),
                field(2, &long),
            ]
            .concat(),
        )
    }

    fn read(encoding: Encoding, pieces: &[&[u8]]) -> Result<(ListMeta, Vec<Bytes>), ListError> {
        let mut list = ListBody::new(encoding);
        let mut items = Vec::new();
        for piece in pieces {
            list.push(piece)?;
            while let Some(item) = list.next()? {
                items.push(item);
            }
        }
        let meta = list.end()?;
        while let Some(item) = list.next()? {
            items.push(item);
        }
        Ok((meta, items))
    }

    #[test]
    fn a_protobuf_list_is_read_wherever_it_is_cut() {
        let body = protobuf_list();
        for cut in 0..=body.len() {
            let (meta, items) = read(Encoding::Protobuf, &[&body[..cut], &body[cut..]]).unwrap();
            assert_eq!(
                (meta.resource_version.as_str(), meta.continue_token.as_str()),
                ("42", "more")
            );
            assert_eq!(items, [&b"one"[..], b"", &[b'x'; 300]], "cut at {cut}");
        }
    }

    #[test]
    fn a_protobuf_list_that_is_cut_off_is_an_error() {
        let body = protobuf_list();
        // The two empty fields behind the list, of two bytes each, may be missing.
        for cut in 0..body.len() {
            let complete = [4, 2].contains(&(body.len() - cut));
            assert_eq!(
                read(Encoding::Protobuf, &[&body[..cut]]).is_ok(),
                complete,
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_body_that_is_no_list_is_an_error() {
        let lie = [
            MAGIC.as_slice(),
            &[2 << 3 | 2, 3],
            &field(2, b"longer than three"),
        ]
        .concat();
        let huge = [
            2 << 3 | 2,
            0xff,
            0xff,
            0xff,
            0xff,
            0x7f,
            2 << 3 | 2,
            0xff,
            0xff,
            0xff,
            0x7f,
        ];
        let huge = [MAGIC.as_slice(), &huge].concat();
        let group = [MAGIC.as_slice(), &[2 << 3 | 2, 1, 1 << 3 | 3]].concat();
        for body in [b"<html></html>".to_vec(), lie, huge, group] {
            assert!(read(Encoding::Protobuf, &[&body]).is_err(), "{body:?}");
        }
        for body in [&b"<html>"[..], b"{\"items\":[", b"{\"items\":3}"] {
            assert!(read(Encoding::Json, &[body]).is_err(), "{body:?}");
        }
    }

    #[test]
    fn empty_lists_are_lists() {
        let (_, items) = read(Encoding::Protobuf, &[&body(b"")]).unwrap();
        assert!(items.is_empty());
        for text in ["{}", r#"{"items":null,"metadata":null}"#, r#"{"items":[]}"#] {
            let (_, items) = read(Encoding::Json, &[text.as_bytes()]).unwrap();
            assert!(items.is_empty());
        }
    }

    #[test]
    fn a_json_list_is_cut_into_its_items() {
        let text =
            br#"{"kind":"L","metadata":{"resourceVersion":"7","continue":"c"},"items":[{"a":[1]}, {}]}"#;
        let (meta, items) = read(Encoding::Json, &[&text[..9], &text[9..]]).unwrap();
        assert_eq!(
            (meta.resource_version.as_str(), meta.continue_token.as_str()),
            ("7", "c")
        );
        assert_eq!(items, [&br#"{"a":[1]}"#[..], b"{}"]);
    }
}
