//! What is meant where nothing is said, and the file that most clusters have.

use super::*;

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
            count_bytes: false,
        },
        logging: Logging::default(),
    };
    assert_eq!(loaded.config, expected);
}

#[test]
fn the_file_that_kubeadm_writes_loads_without_a_warning() {
    let text = include_str!("../testdata/kubeadm.yaml");
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
