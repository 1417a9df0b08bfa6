//! KubeProxyConfiguration, field by field.

use super::*;

/// A field: a JSON pointer, the mode in which it has its default, that default as JSON, and a file in which its value does
/// not do (empty: every value of its type does), with upstream's words about it.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

#[rustfmt::skip] // A table: one field, one line.
const FIELDS: &[Row] = &[
    ("/clientConnection/kubeconfig", "nftables", r#""""#, "", ""),
    ("/clientConnection/acceptContentTypes", "nftables", r#""""#, "", ""),
    ("/clientConnection/contentType", "nftables", r#""application/vnd.kubernetes.protobuf""#, "", ""),
    ("/clientConnection/qps", "nftables", "5", "", ""),
    ("/clientConnection/burst", "nftables", "10", "clientConnection: {burst: -1}", "ClientConnection.Burst: Invalid value: -1: must be greater than or equal to 0"),
    ("/logging/format", "nftables", r#""text""#, "logging: {format: xml}", "logging.format: Invalid value: \"xml\": Unsupported log format"),
    ("/logging/flushFrequency", "nftables", r#""5s""#, "", ""),
    ("/logging/verbosity", "nftables", "0", "logging: {verbosity: 2147483648}", "logging.verbosity: Invalid value: 2147483648: Must be <= 2147483647"),
    ("/logging/options", "nftables", r#"{"json":{"infoBufferSize":"0"},"text":{"infoBufferSize":"0"}}"#, "", ""),
    ("/hostnameOverride", "nftables", r#""""#, "hostnameOverride: ' '", "HostnameOverride: Invalid value: \" \": empty hostname is invalid"),
    ("/bindAddress", "nftables", r#""0.0.0.0""#, "bindAddress: x", "BindAddress: Invalid value: \"x\": must be a valid IP"),
    ("/healthzBindAddress", "nftables", r#""0.0.0.0:10256""#, "healthzBindAddress: 'node:1'", "HealthzBindAddress: Invalid value: \"node:1\": must be IP:port"),
    ("/metricsBindAddress", "nftables", r#""127.0.0.1:10249""#, "metricsBindAddress: '10.0.0.1:x'", "MetricsBindAddress: Invalid value: \"10.0.0.1:x\": must be IP:port"),
    ("/bindAddressHardFail", "nftables", "false", "", ""),
    ("/enableProfiling", "nftables", "false", "", ""),
    ("/showHiddenMetricsForVersion", "nftables", r#""""#, "showHiddenMetricsForVersion: '1.36'", "ShowHiddenMetricsForVersion: Invalid value: \"1.36\": must be omitted or have the value '1.35': only the previous minor version is allowed"),
    ("/mode", "ipvs", r#""ipvs""#, "mode: userspace", "Mode.ProxyMode: Invalid value: \"userspace\": must be iptables, ipvs, nftables or blank"),
    ("/iptables/masqueradeBit", "ipvs", "14", "mode: ipvs\niptables: {masqueradeBit: 32}", "KubeProxyIPTablesConfiguration.MasqueradeBit: Invalid value: 32: must be within the range [0, 31]"),
    ("/iptables/masqueradeAll", "iptables", "false", "", ""),
    ("/iptables/localhostNodePorts", "iptables", "true", "", ""),
    ("/iptables/syncPeriod", "iptables", r#""30s""#, "mode: iptables\niptables: {syncPeriod: 500ms}", "KubeProxyIPTablesConfiguration.SyncPeriod: Invalid value: 500ms: must be greater than or equal to MinSyncPeriod (1s)"),
    ("/iptables/minSyncPeriod", "iptables", r#""1s""#, "mode: iptables\niptables: {minSyncPeriod: 31s}", "KubeProxyIPTablesConfiguration.SyncPeriod: Invalid value: 30s: must be greater than or equal to MinSyncPeriod (31s)"),
    ("/iptables/syncPeriod", "nftables", r#""0s""#, "", ""),
    ("/ipvs/syncPeriod", "ipvs", r#""30s""#, "mode: ipvs\nipvs: {syncPeriod: 1s, minSyncPeriod: 2s}", "KubeProxyIPVSConfiguration.SyncPeriod: Invalid value: 1s: must be greater than or equal to MinSyncPeriod (2s)"),
    ("/ipvs/syncPeriod", "nftables", r#""0s""#, "", ""),
    ("/ipvs/minSyncPeriod", "ipvs", r#""0s""#, "", ""),
    ("/ipvs/scheduler", "ipvs", r#""""#, "", ""),
    ("/ipvs/excludeCIDRs", "ipvs", "null", "mode: ipvs\nipvs: {excludeCIDRs: [10.0.0.1]}", "KubeProxyIPVSConfiguration.ExcludeCidrs[0]: Invalid value: \"10.0.0.1\": must be a valid IP block"),
    ("/ipvs/strictARP", "ipvs", "false", "", ""),
    ("/ipvs/tcpTimeout", "ipvs", r#""0s""#, "", ""),
    ("/ipvs/tcpFinTimeout", "ipvs", r#""0s""#, "", ""),
    ("/ipvs/udpTimeout", "ipvs", r#""0s""#, "", ""),
    ("/nftables/masqueradeBit", "nftables", "14", "nftables: {masqueradeBit: 32}", "KubeProxyNFTablesConfiguration.MasqueradeBit: Invalid value: 32: must be within the range [0, 31]"),
    ("/nftables/masqueradeAll", "nftables", "false", "", ""),
    ("/nftables/syncPeriod", "nftables", r#""30s""#, "nftables: {syncPeriod: 10ms}", "KubeProxyNFTablesConfiguration.SyncPeriod: Invalid value: 10ms: must be greater than or equal to MinSyncPeriod (1s)"),
    ("/nftables/minSyncPeriod", "nftables", r#""1s""#, "", ""),
    ("/nftables/syncPeriod", "iptables", r#""0s""#, "", ""),
    // The platform's default, as upstream shows it.
    ("/detectLocalMode", "nftables", r#""ClusterCIDR""#, "detectLocalMode: Node", "DetectLocalMode: Unsupported value: \"Node\": supported values: \"ClusterCIDR\", \"NodeCIDR\", \"BridgeInterface\", \"InterfaceNamePrefix\", \"\""),
    ("/detectLocal/bridgeInterface", "nftables", r#""""#, "detectLocalMode: BridgeInterface", "DetectLocal.BridgeInterface: Invalid value: \"\": must not be empty"),
    ("/detectLocal/interfaceNamePrefix", "nftables", r#""""#, "detectLocalMode: InterfaceNamePrefix", "DetectLocal.InterfaceNamePrefix: Invalid value: \"\": must not be empty"),
    ("/clusterCIDR", "nftables", r#""""#, "clusterCIDR: 'fd00::/8,fd01::/16'", "ClusterCIDR: Invalid value: \"fd00::/8,fd01::/16\": must be at most one CIDR of each family"),
    ("/nodePortAddresses", "nftables", r#"["primary"]"#, "nodePortAddresses: [secondary]", "NodePortAddresses[0]: Invalid value: \"secondary\": must be a valid CIDR"),
    ("/nodePortAddresses", "iptables", "null", "", ""),
    ("/nodePortAddresses", "ipvs", "null", "", ""),
    ("/conntrack/maxPerCore", "nftables", "32768", "conntrack: {maxPerCore: -1}", "KubeConntrackConfiguration.MaxPerCore: Invalid value: -1: must be greater than or equal to 0"),
    ("/conntrack/min", "nftables", "131072", "conntrack: {min: -1}", "KubeConntrackConfiguration.Min: Invalid value: -1: must be greater than or equal to 0"),
    ("/conntrack/tcpEstablishedTimeout", "nftables", r#""24h0m0s""#, "", ""),
    ("/conntrack/tcpCloseWaitTimeout", "nftables", r#""1h0m0s""#, "", ""),
    ("/conntrack/tcpBeLiberal", "nftables", "false", "", ""),
    ("/conntrack/udpTimeout", "nftables", r#""0s""#, "", ""),
    ("/conntrack/udpStreamTimeout", "nftables", r#""0s""#, "", ""),
    ("/oomScoreAdj", "nftables", "-999", "oomScoreAdj: -1001", "OOMScoreAdj: Invalid value: -1001: must be within the range [-1000, 1000]"),
    ("/configSyncPeriod", "nftables", r#""15m0s""#, "", ""),
    ("/portRange", "nftables", r#""""#, "", ""),
    ("/winkernel/networkName", "nftables", r#""""#, "", ""),
    ("/winkernel/sourceVip", "nftables", r#""""#, "", ""),
    ("/winkernel/enableDSR", "nftables", "false", "", ""),
    ("/winkernel/rootHnsEndpointName", "nftables", r#""""#, "", ""),
    ("/winkernel/forwardHealthCheckVip", "nftables", "false", "", ""),
];

/// A file with this value in this field.
fn with(pointer: &str, mode: &str, value: Value) -> String {
    let mut tree = json!({"mode": mode});
    set(&mut tree, pointer, value);
    tree.as_object()
        .unwrap()
        .iter()
        .map(|(field, value)| format!("{field}: {value}\n"))
        .collect()
}

#[test]
fn every_field_has_upstreams_default_which_null_means_too() {
    for (pointer, mode, default, ..) in FIELDS {
        let default: Value = serde_json::from_str(default).unwrap();
        let plain = of_file(&format!("mode: {mode}"), "").unwrap();
        let null = match *pointer {
            "/mode" => of_file(&format!("mode: {mode}"), ""),
            _ => of_file(&with(pointer, mode, Value::Null), ""),
        }
        .unwrap();
        for (loaded, written) in [(&plain, "absent"), (&null, "null")] {
            assert_eq!(loaded.config, plain.config, "{pointer} {written}");
            assert!(loaded.notes.is_empty(), "{pointer} {written}: {:?}", loaded.notes);
            let found = loaded.in_effect().unwrap();
            assert_eq!(
                found.pointer(pointer).unwrap(),
                &default,
                "{pointer} {written} in {mode}"
            );
        }
    }
}

#[test]
fn every_field_is_known_with_its_default_written_out() {
    for (pointer, mode, default, ..) in FIELDS {
        let default: Value = serde_json::from_str(default).unwrap();
        let loaded = of_file(&with(pointer, mode, default), "").unwrap();
        assert!(loaded.notes.is_empty(), "{pointer}: {:?}", loaded.notes);
        let plain = of_file(&format!("mode: {mode}"), "").unwrap();
        assert_eq!(loaded.config, plain.config, "{pointer}");
    }
    let known = |field: &str| of_file(field, "").unwrap().notes;
    assert!(known("conntrack: {countBytes: true}").is_empty(), "ours");
    assert!(known("windowsRunAsService: true").is_empty());
    assert!(known("featureGates: {}").is_empty());
    assert!(known("portRange: 1-2").is_empty(), "no use on Linux, and no harm");
}

#[test]
fn every_field_refuses_what_upstream_refuses_in_it_with_upstreams_path() {
    for (pointer, _, _, body, message) in FIELDS {
        if body.is_empty() {
            continue;
        }
        let error = of_file(body, "").unwrap_err().to_string();
        assert_eq!(
            error,
            format!("KubeProxyConfiguration.{message}"),
            "{pointer}: {body}"
        );
    }
}

#[test]
fn zero_means_the_default_in_a_file_but_for_what_it_switches_off() {
    for (body, same) in [
        (
            "nftables: {syncPeriod: 0s, minSyncPeriod: 0s}",
            "nftables: {syncPeriod: 30s}",
        ),
        (
            "mode: iptables\niptables: {syncPeriod: 0s, minSyncPeriod: 0s}",
            "mode: iptables",
        ),
        (
            "mode: ipvs\nipvs: {syncPeriod: 0s}",
            "mode: ipvs\nipvs: {syncPeriod: 30s}",
        ),
        ("configSyncPeriod: 0s\nlogging: {flushFrequency: 0}", ""),
        (
            "healthzBindAddress: ''\nmetricsBindAddress: ''\nbindAddress: ''",
            "",
        ),
        ("clientConnection: {qps: 0, burst: 0, contentType: ''}", ""),
        (
            "nodePortAddresses: []\nfeatureGates: {}\nhostnameOverride: ''\nclusterCIDR: ''",
            "",
        ),
    ] {
        let (zero, named) = (of_file(body, "").unwrap(), of_file(same, "").unwrap());
        assert_eq!(zero.config, named.config, "{body}");
        assert!(zero.notes.is_empty(), "{body}: {:?}", zero.notes);
    }
    let off = "conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}\n\
               oomScoreAdj: 0\nnftables: {masqueradeBit: 0, localhostNodePorts: false}";
    let config = of_file(off, "").unwrap().config;
    let conntrack = &config.conntrack;
    assert_eq!(
        (conntrack.max_per_core, conntrack.min, config.oom_score_adj),
        (0, 0, 0)
    );
    assert_eq!(conntrack.tcp_established_timeout, Duration::ZERO);
    assert_eq!(conntrack.tcp_close_wait_timeout, Duration::ZERO);
    assert_eq!((config.masquerade_bit, config.localhost_node_ports), (0, false));
}
