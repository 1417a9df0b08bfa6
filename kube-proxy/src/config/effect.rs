//! Names the fields that are set to something that matters elsewhere and has no effect in this kube-proxy.
//! Sections of other modes have none in upstream either, and are not named.

use std::time::Duration;

use super::file::{KubeProxyConfiguration, Period};

/// One warning that names them all; none when there are none.
pub(super) fn without_effect(file: &KubeProxyConfiguration) -> Option<String> {
    let mut fields = Vec::new();
    let mut name = |field: &str, matters: bool| {
        if matters {
            fields.push(field.to_owned());
        }
    };
    let differs = |given: Option<Period>, default: u64| {
        given.is_some_and(|Period(given)| !given.is_zero() && given != Duration::from_secs(default))
    };

    let connection = file.client_connection.clone().unwrap_or_default();
    name(
        "clientConnection.qps",
        connection.qps.is_some_and(|qps| qps != 0.0 && qps != 5.0),
    );
    name(
        "clientConnection.burst",
        connection.burst.is_some_and(|burst| burst != 0 && burst != 10),
    );

    let logging = file.logging.clone().unwrap_or_default();
    name(
        "logging.format",
        filled(&logging.format) && logging.format.as_deref() != Some("text"),
    );
    name(
        "logging.vmodule",
        logging.vmodule.is_some_and(|patterns| !patterns.is_empty()),
    );

    name("enableProfiling", file.enable_profiling == Some(true));
    name(
        "showHiddenMetricsForVersion",
        filled(&file.show_hidden_metrics_for_version),
    );
    let nftables = file.nftables.clone().unwrap_or_default();
    name("nftables.minSyncPeriod", differs(nftables.min_sync_period, 1));
    name("configSyncPeriod", differs(file.config_sync_period, 15 * 60));

    let conntrack = file.conntrack.clone().unwrap_or_default();
    let set = |value: Option<i32>, default| value.is_some_and(|value| value != 0 && value != default);
    name("conntrack.maxPerCore", set(conntrack.max_per_core, 32768));
    name("conntrack.min", set(conntrack.min, 131_072));
    name(
        "conntrack.tcpEstablishedTimeout",
        differs(conntrack.tcp_established_timeout, 24 * 3600),
    );
    name(
        "conntrack.tcpCloseWaitTimeout",
        differs(conntrack.tcp_close_wait_timeout, 3600),
    );
    name("conntrack.tcpBeLiberal", conntrack.tcp_be_liberal == Some(true));
    name("conntrack.udpTimeout", differs(conntrack.udp_timeout, 0));
    name(
        "conntrack.udpStreamTimeout",
        differs(conntrack.udp_stream_timeout, 0),
    );

    const HEEDED: [&str; 4] = [
        "AllowServiceExternalIPs",
        "MultiCIDRServiceAllocator",
        "NFTablesProxyMode",
        "PreferSameTrafficDistribution",
    ];
    for gate in file.feature_gates.iter().flatten().map(|(gate, _)| gate.as_str()) {
        name(&format!("featureGates.{gate}"), !HEEDED.contains(&gate));
    }
    (!fields.is_empty()).then(|| {
        format!(
            "configuration fields that have no effect in this kube-proxy: {}",
            fields.join(", ")
        )
    })
}

fn filled(field: &Option<String>) -> bool {
    field.as_deref().is_some_and(|text| !text.is_empty())
}
