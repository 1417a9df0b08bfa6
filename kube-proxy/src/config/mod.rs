//! The configuration: a file (KubeProxyConfiguration v1alpha1) and flags become one checked [`Config`].
//!
//! `file` holds what can be written, `check` decides what it means. Whoever reads a [`Config`] finds typed
//! values and no more defaults to apply. What has no effect in this kube-proxy is named in [`Loaded::notes`].

mod check;
pub(crate) mod duration;
mod effect;
mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod ipvs;
mod logging;
mod period;
mod source;
#[cfg(test)]
mod tests;
mod watch;
mod written;
pub(crate) mod yaml;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value, json};

use self::file::KubeProxyConfiguration;
use crate::cli::{Flags, set};
use crate::logging::Options as Logging;
use crate::metrics::Feature;
use crate::model::object::Family;
use crate::source::api::ClientOptions;

/// The configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How the kernel is programmed.
    pub mode: Mode,
    /// Where objects come from.
    pub source: Source,
    /// `hostnameOverride`, trimmed and lower case.
    pub hostname_override: Option<String>,
    /// `bindAddress` when it names one address: it stands for the node's address of its family.
    pub node_ip_override: Option<IpAddr>,
    /// `healthzBindAddress`; none where `--healthz-port=0` switches that server off.
    pub healthz_address: Option<SocketAddr>,
    /// `metricsBindAddress`.
    pub metrics_address: SocketAddr,
    /// `bindAddressHardFail`.
    pub bind_address_hard_fail: bool,
    /// `detectLocalMode` and what belongs to it.
    pub detect_local: DetectLocal,
    /// `nodePortAddresses`.
    pub node_port_addresses: NodePorts,
    /// `masqueradeAll` of the mode's section.
    pub masquerade_all: bool,
    /// Node ports answer at the loopback address as well, for processes of this host.
    pub localhost_node_ports: bool,
    /// Count the connections of each ServicePort, in nftables mode.
    pub count_connections: bool,
    /// `masqueradeBit` of the mode's section, 0–31.
    pub masquerade_bit: u8,
    /// What there is for IPVS alone.
    pub ipvs: Ipvs,
    /// `syncPeriod` of the mode's section: the longest pause before a failed sync is tried again, and half of
    /// the time after which a queued change that is not in force makes this proxy unhealthy.
    pub sync_period: Duration,
    /// `featureGates`.
    pub features: Features,
    /// `enableProfiling`.
    pub profiling: bool,
    /// `oomScoreAdj`.
    pub oom_score_adj: i32,
    /// `conntrack`.
    pub conntrack: Conntrack,
    /// `logging`.
    pub logging: Logging,
}

/// The feature gates that make a difference here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `AllowServiceExternalIPs`.
    pub allow_external_ips: bool,
    /// `ComponentStatusz`.
    pub statusz: bool,
    /// `ComponentFlagz`.
    pub flagz: bool,
}

impl Features {
    /// All gates that are heeded, with those that upstream has locked.
    pub fn all(self) -> Vec<Feature> {
        let gates = [
            ("AllowServiceExternalIPs", "", self.allow_external_ips),
            ("ComponentStatusz", "BETA", self.statusz),
            ("ComponentFlagz", "BETA", self.flagz),
        ];
        let locked = check::LOCKED_GATES.map(|name| (name, "", true));
        let all = gates.into_iter().chain(locked);
        all.map(|(name, stage, on)| Feature { name, stage, on }).collect()
    }
}

/// `conntrack`: settings of the kernel. Zero leaves one as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// `maxPerCore`, not negative.
    pub max_per_core: i32,
    /// `min`, not negative.
    pub min: i32,
    /// `tcpEstablishedTimeout`.
    pub tcp_established_timeout: Duration,
    /// `tcpCloseWaitTimeout`.
    pub tcp_close_wait_timeout: Duration,
    /// `tcpBeLiberal`; false leaves it.
    pub tcp_be_liberal: bool,
    /// `udpTimeout`.
    pub udp_timeout: Duration,
    /// `udpStreamTimeout`.
    pub udp_stream_timeout: Duration,
    /// `countBytes`: count the bytes of each ServicePort; false leaves the kernel's accounting as it is.
    pub count_bytes: bool,
}

/// A mode that this kube-proxy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// nftables.
    Nftables,
    /// iptables.
    Iptables,
    /// IPVS, with nftables for what it cannot do.
    Ipvs,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
        })
    }
}

/// `ipvs`, apart from what other modes have too.
#[derive(Clone, Debug, PartialEq)]
pub struct Ipvs {
    /// `scheduler`.
    pub scheduler: String,
    /// `excludeCIDRs`.
    pub exclude_cidrs: Vec<IpNet>,
    /// `strictARP`.
    pub strict_arp: bool,
    /// `tcpTimeout`, `tcpFinTimeout` and `udpTimeout`; `None` leaves the kernel's.
    pub timeouts: [Option<Duration>; 3],
}

impl Default for Ipvs {
    fn default() -> Self {
        Self {
            scheduler: "rr".to_owned(),
            exclude_cidrs: Vec::new(),
            strict_arp: false,
            timeouts: [None; 3],
        }
    }
}

/// Where Services, EndpointSlices and the Node come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// The API server.
    Api(ClientOptions),
    /// Files.
    Manifests {
        /// A file or a folder.
        path: PathBuf,
        /// Networks from which Services without a clusterIP get one, at most one of each family.
        service_cluster_ip_range: Vec<IpNet>,
    },
}

/// `detectLocalMode`.
#[derive(Clone, Debug, PartialEq)]
pub enum DetectLocal {
    /// The first network of each family in `clusterCIDR`.
    ClusterCidr {
        /// IPv4.
        v4: Option<IpNet>,
        /// IPv6.
        v6: Option<IpNet>,
    },
    /// The first of each family in the Node's `spec.podCIDRs`.
    NodeCidr,
    /// The bridge's name.
    BridgeInterface(String),
    /// The prefix.
    InterfaceNamePrefix(String),
}

