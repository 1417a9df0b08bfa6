//! ServiceCIDRs in files.

use super::contents::{Source, complaints, lines};

const BOTH: &str = "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: kubernetes}\nspec: {cidrs: [10.96.0.0/16, 'fd00:10:96::/112']}\n";
const BOTH_LINE: &str = "service cidr kubernetes: [10.96.0.0/16, fd00:10:96::/112]";

#[test]
fn a_service_cidr_is_told_changed_and_gone() {
    let mut source = Source::new();
    source.write("a.yaml", BOTH);
    assert_eq!(source.lines(), [BOTH_LINE]);
    assert_eq!(source.write("a.yaml", &format!("# unchanged\n{BOTH}")), 0);
    assert_eq!(source.write("a.yaml", &BOTH.replace("10.96.0.0", "10.97.0.0")), 1);
    assert_eq!(source.lines(), [BOTH_LINE.replace("10.96.0.0", "10.97.0.0")]);
    source.write("a.yaml", "");
    assert_eq!(source.lines(), [""; 0]);
}

#[test]
fn a_list_of_service_cidrs_gives_each() {
    let text = "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDRList\nitems:\n\
        - {metadata: {name: a}, spec: {cidrs: [10.1.0.0/16]}}\n\
        - {metadata: {name: b}, spec: {cidrs: [10.2.0.0/16]}}\n";
    assert_eq!(
        lines(text),
        ["service cidr a: [10.1.0.0/16]", "service cidr b: [10.2.0.0/16]"]
    );
}

#[test]
fn what_cannot_be_used_of_a_service_cidr_affects_only_itself() {
    assert_eq!(
        lines(&BOTH.replace("10.96.0.0/16", "10.96.0.0")),
        ["service cidr kubernetes: [fd00:10:96::/112]"]
    );
    let broken = BOTH.replace("[10.96", "[[10.96");
    assert_eq!(lines(&format!("{BOTH}---\n{broken}")), [BOTH_LINE]);
    let old = BOTH.replace("/v1\n", "/v1beta1\n");
    assert_eq!(lines(&old), [""; 0]);
    assert_eq!(
        complaints("a.yaml", &old),
        ["document 1 (line 1): ?: apiVersion: ServiceCIDR must be of networking.k8s.io/v1"]
    );
}

#[test]
fn the_range_for_services_without_cluster_ip_is_no_service_cidr() {
    // It was given to this source as for every other test here.
    assert_eq!(lines("apiVersion: v1\nkind: List\nitems: []\n"), [""; 0]);
}
