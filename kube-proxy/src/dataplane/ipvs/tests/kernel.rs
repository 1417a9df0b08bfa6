//! What the kernel holds after commits, where it has IPVS. Where it has not, `tests/other_kernel.rs` runs these in a guest.

mod listing;
mod others;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use lab::net::Namespace;
use lab::skip::{Skipped, skipped};

use super::super::cleanup::{remove_device, remove_servers};
use super::super::kernel::Kernel;
use super::super::message;
use super::super::steps::Step;
use super::super::{Config, Ipvs};
use super::{at, backend, ip, settings};
use crate::dataplane::{CommitReport, Dataplane};
use crate::model::object::Service;
use crate::model::testing::{service, slice, view_of};

/// A dataplane and the namespace that it works in.
struct Node {
    namespace: Namespace,
    dataplane: Ipvs,
}

impl Node {
    /// `None`, and a word about it, where the kernel has no IPVS.
    fn new(test: &str, config: Config) -> Option<Self> {
        if !std::path::Path::new("/proc/net/ip_vs").exists() {
            skipped(
                Skipped::Optional,
                test,
                "no /proc/net/ip_vs: IPVS is not in this kernel, or not loaded; other_kernel runs it in a guest",
            );
            return None;
        }
        let namespace = Namespace::create("ipvs").unwrap();
        namespace.run("ip", &["link", "set", "lo", "up"]).unwrap();
        let mut dataplane = Ipvs::new(config);
        dataplane.set_local_addresses(&[ip("192.168.0.2")]);
        Some(Self { namespace, dataplane })
    }

    fn update(&mut self, service: &Service, endpoints: &[&str]) {
        let slice = slice("default/web-1", &service.name.name, "http/TCP:8080", endpoints);
        let view = view_of(service, [&slice]);
        self.dataplane.update(&service.name, Some(&view));
    }

    /// Commits as if so much time had passed.
    fn commit_after(&mut self, later: Duration) -> CommitReport {
        let now = Instant::now() + later;
        let Self { namespace, dataplane } = self;
        namespace.enter(|| dataplane.commit_at(now)).unwrap().unwrap()
    }

    fn commit(&mut self) -> CommitReport {
        self.commit_after(Duration::ZERO)
    }

    /// Takes steps behind the dataplane's back.
    fn meddle(&self, steps: &[(&str, Step)]) {
        let failures = self.namespace.enter(|| {
            let mut kernel = Kernel::open().unwrap();
            let mut requests = kernel.ipvs.requests();
            for (place, step) in steps {
                message::request(&mut requests, at(place), step);
            }
            kernel.ipvs.ask(&requests).unwrap()
        });
        assert_eq!(failures.unwrap(), []);
    }

    /// The virtual servers, a line each, and the addresses of the device.
    fn held(&self) -> (Vec<String>, BTreeSet<std::net::IpAddr>) {
        let kernel = self.namespace.enter(|| {
            let mut kernel = Kernel::open().unwrap();
            kernel.read(|_| true).unwrap();
            kernel
        });
        let kernel = kernel.unwrap();
        let line = |(at, held): (&super::At, &super::super::steps::Held)| {
            let endpoints = held.endpoints.iter();
            let endpoints: String = endpoints
                .map(|(backend, weight)| format!(" {}={weight}", backend.ip))
                .collect();
            let scheduler = held.settings.scheduler.name();
            let persistence = held.settings.persistence;
            let persistence = persistence.map_or(String::new(), |seconds| format!(" {seconds}s"));
            format!("{at} {scheduler}{persistence}:{endpoints}")
        };
        let mut lines: Vec<String> = kernel.servers.iter().map(line).collect();
        lines.sort();
        (lines, kernel.addresses)
    }

    fn servers(&self) -> Vec<String> {
        self.held().0
    }
}

fn web() -> Service {
    service("default/web", "10.96.0.1", "http/TCP:80")
}

const A: &str = "10.180.1.1";
const B: &str = "10.180.2.1";

