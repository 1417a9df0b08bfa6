//! Values that do not do, and files of the wrong shape.

use super::*;

#[test]
fn what_upstream_refuses_is_refused_with_the_path_of_the_field() {
    let table = [
        (
            "mode: ipvs\nipvs: {excludeCIDRs: [10.0.0.0/8, bad]}",
            "KubeProxyIPVSConfiguration.ExcludeCidrs[1]: Invalid value: \"bad\": must be a valid IP block",
        ),
        (
            "mode: ebpf",
            "Mode.ProxyMode: Invalid value: \"ebpf\": must be iptables, ipvs, nftables or blank",
        ),
        (
            "bindAddress: 1.2.3",
            "BindAddress: Invalid value: \"1.2.3\": must be a valid IP",
        ),
        (
            "healthzBindAddress: 'x:1'",
            "HealthzBindAddress: Invalid value: \"x:1\": must be IP:port",
        ),
        (
            "metricsBindAddress: 1.2.3.4:0",
            "MetricsBindAddress: Invalid value: \"1.2.3.4:0\": must be IP:port",
        ),
        (
            "metricsBindAddress: 1.2.3.4:65536",
            "MetricsBindAddress: Invalid value: \"1.2.3.4:65536\": must be IP:port",
        ),
        (
            "clusterCIDR: 10.0.0.0/8, fd00::/8",
            "ClusterCIDR: Invalid value: \" fd00::/8\": must be a valid CIDR block (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)",
        ),
        (
            "clusterCIDR: 10.0.0.0/8,11.0.0.0/8",
            "ClusterCIDR: Invalid value: \"10.0.0.0/8,11.0.0.0/8\": must be at most one CIDR of each family",
        ),
        (
            "nodePortAddresses: [primary, 10.0.0.0/8]",
            "NodePortAddresses: Invalid value: [\"primary\", \"10.0.0.0/8\"]: can't use both 'primary' and CIDRs",
        ),
        (
            "nodePortAddresses: [10.0.0.0/8, 10.0.0.1]",
            "NodePortAddresses[1]: Invalid value: \"10.0.0.1\": must be a valid CIDR",
        ),
        (
            "detectLocalMode: Bridge",
            "DetectLocalMode: Unsupported value: \"Bridge\": supported values: \
         \"ClusterCIDR\", \"NodeCIDR\", \"BridgeInterface\", \"InterfaceNamePrefix\", \"\"",
        ),
        (
            "detectLocalMode: BridgeInterface",
            "DetectLocal.BridgeInterface: Invalid value: \"\": must not be empty",
        ),
        (
            "oomScoreAdj: 1001",
            "OOMScoreAdj: Invalid value: 1001: must be within the range [-1000, 1000]",
        ),
        (
            "iptables: {masqueradeBit: 32}",
            "KubeProxyIPTablesConfiguration.MasqueradeBit: Invalid value: 32: must be within the range [0, 31]",
        ),
        (
            "nftables: {masqueradeBit: -1}",
            "KubeProxyNFTablesConfiguration.MasqueradeBit: Invalid value: -1: must be within the range [0, 31]",
        ),
        (
            "nftables: {syncPeriod: 1s, minSyncPeriod: 2s}",
            "KubeProxyNFTablesConfiguration.SyncPeriod: Invalid value: 1s: must be greater than or equal to MinSyncPeriod (2s)",
        ),
        (
            "featureGates: {NFTablesProxyMode: false}",
            "FeatureGates: Invalid value: \"NFTablesProxyMode\": cannot set feature gate to false, feature is locked to true",
        ),
        (
            "hostnameOverride: '  '",
            "HostnameOverride: Invalid value: \"  \": empty hostname is invalid",
        ),
        (
            "logging: {format: xml}",
            "logging.format: Invalid value: \"xml\": Unsupported log format",
        ),
        (
            "logging: {format: json, vmodule: [{filePattern: a, verbosity: 2}]}",
            "logging.vmodule: Forbidden: Only supported for text log format",
        ),
        (
            "logging: {vmodule: [{filePattern: '', verbosity: 2}]}",
            "logging.vmodule[0].filePattern: Required value: File pattern must not be empty",
        ),
        (
            "logging: {vmodule: [{filePattern: 'a=b', verbosity: 2}]}",
            "logging.vmodule[0].filePattern: Invalid value: \"a=b\": File pattern must not contain equal sign or comma",
        ),
        (
            "logging: {verbosity: 2147483648}",
            "logging.verbosity: Invalid value: 2147483648: Must be <= 2147483647",
        ),
        (
            "showHiddenMetricsForVersion: '1.34'",
            "ShowHiddenMetricsForVersion: Invalid value: \"1.34\": must be omitted or have the value '1.35': \
             only the previous minor version is allowed",
        ),
        (
            "conntrack: {maxPerCore: -1}",
            "KubeConntrackConfiguration.MaxPerCore: Invalid value: -1: must be greater than or equal to 0",
        ),
    ];
    for (body, message) in table {
        let error = of_file(body, "").unwrap_err().to_string();
        assert_eq!(error, format!("KubeProxyConfiguration.{message}"), "{body}");
    }
}

#[test]
fn a_file_of_the_wrong_shape_is_fatal_and_says_where() {
    let table = [
        ("", "failed to decode: a KubeProxyConfiguration must be a mapping"),
        (
            "kind: KubeProxyConfiguration",
            "failed to decode: apiVersion: is missing",
        ),
        (
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1",
            "failed to decode: kind: is missing",
        ),
        (
            "apiVersion: kubeproxy.config.k8s.io/v1\nkind: KubeProxyConfiguration",
            "failed to decode: apiVersion: is \"kubeproxy.config.k8s.io/v1\"",
        ),
        (
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nbindAddress: [",
            "failed to decode: ",
        ),
        (
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nnftables: {syncPeriod: 5}",
            "failed to decode: nftables.syncPeriod: invalid type: integer `5`, expected a string",
        ),
        (
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nconntrack: {udpTimeout: soon}",
            "failed to decode: conntrack.udpTimeout: \"soon\" is not a duration like 1h30m or 250ms",
        ),
        (
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nnodePortAddresses: primary",
            "failed to decode: nodePortAddresses: invalid type: string \"primary\", expected a sequence",
        ),
    ];
    for (text, message) in table {
        let error = build(Some(text), &flags("--config=x"), any_kernel)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(message), "{text}\n{error}");
    }
}
