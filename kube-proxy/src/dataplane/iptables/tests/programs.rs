//! The programs themselves, of both variants, in a network namespace of their own.

use std::time::{Duration, Instant};

use lab::net::Namespace;

use super::*;
use crate::dataplane::CommitReport;
use crate::dataplane::iptables::entry::{Key, Shared};
use crate::dataplane::iptables::tools::{Tools, Variant, legacy_tables};
use crate::model::object::ServiceType;
use crate::model::testing::{name, service, slice};

pub(super) const VARIANTS: [&str; 2] = ["nft", "legacy"];

/// A namespace in which kubelet has left its mark with one of the variants, and a dataplane in it.
pub(super) struct Node {
    pub(super) namespace: Namespace,
    variant: &'static str,
    cluster: Cluster,
    pub(super) dataplane: Iptables,
    time: Instant,
}

impl Node {
    pub(super) fn new(variant: &'static str) -> Self {
        let namespace = Namespace::create("iptables").unwrap();
        for program in ["iptables", "ip6tables"] {
            let program = format!("{program}-{variant}");
            namespace
                .run(&program, &["-w", "-t", "mangle", "-N", "KUBE-IPTABLES-HINT"])
                .unwrap();
        }
        let services = [
            service("ns/web", "10.96.0.1 fd00:96::1", "http/TCP:80:30080").of_type(ServiceType::NodePort),
            Service {
                session_affinity: Some(600),
                ..service("ns/other", "10.96.0.2", "dns/UDP:53")
            },
        ];
        let slices = [
            slice(
                "ns/web-4",
                "web",
                "http/TCP:8080",
                &["10.244.1.1 local", "10.244.2.1"],
            ),
            slice("ns/web-6", "web", "http/TCP:8080", &["fd00:10:244:1::1 local"]),
            slice("ns/other-4", "other", "dns/UDP:5353", &["10.244.1.1 local"]),
        ];
        Self {
            namespace,
            variant,
            cluster: testing::cluster(&services, &slices),
            dataplane: Iptables::new(config()),
            time: Instant::now(),
        }
    }

    pub(super) fn commit(&mut self) -> CommitReport {
        let Self {
            namespace,
            dataplane,
            cluster,
            time,
            ..
        } = self;
        update(dataplane, cluster);
        let mut report = CommitReport::default();
        let commit = || dataplane.commit_at(*time, &mut report);
        namespace.enter(commit).unwrap().unwrap();
        report
    }

    pub(super) fn observe(&mut self, endpoints: &[&str]) {
        let slice = slice("ns/web-4", "web", "http/TCP:8080", endpoints);
        testing::observe(&mut self.cluster, [], [&slice]);
    }

    /// What there is of us, without counters.
    pub(super) fn saved(&self) -> String {
        let save = |program: &str| {
            self.namespace
                .run(&format!("{program}-{}-save", self.variant), &[])
                .unwrap()
        };
        let lines = format!("{}{}", save("iptables"), save("ip6tables"));
        let ours = lines
            .lines()
            .filter(|line| line.contains("KUBE-") && !line.contains("HINT"));
        ours.map(|line| format!("{line}\n")).collect()
    }

    /// A successor begins, with the same cluster.
    pub(super) fn restart(&mut self) {
        self.dataplane = Iptables::new(config());
        for service in ["ns/web", "ns/other"].map(name) {
            self.dataplane
                .update(&service, self.cluster.resolve(&service).as_ref());
        }
    }

    /// Runs a program of this node's variant, which waits for tests beside this one: all share a lock.
    pub(super) fn run(&self, program: &str, args: &[&str]) -> String {
        let program = format!("{program}-{}", self.variant);
        self.namespace.run(&program, &[&["-w"], args].concat()).unwrap()
    }

    fn iptables(&self, args: &[&str]) -> String {
        self.run("iptables", args)
    }
}

#[test]
fn the_variant_that_the_node_uses_is_found_and_takes_everything() {
    for variant in VARIANTS {
        let mut node = Node::new(variant);
        let report = node.commit();
        assert_eq!((report.refused.len(), report.messages), (0, 2), "{variant}");
        let saved = node.saved();
        for words in [
            "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
            "-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment \"ns/web:http cluster IP\" -m tcp --dport 80 -j KUBE-SVC-",
            "-A KUBE-SERVICES -d fd00:96::1/128 -p tcp",
            ":KUBE-PROXY-CANARY - [0:0]",
        ] {
            assert!(saved.contains(words), "{variant}: {words}\n{saved}");
        }
        // Again, as a successor does: nothing is there twice.
        node.dataplane = planned(config(), &[], &[]);
        node.cluster = Node::new(variant).cluster;
        node.commit();
        assert_eq!(node.saved(), saved, "{variant}");
    }
}