/// `nodePortAddresses`.
#[derive(Clone, Debug, PartialEq)]
pub enum NodePorts {
    /// `primary`: the node's addresses.
    Primary,
    /// Local addresses in these networks. A family without a network accepts node ports on all.
    Networks(Vec<IpNet>),
}

impl Config {
    /// `nodePortAddresses` include the IPv4 loopback address.
    pub fn node_ports_cover_localhost(&self) -> bool {
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        match &self.node_port_addresses {
            NodePorts::Primary => false,
            NodePorts::Networks(networks) => {
                let mut v4 = networks.iter().filter(|net| net.addr().is_ipv4()).peekable();
                v4.peek().is_none() || v4.any(|net| net.contains(&localhost))
            }
        }
    }

    /// `clusterCIDR` of one family, in ClusterCIDR mode.
    pub fn cluster_cidr(&self, family: Family) -> Option<IpNet> {
        match (&self.detect_local, family) {
            (DetectLocal::ClusterCidr { v4, .. }, Family::V4) => *v4,
            (DetectLocal::ClusterCidr { v6, .. }, Family::V6) => *v6,
            _ => None,
        }
    }
}

/// A configuration and what the operator should be told about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings: fields without effect, lenient decoding.
    pub notes: Vec<String>,
    /// Why the mode is what it is, when none is configured.
    pub why_this_mode: Option<String>,
    /// The file and its text, to notice when it changes.
    pub file: Option<(PathBuf, String)>,
    /// What was configured.
    written: KubeProxyConfiguration,
}

impl Loaded {
    /// The configuration as the text of a complete file, which makes the same configuration when it is read.
    ///
    /// # Errors
    /// When a value has no text.
    pub fn complete_text(&self) -> serde_json::Result<String> {
        written::text(&self.written, &self.config)
    }

    /// The configuration that is in effect, with the mode that was chosen, as `/configz` has it.
    ///
    /// # Errors
    /// When a value has no text.
    pub fn in_effect(&self) -> serde_json::Result<Value> {
        written::in_effect(&self.written, &self.config)
    }
}

/// Chooses the mode for a configuration that names none, and says why.
pub type ChooseMode = fn() -> (Mode, String);

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("failed to read configuration file {path}: {error}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        error: std::io::Error,
    },
    /// The file is no KubeProxyConfiguration.
    #[error("failed to decode: {}{}{reason}", .path, if .path.is_empty() { "" } else { ": " })]
    Decode {
        /// The field, empty for the file as a whole.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Fields whose values do not do, each with its path.
    #[error("{}", .0.join(", "))]
    Invalid(Vec<String>),
}

pub use self::watch::{Current, changed};

/// Reads the file that the flags name, if any, puts the flags on top, and checks the result. What depends on the mode
/// follows the one that is chosen, if none is configured.
///
/// # Errors
/// When the file cannot be read or decoded, or a value does not do.
pub fn load(flags: &Flags, choose_mode: impl FnOnce() -> (Mode, String)) -> Result<Loaded, ConfigError> {
    let Some(path) = &flags.config else {
        return build(None, flags, choose_mode);
    };
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read {
        path: path.display().to_string(),
        error,
    })?;
    let mut loaded = build(Some(&text), flags, choose_mode)?;
    loaded.file = Some((path.clone(), text));
    Ok(loaded)
}

/// [`load`] with the file's text.
fn build(
    text: Option<&str>,
    flags: &Flags,
    choose_mode: impl FnOnce() -> (Mode, String),
) -> Result<Loaded, ConfigError> {
    let mut notes = Vec::new();
    let mut tree = match text {
        // As flags have them: bindAddress does not change these when it is a flag, but does in a file.
        None => json!({
            "healthzBindAddress": "0.0.0.0:10256",
            "metricsBindAddress": "127.0.0.1:10249",
        }),
        Some(text) => {
            let (tree, duplicate) = file::read_tree(text)?;
            file::check_kind(&tree)?;
            if let Some(duplicate) = duplicate {
                notes.push(lenient(&duplicate));
            }
            tree
        }
    };
    overlay(&mut tree, String::new(), &flags.settings);
    let (file, unknown) = file::decode(&tree)?;
    for path in unknown {
        notes.push(lenient(&format!("unknown field \"{path}\"")));
    }
    for flag in &flags.deprecated {
        notes.push(format!(
            "Flag --{flag} has been deprecated, please use --{} instead",
            flag.replace("port", "bind-address")
        ));
    }
    for flag in &flags.ignored {
        notes.push(match flags.config {
            Some(_) => format!("flag --{flag} is ignored because --config is given"),
            None => format!("flag --{flag} has no effect"),
        });
    }
    let chosen = check::names_no_mode(&file).then(choose_mode);
    let (default_mode, why_this_mode) = chosen.unzip();
    let config = check::check(&file, flags, default_mode)?;
    notes.extend(effect::without_effect(&file));
    Ok(Loaded {
        config,
        notes,
        why_this_mode,
        file: None,
        written: file,
    })
}

fn lenient(problem: &str) -> String {
    format!("Using lenient decoding as strict decoding failed: {problem}")
}

/// Puts every leaf of `settings` into `tree`; lists and gates replace.
fn overlay(tree: &mut Value, pointer: String, settings: &Value) {
    match settings {
        Value::Object(fields) if pointer != "/featureGates" => {
            for (name, value) in fields {
                overlay(tree, format!("{pointer}/{name}"), value);
            }
        }
        leaf => set(tree, &pointer, leaf.clone()),
    }
}
