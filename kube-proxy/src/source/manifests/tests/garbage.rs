//! Files that nobody meant to write.

use proptest::prelude::*;

use crate::garbage::spoilt;
use crate::source::manifests::{decode, documents};

const GOOD: &str = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: web}\n  \
    spec: {clusterIP: 10.96.0.10, ports: [{port: 80, targetPort: 8080}]}\n---\n{\"apiVersion\": \"v1\", \
    \"kind\": \"Node\", \"metadata\": {\"name\": \"n\"}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
    addressType: IPv4\nmetadata: &a {name: web-1}\nendpoints: [{addresses: [10.0.0.1]}]\nports: [{port: 1}]\n";

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_manifest_makes_its_reader_panic(bytes in spoilt(GOOD.into()), json in any::<bool>()) {
        let text = String::from_utf8_lossy(&bytes);
        for document in documents::split(&text, json) {
            decode::decode(&document);
        }
    }
}