#[test]
fn an_endpoint_that_changes_costs_one_message_and_goes_when_it_is_idle() {
    let Some(mut node) = Node::new("an endpoint that changes", Config::default()) else {
        return;
    };
    node.update(&web(), &[A, B]);
    assert_eq!(node.commit().refused, []);
    assert_eq!(node.servers(), ["TCP 10.96.0.1:80 rr: 10.180.1.1=1 10.180.2.1=1"]);
    assert_eq!(node.held().1, BTreeSet::from([ip("10.96.0.1")]));
    assert_eq!(node.commit().messages, 0);

    node.update(&web(), &[A]);
    let report = node.commit();
    assert_eq!(report.messages, 1);
    assert_eq!(node.servers(), ["TCP 10.96.0.1:80 rr: 10.180.1.1=1 10.180.2.1=0"]);
    assert!(report.again_after.is_some());
    // Back in time.
    node.update(&web(), &[A, B]);
    assert_eq!(node.commit().messages, 1);
    node.update(&web(), &[A]);
    node.commit();
    node.commit_after(Duration::from_secs(2));
    assert_eq!(node.servers(), ["TCP 10.96.0.1:80 rr: 10.180.1.1=1"]);

    node.dataplane.update(&web().name, None);
    node.commit();
    assert_eq!(node.held(), (vec![], BTreeSet::new()));
}

#[test]
fn an_endpoint_of_udp_stays_for_answers_under_way_and_no_longer() {
    let Some(mut node) = Node::new("an endpoint of UDP", Config::default()) else {
        return;
    };
    let dns = service("default/dns", "10.96.0.1", "http/UDP:53");
    let update = |node: &mut Node, endpoints: &[&str]| {
        let slice = slice("default/dns-1", "dns", "http/UDP:8080", endpoints);
        node.dataplane.update(&dns.name, Some(&view_of(&dns, [&slice])));
    };
    update(&mut node, &[A, B]);
    node.commit();
    update(&mut node, &[A]);
    let report = node.commit();
    assert_eq!(report.messages, 1);
    assert_eq!(node.servers(), ["UDP 10.96.0.1:53 rr: 10.180.1.1=1 10.180.2.1=0"]);
    assert!(
        report
            .again_after
            .is_some_and(|after| after <= Duration::from_millis(50))
    );
    node.commit_after(Duration::from_millis(60));
    assert_eq!(node.servers(), ["UDP 10.96.0.1:53 rr: 10.180.1.1=1"]);

    node.dataplane.update(&dns.name, None);
    node.commit_after(Duration::from_millis(100));
    assert_eq!(node.held().1, BTreeSet::from([ip("10.96.0.1")]));
    node.commit_after(Duration::from_millis(200));
    assert_eq!(node.held(), (vec![], BTreeSet::new()));
}

#[test]
fn what_a_predecessor_left_is_adopted_and_what_nobody_wants_goes() {
    let excluded: IpNet = "172.20.0.0/16".parse().unwrap();
    let config = Config {
        exclude_cidrs: vec![excluded],
        ..Config::default()
    };
    let Some(mut node) = Node::new("what a predecessor left", config) else {
        return;
    };
    let left = |place, endpoint, weight| {
        [
            (place, Step::NewServer(settings("wlc", Some(60)))),
            (place, Step::NewEndpoint(backend(endpoint), weight)),
        ]
    };
    node.meddle(&left("TCP 10.96.0.1:80", "10.180.1.1:8080", 0));
    node.meddle(&left("TCP 10.96.0.9:80", "10.180.1.9:8080", 1));
    node.meddle(&left("TCP 172.20.0.1:80", "10.180.1.9:8080", 1));
    let script = "link add kube-ipvs0 type dummy\naddr add 10.96.0.1/32 dev kube-ipvs0\n\
                  addr add 10.96.0.9/32 dev kube-ipvs0\n";
    node.namespace
        .run_with_input("ip", &["-batch", "-"], script)
        .unwrap();
    node.update(&web(), &[A]);
    assert_eq!(node.commit().refused, []);
    assert_eq!(
        node.servers(),
        [
            "TCP 10.96.0.1:80 rr: 10.180.1.1=1",
            "TCP 172.20.0.1:80 wlc 60s: 10.180.1.9=1"
        ]
    );
    assert_eq!(node.held().1, BTreeSet::from([ip("10.96.0.1")]));
}

