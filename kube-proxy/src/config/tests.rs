//! Files and flags, and the configuration or the refusal that they make.

mod flags;
mod garbage;
mod written;

use super::*;
use crate::cli::{Command, parse};

const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

fn flags(line: &str) -> Flags {
    match parse(line.split_whitespace().map(str::to_owned)) {
        Ok(Command::Run(flags)) => *flags,
        other => panic!("{line}: {other:?}"),
    }
}

/// A kernel that has all that nftables mode needs.
fn any_kernel() -> (Mode, String) {
    (Mode::Nftables, "it has all that is needed".to_owned())
}

/// One that has not.
fn old_kernel() -> (Mode, String) {
    (Mode::Iptables, "it lacks numgen".to_owned())
}

fn of_flags(line: &str) -> Result<Loaded, ConfigError> {
    build(None, &flags(line), any_kernel)
}

fn of_file(body: &str, line: &str) -> Result<Loaded, ConfigError> {
    build(
        Some(&format!("{HEAD}{body}")),
        &flags(&format!("--config=x {line}")),
        any_kernel,
    )
}

/// The API server without a setting.
fn api() -> ClientOptions {
    ClientOptions {
        content_type: "application/vnd.kubernetes.protobuf".to_owned(),
        ..ClientOptions::default()
    }
}

#[test]
fn without_a_mode_the_kernel_decides_and_what_depends_on_the_mode_follows() {
    let blank = [
        "",
        "--iptables-masquerade-bit=7 --iptables-sync-period=11s --masquerade-all",
    ];
    for line in blank {
        for (choose, mode) in [
            (any_kernel as ChooseMode, "nftables"),
            (old_kernel as ChooseMode, "iptables"),
        ] {
            let chosen = build(None, &flags(line), choose).unwrap();
            let named = build(None, &flags(&format!("{line} --proxy-mode={mode}")), || {
                panic!("a mode is named")
            });
            let named = named.unwrap();
            assert_eq!(chosen.config, named.config, "{line}");
            assert_eq!(chosen.why_this_mode, Some(choose().1));
            assert_eq!(named.why_this_mode, None);
        }
    }
    let old = build(None, &flags(""), old_kernel).unwrap().config;
    assert_eq!(old.node_port_addresses, NodePorts::Networks(Vec::new()));
}

#[test]
fn no_flags_at_all_mean_upstreams_defaults() {
    let loaded = of_flags("").unwrap();
    assert!(loaded.notes.is_empty(), "{:?}", loaded.notes);
    let expected = Config {
        mode: Mode::Nftables,
        source: Source::Api(api()),
        hostname_override: None,
        node_ip_override: None,
        healthz_address: Some("0.0.0.0:10256".parse().unwrap()),
        metrics_address: "127.0.0.1:10249".parse().unwrap(),
        bind_address_hard_fail: false,
        detect_local: DetectLocal::ClusterCidr { v4: None, v6: None },
        node_port_addresses: NodePorts::Primary,
        localhost_node_ports: true,
        count_connections: false,
        ipvs: Ipvs::default(),
        masquerade_all: false,
        masquerade_bit: 14,
        sync_period: Duration::from_secs(30),
        features: Features {
            allow_external_ips: true,
            statusz: true,
            flagz: true,
        },
        profiling: false,
        oom_score_adj: -999,
        conntrack: Conntrack {
            max_per_core: 32_768,
            min: 131_072,
            tcp_established_timeout: Duration::from_secs(24 * 3600),
            tcp_close_wait_timeout: Duration::from_secs(3600),
            tcp_be_liberal: false,
            udp_timeout: Duration::ZERO,
            udp_stream_timeout: Duration::ZERO,
        },
        logging: Logging::default(),
    };
    assert_eq!(loaded.config, expected);
}

#[test]
fn the_file_that_kubeadm_writes_loads_without_a_warning() {
    let text = include_str!("testdata/kubeadm.yaml");
    let loaded = build(
        Some(text),
        &flags("--config=x --hostname-override=Node-1"),
        any_kernel,
    )
    .unwrap();
    assert!(loaded.notes.is_empty(), "{:?}", loaded.notes);
    let expected = Config {
        source: Source::Api(ClientOptions {
            kubeconfig: Some("/var/lib/kube-proxy/kubeconfig.conf".into()),
            ..api()
        }),
        hostname_override: Some("node-1".to_owned()),
        detect_local: DetectLocal::ClusterCidr {
            v4: Some("10.244.0.0/16".parse().unwrap()),
            v6: Some("fd00:10:244::/56".parse().unwrap()),
        },
        ..of_flags("").unwrap().config
    };
    assert_eq!(loaded.config, expected);
}

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
fn the_mode_has_its_own_section_and_accepts_node_ports_where_upstreams_does() {
    let sections =
        "iptables: {masqueradeAll: true, masqueradeBit: 7, localhostNodePorts: false, syncPeriod: 11s}
nftables: {masqueradeBit: 9, syncPeriod: 12s}";
    let iptables = of_file(&format!("mode: iptables\n{sections}"), "")
        .unwrap()
        .config;
    let expected = Config {
        mode: Mode::Iptables,
        node_port_addresses: NodePorts::Networks(Vec::new()),
        localhost_node_ports: false,
        masquerade_all: true,
        masquerade_bit: 7,
        sync_period: Duration::from_secs(11),
        ..of_flags("").unwrap().config
    };
    assert_eq!(iptables, expected);
    let nftables = of_file(&format!("mode: nftables\n{sections}"), "")
        .unwrap()
        .config;
    let expected = Config {
        masquerade_bit: 9,
        sync_period: Duration::from_secs(12),
        ..of_flags("").unwrap().config
    };
    assert_eq!(nftables, expected);
    let primary = of_file("mode: iptables\nnodePortAddresses: [primary]", "").unwrap();
    assert_eq!(primary.config.node_port_addresses, NodePorts::Primary);
}

