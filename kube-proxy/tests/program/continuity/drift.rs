//! Another hand takes away what is in force: it is noticed, put right, logged with the hand's name and counted.

use std::process::Command;
use std::time::{Duration, Instant};

use lab::net::Family;
use lab::probe::{Connection, Outcome, Protocol};

use super::{IN_FORCE, PATIENCE, Stage};
use crate::running::Proxy;

/// What another hand does, each a script of nft.
const BLOWS: &[&str] = &[
    "flush ruleset",
    "delete table ip kube-proxy",
    "delete table ip6 kube-proxy",
    "flush map ip kube-proxy service-endpoints",
    "flush chain ip kube-proxy services",
    "delete chain ip kube-proxy nat-prerouting",
    "add element ip kube-proxy cluster-ips { 10.96.77.77 }",
];

fn listing(stage: &Stage) -> String {
    // Without what the packets since have changed.
    stage.node().run("nft", &["-s", "list", "ruleset"]).unwrap()
}

fn signal(proxy: &Proxy, name: &str) {
    let id = proxy.process.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

/// How often the program says that another hand had changed what is in force.
fn counted(proxy: &Proxy, times: usize) {
    let line = format!("kubeproxy_drift_total {times}\n");
    proxy.shows(
        "curl",
        &["-s", "-m", "5", "http://127.0.0.1:10249/metrics"],
        &line,
    );
}

#[test]
fn what_another_hand_takes_away_is_there_again_and_counted() {
    let stage = Stage::new();
    let proxy = stage.start("nftables");
    proxy.says(IN_FORCE);
    let whole = listing(&stage);
    let mut slowest = Duration::ZERO;
    for (done, blow) in (1..).zip(BLOWS) {
        let since = Instant::now();
        stage.node().run("nft", &[blow]).unwrap();
        proxy.until(blow, || match listing(&stage) {
            now if now == whole => Ok(()),
            now => Err(now),
        });
        slowest = slowest.max(since.elapsed());
        counted(&proxy, done);
    }
    println!("the slowest repair was seen after {slowest:?}");
    assert!(proxy.log().contains("by=\"nft (process "), "{}", proxy.log());
    stage.traffic().was_never_disturbed();
    // What others do to their own tables is their business.
    for script in ["add table ip theirs", "delete table ip theirs"] {
        stage.node().run("nft", &[script]).unwrap();
    }
    stage.node().run("nft", &["delete table ip kube-proxy"]).unwrap();
    counted(&proxy, BLOWS.len() + 1);
}

#[test]
fn a_udp_flow_that_began_while_rules_were_away_reaches_its_service_afterwards() {
    let stage = Stage::new();
    let proxy = stage.start("nftables");
    proxy.says(IN_FORCE);
    let x = &stage.member("x").namespace;
    signal(&proxy, "-STOP");
    stage.node().run("nft", &["flush ruleset"]).unwrap();
    let flow = Connection::open(x, Protocol::Udp, stage.cluster_ip(Family::V4), PATIENCE);
    let flow = flow.unwrap().unwrap();
    let lost = flow.ask(Duration::from_millis(100)).unwrap();
    assert!(lost.answer().is_none(), "{lost}");
    signal(&proxy, "-CONT");
    proxy.until("answer to the same flow", || {
        let outcome: Outcome = flow.ask(Duration::from_millis(100)).unwrap();
        outcome.answer().map(drop).ok_or(outcome.to_string())
    });
}
