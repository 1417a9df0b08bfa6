//! events.k8s.io/v1: what kube-proxy writes of an Event.

use serde::Deserialize;

use super::core::ObjectReference;
use super::meta::{ObjectMeta, Time};

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Event {
    #[prost(message, required, tag = "1")]
    pub(super) metadata: ObjectMeta,
    #[prost(message, required, tag = "2")]
    pub(super) event_time: Time,
    #[prost(string, required, tag = "4")]
    pub(super) reporting_controller: String,
    #[prost(string, required, tag = "5")]
    pub(super) reporting_instance: String,
    #[prost(string, required, tag = "6")]
    pub(super) action: String,
    #[prost(string, required, tag = "7")]
    pub(super) reason: String,
    #[prost(message, required, tag = "8")]
    pub(super) regarding: ObjectReference,
    #[prost(string, required, tag = "10")]
    pub(super) note: String,
    #[prost(string, required, tag = "11")]
    #[serde(rename = "type")]
    pub(super) event_type: String,
}
