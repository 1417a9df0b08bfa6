//! Objects, lists, Status objects and watch frames as bytes of either encoding.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::object::Object;
use super::proto::{self, ListMeta};
use super::query::Encoding;
use super::resource::Resource;
use super::status::Status;

/// The types of watch events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventType {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

impl EventType {
    fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }
}

/// One object as a response body.
pub(crate) fn object(object: &Object, encoding: Encoding) -> Bytes {
    let resource = object.resource;
    match encoding {
        Encoding::Json => {
            let mut out = Vec::with_capacity(object.json.len() + 64);
            push_typed(&mut out, resource.api_version(), resource.kind(), &object.json);
            out.into()
        }
        Encoding::Protobuf => {
            proto::envelope(resource.api_version(), resource.kind(), object.protobuf()).into()
        }
    }
}

/// A Status as a response body.
pub(crate) fn status(status: &Status, encoding: Encoding) -> Bytes {
    let json = status.json();
    match encoding {
        Encoding::Json => {
            let mut out = Vec::new();
            push_typed(&mut out, "v1", "Status", json.as_bytes());
            out.into()
        }
        Encoding::Protobuf => proto::envelope("v1", "Status", &proto::encode_status(json.as_bytes())).into(),
    }
}

/// A list as a response body.
pub(crate) fn list(resource: Resource, meta: &ListMeta, items: &[Arc<Object>], encoding: Encoding) -> Bytes {
    match encoding {
        Encoding::Protobuf => {
            let items = items.iter().map(|item| item.protobuf().as_ref());
            proto::encode_list(resource, meta, items).into()
        }
        Encoding::Json => {
            let length: usize = items.iter().map(|item| item.json.len() + 1).sum();
            let mut out = Vec::with_capacity(length + 256);
            let metadata = serde_json::to_string(meta).unwrap_or_default();
            let (kind, version) = (resource.kind(), resource.api_version());
            out.extend_from_slice(
                format!(
                    "{{\"kind\":\"{kind}List\",\"apiVersion\":\"{version}\",\"metadata\":{metadata},\"items\":["
                )
                .as_bytes(),
            );
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(&item.json);
            }
            out.extend_from_slice(b"]}\n");
            out.into()
        }
    }
}

/// Appends a watch event with an object.
pub(crate) fn push_event(out: &mut Vec<u8>, event_type: EventType, object: &Object, encoding: Encoding) {
    let (version, kind) = (object.resource.api_version(), object.resource.kind());
    match encoding {
        Encoding::Json => push_json_event(out, event_type, version, kind, &object.json),
        Encoding::Protobuf => {
            let enveloped = proto::envelope(version, kind, object.protobuf());
            out.extend_from_slice(&proto::watch_frame(event_type.name(), enveloped));
        }
    }
}

/// Appends a bookmark; `initial_end`: the one that ends the initial events of a streaming list.
pub(crate) fn push_bookmark(
    out: &mut Vec<u8>,
    resource: Resource,
    version: u64,
    initial_end: bool,
    encoding: Encoding,
) {
    let mut value = resource.empty();
    value["metadata"] = json!({"resourceVersion": version.to_string()});
    if initial_end {
        value["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    let bookmark = Object::trusted(resource, &value["metadata"], Vec::new(), value.to_string());
    push_event(out, EventType::Bookmark, &bookmark, encoding);
}

/// Appends the event that ends a watch with a reason.
pub(crate) fn push_error(out: &mut Vec<u8>, status: &Status, encoding: Encoding) {
    let json = status.json();
    match encoding {
        Encoding::Json => push_json_event(out, EventType::Error, "v1", "Status", json.as_bytes()),
        Encoding::Protobuf => {
            let enveloped = proto::envelope("v1", "Status", &proto::encode_status(json.as_bytes()));
            out.extend_from_slice(&proto::watch_frame(EventType::Error.name(), enveloped));
        }
    }
}

fn push_json_event(out: &mut Vec<u8>, event_type: EventType, version: &str, kind: &str, json: &[u8]) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(event_type.name().as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    push_typed(out, version, kind, json);
    out.extend_from_slice(b"}\n");
}

/// Appends a JSON object with `kind` and `apiVersion` put in front of its other members.
fn push_typed(out: &mut Vec<u8>, version: &str, kind: &str, json: &[u8]) {
    out.extend_from_slice(format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\"").as_bytes());
    match json {
        [b'{', b'}'] => out.push(b'}'),
        [b'{', rest @ ..] => {
            out.push(b',');
            out.extend_from_slice(rest);
        }
        _ => out.push(b'}'),
    }
}
