//! The program in IPVS mode as whoever runs it sees it: what it tells, and what it does instead of being a proxy. Inside
//! a guest; the names are those of the tests.

use std::fs;
use std::process::Command;

use lab::kernel::round::Other;
use lab::net::Namespace;

use crate::bytes;
use crate::machine::{Manifests, service};
use crate::metrics;
use crate::running::{PROGRAM, Proxy};

/// All of them.
pub(crate) const ALL: &[Other] = &[
    ("program::metrics-and-health::ipvs", || {
        metrics::are_as_upstreams("ipvs");
    }),
    ("program::bytes-by-service-port::ipvs", || {
        bytes::are_counted("ipvs");
    }),
    ("program::init-only::ipvs", init_only),
    ("program::cleanup-after-a-crash::ipvs", cleanup),
    ("program::plan-diff::ipvs", plan_diff),
];

const IN_FORCE: &str = "SyncProxyRules complete for the first time";
/// The one setting that a network namespace other than the first may not make.
const UNLIMITED: &str = "--conntrack-max-per-core=0";

/// What a kernel setting of the namespace is.
fn setting(namespace: &Namespace, name: &str) -> String {
    let read = namespace.enter(|| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")));
    read.unwrap().unwrap().trim().to_owned()
}

/// Runs the program to its end, which has to be a good one, and returns its log.
fn run(mut command: Command, arguments: &[&str]) -> String {
    let output = command.args(arguments).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {log}");
    log
}

/// Whoever runs `--init-only` makes all settings that IPVS needs, so that the proxy after it has none to make.
fn init_only() {
    let namespace = Namespace::create("init").unwrap();
    let needed = [
        "vs/conntrack",
        "vs/expire_nodest_conn",
        "vs/expire_quiescent_template",
        "ip_forward",
    ];
    let arp = ["conf/all/arp_ignore", "conf/all/arp_announce"];
    let init = |more: &[&str]| {
        let arguments = [&["--init-only", "--proxy-mode=ipvs", UNLIMITED], more].concat();
        run(namespace.command(PROGRAM), &arguments)
    };
    for name in needed {
        assert_eq!(setting(&namespace, name), "0", "{name}");
    }
    let log = init(&[]);
    assert!(log.contains("Initialized; not proxying"), "{log}");
    for name in needed {
        assert_eq!(setting(&namespace, name), "1", "{name}");
    }
    for name in arp {
        assert_eq!(setting(&namespace, name), "0", "{name} is for strictARP");
    }
    init(&["--ipvs-strict-arp"]);
    assert_eq!(arp.map(|name| setting(&namespace, name)), ["1", "2"]);
    let listed = namespace.run("nft", &["list", "ruleset"]).unwrap();
    assert_eq!(listed, "", "it makes no rules");

    let manifests = Manifests::plain();
    let arguments = [
        "--proxy-mode=ipvs",
        "--ipvs-strict-arp",
        UNLIMITED,
        &manifests.argument,
    ];
    let proxy = Proxy::start(&namespace, &arguments);
    proxy.says(IN_FORCE);
    // All that came after its start it did with CAP_NET_ADMIN alone.
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.process.id())).unwrap();
    assert!(status.contains("CapEff:\t0000000000001000\n"), "{status}");
    manifests.write(&[service("web", "10.96.0.11", 30081, &["10.244.0.10"])]);
    proxy.shows(
        "ipvsadm",
        &["-S", "-n"],
        "-a -t 10.96.0.11:80 -r 10.244.0.10:8080",
    );
    let log = proxy.log();
    for words in ["Set sysctl\" setting=\"/proc/sys/net/ipv4", "Cannot set a sysctl"] {
        assert!(!log.contains(words), "{words} is in\n{log}");
    }
    drop(proxy);
    // Another mode lets the connections of this one live.
    let arguments = ["--init-only", "--proxy-mode=nftables", UNLIMITED];
    run(namespace.command(PROGRAM), &arguments);
    assert_eq!(setting(&namespace, "vs/expire_nodest_conn"), "0");
}

/// A crash leaves everything in force; `--cleanup` removes it, and nothing of others.
fn cleanup() {
    let namespace = Namespace::create("cleanup").unwrap();
    let others = "add table inet others\nadd chain inet others mine";
    namespace.run_with_input("nft", &["-f", "-"], others).unwrap();
    let others = ["-A", "-t", "192.0.2.9:80"];
    namespace.run("ipvsadm", &others).unwrap();
    let servers = || namespace.run("ipvsadm", &["-S", "-n"]).unwrap();
    let rules = || namespace.run("nft", &["list", "ruleset"]).unwrap();

    let config = tempfile::tempdir().unwrap();
    let config = config.path().join("config.conf");
    fs::write(
        &config,
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n\
         conntrack: {maxPerCore: 0}\nipvs: {excludeCIDRs: [192.0.2.0/24]}\n",
    )
    .unwrap();
    let (before, manifests) = (rules(), Manifests::plain());
    let argument = format!("--config={}", config.display());
    let mut proxy = Proxy::start(&namespace, &[&argument, &manifests.argument]);
    proxy.says(IN_FORCE);
    proxy.process.kill().unwrap();
    proxy.ends();
    for (there, what) in [(servers(), "10.96.0.10:80"), (rules(), "table ip6 kube-proxy")] {
        assert!(there.contains(what), "{what} is not in\n{there}");
    }
    let log = run(namespace.command(PROGRAM), &["--cleanup"]);
    assert!(
        log.contains("Removed the virtual servers that a kube-proxy left"),
        "{log}"
    );
    assert_eq!(servers().trim(), "-A -t 192.0.2.9:80 -s wlc");
    assert_eq!(rules(), before);
    let links = namespace.run("ip", &["link"]).unwrap();
    assert!(!links.contains("kube-ipvs0"), "{links}");
    // Nothing is left to be done.
    let log = run(namespace.command(PROGRAM), &["--cleanup"]);
    assert!(!log.contains("Removed"), "{log}");
}

/// `plan --diff` finds nothing where a proxy programmed all, and then what another hand did.
fn plan_diff() {
    let (namespace, manifests) = (Namespace::create("plan").unwrap(), Manifests::plain());
    let arguments = ["--proxy-mode=ipvs", UNLIMITED, &manifests.argument];
    let mut proxy = Proxy::start(&namespace, &arguments);
    proxy.says(IN_FORCE);
    proxy.process.kill().unwrap();
    proxy.ends();
    let differs = || {
        let mut command = namespace.command(PROGRAM);
        let output = command.args(["plan", "--diff"]).args(arguments).output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&printed).into_owned(),
        )
    };
    let (code, printed) = differs();
    assert_eq!(code, Some(0), "{printed}");
    let steps = "-e -t 10.96.0.10:80 -r 10.244.0.9:8080 -m -w 7\n-A -t 10.96.0.10:81 -s rr\n";
    namespace
        .run_with_input("ipvsadm", &["--restore"], steps)
        .unwrap();
    namespace
        .run("ip", &["address", "add", "10.96.0.99", "dev", "kube-ipvs0"])
        .unwrap();
    let (code, printed) = differs();
    assert_eq!(code, Some(1), "{printed}");
    for named in ["10.244.0.9:8080", "10.96.0.10:81", "10.96.0.99"] {
        assert!(printed.contains(named), "{named} is not in\n{printed}");
    }
}
