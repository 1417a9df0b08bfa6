//! meta/v1, runtime and intstr: the messages that every kind shares.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// A time of whole seconds; on the wire the two numbers of `google.protobuf.Timestamp`, in JSON RFC 3339.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Time {
    #[prost(int64, optional, tag = "1")]
    pub(super) seconds: Option<i64>,
    #[prost(int32, optional, tag = "2")]
    pub(super) nanos: Option<i32>,
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else {
            return Ok(Self::default());
        };
        let time: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Self {
            seconds: Some(time.as_second()),
            nanos: Some(0),
        })
    }
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ObjectMeta {
    #[prost(string, required, tag = "1")]
    pub(super) name: String,
    #[prost(string, required, tag = "2")]
    pub(super) generate_name: String,
    #[prost(string, required, tag = "3")]
    pub(super) namespace: String,
    #[prost(string, required, tag = "4")]
    pub(super) self_link: String,
    #[prost(string, required, tag = "5")]
    pub(super) uid: String,
    #[prost(string, required, tag = "6")]
    pub(super) resource_version: String,
    #[prost(int64, required, tag = "7")]
    pub(super) generation: i64,
    #[prost(message, required, tag = "8")]
    pub(super) creation_timestamp: Time,
    #[prost(message, optional, tag = "9")]
    pub(super) deletion_timestamp: Option<Time>,
    #[prost(int64, optional, tag = "10")]
    pub(super) deletion_grace_period_seconds: Option<i64>,
    #[prost(btree_map = "string, string", tag = "11")]
    pub(super) labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "12")]
    pub(super) annotations: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "13")]
    pub(super) owner_references: Vec<OwnerReference>,
    #[prost(string, repeated, tag = "14")]
    pub(super) finalizers: Vec<String>,
    #[prost(message, repeated, tag = "17")]
    pub(super) managed_fields: Vec<ManagedFieldsEntry>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct OwnerReference {
    #[prost(string, required, tag = "1")]
    pub(super) kind: String,
    #[prost(string, required, tag = "3")]
    pub(super) name: String,
    #[prost(string, required, tag = "4")]
    pub(super) uid: String,
    #[prost(string, required, tag = "5")]
    pub(super) api_version: String,
    #[prost(bool, optional, tag = "6")]
    pub(super) controller: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    pub(super) block_owner_deletion: Option<bool>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ManagedFieldsEntry {
    #[prost(string, required, tag = "1")]
    pub(super) manager: String,
    #[prost(string, required, tag = "2")]
    pub(super) operation: String,
    #[prost(string, required, tag = "3")]
    pub(super) api_version: String,
    #[prost(message, optional, tag = "4")]
    pub(super) time: Option<Time>,
    #[prost(string, required, tag = "6")]
    pub(super) fields_type: String,
    #[prost(message, optional, tag = "7")]
    pub(super) fields_v1: Option<FieldsV1>,
    #[prost(string, required, tag = "8")]
    pub(super) subresource: String,
}

/// A tree of field names; travels as JSON text within protobuf.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct FieldsV1 {
    #[prost(bytes = "vec", required, tag = "1")]
    pub(super) raw: Vec<u8>,
}

impl<'de> Deserialize<'de> for FieldsV1 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let tree = serde_json::Value::deserialize(deserializer)?;
        Ok(Self {
            raw: tree.to_string().into_bytes(),
        })
    }
}

/// Metadata of a list.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ListMeta {
    #[prost(string, required, tag = "1")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) self_link: String,
    #[prost(string, required, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) resource_version: String,
    #[prost(string, required, tag = "3")]
    #[serde(rename = "continue", skip_serializing_if = "String::is_empty")]
    pub(crate) continue_: String,
    #[prost(int64, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remaining_item_count: Option<i64>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Condition {
    #[prost(string, required, tag = "1")]
    #[serde(rename = "type")]
    pub(super) condition_type: String,
    #[prost(string, required, tag = "2")]
    pub(super) status: String,
    #[prost(int64, required, tag = "3")]
    pub(super) observed_generation: i64,
    #[prost(message, required, tag = "4")]
    pub(super) last_transition_time: Time,
    #[prost(string, required, tag = "5")]
    pub(super) reason: String,
    #[prost(string, required, tag = "6")]
    pub(super) message: String,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Status {
    #[prost(message, required, tag = "1")]
    pub(super) metadata: ListMeta,
    #[prost(string, required, tag = "2")]
    pub(super) status: String,
    #[prost(string, required, tag = "3")]
    pub(super) message: String,
    #[prost(string, required, tag = "4")]
    pub(super) reason: String,
    #[prost(message, optional, tag = "5")]
    pub(super) details: Option<StatusDetails>,
    #[prost(int32, required, tag = "6")]
    pub(super) code: i32,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct StatusDetails {
    #[prost(string, required, tag = "1")]
    pub(super) name: String,
    #[prost(string, required, tag = "2")]
    pub(super) group: String,
    #[prost(string, required, tag = "3")]
    pub(super) kind: String,
    #[prost(message, repeated, tag = "4")]
    pub(super) causes: Vec<StatusCause>,
    #[prost(int32, required, tag = "5")]
    pub(super) retry_after_seconds: i32,
    #[prost(string, required, tag = "6")]
    pub(super) uid: String,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct StatusCause {
    #[prost(string, required, tag = "1")]
    pub(super) reason: String,
    #[prost(string, required, tag = "2")]
    pub(super) message: String,
    #[prost(string, required, tag = "3")]
    pub(super) field: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TypeMeta {
    #[prost(string, required, tag = "1")]
    pub(super) api_version: String,
    #[prost(string, required, tag = "2")]
    pub(super) kind: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Unknown {
    #[prost(message, required, tag = "1")]
    pub(super) type_meta: TypeMeta,
    #[prost(bytes = "vec", required, tag = "2")]
    pub(super) raw: Vec<u8>,
    #[prost(string, required, tag = "3")]
    pub(super) content_encoding: String,
    #[prost(string, required, tag = "4")]
    pub(super) content_type: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WatchEvent {
    #[prost(string, required, tag = "1")]
    pub(super) event_type: String,
    #[prost(message, required, tag = "2")]
    pub(super) object: RawExtension,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RawExtension {
    #[prost(bytes = "vec", required, tag = "1")]
    pub(super) raw: Vec<u8>,
}

/// A number or a name.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct IntOrString {
    /// 0: number, 1: string.
    #[prost(int64, required, tag = "1")]
    pub(super) kind: i64,
    #[prost(int32, required, tag = "2")]
    pub(super) int_val: i32,
    #[prost(string, required, tag = "3")]
    pub(super) str_val: String,
}

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(i32),
            Text(String),
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::Number(int_val) => Self {
                int_val,
                ..Self::default()
            },
            Either::Text(str_val) => Self {
                kind: 1,
                str_val,
                ..Self::default()
            },
        })
    }
}

/// Reads `null` as the empty list, as Go does.
pub(super) fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An amount with a unit; a string on the wire, a string or a number in JSON.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Quantity {
    #[prost(string, optional, tag = "1")]
    pub(super) string: Option<String>,
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let amount = serde_json::Value::deserialize(deserializer)?;
        Ok(Self {
            string: Some(amount.as_str().map_or_else(|| amount.to_string(), str::to_owned)),
        })
    }
}
