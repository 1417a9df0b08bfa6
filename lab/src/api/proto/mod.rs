//! The objects as protobuf: messages of our own, whose tags and presence rules are those of upstream's
//! `generated.proto` and generated Go code (a field that is no pointer in Go is always on the wire, even when
//! empty; here: `required`). They are made from JSON by serde, so one struct names both encodings. They hold
//! more than kube-proxy reads, so that skipping unknown fields is exercised; of Pods and Nodes they hold the
//! part that matters to networking, and fields beyond that are in the JSON only.

mod core;
mod discovery;
mod events;
mod meta;
mod networking;

use prost::Message;
use serde::de::DeserializeOwned;

use super::resource::Resource;

/// The four bytes that open every protobuf object.
const MAGIC: &[u8] = b"k8s\0";

/// Encodes an object's JSON text (without `kind` and `apiVersion`) as its bare message.
///
/// # Errors
/// When a field has a wrong type; the message is worded as the API server's.
pub(crate) fn encode(resource: Resource, json: &[u8]) -> Result<Vec<u8>, String> {
    match resource {
        Resource::Services => transcode::<core::Service>(resource, json),
        Resource::Endpoints => transcode::<core::Endpoints>(resource, json),
        Resource::Nodes => transcode::<core::Node>(resource, json),
        Resource::Pods => transcode::<core::Pod>(resource, json),
        Resource::Namespaces => transcode::<core::Namespace>(resource, json),
        Resource::EndpointSlices => transcode::<discovery::EndpointSlice>(resource, json),
        Resource::ServiceCidrs => transcode::<networking::ServiceCidr>(resource, json),
        Resource::Events => transcode::<events::Event>(resource, json),
    }
}

fn transcode<M: Message + DeserializeOwned>(resource: Resource, json: &[u8]) -> Result<Vec<u8>, String> {
    let message: M = serde_json::from_slice(json).map_err(|error| {
        let kind = resource.kind();
        format!("{kind} in version \"v1\" cannot be handled as a {kind}: json: {error}")
    })?;
    Ok(message.encode_to_vec())
}

/// Encodes a Status object's JSON as its bare message.
pub(crate) fn encode_status(json: &[u8]) -> Vec<u8> {
    serde_json::from_slice::<meta::Status>(json).map_or_else(|_| Vec::new(), |status| status.encode_to_vec())
}

/// Wraps a bare message as a whole response or a watch event's object carry it: magic, then
/// `runtime.Unknown` with the type beside the message.
pub(crate) fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let unknown = meta::Unknown {
        type_meta: meta::TypeMeta {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
        },
        raw: raw.to_vec(),
        content_encoding: String::new(),
        content_type: String::new(),
    };
    let mut out = Vec::with_capacity(MAGIC.len() + unknown.encoded_len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&unknown.encode_to_vec());
    out
}

/// One frame of a watch: length in four bytes, big end first, then `WatchEvent`.
pub(crate) fn watch_frame(event_type: &str, enveloped: Vec<u8>) -> Vec<u8> {
    let event = meta::WatchEvent {
        event_type: event_type.to_owned(),
        object: meta::RawExtension { raw: enveloped },
    };
    let length = u32::try_from(event.encoded_len()).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(4 + event.encoded_len());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&event.encode_to_vec());
    out
}

/// A list, enveloped: `metadata` is tag 1, each item tag 2, of whatever kind.
pub(crate) fn encode_list<'a>(
    resource: Resource,
    metadata: &ListMeta,
    items: impl Iterator<Item = &'a [u8]> + Clone,
) -> Vec<u8> {
    let type_meta = meta::TypeMeta {
        api_version: resource.api_version().to_owned(),
        kind: format!("{}List", resource.kind()),
    };
    let field = |length: usize| 1 + prost::length_delimiter_len(length) + length;
    let raw_length =
        field(metadata.encoded_len()) + items.clone().map(|item| field(item.len())).sum::<usize>();
    // An infallible writer: a vector grows as needed.
    let delimiter = |length: usize, out: &mut Vec<u8>| prost::encode_length_delimiter(length, out).is_ok();

    let mut out = Vec::with_capacity(raw_length + 64);
    out.extend_from_slice(MAGIC);
    out.push(0x0a);
    delimiter(type_meta.encoded_len(), &mut out);
    out.extend_from_slice(&type_meta.encode_to_vec());
    out.push(0x12);
    delimiter(raw_length, &mut out);
    out.push(0x0a);
    delimiter(metadata.encoded_len(), &mut out);
    out.extend_from_slice(&metadata.encode_to_vec());
    for item in items {
        out.push(0x12);
        delimiter(item.len(), &mut out);
        out.extend_from_slice(item);
    }
    // Empty contentEncoding and contentType.
    out.extend_from_slice(&[0x1a, 0, 0x22, 0]);
    out
}

pub(crate) use meta::ListMeta;

#[cfg(test)]
mod tests;
