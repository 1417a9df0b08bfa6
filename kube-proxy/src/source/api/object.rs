//! Objects and watch events out of their encodings: what an event says, and what it changes. Pure.

use bytes::{Buf, Bytes};
use prost::Message;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::frame::Encoding;
use crate::model::change::{Change, Kind};
use crate::model::object::ObjectName;
use crate::source::convert::{self, Converted, Interner, Problem};
use crate::source::wire::{
    Bookmark, EndpointSlice, Node, ObjectMeta, Service, ServiceCidr, Status, Unknown, WatchEvent, value_of,
};

/// What every protobuf body and every object inside a watch event begins with.
pub(super) const MAGIC: &[u8; 4] = b"k8s\0";

/// The annotation on the bookmark that ends a streaming list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Why something cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecodeError {
    #[error("it does not begin with the protobuf magic of Kubernetes")]
    NoMagic,
    #[error("it is not valid protobuf: {0}")]
    Protobuf(#[from] prost::DecodeError),
    #[error("it is not valid JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it holds no object")]
    NoObject,
}

/// What one frame of a watch says. Objects are still encoded.
#[derive(Debug, PartialEq)]
pub(super) enum Event {
    /// `ADDED` or `MODIFIED`.
    Upsert(Bytes),
    /// `DELETED`.
    Delete(Bytes),
    /// `BOOKMARK`: everything up to this version has been told.
    Bookmark {
        version: String,
        /// The streaming list is complete.
        ends_list: bool,
    },
    /// `ERROR`: the watch ends.
    Error(Status),
    /// A type that this program does not know.
    Unknown(String),
}

/// Reads one frame.
pub(super) fn event(encoding: Encoding, frame: Bytes) -> Result<Event, DecodeError> {
    let (kind, object) = match encoding {
        Encoding::Protobuf => {
            let event = WatchEvent::decode(frame)?;
            let object = event.object.ok_or(DecodeError::NoObject)?;
            (event.kind, open(object.raw)?)
        }
        Encoding::Json => {
            let event: JsonEvent<'_> = serde_json::from_slice(&frame)?;
            let object = event.object.ok_or(DecodeError::NoObject)?;
            (event.kind, frame.slice_ref(object.get().as_bytes()))
        }
    };
    Ok(match kind.as_str() {
        "ADDED" | "MODIFIED" => Event::Upsert(object),
        "DELETED" => Event::Delete(object),
        "BOOKMARK" => {
            let bookmark: Bookmark = read(encoding, &object)?;
            let meta = bookmark.metadata.unwrap_or_default();
            Event::Bookmark {
                ends_list: value_of(&meta.annotations, INITIAL_EVENTS_END) == Some("true"),
                version: meta.resource_version,
            }
        }
        "ERROR" => Event::Error(read(encoding, &object)?),
        _ => Event::Unknown(kind),
    })
}

#[derive(Deserialize)]
struct JsonEvent<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    object: Option<&'a RawValue>,
}

/// Takes an object out of the protobuf envelope.
pub(super) fn open(mut enveloped: Bytes) -> Result<Bytes, DecodeError> {
    if !enveloped.starts_with(MAGIC) {
        return Err(DecodeError::NoMagic);
    }
    enveloped.advance(MAGIC.len());
    Ok(Unknown::decode(enveloped)?.raw)
}

/// What an object's arrival means.
#[derive(Debug)]
pub(super) struct Arrival {
    /// The object's `resourceVersion`; empty when unreadable.
    pub(super) version: String,
    /// What to tell the model: nothing for objects that are never proxied.
    pub(super) change: Option<Change>,
    /// Fields that could not be used.
    pub(super) problems: Vec<Problem>,
    /// Why nothing of the object could be read.
    pub(super) unreadable: Option<DecodeError>,
}

/// An object was listed, added or changed. One that cannot be read leaves what is known of it in force; its
/// name is still looked for.
pub(super) fn upsert(kind: Kind, encoding: Encoding, object: &Bytes, interner: &mut Interner) -> Arrival {
    let read = match kind {
        Kind::Service => read(encoding, object).map(|wire: Service| {
            let change = |service| Change::Service(Box::new(service));
            arrival(wire.metadata.as_ref(), convert::service(&wire, interner), change)
        }),
        Kind::EndpointSlice => read(encoding, object).map(|wire: EndpointSlice| {
            let change = |slice| Change::EndpointSlice(Box::new(slice));
            arrival(
                wire.metadata.as_ref(),
                convert::endpoint_slice(&wire, interner),
                change,
            )
        }),
        Kind::Node => read(encoding, object).map(|wire: Node| {
            let change = |node| Change::Node(Box::new(node));
            arrival(wire.metadata.as_ref(), convert::node(&wire, interner), change)
        }),
        Kind::ServiceCidr => read(encoding, object).map(|wire: ServiceCidr| {
            let change = |cidr| Change::ServiceCidr(Box::new(cidr));
            arrival(wire.metadata.as_ref(), convert::service_cidr(&wire), change)
        }),
    };
    read.unwrap_or_else(|error| {
        let meta = metadata(encoding, object).unwrap_or_default();
        let named = !meta.name.is_empty();
        Arrival {
            change: named.then(|| Change::Kept(kind, name(&meta))),
            version: meta.resource_version,
            problems: Vec::new(),
            unreadable: Some(error),
        }
    })
}

/// An object was deleted.
pub(super) fn delete(kind: Kind, encoding: Encoding, object: &Bytes) -> Result<Arrival, DecodeError> {
    let meta = metadata(encoding, object)?;
    Ok(Arrival {
        change: Some(Change::Deleted(kind, name(&meta))),
        version: meta.resource_version,
        problems: Vec::new(),
        unreadable: None,
    })
}

fn arrival<T>(
    meta: Option<&ObjectMeta>,
    converted: Converted<T>,
    change: impl FnOnce(T) -> Change,
) -> Arrival {
    Arrival {
        version: meta.map(|meta| meta.resource_version.clone()).unwrap_or_default(),
        change: converted.object.map(change),
        problems: converted.problems,
        unreadable: None,
    }
}

fn name(meta: &ObjectMeta) -> ObjectName {
    ObjectName::new(meta.namespace.as_str(), meta.name.as_str())
}

/// Any object, as far as its metadata.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
struct AnyObject {
    #[prost(message, optional, tag = "1")]
    #[serde(default)]
    metadata: Option<ObjectMeta>,
}

fn metadata(encoding: Encoding, object: &Bytes) -> Result<ObjectMeta, DecodeError> {
    let any: AnyObject = read(encoding, object)?;
    any.metadata.ok_or(DecodeError::NoObject)
}

fn read<T: Message + Default + DeserializeOwned>(
    encoding: Encoding,
    object: &Bytes,
) -> Result<T, DecodeError> {
    match encoding {
        Encoding::Protobuf => Ok(T::decode(object.clone())?),
        Encoding::Json => Ok(serde_json::from_slice(object)?),
    }
}

/// The Status in the body of a failed request, in whichever encoding.
pub(super) fn status(encoding: Option<Encoding>, body: Bytes) -> Option<Status> {
    let status: Status = match encoding? {
        Encoding::Protobuf => read(Encoding::Protobuf, &open(body).ok()?).ok()?,
        Encoding::Json => read(Encoding::Json, &body).ok()?,
    };
    (!status.message.is_empty() || !status.reason.is_empty()).then_some(status)
}

#[cfg(test)]
mod tests;
