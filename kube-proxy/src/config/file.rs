//! KubeProxyConfiguration v1alpha1 as it is written: every field that upstream has, none of the meaning.
//! Absent and null are the same.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::ConfigError;
use super::duration::{format_duration, parse_duration};

pub(super) const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
pub(super) const KIND: &str = "KubeProxyConfiguration";

/// The whole file. Fields of platforms other than Linux are read and never used.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct KubeProxyConfiguration {
    pub(super) api_version: Option<String>,
    pub(super) kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) feature_gates: Option<BTreeMap<String, bool>>,
    pub(crate) client_connection: Option<ClientConnection>,
    pub(crate) logging: Option<Logging>,
    pub(crate) hostname_override: Option<String>,
    pub(crate) bind_address: Option<String>,
    pub(crate) healthz_bind_address: Option<String>,
    pub(crate) metrics_bind_address: Option<String>,
    pub(crate) bind_address_hard_fail: Option<bool>,
    pub(crate) enable_profiling: Option<bool>,
    pub(crate) show_hidden_metrics_for_version: Option<String>,
    pub(crate) mode: Option<String>,
    pub(crate) iptables: Option<ModeSection>,
    pub(crate) ipvs: Option<Ipvs>,
    pub(crate) nftables: Option<ModeSection>,
    pub(super) winkernel: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) windows_run_as_service: Option<bool>,
    pub(crate) detect_local_mode: Option<String>,
    pub(crate) detect_local: Option<DetectLocal>,
    #[serde(rename = "clusterCIDR")]
    pub(crate) cluster_cidr: Option<String>,
    pub(crate) node_port_addresses: Option<Vec<String>>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) conntrack: Option<Conntrack>,
    pub(crate) config_sync_period: Option<Period>,
    pub(super) port_range: Option<String>,
}

/// `clientConnection`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ClientConnection {
    pub(crate) kubeconfig: Option<String>,
    pub(crate) accept_content_types: Option<String>,
    pub(crate) content_type: Option<String>,
    #[serde(deserialize_with = "finite", serialize_with = "shortest")]
    pub(crate) qps: Option<f32>,
    pub(crate) burst: Option<i32>,
}

/// `logging`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Logging {
    pub(crate) format: Option<String>,
    /// A duration, or nanoseconds as a number: upstream takes both here.
    pub(super) flush_frequency: Option<Value>,
    pub(crate) verbosity: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vmodule: Option<Vec<FileVerbosity>>,
    pub(super) options: Option<Value>,
}

/// An entry of `logging.vmodule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct FileVerbosity {
    pub(crate) file_pattern: String,
    pub(crate) verbosity: u32,
}

/// `ipvs`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Ipvs {
    pub(crate) sync_period: Option<Period>,
    pub(crate) min_sync_period: Option<Period>,
    pub(crate) scheduler: Option<String>,
    #[serde(rename = "excludeCIDRs")]
    pub(crate) exclude_cidrs: Option<Vec<String>>,
    #[serde(rename = "strictARP")]
    pub(crate) strict_arp: Option<bool>,
    pub(crate) tcp_timeout: Option<Period>,
    pub(crate) tcp_fin_timeout: Option<Period>,
    pub(crate) udp_timeout: Option<Period>,
}

/// `iptables`, and `nftables`, which has the same fields.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ModeSection {
    pub(crate) masquerade_bit: Option<i32>,
    pub(crate) masquerade_all: Option<bool>,
    /// Upstream has it in `iptables` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) localhost_node_ports: Option<bool>,
    /// Ours, and in `nftables` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) count_connections: Option<bool>,
    pub(crate) sync_period: Option<Period>,
    pub(crate) min_sync_period: Option<Period>,
}

/// `detectLocal`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DetectLocal {
    pub(crate) bridge_interface: Option<String>,
    pub(crate) interface_name_prefix: Option<String>,
}

/// `conntrack`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Conntrack {
    pub(crate) max_per_core: Option<i32>,
    pub(crate) min: Option<i32>,
    pub(crate) tcp_established_timeout: Option<Period>,
    pub(crate) tcp_close_wait_timeout: Option<Period>,
    pub(crate) tcp_be_liberal: Option<bool>,
    pub(crate) udp_timeout: Option<Period>,
    pub(crate) udp_stream_timeout: Option<Period>,
    /// Ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) count_bytes: Option<bool>,
}

/// A duration in Go's notation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Period(pub(crate) Duration);

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!("{text:?} is not a duration like 1h30m or 250ms"))
        })
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_duration(self.0))
    }
}

/// A number that has a value in 32 bits, as Go reads it.
fn finite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f32>, D::Error> {
    let number = Option::<f32>::deserialize(deserializer)?;
    match number.is_none_or(f32::is_finite) {
        true => Ok(number),
        false => Err(serde::de::Error::custom("is too large for a number of 32 bits")),
    }
}

/// A short number, which is another one in more digits, as its short self: 5 and not 5.0, as Go writes it.
fn shortest<S: Serializer>(number: &Option<f32>, serializer: S) -> Result<S::Ok, S::Error> {
    let number: Option<Value> = number.and_then(|number| number.to_string().parse().ok());
    number.serialize(serializer)
}

/// Reads YAML or JSON into a tree. A key that occurs twice counts as its last occurrence, which the second
/// value tells of.
pub(super) fn read_tree(text: &str) -> Result<(Value, Option<String>), ConfigError> {
    let text = text.trim_start_matches('\u{feff}');
    let strict = serde_saphyr::options! { with_snippet: false };
    let duplicate = match serde_saphyr::from_str_with_options(text, strict) {
        Ok(tree) => return Ok((tree, None)),
        Err(error) => error,
    };
    let lenient = serde_saphyr::options! {
        with_snippet: false,
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins,
    };
    match serde_saphyr::from_str_with_options(text, lenient) {
        Ok(tree) => Ok((tree, Some(duplicate.to_string()))),
        Err(error) => Err(ConfigError::Decode {
            path: String::new(),
            reason: error.to_string(),
        }),
    }
}

/// Checks that a tree read from a file is of our kind and version.
pub(super) fn check_kind(tree: &Value) -> Result<(), ConfigError> {
    let refuse = |path: &str, reason: String| {
        Err(ConfigError::Decode {
            path: path.to_owned(),
            reason,
        })
    };
    if !tree.is_object() {
        return refuse("", format!("a {KIND} must be a mapping"));
    }
    for (field, expected) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        match tree.get(field).and_then(Value::as_str) {
            Some(found) if found == expected => {}
            Some(found) => return refuse(field, format!("is {found:?}, must be {expected:?}")),
            None => return refuse(field, format!("is missing, must be {expected:?}")),
        }
    }
    Ok(())
}

/// Gives a tree its types, and the paths of the fields that nothing is known of.
pub(super) fn decode(tree: &Value) -> Result<(KubeProxyConfiguration, Vec<String>), ConfigError> {
    let mut unknown = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(path.to_string().replace(".?", ""));
    let reader = serde_ignored::Deserializer::new(tree, &mut note);
    let decoded = serde_path_to_error::deserialize(reader).map_err(|error| ConfigError::Decode {
        path: error.path().to_string(),
        reason: error.into_inner().to_string(),
    })?;
    Ok((decoded, unknown))
}
