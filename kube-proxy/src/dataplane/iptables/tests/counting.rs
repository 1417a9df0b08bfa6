//! The counters in the kernel, and the numbers of rules.

use lab::net::Namespace;

use super::programs::{Node, VARIANTS};
use super::*;
use crate::dataplane::iptables::counters::Counter;
use crate::dataplane::iptables::entry::Table;
use crate::dataplane::{CommitReport, KernelCounter, TableRules};
use crate::model::object::ServiceType;
use crate::model::testing::{service, slice};
use crate::netlink::{Attributes, Socket, begin, end, flag};

const INVALID: &str = "ct_state_invalid_dropped_pkts";
const LOCALHOST: &str = "localhost_nps_accepted_pkts";

/// Makes a counter that has counted so much already.
fn make(namespace: &Namespace, name: &str, packets: u64) {
    let mut bytes = Vec::new();
    let start = begin(&mut bytes, 7 << 8, flag::CREATE, 1, (0, 0));
    Attributes::at_end(&mut bytes).string(1, name);
    Attributes::at_end(&mut bytes).bytes(2, &packets.to_be_bytes());
    end(&mut bytes, start);
    let ask = || Socket::open().and_then(|mut socket| socket.ask(&bytes));
    assert_eq!(namespace.enter(ask).unwrap().unwrap(), []);
}

/// What the metrics show of a dataplane in this namespace.
fn shown(namespace: &Namespace, dataplane: &Iptables) -> Vec<(&'static str, Option<u64>)> {
    let counters = namespace.enter(|| dataplane.counters()).unwrap();
    // Read by this thread, which is in another namespace.
    let read = |counter: &KernelCounter| (counter.name, (counter.read)());
    counters.iter().map(read).collect()
}

#[test]
fn counters_are_made_at_the_first_commit_and_count_on_after_a_restart() {
    for variant in VARIANTS {
        let mut node = Node::new(variant);
        let names = [
            "iptables_ct_state_invalid_dropped_packets_total",
            "iptables_localhost_nodeports_accepted_packets_total",
        ];
        let shows = |node: &Node, counts: [Option<u64>; 2]| {
            let expected: Vec<_> = names.into_iter().zip(counts).collect();
            assert_eq!(shown(&node.namespace, &node.dataplane), expected, "{variant}");
        };
        shows(&node, [None, None]);
        // A predecessor made one of them, and it has counted.
        make(&node.namespace, INVALID, 42);
        shows(&node, [Some(42), None]);
        node.commit();
        shows(&node, [Some(42), Some(0)]);
        let saved = node.saved();
        let rule = format!(
            "-A KUBE-FORWARD -m conntrack --ctstate INVALID -m nfacct --nfacct-name  {INVALID} -j DROP"
        );
        assert_eq!(
            saved.matches(&rule).count(),
            2,
            "{variant}: in both families\n{saved}"
        );
        let rule = format!("--dport 30080 -m nfacct --nfacct-name  {LOCALHOST} -j KUBE-EXT-");
        assert_eq!(saved.matches(&rule).count(), 1, "{variant}: in IPv4\n{saved}");
        // The successor finds both in use.
        node.restart();
        let report = node.commit();
        assert_eq!(report.refused, [], "{variant}");
        assert_eq!(node.saved(), saved, "{variant}");
        shows(&node, [Some(42), Some(0)]);
    }
}

#[test]
fn where_a_counter_is_not_to_be_had_its_rules_go_without() {
    let services = [service("ns/web", "10.96.0.1", "http/TCP:80:30080").of_type(ServiceType::NodePort)];
    let slices = [slice("ns/web-1", "web", "http/TCP:8080", &["10.244.1.1"])];
    let mut dataplane = planned(config(), &services, &slices);
    let all = printed(&dataplane, Family::V4);
    let [invalid, localhost] = Counter::ALL;
    for missing in [[invalid].as_slice(), &[localhost], &[invalid, localhost]] {
        let counted = Counted::ALL.without(missing);
        dataplane.families[0].fixed.counted = counted;
        let mut expected = String::new();
        for line in all.lines() {
            if missing.contains(&localhost) && line.contains(LOCALHOST) {
                continue;
            }
            let line = match missing.contains(&invalid) {
                true => line.replace(&format!("-m nfacct --nfacct-name {INVALID} "), ""),
                false => line.to_owned(),
            };
            expected.push_str(&format!("{line}\n"));
        }
        assert_ne!(expected, all);
        assert_eq!(printed(&dataplane, Family::V4), expected, "{missing:?}");
    }
}

#[test]
fn without_services_there_are_as_many_rules_as_upstream_has() {
    let dataplane = planned(config(), &[], &[]);
    for (family, filter, nat) in [(Family::V4, 4, 5), (Family::V6, 3, 5)] {
        let restore = restore(&dataplane, family);
        assert_eq!(
            [Table::Filter, Table::Nat].map(|table| restore.written(table)),
            [filter, nat],
            "{family}"
        );
    }
}

/// Our rules in the kernel, by table, without the jumps from its own chains.
fn counted(node: &Node, program: &str) -> [usize; 2] {
    ["filter", "nat"].map(|table| {
        let rules = node.run(program, &["-t", table, "-S"]);
        rules.lines().filter(|rule| rule.starts_with("-A KUBE-")).count()
    })
}

fn totals(report: &CommitReport, family: Family) -> [usize; 2] {
    let rules = &report.families[family as usize].rules;
    let total = |table| rules.iter().find(|rules| rules.table == table).unwrap().total;
    ["filter", "nat"].map(total)
}

#[test]
fn rules_are_counted_as_they_change() {
    for variant in VARIANTS {
        let mut node = Node::new(variant);
        let report = node.commit();
        for (family, program) in Family::ALL.into_iter().zip(["iptables", "ip6tables"]) {
            let [filter, nat] = counted(&node, program);
            let rules = |table, total| TableRules {
                table,
                total,
                written: total,
            };
            let expected = [rules("filter", filter), rules("nat", nat)];
            assert_eq!(
                report.families[family as usize].rules, expected,
                "{variant} {family}"
            );
            assert!(report.families[family as usize].full);
        }
        let steps: [&[&str]; 4] = [
            &["10.244.1.1 local", "10.244.2.1", "10.244.2.2"],
            &[],
            &["10.244.2.3", "10.244.2.4"],
            &["10.244.2.4"],
        ];
        for endpoints in steps {
            node.observe(endpoints);
            let report = node.commit();
            assert!(report.families.iter().all(|family| !family.full), "{variant}");
            assert_eq!(
                totals(&report, Family::V4),
                counted(&node, "iptables"),
                "{endpoints:?}"
            );
            assert_eq!(report.families[1].rules, [], "nothing was written for IPv6");
        }
        // A successor finds all of it, the rule that kubelet may have made, too; that counts and is not written, but for
        // what does not depend on Services.
        node.restart();
        let report = node.commit();
        let [v4, _] = &report.families;
        assert_eq!(
            totals(&report, Family::V4),
            counted(&node, "iptables"),
            "{variant}"
        );
        assert_eq!([v4.rules[0].written, v4.rules[1].written], [3, 4], "{variant}");
    }
}