#[test]
fn a_partial_sync_leaves_what_a_full_one_would() {
    for variant in VARIANTS {
        let mut node = Node::new(variant);
        node.commit();
        for endpoints in [&["10.244.1.1 local", "10.244.2.2"][..], &[], &["10.244.2.3"]] {
            node.observe(endpoints);
            assert_eq!(node.commit().messages, 1, "{variant}: one family changed");
            let partial = node.saved();
            let mut fresh = Node::new(variant);
            fresh.observe(endpoints);
            fresh.commit();
            let sorted = |saved: &str| {
                let mut lines: Vec<&str> = saved.lines().collect();
                lines.sort_unstable();
                lines.join("\n")
            };
            assert_eq!(sorted(&partial), sorted(&fresh.saved()), "{variant}");
        }
        assert_eq!(node.commit().messages, 0, "{variant}: nothing changed");
    }
}

#[test]
fn a_flush_from_outside_is_heard_of_or_noticed_within_a_sync_period() {
    for variant in VARIANTS {
        let mut node = Node::new(variant);
        let report = node.commit();
        assert_eq!(report.again_after, Some(Duration::from_secs(30)));
        let before = node.saved();
        for table in ["mangle", "filter", "nat"] {
            node.iptables(&["-t", table, "-F"]);
            node.iptables(&["-t", table, "-X"]);
        }
        assert_ne!(node.saved(), before);
        let expected = match variant {
            // The kernel tells nobody.
            "legacy" => {
                node.time += Duration::from_secs(29);
                assert_eq!(node.commit().messages, 0, "{variant}");
                node.time += Duration::from_secs(2);
                1
            }
            // It is heard of both families at once.
            _ => 2,
        };
        let report = node.commit();
        assert_eq!(report.messages, expected, "{variant}");
        assert_eq!(report.drift, 1, "{variant}");
        assert_eq!(node.saved(), before, "{variant}");
    }
}

#[test]
fn rules_of_others_stay_and_chains_that_nobody_wants_go() {
    for variant in VARIANTS {
        let mut node = Node::new(variant);
        let stale = "KUBE-SVC-AAAAAAAAAAAAAAAA";
        let stale_endpoint = "KUBE-SEP-AAAAAAAAAAAAAAAA";
        node.iptables(&["-t", "nat", "-N", stale]);
        node.iptables(&["-t", "nat", "-N", stale_endpoint]);
        node.iptables(&["-t", "nat", "-A", stale, "-j", stale_endpoint]);
        node.iptables(&["-N", "KUBE-FIREWALL"]);
        node.iptables(&[
            "-A",
            "KUBE-FIREWALL",
            "-m",
            "mark",
            "--mark",
            "0x8000",
            "-j",
            "DROP",
        ]);
        node.iptables(&[
            "-t",
            "nat",
            "-A",
            "POSTROUTING",
            "-s",
            "10.0.0.0/8",
            "-j",
            "ACCEPT",
        ]);
        node.commit();
        let all = node
            .namespace
            .run(&format!("iptables-{variant}-save"), &[])
            .unwrap();
        assert!(!all.contains("AAAAAAAAAAAAAAAA"), "{variant}: {all}");
        assert!(
            all.contains("--mark 0x8000 -j DROP") && all.contains("block incoming localnet"),
            "{variant}: {all}"
        );
        assert!(
            all.contains("-A POSTROUTING -s 10.0.0.0/8 -j ACCEPT"),
            "{variant}: {all}"
        );
    }
}

#[test]
fn a_chain_that_nobody_wants_stays_while_a_rule_of_others_leads_to_it() {
    for variant in VARIANTS {
        let mut node = Node::new(variant);
        let stale = "KUBE-SVC-AAAAAAAAAAAAAAAA";
        node.iptables(&["-t", "nat", "-N", stale]);
        node.iptables(&["-t", "nat", "-A", stale, "-j", "ACCEPT"]);
        node.iptables(&["-t", "nat", "-A", "OUTPUT", "-d", "192.0.2.1", "-j", stale]);
        node.commit();
        let saved = node.saved();
        assert!(
            saved.contains(&format!("-A OUTPUT -d 192.0.2.1/32 -j {stale}")),
            "{variant}: {saved}"
        );
        assert!(saved.contains("ns/web:http cluster IP"), "{variant}: {saved}");
    }
}

/// So many chains that they are written in several commits.
#[test]
fn a_large_cluster_is_in_force_after_one_commit_and_a_successor_with_another_one_finds_its_way() {
    for variant in VARIANTS {
        let mut node = Node::new(variant);
        let cluster = |first: usize| {
            let services: Vec<_> = (first..first + 60)
                .map(|n| service(&format!("ns/many-{n}"), &format!("10.96.1.{n}"), "http/TCP:80"))
                .collect();
            let slices: Vec<_> = (first..first + 60)
                .map(|n| {
                    let endpoints: Vec<_> = (1..=10).map(|at| format!("10.244.{n}.{at}")).collect();
                    let endpoints: Vec<_> = endpoints.iter().map(String::as_str).collect();
                    slice(
                        &format!("ns/many-{n}-1"),
                        &format!("many-{n}"),
                        "http/TCP:8080",
                        &endpoints,
                    )
                })
                .collect();
            testing::cluster(&services, &slices)
        };
        let rules = |node: &Node| {
            let saved = node.saved();
            let mut rules: Vec<_> = saved.lines().map(str::to_owned).collect();
            rules.sort_unstable();
            rules
        };
        node.cluster = cluster(1);
        node.dataplane = Iptables::new(config());
        assert_eq!(node.commit().refused_now, 0, "{variant}");
        let saved = node.saved();
        assert_eq!(saved.matches("\n-A KUBE-SEP-").count(), 60 * 10 * 2, "{variant}");
        assert_eq!(saved.matches("\n-A KUBE-SVC-").count(), 60 * 11, "{variant}");
        // Half of it is gone when the successor starts, and there is as much that is new.
        node.cluster = cluster(31);
        node.dataplane = Iptables::new(config());
        node.commit();
        let mut fresh = Node::new(variant);
        fresh.cluster = cluster(31);
        fresh.dataplane = Iptables::new(config());
        fresh.commit();
        assert_eq!(rules(&node), rules(&fresh), "{variant}");
    }
}

