//! Flags of a source of manifests.

use super::*;

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
