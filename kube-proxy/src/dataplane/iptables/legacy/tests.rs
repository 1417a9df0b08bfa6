//! What is removed, by what is there. The programs themselves are tried in `leftovers`.

use super::*;
use crate::dataplane::iptables::tests::{config, planned, printed};
use crate::model::object::ServiceType;
use crate::model::testing::{service, slice};

#[test]
fn where_a_rule_leads_is_not_read_out_of_its_comment() {
    for (rule, leads) in [
        ("INPUT -j KUBE-SERVICES", Some("KUBE-SERVICES")),
        ("INPUT -p tcp -g KUBE-SERVICES", Some("KUBE-SERVICES")),
        ("INPUT -m comment --comment \"a -j B\" -j C", Some("C")),
        (r#"INPUT -m comment --comment "a \" -j B" -j C"#, Some("C")),
        (r#"INPUT -m comment --comment "a\\" -j C"#, Some("C")),
        ("INPUT -m comment --comment \"-j\"", None),
        ("INPUT -j", None),
    ] {
        assert_eq!(target(rule), leads, "{rule}");
    }
}

#[test]
fn a_table_without_a_chain_of_kube_proxys_is_left_out() {
    let saved = "# Generated\n*mangle\n:PREROUTING ACCEPT [0:0]\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n\
        *nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-A - [0:0]\n:MINE - [0:0]\n\
        -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
        -A KUBE-SERVICES -j KUBE-SVC-A\n-A MINE -j KUBE-SVC-A\nCOMMIT\n# Completed\n";
    let removal = Removal::of(saved, Which::All);
    assert_eq!(
        removal.text,
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-A - [0:0]\n\
         -D PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -X KUBE-SERVICES\nCOMMIT\n"
    );
    assert_eq!(removal.removed.chains, 1);
    assert_eq!(removal.removed.in_use, ["KUBE-SVC-A"]);
    assert_eq!(Removal::of("*nat\nCOMMIT\n", Which::All), Removal::default());
}

/// Whoever gives this mode another chain has to tell those who remove it.
#[test]
fn every_chain_that_this_mode_makes_is_known_to_those_who_remove_it() {
    let web = service("ns/web", "10.96.0.1", "http/TCP:80:30080").of_type(ServiceType::NodePort);
    let endpoints = slice(
        "ns/web-4",
        "web",
        "http/TCP:8080",
        &["10.244.1.1 local", "10.244.2.1"],
    );
    let text = printed(&planned(config(), &[web], &[endpoints]), Family::V4);
    let mut table = "";
    let mut chains = 0;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(chain) = line.strip_prefix(':').and_then(|line| line.split(' ').next()) {
            chains += 1;
            assert_eq!(
                Which::All.includes(table, chain),
                chain != "KUBE-FIREWALL",
                "{chain} in {table}"
            );
        }
    }
    assert!(chains > 15, "{text}");
}
