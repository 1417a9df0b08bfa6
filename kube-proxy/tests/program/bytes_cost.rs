//! Many connections: each counts to the byte, whether somebody sees it alive or only hears of its end, and what that
//! costs. `KUBE_PROXY_BYTES_CONNECTIONS` makes them more than a test needs, and then prints the figures of
//! docs/performance.md.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use lab::net::{Family, Lab, Member, Namespace, Topology};

use super::bytes::{
    ASKED, IN_FORCE, PATIENCE, Pod, QUESTION, UDP, ask, counted, dns, forget_soon, open_udp, setting,
};
use super::machine::Manifests;
use super::running::Proxy;

/// What one datagram is to conntrack, and what is in it.
const DATAGRAM: u64 = 28 + ASKED;

/// How many connections there are, and whether their cost is asked for.
fn wanted() -> (u64, bool) {
    match std::env::var("KUBE_PROXY_BYTES_CONNECTIONS") {
        Ok(text) => (text.parse().unwrap(), true),
        Err(_) => (2000, false),
    }
}

/// CPU time of a process until now: in itself, and in the kernel.
fn cpu(process: u32) -> [Duration; 2] {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks: Vec<&str> = fields.split_whitespace().skip(11).take(2).collect();
    [0, 1].map(|which| Duration::from_millis(ticks[which].parse::<u64>().unwrap() * 10))
}

/// CPU time since then, as text.
fn since(process: u32, before: [Duration; 2]) -> String {
    let now = cpu(process);
    let [user, system] = [0, 1].map(|which| now[which] - before[which]);
    format!("CPU time {user:?} and {system:?} in the kernel")
}

/// Resident memory, in MB.
fn memory(proxy: &Proxy) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    kilobytes.unwrap().parse::<u64>().unwrap() / 1000
}

/// Sends a datagram by each of so many connections: to two addresses from each port.
fn send(from: &Namespace, to: [SocketAddr; 2], connections: u64) {
    let ports = 10_000..10_000 + u16::try_from(connections / 2).unwrap();
    let send = || {
        for port in ports {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
            for at in to {
                socket.send_to(&QUESTION, at).unwrap();
            }
        }
    };
    from.enter(send).unwrap();
}

/// Waits until the kernel has forgotten all but so many of its connections, which takes it a minute unless it is made
/// to `hurry`.
fn forgets(node: &Namespace, left: u64, hurry: bool) {
    let start = Instant::now();
    while setting(node, "count").parse::<u64>().unwrap() > left {
        if hurry {
            // Who reads it makes the kernel drop what is over.
            let list = || fs::read_to_string("/proc/thread-self/net/nf_conntrack");
            let _ = node.enter(list);
        }
        assert!(
            start.elapsed() < 5 * PATIENCE,
            "{} are left",
            setting(node, "count")
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn every_one_of_many_connections_counts_to_the_byte() {
    let (connections, figures) = wanted();
    let lab = Lab::build(&Topology::with_pods(&[("a", 1), ("b", 1)])).unwrap();
    let member = |name: &str| lab.member(name).unwrap();
    let (node, a, b) = (member("node-1"), &member("a").namespace, member("b"));
    // Nobody reads: what does not fit in its buffer has been counted by then.
    let _sink = b
        .namespace
        .enter(|| UdpSocket::bind(("::", UDP)).unwrap())
        .unwrap();
    let manifests = Manifests::new(&[dns(&b.ip(Family::V4).to_string())]);
    // Long enough to make as many as are measured.
    let remembered = if figures { "30" } else { "3" };
    let timeout = [("net/netfilter/nf_conntrack_udp_timeout", remembered)];
    node.namespace.sysctls(&timeout).unwrap();
    let mode = "--proxy-mode=nftables";
    let proxy = Proxy::start(
        &node.namespace,
        &[mode, "--conntrack-count-bytes", &manifests.argument],
    );
    proxy.says(IN_FORCE);
    let total = || counted(&proxy, "dns", "UDP", "IPv4");
    assert_eq!(total(), [0, 0]);
    let cluster_ip = SocketAddr::from(([10, 96, 0, 53], 53));
    let to = [cluster_ip, SocketAddr::new(node.ip(Family::V4), 30053)];
    let all = connections * DATAGRAM;
    let (before, process) = (memory(&proxy), proxy.process.id());
    send(a, to, connections);
    for scrape in 1..=3 {
        let (start, spent) = (Instant::now(), cpu(process));
        assert_eq!(total(), [all, 0]);
        if figures {
            let (took, spent) = (start.elapsed(), since(process, spent));
            println!("scrape {scrape} of {connections} living: {took:?}, {spent}");
        }
    }
    if figures {
        println!("memory: {before} MB before, {} MB with them", memory(&proxy));
    }
    let spent = cpu(process);
    forgets(&node.namespace, connections / 100, !figures);
    std::thread::sleep(Duration::from_millis(500));
    if figures {
        println!("{connections} ended: {}", since(process, spent));
    }
    assert_eq!(total(), [all, 0]);
    // Those that nobody sees alive.
    send(a, to, connections);
    forgets(&node.namespace, connections / 100, !figures);
    assert_eq!(total(), [2 * all, 0]);
    let log = proxy.log();
    assert!(!log.contains("not counted"), "{log}");
}

/// Short connections, and packets of one that lasts, with and without counting.
#[test]
fn counting_is_measured_where_that_is_asked_for() {
    const CONNECTIONS: u32 = 10_000;
    const ROUND_TRIPS: u32 = 100_000;
    if !wanted().1 {
        return;
    }
    let lab = Lab::build(&Topology::with_pods(&[("a", 1), ("b", 1)])).unwrap();
    let member = |name: &str| -> &Member { lab.member(name).unwrap() };
    let (node, a, b) = (&member("node-1").namespace, &member("a").namespace, member("b"));
    let _pod = Pod::start(&b.namespace);
    forget_soon(node);
    let (this, dns_ip) = (std::process::id(), SocketAddr::from(([10, 96, 0, 53], 53)));
    let manifests = Manifests::new(&[dns(&b.ip(Family::V4).to_string())]);
    let arguments = [
        "--proxy-mode=nftables",
        &manifests.argument,
        "--conntrack-count-bytes",
    ];
    for round in 0..8 {
        let counts = round % 2 == 1;
        node.sysctls(&[("net/netfilter/nf_conntrack_acct", "0")]).unwrap();
        let proxy = Proxy::start(node, &arguments[..2 + usize::from(counts)]);
        proxy.says(IN_FORCE);
        let spent = [cpu(proxy.process.id()), cpu(this)];
        let ask_once = || {
            for _ in 0..CONNECTIONS {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.connect(dns_ip).unwrap();
                ask(&socket, 1);
            }
        };
        a.enter(ask_once).unwrap();
        let traffic = since(this, spent[1]);
        std::thread::sleep(Duration::from_secs(4));
        forgets(node, 100, true);
        // What it has heard by then it has read soon after.
        std::thread::sleep(Duration::from_millis(500));
        let ended = since(proxy.process.id(), spent[0]);
        let packets = Instant::now();
        let socket = open_udp(a, dns_ip);
        let spent = cpu(this);
        ask(&socket, ROUND_TRIPS.into());
        let (took, packets_cost) = (packets.elapsed(), since(this, spent));
        println!("counting {counts}: {CONNECTIONS} connections: {traffic}; in kube-proxy, {ended}");
        println!("counting {counts}: {ROUND_TRIPS} round trips: {took:?}, {packets_cost}");
    }
}
