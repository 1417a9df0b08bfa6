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
