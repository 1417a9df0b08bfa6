//! `k8s.io/apimachinery`: object and list metadata, Status, watch events, the protobuf envelope, and the
//! types whose protobuf and JSON forms differ (Time, IntOrString, string maps).

use std::fmt;

use bytes::Bytes;
use serde::de::{Error as _, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::null_as_default;

/// `metadata` of an object.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectMeta {
    /// Name within the namespace.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// Namespace; empty for cluster-scoped objects.
    #[prost(string, tag = "3")]
    #[serde(deserialize_with = "null_as_default")]
    pub namespace: String,
    /// The version at which the object was last changed.
    #[prost(string, tag = "6")]
    #[serde(deserialize_with = "null_as_default")]
    pub resource_version: String,
    /// When it was created.
    #[prost(message, optional, tag = "8")]
    pub creation_timestamp: Option<Time>,
    /// When its deletion was asked for.
    #[prost(message, optional, tag = "9")]
    pub deletion_timestamp: Option<Time>,
    /// Labels; see [`value_of`].
    #[prost(message, repeated, tag = "11")]
    #[serde(deserialize_with = "pairs")]
    pub labels: Vec<Pair>,
    /// Annotations; see [`value_of`].
    #[prost(message, repeated, tag = "12")]
    #[serde(deserialize_with = "pairs")]
    pub annotations: Vec<Pair>,
}

/// `metadata` of a watch's bookmark.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BookmarkMeta {
    /// The version up to which the watch has told everything.
    #[prost(string, tag = "6")]
    #[serde(deserialize_with = "null_as_default")]
    pub resource_version: String,
    /// Annotations; see [`value_of`].
    #[prost(message, repeated, tag = "12")]
    #[serde(deserialize_with = "pairs")]
    pub annotations: Vec<Pair>,
}

/// The object of a bookmark: one of the watched kind that holds nothing but metadata.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Bookmark {
    /// Metadata.
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<BookmarkMeta>,
}

/// One entry of a string map (labels, annotations, selectors). Objects live only from decoding to
/// conversion, so a list is cheaper than a hash map; on the wire the two are the same.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Pair {
    /// Key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// The value of a key in a string map. Of duplicates the last counts, as in a map.
pub fn value_of<'a>(pairs: &'a [Pair], key: &str) -> Option<&'a str> {
    pairs
        .iter()
        .rev()
        .find(|pair| pair.key == key)
        .map(|pair| pair.value.as_str())
}

/// Reads a JSON object of strings, or null, as pairs.
pub(super) fn pairs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Pair>, D::Error> {
    struct Pairs;

    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<Pair>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of strings")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
            deserializer.deserialize_map(self)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some((key, value)) = map.next_entry::<String, Option<String>>()? {
                let value = value.unwrap_or_default();
                pairs.push(Pair { key, value });
            }
            Ok(pairs)
        }
    }

    deserializer.deserialize_option(Pairs)
}

/// A point in time: seconds and nanoseconds in protobuf, RFC 3339 in JSON.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Time {
    /// Seconds since the Unix epoch. `None` is Go's zero time, which means unset.
    #[prost(int64, optional, tag = "1")]
    pub seconds: Option<i64>,
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time: jiff::Timestamp = text
            .parse()
            .map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &"a time in RFC 3339 format"))?;
        Ok(Self {
            seconds: Some(time.as_second()),
        })
    }
}

/// A port number or a port's name: a message in protobuf, a bare value in JSON.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct IntOrString {
    /// 0: `int_val` counts; 1: `str_val` counts.
    #[prost(int64, tag = "1")]
    pub kind: i64,
    /// The number.
    #[prost(int32, tag = "2")]
    pub int_val: i32,
    /// The name.
    #[prost(string, tag = "3")]
    pub str_val: String,
}

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = IntOrString;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a 32-bit number or a string")
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
                let int_val =
                    i32::try_from(value).map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))?;
                Ok(IntOrString {
                    int_val,
                    ..Default::default()
                })
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
                let value =
                    i64::try_from(value).map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))?;
                self.visit_i64(value)
            }

            fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
                Ok(IntOrString {
                    kind: 1,
                    int_val: 0,
                    str_val: value.to_owned(),
                })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// `metadata` of a list.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ListMeta {
    /// The version of the cluster that the list shows.
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "null_as_default")]
    pub resource_version: String,
    /// Token for the next page; empty on the last one.
    #[prost(string, tag = "3")]
    #[serde(rename = "continue", deserialize_with = "null_as_default")]
    pub continue_token: String,
}

/// The API server's word on why a request failed.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    /// A sentence for people.
    #[prost(string, tag = "3")]
    #[serde(deserialize_with = "null_as_default")]
    pub message: String,
    /// A word for programs, e.g. `Expired`.
    #[prost(string, tag = "4")]
    #[serde(deserialize_with = "null_as_default")]
    pub reason: String,
    /// More for programs.
    #[prost(message, optional, tag = "5")]
    pub details: Option<StatusDetails>,
    /// The HTTP status code.
    #[prost(int32, tag = "6")]
    #[serde(deserialize_with = "null_as_default")]
    pub code: i32,
}

/// `details` of a Status.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StatusDetails {
    /// What exactly was wrong.
    #[prost(message, repeated, tag = "4")]
    #[serde(deserialize_with = "null_as_default")]
    pub causes: Vec<StatusCause>,
    /// Ask again after this many seconds; 0 when the server does not say.
    #[prost(int32, tag = "5")]
    #[serde(deserialize_with = "null_as_default")]
    pub retry_after_seconds: i32,
}

/// One of the `causes` of a Status.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StatusCause {
    /// A word for programs, e.g. `ResourceVersionTooLarge`.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub reason: String,
    /// A sentence for people.
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "null_as_default")]
    pub message: String,
}

/// One frame of a watch in protobuf.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WatchEvent {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// The object, the bookmark's empty object or the error's Status.
    #[prost(message, optional, tag = "2")]
    pub object: Option<RawExtension>,
}

/// An object inside another message: once more an envelope of its own ([`Unknown`] after the magic bytes).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RawExtension {
    /// The encoded object.
    #[prost(bytes = "bytes", tag = "1")]
    pub raw: Bytes,
}

/// The envelope of every protobuf body, after the magic bytes `k8s\0`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Unknown {
    /// The encoded object.
    #[prost(bytes = "bytes", tag = "2")]
    pub raw: Bytes,
}
