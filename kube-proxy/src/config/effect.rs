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

    name(
        "showHiddenMetricsForVersion",
        filled(&file.show_hidden_metrics_for_version),
    );
    let nftables = file.nftables.clone().unwrap_or_default();
    name("nftables.minSyncPeriod", differs(nftables.min_sync_period, 1));
    name("configSyncPeriod", differs(file.config_sync_period, 15 * 60));

    const HEEDED: [&str; 6] = [
        "AllowServiceExternalIPs",
        "ComponentFlagz",
        "ComponentStatusz",
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