#[test]
fn ipvs_has_a_section_of_its_own_and_the_rest_from_that_of_iptables() {
    let ipvs = of_file(
        "mode: ipvs
iptables: {masqueradeAll: true, masqueradeBit: 7, syncPeriod: 11s}
ipvs: {syncPeriod: 13s, minSyncPeriod: 0s, scheduler: lc, excludeCIDRs: [10.1.0.0/16], strictARP: true, tcpTimeout: 0s,
  tcpFinTimeout: 1m, udpTimeout: 5s}",
        "",
    );
    let expected = Config {
        mode: Mode::Ipvs,
        node_port_addresses: NodePorts::Networks(Vec::new()),
        masquerade_all: true,
        masquerade_bit: 7,
        sync_period: Duration::from_secs(13),
        ipvs: Ipvs {
            scheduler: "lc".to_owned(),
            exclude_cidrs: vec!["10.1.0.0/16".parse().unwrap()],
            strict_arp: true,
            timeouts: [None, Some(Duration::from_secs(60)), Some(Duration::from_secs(5))],
        },
        ..of_flags("").unwrap().config
    };
    assert_eq!(ipvs.unwrap().config, expected);
    assert_eq!(
        of_file("mode: ipvs\nipvs: {scheduler: ''}", "")
            .unwrap()
            .config
            .ipvs,
        Ipvs::default()
    );
}

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

#[test]
fn what_has_no_effect_is_named() {
    let table: &[(&str, &str, &[&str])] = &[
        (
            "clusterCidr: 10.0.0.0/8",
            "",
            &["Using lenient decoding as strict decoding failed: unknown field \"clusterCidr\""],
        ),
        (
            "nftables: {masqueradeAl: true}",
            "",
            &["Using lenient decoding as strict decoding failed: unknown field \"nftables.masqueradeAl\""],
        ),
        (
            "configSyncPeriod: 1m\nfeatureGates: {SomethingNew: true, ComponentFlagz: false}",
            "",
            &[
                "configuration fields that have no effect in this kube-proxy: configSyncPeriod, featureGates.SomethingNew",
            ],
        ),
        (
            "",
            "--masquerade-all --boot-id-file=x",
            &[
                "flag --masquerade-all is ignored because --config is given",
                "flag --boot-id-file is ignored because --config is given",
            ],
        ),
    ];
    for (body, line, notes) in table {
        assert_eq!(&of_file(body, line).unwrap().notes, notes, "{body} {line}");
    }
    assert_eq!(
        of_flags("--machine-id-file=a").unwrap().notes,
        ["flag --machine-id-file has no effect"]
    );
}

#[test]
fn the_last_of_two_equal_keys_counts_and_the_duplicate_is_told() {
    let loaded = of_file("clusterCIDR: 10.0.0.0/8\nclusterCIDR: 11.0.0.0/8", "").unwrap();
    assert_eq!(
        loaded.config.cluster_cidr(Family::V4),
        Some("11.0.0.0/8".parse().unwrap())
    );
    assert!(
        loaded.notes[0].starts_with("Using lenient decoding as strict decoding failed: "),
        "{:?}",
        loaded.notes
    );
}

#[test]
fn a_manifest_source_excludes_an_api_server_and_has_a_range_for_its_services() {
    let source = |line: &str| of_flags(line).unwrap().config.source;
    let Source::Manifests {
        service_cluster_ip_range: range,
        ..
    } = source("--manifests=/m")
    else {
        panic!("not a manifest source")
    };
    assert_eq!(
        range,
        [
            "10.96.0.0/16".parse().unwrap(),
            "fd00:10:96::/112".parse().unwrap()
        ]
    );
    let Source::Manifests {
        service_cluster_ip_range: range,
        ..
    } = source("--manifests=/m --service-cluster-ip-range=10.1.0.0/16,fd01::/108")
    else {
        panic!("not a manifest source")
    };
    assert_eq!(range.len(), 2);
    for (line, message) in [
        (
            "--manifests=/m --master=https://a",
            "--manifests and --master exclude each other",
        ),
        (
            "--service-cluster-ip-range=10.0.0.0/8",
            "--service-cluster-ip-range needs --manifests",
        ),
        (
            "--manifests=/m --service-cluster-ip-range=10.0.0.0",
            "invalid --service-cluster-ip-range \"10.0.0.0\": must be one CIDR",
        ),
        (
            "--manifests=/m --service-cluster-ip-range=10.0.0.0/32",
            "invalid --service-cluster-ip-range \"10.0.0.0/32\": is too small",
        ),
    ] {
        let error = of_flags(line).unwrap_err().to_string();
        assert!(error.starts_with(message), "{line}: {error}");
    }
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
