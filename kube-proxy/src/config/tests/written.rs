//! The complete file, and what it says when it is read.

use super::*;

#[test]
fn the_complete_file_has_every_field_of_upstreams_with_its_default() {
    let text = include_str!("../testdata/kubeadm.yaml");
    let loaded = build(Some(text), &flags("--config=x"), any_kernel).unwrap();
    assert_eq!(
        loaded.complete_text().unwrap(),
        include_str!("../testdata/complete.yaml")
    );
}

#[test]
fn the_complete_file_is_read_as_what_it_was_written_from() {
    let table = [
        ("", ""),
        ("bindAddress: '::'", ""),
        (
            "mode: nftables\nnftables: {masqueradeBit: 0, localhostNodePorts: false, countConnections: true, syncPeriod: 90s}",
            "",
        ),
        (
            "mode: iptables\niptables: {masqueradeAll: true, minSyncPeriod: 100ms, localhostNodePorts: false}",
            "",
        ),
        (
            "nodePortAddresses: [10.0.0.0/8, 'fd00::/8']\nhealthzBindAddress: '[::1]:80'",
            "",
        ),
        (
            "detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: 'yes'}",
            "--hostname-override=1.5 -v=3",
        ),
        (
            "featureGates: {AllowServiceExternalIPs: false}\nclientConnection: {kubeconfig: '/a b', qps: 2.7}",
            "",
        ),
        (
            "conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, udpTimeout: 1m30s, countBytes: true}\noomScoreAdj: 0",
            "",
        ),
        (
            "logging: {flushFrequency: 3000000000, verbosity: 2, vmodule: []}",
            "",
        ),
    ];
    for (body, line) in table {
        let loaded = of_file(body, line).unwrap();
        let text = loaded.complete_text().unwrap();
        let again = build(Some(&text), &flags("--config=x"), any_kernel).unwrap();
        assert_eq!(again.config, loaded.config, "{text}");
        assert_eq!(again.complete_text().unwrap(), text);
        assert_eq!(again.notes, loaded.notes, "{text}");
    }
    let flags = of_flags("--proxy-mode=nftables --nodeport-addresses=10.0.0.0/8").unwrap();
    let again = build(
        Some(&flags.complete_text().unwrap()),
        &super::flags("--config=x"),
        any_kernel,
    );
    assert_eq!(again.unwrap().config, flags.config);
}

#[test]
fn a_number_that_could_not_be_written_again_is_refused() {
    for (qps, accepted) in [
        ("3e38", true),
        ("-1.5", true),
        ("null", true),
        ("4e38", false),
        ("-4e38", false),
    ] {
        let loaded = of_file(&format!("clientConnection: {{qps: {qps}}}"), "");
        assert_eq!(loaded.is_ok(), accepted, "{qps}: {:?}", loaded.err());
    }
}

#[test]
fn values_of_the_complete_file_are_quoted_when_they_could_be_taken_for_others() {
    let tree = json!({
        "words": ["", "yes", "NULL", "-", "a: b", "a:", "#", "two\nlines", "1e3", "0x1f", "12:30:45", "2001-01-01", "1_000"],
        "plain": ["10.0.0.0/8", "0.0.0.0:10256", "fd00::/8", "15m0s", "/etc/x.conf", "true-ish", "1.5m"],
        "numbers": [5.0, 2.7, -999, 0],
        "nested": {"list": [{"a": 1, "b": []}], "empty": {}, "null": null},
    });
    let text = yaml::text(&tree);
    let read: Value = file::read_tree(&text).unwrap().0;
    assert_eq!(read["words"], tree["words"], "{text}");
    assert_eq!(read["plain"], tree["plain"], "{text}");
    assert_eq!(read["nested"], tree["nested"], "{text}");
    assert!(text.contains("numbers:\n- 5\n- 2.7\n- -999\n- 0\n"), "{text}");
    for word in tree["words"].as_array().unwrap() {
        assert!(text.contains(&format!("- {word}\n")), "{word} in {text}");
    }
    for word in tree["plain"].as_array().unwrap() {
        assert!(
            text.contains(&format!("- {}\n", word.as_str().unwrap())),
            "{word} in {text}"
        );
    }
}

#[test]
fn durations_are_written_as_go_writes_them() {
    for (nanos, text) in [
        (0, "0s"),
        (7, "7ns"),
        (1_500, "1.5µs"),
        (250_000_000, "250ms"),
        (1_500_000_000, "1.5s"),
        (60_000_000_000, "1m0s"),
        (90_000_000_001, "1m30.000000001s"),
        (86_400_000_000_000, "24h0m0s"),
    ] {
        assert_eq!(duration::format_duration(Duration::from_nanos(nanos)), text);
        assert_eq!(duration::parse_duration(text), Some(Duration::from_nanos(nanos)));
    }
}

#[test]
fn what_is_in_effect_is_told_as_upstream_tells_it() {
    let body = "clientConnection: {kubeconfig: /var/lib/kube-proxy/kubeconfig.conf}\nmode: nftables\n\
                clusterCIDR: '10.244.0.0/16,fd00:10:244::/48'\nconntrack: {maxPerCore: 0, min: 0, \
                tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}\n";
    let ours = of_file(body, "--hostname-override=node-1")
        .unwrap()
        .in_effect()
        .unwrap();
    let theirs: Value = serde_json::from_str(include_str!("../testdata/configz.json")).unwrap();
    let theirs = &theirs["kubeproxy.config.k8s.io"];
    for (field, value) in theirs.as_object().unwrap() {
        assert_eq!(ours.get(field), Some(value), "{field}");
    }
    assert_eq!(
        ours.as_object().unwrap().len(),
        theirs.as_object().unwrap().len(),
        "{ours}"
    );
}
