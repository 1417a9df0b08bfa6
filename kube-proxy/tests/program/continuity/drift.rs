//! Another hand takes away what is in force: it is noticed, put right, logged with the hand's name and counted.

use std::process::Command;
use std::time::{Duration, Instant};

use lab::net::Family;
use lab::probe::{Connection, Outcome, Protocol};

use super::held::held;
use super::{IN_FORCE, PATIENCE, Stage};
use crate::machine::service;
use crate::running::{PROGRAM, Proxy};

/// What another hand does to the nftables mode, each a script of nft.
const BLOWS: &[&str] = &[
    "flush ruleset",
    "delete table ip kube-proxy",
    "delete table ip6 kube-proxy",
    "flush map ip kube-proxy service-endpoints",
    "flush chain ip kube-proxy services",
    "delete chain ip kube-proxy nat-prerouting",
    "add element ip kube-proxy cluster-ips { 10.96.77.77 }",
];

/// What another hand does to the iptables mode, each a command.
const BLOWS_TO_CHAINS: &[&str] = &[
    "nft flush ruleset",
    "nft delete table ip nat",
    "iptables-nft -t nat -F PREROUTING",
    "iptables-nft -t nat -F KUBE-SERVICES",
    "iptables-nft -t nat -A KUBE-NODEPORTS -j RETURN",
    "ip6tables-nft -F",
    "iptables-nft -t mangle -X KUBE-PROXY-CANARY",
];

/// What others may do beside it: none of that is about Services.
const NOT_OURS: &[&str] = &[
    "iptables-nft -N OTHERS",
    "iptables-nft -I FORWARD -j OTHERS",
    "iptables-nft -t nat -N OTHERS",
    "iptables-nft -t nat -A OTHERS -s 192.0.2.1 -j KUBE-MARK-MASQ",
    "iptables-nft -t mangle -N KUBE-IPTABLES-HINT",
    "iptables-nft -t mangle -F KUBE-IPTABLES-HINT",
];

fn listing(stage: &Stage) -> String {
    // Without what the packets since have changed.
    stage.node().run("nft", &["-s", "list", "ruleset"]).unwrap()
}

fn run(stage: &Stage, command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    stage.node().run(words[0], &words[1..]).unwrap();
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

/// In a container it knows the programs that it starts by other numbers than the kernel tells.
fn in_a_container(stage: &Stage) -> Proxy {
    let mut command = stage.node().command("unshare");
    command.args(["--pid", "--fork", "--kill-child", PROGRAM]);
    let arguments = ["--proxy-mode=iptables", &Stage::pods(), &stage.manifests.argument];
    Proxy::start_as(stage.node(), command, &arguments)
}

#[test]
fn what_another_hand_takes_away_from_the_chains_of_iptables_is_there_again_and_counted() {
    let stage = Stage::new();
    let proxy = in_a_container(&stage);
    proxy.says(IN_FORCE);
    // What it does itself is no other hand's.
    stage.write(&service("more", "10.96.1.1", 0, &["10.244.2.77"]).replace("NodePort", "ClusterIP"));
    proxy.shows("iptables-nft-save", &[], "10.244.2.77:");
    let whole = held(&stage, "iptables");
    let is_whole = |blow: &str| {
        proxy.until(blow, || match held(&stage, "iptables") {
            now if now == whole => Ok(()),
            now => Err(format!("{:#?}", whole.symmetric_difference(&now))),
        });
    };
    counted(&proxy, 0);
    let mut slowest = Duration::ZERO;
    for (done, blow) in (1..).zip(BLOWS_TO_CHAINS) {
        let since = Instant::now();
        run(&stage, blow);
        is_whole(blow);
        slowest = slowest.max(since.elapsed());
        counted(&proxy, done);
    }
    println!("the slowest repair was seen after {slowest:?}");
    let names = ["by=\"nft (process ", "by=\"iptables-nft (process "];
    assert!(
        names.iter().all(|name| proxy.log().contains(name)),
        "{}",
        proxy.log()
    );
    stage.traffic().was_never_disturbed();
    NOT_OURS.iter().for_each(|command| run(&stage, command));
    // What may be another kube-proxy is answered as well, if not at once.
    let theirs = "*nat\n-I KUBE-SERVICES -j RETURN\nCOMMIT\n";
    let restore = ["--noflush"];
    stage
        .node()
        .run_with_input("iptables-nft-restore", &restore, theirs)
        .unwrap();
    counted(&proxy, BLOWS_TO_CHAINS.len() + 1);
    let rules = stage
        .node()
        .run("iptables-nft", &["-t", "nat", "-S", "KUBE-SERVICES"])
        .unwrap();
    assert!(!rules.contains("-j RETURN"), "{rules}");
    assert_eq!(
        proxy.log().matches("by another hand").count(),
        BLOWS_TO_CHAINS.len() + 1
    );
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
