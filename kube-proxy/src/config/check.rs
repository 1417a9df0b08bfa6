//! What a KubeProxyConfiguration means: defaults and upstream's validation with its paths. Zero, empty and
//! null mean the default, because kubeadm writes files full of them.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::file::{KubeProxyConfiguration, ModeSection, Period};
use super::period::{is_zero_flag, sync_period};
use super::{
    Config, ConfigError, Conntrack, DetectLocal, Features, Ipvs, Mode, NodePorts, ipvs, logging, source,
};
use crate::cli::Flags;
use crate::model::object::Family;
use crate::source::convert::{parse_cidr, parse_ip};

pub(super) const DEFAULT_MASQUERADE_BIT: i32 = 14;
const DEFAULT_OOM_SCORE_ADJ: i32 = -999;
const DEFAULT_MAX_PER_CORE: i32 = 32_768;
const DEFAULT_CONNTRACK_MIN: i32 = 131_072;
const DEFAULT_TCP_ESTABLISHED_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
const DEFAULT_TCP_CLOSE_WAIT_TIMEOUT: Duration = Duration::from_secs(3600);

/// What upstream calls the modes' sections when it complains.
const IPTABLES: &str = "KubeProxyIPTablesConfiguration";
const IPVS: &str = "KubeProxyIPVSConfiguration";
const NFTABLES: &str = "KubeProxyNFTablesConfiguration";

/// Gates that upstream has locked to true.
pub(super) const LOCKED_GATES: [&str; 3] = [
    "MultiCIDRServiceAllocator",
    "NFTablesProxyMode",
    "PreferSameTrafficDistribution",
];

/// Collects what is wrong, so that all of it can be told at once.
#[derive(Default)]
pub(super) struct Problems(Vec<String>);

impl Problems {
    pub(super) fn invalid(&mut self, path: &str, value: impl Debug, problem: &str) {
        self.0.push(format!(
            "KubeProxyConfiguration.{path}: Invalid value: {value:?}: {problem}"
        ));
    }

    /// Something that is no field.
    pub(super) fn refuse(&mut self, problem: String) {
        self.0.push(problem);
    }

    /// Something that may not be set.
    pub(super) fn forbidden(&mut self, path: &str, problem: &str) {
        self.0
            .push(format!("KubeProxyConfiguration.{path}: Forbidden: {problem}"));
    }

    /// Something that is missing.
    pub(super) fn required(&mut self, path: &str, problem: &str) {
        self.0.push(format!(
            "KubeProxyConfiguration.{path}: Required value: {problem}"
        ));
    }

    /// Parses a value or notes that it does not do.
    pub(super) fn parse<T>(
        &mut self,
        path: &str,
        text: &str,
        parse: fn(&str) -> Option<T>,
        problem: &str,
    ) -> Option<T> {
        let parsed = parse(text);
        if parsed.is_none() {
            self.invalid(path, text, problem);
        }
        parsed
    }

    /// The value, or the nearer bound and a note.
    fn within(&mut self, path: &str, value: i32, min: i32, max: i32) -> i32 {
        if !(min..=max).contains(&value) {
            self.invalid(path, value, &format!("must be within the range [{min}, {max}]"));
        }
        value.clamp(min, max)
    }
}

/// Whether the choice of the mode is left to this program.
pub(super) fn names_no_mode(file: &KubeProxyConfiguration) -> bool {
    text(&file.mode).is_none()
}

/// Checks everything and makes a [`Config`]; `default_mode` is for a file that names none.
pub(super) fn check(
    file: &KubeProxyConfiguration,
    flags: &Flags,
    default_mode: Option<Mode>,
) -> Result<Config, ConfigError> {
    let mut problems = Problems::default();
    let bind_address = match text(&file.bind_address) {
        None => None,
        Some(ip) => problems.parse("BindAddress", ip, parse_ip, "must be a valid IP"),
    };
    let v6 = bind_address.is_some_and(|ip| ip.is_ipv6());
    let (any, loopback) = if v6 {
        ("[::]", "[::1]")
    } else {
        ("0.0.0.0", "127.0.0.1")
    };
    let healthz = text(&file.healthz_bind_address).unwrap_or(any);
    let metrics = text(&file.metrics_bind_address).unwrap_or(loopback);
    let mode = mode(file, &mut problems)
        .or(default_mode)
        .unwrap_or(Mode::Nftables);
    let (section, name, masquerade_bit) = section_of(mode, file, &mut problems);
    let config = Config {
        mode,
        source: source::check(file, flags, &mut problems),
        hostname_override: hostname_override(file, &mut problems),
        node_ip_override: bind_address.filter(|ip| !ip.is_unspecified()),
        healthz_address: match flags.healthz_port {
            Some(0) => None,
            port => Some(server(
                "HealthzBindAddress",
                healthz,
                port.unwrap_or(10256),
                &mut problems,
            )),
        },
        metrics_address: match flags.metrics_port {
            // There is no proxy without it, whatever the port.
            Some(0) => server("MetricsBindAddress", "", 0, &mut problems),
            port => server(
                "MetricsBindAddress",
                metrics,
                port.unwrap_or(10249),
                &mut problems,
            ),
        },
        bind_address_hard_fail: file.bind_address_hard_fail.unwrap_or_default(),
        detect_local: detect_local(file, &mut problems),
        node_port_addresses: node_ports(mode, file, &mut problems),
        localhost_node_ports: section.localhost_node_ports.unwrap_or(true),
        masquerade_all: section.masquerade_all.unwrap_or_default(),
        count_connections: mode == Mode::Nftables && section.count_connections.unwrap_or_default(),
        masquerade_bit,
        ipvs: match mode {
            Mode::Ipvs => ipvs::check(file, &mut problems),
            Mode::Iptables | Mode::Nftables => Ipvs::default(),
        },
        sync_period: sync_period(mode, name, &section, flags, &mut problems),
        features: features(file, &mut problems),
        profiling: file.enable_profiling.unwrap_or_default(),
        oom_score_adj: problems.within(
            "OOMScoreAdj",
            file.oom_score_adj.unwrap_or(DEFAULT_OOM_SCORE_ADJ),
            -1000,
            1000,
        ),
        conntrack: conntrack(file, &mut problems),
        logging: logging::check(file, &mut problems),
    };
    check_unused(file, flags, &mut problems);
    if problems.0.is_empty() {
        Ok(config)
    } else {
        Err(ConfigError::Invalid(problems.0))
    }
}

