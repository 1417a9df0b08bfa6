//! One version of one object: what selectors look at, and its two encodings, each made once.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

use super::proto;
use super::resource::Resource;
use super::status::Status;

/// A version of an object. The JSON text is the truth; it has neither `kind` nor `apiVersion`, which lists
/// leave out and everything else puts in front.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) resource: Resource,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// `metadata.creationTimestamp`.
    pub(crate) created: String,
    pub(crate) version: u64,
    pub(crate) labels: BTreeMap<String, String>,
    /// Values of [`Resource::selectable`], in its order.
    pub(crate) fields: Vec<String>,
    pub(crate) json: Bytes,
    protobuf: OnceLock<Bytes>,
}

impl Object {
    /// Takes an object whose metadata is complete.
    ///
    /// # Errors
    /// When a field has a wrong type.
    pub(crate) fn new(resource: Resource, value: &Value) -> Result<Self, Status> {
        let json = Bytes::from(value.to_string());
        let protobuf = proto::encode(resource, &json).map_err(Status::bad_request)?;
        let object = Self::read(resource, &value["metadata"], fields(resource, value), json);
        Ok(Self {
            protobuf: OnceLock::from(Bytes::from(protobuf)),
            ..object
        })
    }

    /// Takes text that is known to be right, its metadata and the values of [`Resource::selectable`]; it is
    /// encoded as protobuf when first asked for.
    pub(crate) fn trusted(resource: Resource, metadata: &Value, fields: Vec<String>, json: String) -> Self {
        Self::read(resource, metadata, fields, Bytes::from(json))
    }

    fn read(resource: Resource, metadata: &Value, fields: Vec<String>, json: Bytes) -> Self {
        let text = |key: &str| metadata[key].as_str().unwrap_or_default().to_owned();
        let labels = metadata["labels"].as_object().into_iter().flatten();
        Self {
            resource,
            namespace: text("namespace"),
            name: text("name"),
            uid: text("uid"),
            created: text("creationTimestamp"),
            version: text("resourceVersion").parse().unwrap_or_default(),
            labels: labels
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect(),
            fields,
            json,
            protobuf: OnceLock::new(),
        }
    }

    /// The bare message. Text that cannot be encoded gives an empty message.
    pub(crate) fn protobuf(&self) -> &Bytes {
        self.protobuf.get_or_init(|| {
            proto::encode(self.resource, &self.json).map_or_else(|_| Bytes::new(), Bytes::from)
        })
    }

    /// The JSON as a tree.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }

    /// The same object under another version: as it was last seen, for the event that says it is gone.
    pub(crate) fn at_version(&self, version: u64) -> Arc<Self> {
        let mut value = self.value();
        value["metadata"]["resourceVersion"] = version.to_string().into();
        let json = Bytes::from(value.to_string());
        Arc::new(Self::read(
            self.resource,
            &value["metadata"],
            self.fields.clone(),
            json,
        ))
    }

    /// Where it is kept: in the order in which lists give objects.
    pub(crate) fn key(&self) -> String {
        key(&self.namespace, &self.name)
    }
}

/// The key of an object; `namespace` is empty for cluster-scoped ones.
pub(crate) fn key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    }
}

fn fields(resource: Resource, value: &Value) -> Vec<String> {
    let selectable = resource.selectable().iter();
    selectable
        .map(|(path, unset)| field(value, path, unset))
        .collect()
}

fn field(value: &Value, path: &str, unset: &str) -> String {
    match path.split('.').fold(value, |value, key| &value[key]) {
        Value::Null => unset.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