#[test]
fn what_another_hand_took_away_comes_back_with_the_next_change() {
    let Some(mut node) = Node::new("what another hand took away", Config::default()) else {
        return;
    };
    let other = service("default/other", "10.96.0.2", "http/TCP:80");
    node.update(&web(), &[A]);
    node.update(&other, &[A]);
    node.commit();
    node.meddle(&[
        ("TCP 10.96.0.1:80", Step::DeleteServer),
        ("TCP 10.96.0.2:80", Step::DeleteServer),
    ]);
    node.namespace.run("ip", &["link", "del", "kube-ipvs0"]).unwrap();
    node.update(&web(), &[A, B]);
    node.update(&service("default/third", "10.96.0.3", "http/TCP:80"), &[A]);
    assert_eq!(node.commit().refused, []);
    assert_eq!(
        node.servers(),
        [
            "TCP 10.96.0.1:80 rr: 10.180.1.1=1 10.180.2.1=1",
            "TCP 10.96.0.2:80 rr: 10.180.1.1=1",
            "TCP 10.96.0.3:80 rr: 10.180.1.1=1"
        ]
    );
    let all = ["10.96.0.1", "10.96.0.2", "10.96.0.3"].map(ip);
    assert_eq!(node.held().1, BTreeSet::from(all));
}

#[test]
fn every_scheduler_is_taken_and_one_that_is_missing_is_replaced() {
    let Some(mut node) = Node::new("every scheduler", Config::default()) else {
        return;
    };
    let names = [
        "rr", "wrr", "lc", "wlc", "sed", "nq", "sh", "dh", "mh", "lblc", "lblcr", "fo", "ovf",
    ];
    for name in names {
        let mut web = web();
        web.ipvs_scheduler = Some(name.into());
        node.update(&web, &[A]);
        assert_eq!(node.commit().refused, []);
        assert_eq!(node.servers(), [format!("TCP 10.96.0.1:80 {name}: 10.180.1.1=1")]);
    }
    let mut web = web();
    web.ipvs_scheduler = Some("nobody-has-it".into());
    node.update(&web, &[A]);
    assert_eq!(node.commit().refused, []);
    assert_eq!(node.servers(), ["TCP 10.96.0.1:80 rr: 10.180.1.1=1"]);
}

#[test]
fn session_affinity_and_node_ports_are_in_the_kernel_and_cleaning_up_leaves_what_others_have() {
    let Some(mut node) = Node::new("cleaning up", Config::default()) else {
        return;
    };
    let web = service("default/web", "10.96.0.1 fd00:96::1", "http/TCP:80:30080").with_affinity(90);
    node.update(&web, &[A]);
    node.commit();
    assert_eq!(
        node.servers(),
        [
            "TCP 10.96.0.1:80 rr 90s: 10.180.1.1=1",
            "TCP 192.168.0.2:30080 rr 90s: 10.180.1.1=1"
        ]
    );
    // The address of a family without endpoints is there for the rules to refuse.
    let addresses = BTreeSet::from([ip("10.96.0.1"), ip("fd00:96::1")]);
    assert_eq!(node.held().1, addresses);
    let listed = node
        .namespace
        .run("ip", &["address", "show", "dev", "kube-ipvs0"])
        .unwrap();
    assert!(listed.contains("inet 10.96.0.1/32 scope host"), "{listed}");
    let v6 = listed.lines().find(|line| line.contains("inet6 fd00:96::1/128"));
    let is_so = |line: &str| line.contains("nodad") && line.contains("deprecated");
    assert!(v6.is_some_and(is_so), "{listed}");

    let others = [("TCP 192.168.0.2:30081", Step::NewServer(settings("rr", None)))];
    node.meddle(&others);
    node.namespace.enter(remove_servers).unwrap().unwrap();
    node.namespace.enter(remove_device).unwrap().unwrap();
    assert_eq!(
        node.held(),
        (vec!["TCP 192.168.0.2:30081 rr:".to_owned()], BTreeSet::new())
    );
}