/// The section of the mode, what upstream calls it, and the bit of its mark.
fn section_of(
    mode: Mode,
    file: &KubeProxyConfiguration,
    problems: &mut Problems,
) -> (ModeSection, &'static str, u8) {
    let iptables = file.iptables.clone().unwrap_or_default();
    // Upstream checks this one in every mode.
    let iptables_bit = masquerade_bit(IPTABLES, iptables.masquerade_bit, problems);
    match mode {
        Mode::Iptables => (iptables, IPTABLES, iptables_bit),
        Mode::Nftables => {
            let nftables = file.nftables.clone().unwrap_or_default();
            let bit = masquerade_bit(NFTABLES, nftables.masquerade_bit, problems);
            (nftables, NFTABLES, bit)
        }
        // As upstream: the periods are its own, the rest is that of iptables.
        Mode::Ipvs => {
            let periods = file.ipvs.clone().unwrap_or_default();
            let section = ModeSection {
                sync_period: periods.sync_period,
                min_sync_period: periods.min_sync_period,
                ..iptables
            };
            (section, IPVS, iptables_bit)
        }
    }
}

/// Fields that have no effect here, but values that upstream refuses.
fn check_unused(file: &KubeProxyConfiguration, flags: &Flags, problems: &mut Problems) {
    if is_zero_flag(file.config_sync_period, flags) {
        problems.invalid("ConfigSyncPeriod", "0s", "must be greater than 0");
    }
    if let Some(version) = text(&file.show_hidden_metrics_for_version).filter(|version| *version != "1.35") {
        problems.invalid(
            "ShowHiddenMetricsForVersion",
            version,
            "must be omitted or have the value '1.35': only the previous minor version is allowed",
        );
    }
}

/// A text that says something.
pub(super) fn text(field: &Option<String>) -> Option<&str> {
    field.as_deref().filter(|text| !text.is_empty())
}

/// The mode that is named.
fn mode(file: &KubeProxyConfiguration, problems: &mut Problems) -> Option<Mode> {
    match text(&file.mode)? {
        "nftables" => return Some(Mode::Nftables),
        "iptables" => return Some(Mode::Iptables),
        "ipvs" => return Some(Mode::Ipvs),
        other => problems.invalid(
            "Mode.ProxyMode",
            other,
            "must be iptables, ipvs, nftables or blank",
        ),
    }
    None
}

fn hostname_override(file: &KubeProxyConfiguration, problems: &mut Problems) -> Option<String> {
    let given = text(&file.hostname_override)?;
    let name = given.trim().to_lowercase();
    if name.is_empty() {
        problems.invalid("HostnameOverride", given, "empty hostname is invalid");
    }
    Some(name)
}

/// An address to listen on; the port may be left out.
fn server(path: &str, text: &str, port: u16, problems: &mut Problems) -> SocketAddr {
    let with_port = match parse_ip(text.trim_start_matches('[').trim_end_matches(']')) {
        Some(ip) => SocketAddr::new(ip, port).to_string(),
        None => text.to_owned(),
    };
    problems
        .parse(path, &with_port, parse_socket_address, "must be IP:port")
        .unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
}

/// An address and a port, `1.2.3.4:80` or `[::1]:80`, the port not zero; `None` when it is neither.
fn parse_socket_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.rsplit_once(':')?;
    let ip = match ip.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None => Some(ip).filter(|ip| !ip.contains(':'))?,
    };
    let port: u16 = port.parse().ok().filter(|&port| port != 0)?;
    Some(SocketAddr::new(parse_ip(ip)?, port))
}

pub(super) fn family(net: &IpNet) -> Family {
    Family::of(net.addr())
}

