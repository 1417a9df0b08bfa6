//! Values that do: how they are written, and what they mean.

use super::*;

#[test]
fn a_value_has_the_same_effect_from_a_flag_and_from_a_file() {
    let table = [
        (
            "--cluster-cidr=10.0.0.0/8,fd00::/8",
            "clusterCIDR: 10.0.0.0/8,fd00::/8",
        ),
        (
            "--nodeport-addresses=192.168.0.0/16",
            "nodePortAddresses: [192.168.0.0/16]",
        ),
        ("--masquerade-all", "nftables: {masqueradeAll: true}"),
        ("--detect-local-mode=NodeCIDR", "detectLocalMode: NodeCIDR"),
        (
            "--detect-local-mode=BridgeInterface --pod-bridge-interface=cbr0",
            "detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: cbr0}",
        ),
        (
            "--kubeconfig=/k --kube-api-content-type=application/json",
            "clientConnection: {kubeconfig: /k, contentType: application/json}",
        ),
        (
            "--healthz-bind-address=127.0.0.1:1",
            "healthzBindAddress: 127.0.0.1:1",
        ),
        ("--metrics-bind-address=0.0.0.0", "metricsBindAddress: 0.0.0.0"),
        ("--bind-address=192.168.1.1", "bindAddress: 192.168.1.1"),
        ("--bind-address-hard-fail", "bindAddressHardFail: true"),
        ("--iptables-sync-period=10s", "nftables: {syncPeriod: 10s}"),
        (
            "--feature-gates=AllowServiceExternalIPs=false",
            "featureGates: {AllowServiceExternalIPs: false}",
        ),
        ("--oom-score-adj=0", "oomScoreAdj: 0"),
        (
            "--conntrack-max-per-core=0 --conntrack-min=5 --conntrack-tcp-be-liberal",
            "conntrack: {maxPerCore: 0, min: 5, tcpBeLiberal: true}",
        ),
        (
            "--conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=1m \
             --conntrack-udp-timeout=2s --conntrack-udp-timeout-stream=3s",
            "conntrack: {tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 1m, udpTimeout: 2s, udpStreamTimeout: 3s}",
        ),
        ("-v=4", "logging: {verbosity: 4}"),
        (
            "--nftables-count-connections",
            "nftables: {countConnections: true}",
        ),
        ("--conntrack-count-bytes", "conntrack: {countBytes: true}"),
    ];
    for (line, body) in table {
        let (flags, file) = (of_flags(line).unwrap(), of_file(body, "").unwrap());
        assert_eq!(flags.config, file.config, "{line}");
        assert_ne!(
            flags.config,
            of_flags("").unwrap().config,
            "{line} changes nothing"
        );
    }
}

#[test]
fn addresses_are_read_as_upstream_reads_them() {
    let table = [
        (
            "healthzBindAddress: 127.0.0.1",
            "127.0.0.1:10256",
            "127.0.0.1:10249",
        ),
        ("bindAddress: '::'", "[::]:10256", "[::1]:10249"),
        (
            "bindAddress: 'fd00::1'\nmetricsBindAddress: '::'",
            "[::]:10256",
            "[::]:10249",
        ),
        (
            "metricsBindAddress: 010.000.0.1:80",
            "0.0.0.0:10256",
            "10.0.0.1:80",
        ),
        ("metricsBindAddress: '[::1]:80'", "0.0.0.0:10256", "[::1]:80"),
    ];
    for (body, healthz, metrics) in table {
        let config = of_file(body, "").unwrap().config;
        assert_eq!(config.healthz_address.unwrap().to_string(), healthz, "{body}");
        assert_eq!(config.metrics_address.to_string(), metrics, "{body}");
    }
    // As a flag, an IPv6 bind address does not move the servers.
    let config = of_flags("--bind-address=::").unwrap().config;
    assert_eq!(config.healthz_address.unwrap().to_string(), "0.0.0.0:10256");
}

#[test]
fn durations_are_read_as_go_writes_them() {
    let table = [
        ("0", Some(0)),
        ("0s", Some(0)),
        ("1h0m0s", Some(3_600_000)),
        ("1m30s", Some(90_000)),
        ("1.5s", Some(1500)),
        ("250ms", Some(250)),
        (".5s", Some(500)),
        ("+2s", Some(2000)),
        ("", None),
        ("5", None),
        ("s", None),
        ("1d", None),
        ("-1s", None),
        ("1s2", None),
        ("1..5s", None),
        ("99999999999999999999h", None),
    ];
    for (text, millis) in table {
        assert_eq!(
            duration::parse_duration(text),
            millis.map(Duration::from_millis),
            "{text:?}"
        );
    }
}