#[test]
fn the_variant_is_the_one_that_kubelet_uses_or_that_has_more_rules() {
    let hint = ["-t", "mangle", "-N", "KUBE-IPTABLES-HINT"].as_slice();
    let canary = ["-t", "mangle", "-N", "KUBE-KUBELET-CANARY"].as_slice();
    let rule = ["-t", "nat", "-A", "OUTPUT", "-d", "192.0.2.1", "-j", "ACCEPT"].as_slice();
    for (by_nft, by_legacy, variant) in [
        (hint, None, Variant::Nft),
        (rule, Some(canary), Variant::Legacy),
        (hint, Some(canary), Variant::Nft),
        (canary, Some(rule), Variant::Nft),
        (rule, Some(rule), Variant::Nft),
    ]
    .map(|(by_nft, by_legacy, variant)| (Some(by_nft), by_legacy, variant))
    .into_iter()
    .chain([(None, Some(rule), Variant::Legacy), (None, None, Variant::Nft)])
    {
        let namespace = Namespace::create("variant").unwrap();
        for (program, args) in [("iptables-nft", by_nft), ("iptables-legacy", by_legacy)] {
            if let Some(args) = args {
                namespace.run(program, &[&["-w"], args].concat()).unwrap();
            }
        }
        let tools = namespace.enter(|| Tools::detect(Family::V4)).unwrap().unwrap();
        assert_eq!(tools.variant(), variant, "{by_nft:?} {by_legacy:?}");
    }
}

#[test]
fn a_service_that_is_refused_is_left_out_and_named_and_everything_else_is_in_force() {
    for variant in VARIANTS {
        let mut node = Node::new(variant);
        // A counter that nobody made: the one variant names the line, the other one only says that it failed.
        node.commit();
        let bad = name("ns/bad");
        let rule =
            "-p tcp -m comment --comment \"ns/bad:http\" -m nfacct --nfacct-name nobody_made_it -j ACCEPT";
        let entry = (Key::Rules(Family::V4, Shared::NodePorts, rule.into()), "".into());
        let diff = node.dataplane.ledger.replace(&bad, None, [entry]);
        node.dataplane.note(&bad, diff);
        let report = node.commit();
        let refused: Vec<String> = report
            .refused
            .iter()
            .map(|refusal| refusal.service.to_string())
            .collect();
        assert_eq!(refused, ["ns/bad"], "{variant}: {report:?}");
        assert!(!report.refused[0].reason.is_empty());
        assert_eq!(report.refused_now, 1);
        let saved = node.saved();
        assert!(
            saved.contains("ns/web:http -> 10.244.1.1:8080") && !saved.contains("ns/bad"),
            "{variant}: {saved}"
        );
        // Others change meanwhile, and it is tried again later, with growing pauses.
        node.observe(&["10.244.2.7"]);
        assert_eq!(node.commit().refused_now, 1);
        assert!(node.saved().contains("10.244.2.7"), "{variant}");
        node.time += Duration::from_secs(2);
        let again = node.commit();
        assert_eq!(
            (again.refused.len(), again.refused_now),
            (0, 1),
            "{variant}: {again:?}"
        );
        // It is changed to something that does: in force at once.
        let good = service("ns/bad", "10.96.0.3", "http/TCP:80");
        let endpoints = slice("ns/bad-4", "bad", "http/TCP:8080", &["10.244.2.1"]);
        testing::observe(&mut node.cluster, [&good], [&endpoints]);
        assert_eq!(node.commit().refused_now, 0, "{variant}");
        assert!(
            node.saved().contains("ns/bad:http -> 10.244.2.1:8080"),
            "{variant}"
        );
    }
}

#[test]
fn looking_for_the_variant_makes_no_table_of_the_other_one() {
    let mut node = Node::new("nft");
    node.commit();
    let made = |node: &Node| node.namespace.enter(|| legacy_tables(Family::V4)).unwrap();
    assert_eq!(made(&node), [""; 0]);
    let looked = node.namespace.run("iptables-legacy", &["-t", "nat", "-S"]);
    looked.unwrap();
    assert_eq!(made(&node), ["nat"]);
}