fn detect_local(file: &KubeProxyConfiguration, problems: &mut Problems) -> DetectLocal {
    let detect = file.detect_local.clone().unwrap_or_default();
    match file.detect_local_mode.as_deref().unwrap_or_default() {
        "" | "ClusterCIDR" => return cluster_cidr(file, problems),
        "NodeCIDR" => return DetectLocal::NodeCidr,
        "BridgeInterface" => match text(&detect.bridge_interface) {
            Some(name) => return DetectLocal::BridgeInterface(name.to_owned()),
            None => problems.invalid("DetectLocal.BridgeInterface", "", "must not be empty"),
        },
        "InterfaceNamePrefix" => match text(&detect.interface_name_prefix) {
            Some(prefix) => return DetectLocal::InterfaceNamePrefix(prefix.to_owned()),
            None => problems.invalid("DetectLocal.InterfaceNamePrefix", "", "must not be empty"),
        },
        other => problems.0.push(format!(
            "KubeProxyConfiguration.DetectLocalMode: Unsupported value: {other:?}: supported values: \
             \"ClusterCIDR\", \"NodeCIDR\", \"BridgeInterface\", \"InterfaceNamePrefix\", \"\""
        )),
    }
    DetectLocal::NodeCidr
}

fn cluster_cidr(file: &KubeProxyConfiguration, problems: &mut Problems) -> DetectLocal {
    let mut found = [None, None];
    let all = text(&file.cluster_cidr).unwrap_or_default();
    let parts: Vec<&str> = all.split(',').filter(|_| !all.is_empty()).collect();
    for part in &parts {
        const PROBLEM: &str = "must be a valid CIDR block (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)";
        if let Some(net) = problems.parse("ClusterCIDR", part, parse_cidr, PROBLEM) {
            let place = &mut found[family(&net) as usize];
            if place.is_some() || parts.len() > 2 {
                problems.invalid("ClusterCIDR", all, "must be at most one CIDR of each family");
                break;
            }
            *place = Some(net);
        }
    }
    let [v4, v6] = found;
    DetectLocal::ClusterCidr { v4, v6 }
}

fn node_ports(mode: Mode, file: &KubeProxyConfiguration, problems: &mut Problems) -> NodePorts {
    let entries = file.node_port_addresses.as_deref().unwrap_or_default();
    if entries == ["primary"] || (entries.is_empty() && mode == Mode::Nftables) {
        return NodePorts::Primary;
    }
    if entries.iter().any(|entry| entry == "primary") {
        problems.invalid("NodePortAddresses", entries, "can't use both 'primary' and CIDRs");
        return NodePorts::Primary;
    }
    let mut networks = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let path = format!("NodePortAddresses[{index}]");
        networks.extend(problems.parse(&path, entry, parse_cidr, "must be a valid CIDR"));
    }
    NodePorts::Networks(networks)
}

fn masquerade_bit(section: &str, bit: Option<i32>, problems: &mut Problems) -> u8 {
    let path = format!("{section}.MasqueradeBit");
    let bit = problems.within(&path, bit.unwrap_or(DEFAULT_MASQUERADE_BIT), 0, 31);
    u8::try_from(bit).unwrap_or_default()
}

fn features(file: &KubeProxyConfiguration, problems: &mut Problems) -> Features {
    let gates = file.feature_gates.clone().unwrap_or_default();
    for gate in LOCKED_GATES {
        if gates.get(gate) == Some(&false) {
            problems.invalid(
                "FeatureGates",
                gate,
                "cannot set feature gate to false, feature is locked to true",
            );
        }
    }
    let is_on = |gate| gates.get(gate).copied().unwrap_or(true);
    Features {
        allow_external_ips: is_on("AllowServiceExternalIPs"),
        statusz: is_on("ComponentStatusz"),
        flagz: is_on("ComponentFlagz"),
    }
}

/// Null means the default here, and zero means to leave a setting alone.
fn conntrack(file: &KubeProxyConfiguration, problems: &mut Problems) -> Conntrack {
    let given = file.conntrack.clone().unwrap_or_default();
    let mut number = |field: &str, given: Option<i32>, default| {
        let number = given.unwrap_or(default);
        if number < 0 {
            problems.invalid(
                &format!("KubeConntrackConfiguration.{field}"),
                number,
                "must be greater than or equal to 0",
            );
        }
        number.max(0)
    };
    let period = |given: Option<Period>, default| given.map_or(default, |Period(given)| given);
    Conntrack {
        max_per_core: number("MaxPerCore", given.max_per_core, DEFAULT_MAX_PER_CORE),
        min: number("Min", given.min, DEFAULT_CONNTRACK_MIN),
        tcp_established_timeout: period(given.tcp_established_timeout, DEFAULT_TCP_ESTABLISHED_TIMEOUT),
        tcp_close_wait_timeout: period(given.tcp_close_wait_timeout, DEFAULT_TCP_CLOSE_WAIT_TIMEOUT),
        tcp_be_liberal: given.tcp_be_liberal.unwrap_or_default(),
        udp_timeout: period(given.udp_timeout, Duration::ZERO),
        udp_stream_timeout: period(given.udp_stream_timeout, Duration::ZERO),
        count_bytes: given.count_bytes.unwrap_or_default(),
    }
}
