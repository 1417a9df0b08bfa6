//! The configuration as a file, complete: every field that upstream has, with the value that is in effect.
//!
//! A mode that is not named stays so, because each node chooses it for itself, and what depends on it stays unsaid, too.

use std::time::Duration;

use serde_json::{Value, json};

use super::duration::parse_duration;
use super::file::{
    API_VERSION, ClientConnection, Conntrack, DetectLocal, Ipvs, KIND, KubeProxyConfiguration, Logging,
    ModeSection, Period,
};
use super::{Config, Mode, NodePorts, check, overlay, period, source, yaml};

const FLUSH_FREQUENCY: Duration = Duration::from_secs(5);
const CONFIG_SYNC_PERIOD: Duration = Duration::from_secs(15 * 60);

/// What is in effect: the file that names the mode that was chosen.
pub(super) fn in_effect(file: &KubeProxyConfiguration, config: &Config) -> serde_json::Result<Value> {
    let named = KubeProxyConfiguration {
        mode: Some(config.mode.to_string()),
        ..file.clone()
    };
    serde_json::to_value(complete(&named, config))
}

/// The text of the file.
pub(super) fn text(file: &KubeProxyConfiguration, config: &Config) -> serde_json::Result<String> {
    Ok(yaml::text(&serde_json::to_value(complete(file, config))?))
}

/// Puts the default in every field that says nothing.
fn complete(file: &KubeProxyConfiguration, config: &Config) -> KubeProxyConfiguration {
    let file = file.clone();
    let named = (!check::names_no_mode(&file)).then_some(config.mode);
    // Upstream writes no periods for the modes that are not in use.
    let in_use = |mode| named.is_none_or(|named| named == mode);
    let node_ports = match &config.node_port_addresses {
        NodePorts::Primary if named.is_some() => Some(vec!["primary".to_owned()]),
        _ => None,
    };
    KubeProxyConfiguration {
        api_version: Some(API_VERSION.to_owned()),
        kind: Some(KIND.to_owned()),
        feature_gates: file.feature_gates.filter(|gates| !gates.is_empty()),
        client_connection: Some(client_connection(file.client_connection.unwrap_or_default())),
        logging: Some(logging(file.logging.unwrap_or_default())),
        hostname_override: text_or(file.hostname_override, ""),
        bind_address: text_or(file.bind_address, "0.0.0.0"),
        healthz_bind_address: Some(
            config
                .healthz_address
                .map(|address| address.to_string())
                .unwrap_or_default(),
        ),
        metrics_bind_address: Some(config.metrics_address.to_string()),
        bind_address_hard_fail: Some(config.bind_address_hard_fail),
        enable_profiling: file.enable_profiling.or(Some(false)),
        show_hidden_metrics_for_version: text_or(file.show_hidden_metrics_for_version, ""),
        mode: text_or(file.mode, ""),
        iptables: Some(iptables(
            file.iptables.unwrap_or_default(),
            in_use(Mode::Iptables),
        )),
        ipvs: Some(ipvs(file.ipvs.unwrap_or_default(), named == Some(Mode::Ipvs))),
        nftables: Some(section(file.nftables.unwrap_or_default(), in_use(Mode::Nftables))),
        winkernel: Some(winkernel(file.winkernel)),
        detect_local_mode: text_or(file.detect_local_mode, "ClusterCIDR"),
        detect_local: Some(detect_local(file.detect_local.unwrap_or_default())),
        cluster_cidr: text_or(file.cluster_cidr, ""),
        node_port_addresses: file
            .node_port_addresses
            .filter(|all| !all.is_empty())
            .or(node_ports),
        oom_score_adj: Some(config.oom_score_adj),
        conntrack: Some(conntrack(config)),
        config_sync_period: period_or(file.config_sync_period, CONFIG_SYNC_PERIOD),
        port_range: text_or(file.port_range, ""),
        windows_run_as_service: file.windows_run_as_service,
    }
}

fn text_or(given: Option<String>, default: &str) -> Option<String> {
    Some(
        given
            .filter(|text| !text.is_empty())
            .unwrap_or(default.to_owned()),
    )
}

fn period_or(given: Option<Period>, default: Duration) -> Option<Period> {
    Some(
        given
            .filter(|Period(given)| !given.is_zero())
            .unwrap_or(Period(default)),
    )
}

