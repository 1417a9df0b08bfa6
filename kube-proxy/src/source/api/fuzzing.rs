//! Bytes of an API server, as fuzzing makes them: streams of watch events, lists, single objects and refusals.

use bytes::Bytes;
use prost::Message;

use super::frame::{Encoding, Frames};
use super::list::ListBody;
use super::object::{self, Arrival, Event};
use crate::model::change::{Change, Kind};
use crate::source::convert::Interner;
use crate::source::wire::{EndpointSlice, Node, Service, ServiceCidr};

const KINDS: [Kind; 4] = [Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::ServiceCidr];

/// Reads bytes whose first says what they are, and the second where the stream is cut. What they change.
///
/// # Panics
/// When it matters where the stream is cut, or how often something is read.
pub(crate) fn read(bytes: &[u8]) -> Vec<Change> {
    let [head, cut, body @ ..] = bytes else {
        return Vec::new();
    };
    let encoding = match head & 1 {
        0 => Encoding::Protobuf,
        _ => Encoding::Json,
    };
    let cut = usize::from(*cut) % (body.len() + 1);
    let pieces = [&body[..cut], &body[cut..]];
    match head >> 1 & 3 {
        0 => {
            let frames = frames(encoding, &pieces);
            assert_eq!(
                frames,
                self::frames(encoding, &[body]),
                "frames of the stream cut at {cut}"
            );
            frames
                .into_iter()
                .flat_map(|frame| event(encoding, &frame))
                .collect()
        }
        1 => {
            let list = list(encoding, &pieces);
            assert_eq!(list, self::list(encoding, &[body]), "the list cut at {cut}");
            let arrivals = list.0.iter().flat_map(|item| objects(encoding, item));
            arrivals.collect()
        }
        2 => objects(encoding, &Bytes::copy_from_slice(body)),
        _ => {
            let read = || object::status(Some(encoding), Bytes::copy_from_slice(body));
            assert_eq!(read(), read());
            Vec::new()
        }
    }
}

fn frames(encoding: Encoding, pieces: &[&[u8]]) -> Vec<Bytes> {
    let mut frames = Frames::new(encoding);
    let mut found = Vec::new();
    for piece in pieces {
        frames.push(piece);
        while let Ok(Some(frame)) = frames.next() {
            found.push(frame);
        }
    }
    found
}

/// The objects of a list, and whether it was whole.
fn list(encoding: Encoding, pieces: &[&[u8]]) -> (Vec<Bytes>, bool) {
    let mut list = ListBody::new(encoding);
    let mut items = Vec::new();
    for piece in pieces {
        if list.push(piece).is_err() {
            return (items, false);
        }
        loop {
            match list.next() {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(_) => return (items, false),
            }
        }
    }
    let whole = list.end().is_ok();
    while let Ok(Some(item)) = list.next() {
        items.push(item);
    }
    (items, whole)
}

fn event(encoding: Encoding, frame: &Bytes) -> Vec<Change> {
    let read = || object::event(encoding, frame.clone()).map_err(|error| error.to_string());
    let event = read();
    assert_eq!(event, read(), "the same event, read again");
    match event {
        Ok(Event::Upsert(object)) => objects(encoding, &object),
        Ok(Event::Delete(object)) => {
            let arrivals = KINDS.map(|kind| object::delete(kind, encoding, &object));
            arrivals
                .into_iter()
                .flatten()
                .filter_map(|arrival| arrival.change)
                .collect()
        }
        _ => Vec::new(),
    }
}

/// Reads an object as each kind that it could be.
fn objects(encoding: Encoding, object: &Bytes) -> Vec<Change> {
    if encoding == Encoding::Protobuf {
        is_written_as_read::<Service>(object);
        is_written_as_read::<EndpointSlice>(object);
        is_written_as_read::<Node>(object);
        is_written_as_read::<ServiceCidr>(object);
    }
    let mut interner = Interner::default();
    let changes = KINDS.into_iter().filter_map(|kind| {
        let first = object::upsert(kind, encoding, object, &mut interner);
        let again = object::upsert(kind, encoding, object, &mut interner);
        assert_eq!(told(&first), told(&again), "the same object, read again");
        first.change
    });
    changes.collect()
}

/// Everything that an arrival says.
fn told(arrival: &Arrival) -> String {
    format!("{arrival:?}")
}

fn is_written_as_read<T: Message + Default + PartialEq + std::fmt::Debug>(object: &Bytes) {
    if let Ok(read) = T::decode(object.clone()) {
        let again = T::decode(read.encode_to_vec().as_slice());
        assert_eq!(again.as_ref(), Ok(&read), "the object, written and read again");
    }
}
