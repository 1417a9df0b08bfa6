//! What the operator is told about a configuration that works.

use super::*;

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
