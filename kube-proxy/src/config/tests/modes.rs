//! What depends on the mode, and how it is chosen.

use super::*;

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
fn a_flag_that_modes_share_has_an_effect_in_those_modes_that_it_has_in_upstreams() {
    let of = |mode: &str, line: &str| of_flags(&format!("--proxy-mode={mode} {line}")).unwrap().config;
    // What each is in nftables, iptables and ipvs mode.
    type Row = (&'static str, fn(&Config) -> String, [&'static str; 3]);
    let table: &[Row] = &[
        (
            "--iptables-masquerade-bit=7",
            |config| config.masquerade_bit.to_string(),
            ["14", "7", "7"],
        ),
        (
            "--masquerade-all",
            |config| config.masquerade_all.to_string(),
            ["true", "true", "true"],
        ),
        (
            "--iptables-sync-period=40s",
            |config| format!("{:?}", config.sync_period),
            ["40s", "40s", "30s"],
        ),
        (
            "--ipvs-sync-period=50s",
            |config| format!("{:?}", config.sync_period),
            ["30s", "30s", "50s"],
        ),
        (
            "--ipvs-scheduler=lc",
            |config| config.ipvs.scheduler.clone(),
            ["rr", "rr", "lc"],
        ),
        (
            "--ipvs-strict-arp",
            |config| config.ipvs.strict_arp.to_string(),
            ["false", "false", "true"],
        ),
        (
            "--ipvs-udp-timeout=5s",
            |config| format!("{:?}", config.ipvs.timeouts[2]),
            ["None", "None", "Some(5s)"],
        ),
        (
            "",
            |config| format!("{:?}", config.node_port_addresses),
            ["Primary", "Networks([])", "Networks([])"],
        ),
        (
            "--nodeport-addresses=primary",
            |config| format!("{:?}", config.node_port_addresses),
            ["Primary"; 3],
        ),
    ];
    for (line, effect, expected) in table {
        let found = ["nftables", "iptables", "ipvs"].map(|mode| effect(&of(mode, line)));
        assert_eq!(found, expected.map(str::to_owned), "{line}");
    }
}

#[test]
fn what_a_mode_has_no_use_for_is_checked_where_upstream_checks_it() {
    for body in [
        "mode: iptables\nnftables: {masqueradeBit: 99}",
        "mode: ipvs\nnftables: {masqueradeBit: 99}",
        "mode: nftables\nipvs: {excludeCIDRs: [bad]}",
        "mode: nftables\niptables: {syncPeriod: 1s, minSyncPeriod: 2s}",
        "mode: iptables\nnftables: {syncPeriod: 1s, minSyncPeriod: 2s}",
        "detectLocalMode: NodeCIDR\nclusterCIDR: bad",
        "detectLocalMode: BridgeInterface\nclusterCIDR: bad\ndetectLocal: {bridgeInterface: br0}",
        // No least period is set for IPVS in a file.
        "mode: ipvs\nipvs: {syncPeriod: 500ms}",
        "mode: ipvs\nipvs: {syncPeriod: 500ms, minSyncPeriod: 0s}",
    ] {
        of_file(body, "").unwrap();
    }
    of_flags("--iptables-sync-period=500ms --iptables-min-sync-period=0s").unwrap();
    for line in [
        "--iptables-sync-period=500ms",
        "--proxy-mode=ipvs --ipvs-sync-period=500ms",
    ] {
        let error = of_flags(line).unwrap_err().to_string();
        assert!(
            error.ends_with("must be greater than or equal to MinSyncPeriod (1s)"),
            "{error}"
        );
    }
}