fn client_connection(given: ClientConnection) -> ClientConnection {
    ClientConnection {
        kubeconfig: text_or(given.kubeconfig, ""),
        accept_content_types: text_or(given.accept_content_types, ""),
        content_type: text_or(given.content_type, source::DEFAULT_CONTENT_TYPE),
        qps: given.qps.filter(|&qps| qps != 0.0).or(Some(5.0)),
        burst: given.burst.filter(|&burst| burst != 0).or(Some(10)),
    }
}

fn logging(given: Logging) -> Logging {
    let frequency = match &given.flush_frequency {
        Some(Value::String(text)) => parse_duration(text),
        Some(Value::Number(nanos)) => nanos.as_u64().map(Duration::from_nanos),
        _ => None,
    };
    let mut options = json!({ "json": { "infoBufferSize": "0" }, "text": { "infoBufferSize": "0" } });
    overlay(&mut options, String::new(), &given.options.unwrap_or(json!({})));
    Logging {
        format: text_or(given.format, "text"),
        flush_frequency: period_or(frequency.map(Period), FLUSH_FREQUENCY).map(|period| json!(period)),
        verbosity: given.verbosity.or(Some(0)),
        vmodule: given.vmodule.filter(|patterns| !patterns.is_empty()),
        options: Some(options),
    }
}

fn section(given: ModeSection, in_use: bool) -> ModeSection {
    let unless_unused = |default| if in_use { default } else { Duration::ZERO };
    ModeSection {
        masquerade_bit: given.masquerade_bit.or(Some(check::DEFAULT_MASQUERADE_BIT)),
        masquerade_all: given.masquerade_all.or(Some(false)),
        localhost_node_ports: given.localhost_node_ports,
        count_connections: given.count_connections,
        sync_period: period_or(given.sync_period, unless_unused(period::DEFAULT_SYNC_PERIOD)),
        min_sync_period: period_or(
            given.min_sync_period,
            unless_unused(period::DEFAULT_MIN_SYNC_PERIOD),
        ),
    }
}

fn iptables(given: ModeSection, in_use: bool) -> ModeSection {
    ModeSection {
        localhost_node_ports: given.localhost_node_ports.or(Some(true)),
        ..section(given, in_use)
    }
}

fn ipvs(given: Ipvs, in_use: bool) -> Ipvs {
    let default = if in_use {
        period::DEFAULT_SYNC_PERIOD
    } else {
        Duration::ZERO
    };
    Ipvs {
        sync_period: period_or(given.sync_period, default),
        min_sync_period: given.min_sync_period.or(Some(Period::default())),
        scheduler: text_or(given.scheduler, ""),
        exclude_cidrs: given.exclude_cidrs,
        strict_arp: given.strict_arp.or(Some(false)),
        tcp_timeout: given.tcp_timeout.or(Some(Period::default())),
        tcp_fin_timeout: given.tcp_fin_timeout.or(Some(Period::default())),
        udp_timeout: given.udp_timeout.or(Some(Period::default())),
    }
}

fn winkernel(given: Option<Value>) -> Value {
    let mut winkernel = json!({
        "enableDSR": false,
        "forwardHealthCheckVip": false,
        "networkName": "",
        "rootHnsEndpointName": "",
        "sourceVip": "",
    });
    let mut given = given.unwrap_or(json!({}));
    if let Value::Object(fields) = &mut given {
        fields.retain(|_, value| !value.is_null());
    }
    overlay(&mut winkernel, String::new(), &given);
    winkernel
}

fn detect_local(given: DetectLocal) -> DetectLocal {
    DetectLocal {
        bridge_interface: text_or(given.bridge_interface, ""),
        interface_name_prefix: text_or(given.interface_name_prefix, ""),
    }
}

fn conntrack(config: &Config) -> Conntrack {
    let conntrack = &config.conntrack;
    let period = |duration| Some(Period(duration));
    Conntrack {
        max_per_core: Some(conntrack.max_per_core),
        min: Some(conntrack.min),
        tcp_established_timeout: period(conntrack.tcp_established_timeout),
        tcp_close_wait_timeout: period(conntrack.tcp_close_wait_timeout),
        tcp_be_liberal: Some(conntrack.tcp_be_liberal),
        udp_timeout: period(conntrack.udp_timeout),
        udp_stream_timeout: period(conntrack.udp_stream_timeout),
        // Upstream, which has no such field, warns about it.
        count_bytes: conntrack.count_bytes.then_some(true),
    }
}
