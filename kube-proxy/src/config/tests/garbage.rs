//! Configuration files that nobody meant to write.

use proptest::prelude::*;

use super::super::file;
use crate::garbage::spoilt;

const GOOD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\n\
    clusterCIDR: 10.244.0.0/16\nnodePortAddresses: [primary]\nconntrack: {maxPerCore: 1, tcpEstablishedTimeout: 1h}\n\
    logging: {format: json, verbosity: 2}\nfeatureGates: {A: true}\nipvs: {scheduler: rr, syncPeriod: 30s}\n";

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_configuration_file_makes_its_reader_panic(bytes in spoilt(GOOD.into())) {
        let text = String::from_utf8_lossy(&bytes);
        if let Ok((tree, _)) = file::read_tree(&text) {
            let _ = file::check_kind(&tree);
            let _ = file::decode(&tree);
        }
    }
}
