//! The iptables mode and the machine that it runs on: what it counts, and what it says and does when something is
//! missing or in the way.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::Duration;

use lab::net::{Family, Lab, Namespace, Topology};
use lab::probe::{self, Protocol, Request};
use lab::serve::Server;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage};

use super::machine::{Manifests, extensions_without, programs, service, use_legacy, with_variable};
use super::running::{PROGRAM, Proxy};

const MODE: &str = "--proxy-mode=iptables";
const IN_FORCE: &str = "SyncProxyRules complete for the first time";

/// An answer to a ping that nobody sent, which conntrack finds invalid.
fn answer_to_nobody(from: &Namespace, to: IpAddr) {
    let (family, protocol, packet) = match to {
        IpAddr::V4(_) => (
            AddressFamily::Inet,
            SockProtocol::Icmp,
            [0, 0, 0xff, 0xff, 0, 0, 0, 0],
        ),
        // The kernel adds the checksum.
        IpAddr::V6(_) => (
            AddressFamily::Inet6,
            SockProtocol::IcmpV6,
            [129, 0, 0, 0, 0, 0, 0, 0],
        ),
    };
    let send = || {
        let raw = socket::socket(family, SockType::Raw, SockFlag::empty(), protocol)?;
        let to = SockaddrStorage::from(SocketAddr::new(to, 0));
        socket::sendto(raw.as_raw_fd(), &packet, &to, MsgFlags::empty())
    };
    assert_eq!(from.enter(send).unwrap(), Ok(packet.len()));
}

#[test]
fn what_the_rules_count_is_among_the_metrics() {
    for legacy in [false, true] {
        packets_are_counted(legacy);
    }
}

fn packets_are_counted(legacy: bool) {
    let lab = Lab::build(&Topology::with_pods(&[("a", 1), ("b", 1)])).unwrap();
    let member = |name: &str| lab.member(name).unwrap();
    let (node, a, b) = (member("node-1"), member("a"), member("b"));
    if legacy {
        use_legacy(&node.namespace);
    }
    let _server = Server::start(b, &[8080]).unwrap();
    let endpoint = b.ip(Family::V4).to_string();
    let manifests = Manifests::new(&[service("web", "10.96.0.10", 30080, &[&endpoint])]);
    let proxy = Proxy::start(&node.namespace, &[MODE, &manifests.argument]);
    proxy.says(IN_FORCE);
    assert_eq!(proxy.log().contains("program=\"iptables-legacy\""), legacy);
    let counts = |invalid: u64, localhost: u64| {
        let wanted = [
            format!("kubeproxy_iptables_ct_state_invalid_dropped_packets_total {invalid}\n"),
            format!("kubeproxy_iptables_localhost_nodeports_accepted_packets_total {localhost}\n"),
        ];
        for line in wanted {
            proxy.shows(
                "curl",
                &["-s", "-m", "5", "http://127.0.0.1:10249/metrics"],
                &line,
            );
        }
    };
    counts(0, 0);
    answer_to_nobody(&a.namespace, b.ip(Family::V4));
    counts(1, 0);
    answer_to_nobody(&a.namespace, b.ip(Family::V6));
    answer_to_nobody(&a.namespace, b.ip(Family::V4));
    counts(3, 0);
    for (ip, localhost) in [(node.ip(Family::V4), 0), ("127.0.0.1".parse().unwrap(), 1)] {
        let request = Request {
            protocol: Protocol::Tcp,
            to: SocketAddr::new(ip, 30080),
            timeout: Duration::from_secs(10),
        };
        let outcome = probe::request(&node.namespace, request).unwrap();
        assert!(outcome.answer().is_some(), "{ip}: {outcome:?}");
        counts(3, localhost);
    }
    let text = proxy.get(10249, "/metrics");
    for line in [
        "kubeproxy_sync_proxy_rules_iptables_total{ip_family=\"IPv4\",table=\"filter\"} 4",
        "kubeproxy_sync_proxy_rules_iptables_total{ip_family=\"IPv6\",table=\"nat\"} 5",
        "kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn while_another_program_holds_the_lock_it_says_so_and_tries_again() {
    // Each family has a lock of its own here, so that one of them can be held.
    let other_lock = "export XTABLES_LOCKFILE=\"$LOCK_OF_IPV6\" PATH=/usr/sbin:/usr/bin:/sbin:/bin\n\
                      exec \"${0##*/}\" \"$@\"";
    let programs = programs(|name| name.starts_with("ip6tables-legacy").then_some(other_lock));
    let dir = tempfile::tempdir().unwrap();
    let locks = ["4", "6"].map(|family| dir.path().join(family));
    let hold = |lock: &Path| Flock::lock(File::create(lock).unwrap(), FlockArg::LockExclusive).unwrap();
    let held = hold(&locks[1]);
    let namespace = Namespace::create("locked").unwrap();
    use_legacy(&namespace);
    let manifests = Manifests::plain();
    let mut command = with_variable(&namespace, "PATH", programs.path());
    command.envs([("XTABLES_LOCKFILE", &locks[0]), ("LOCK_OF_IPV6", &locks[1])]);
    let proxy = Proxy::start_as(&namespace, command, &[MODE, &manifests.argument]);
    let saves = |program: &str, ip: &str| proxy.shows(program, &["-t", "nat"], ip);
    // The family is not given up for it, and the other one does not wait.
    saves("iptables-legacy-save", "10.96.0.10");
    proxy
        .says("err=\"ip6tables-legacy -w 5 -t mangle -S KUBE-IPTABLES-HINT: another program has held the xtables lock");
    drop(held);
    saves("ip6tables-legacy-save", "fd00:96::10");
    proxy.says(IN_FORCE);

    let held = hold(&locks[0]);
    manifests.write(&[service("web", "10.96.0.11", 0, &["10.244.0.9"])]);
    let reason = format!(
        "another program has held the xtables lock ({}) for 5 s",
        locks[0].display()
    );
    proxy.says(&format!(
        "Failed to execute iptables-restore; what is in force stays\" \
         err=\"iptables-legacy-restore -w 5 --noflush --counters: {reason}"
    ));
    let saved = namespace.run("iptables-legacy-save", &["-t", "nat"]).unwrap();
    assert!(saved.contains("10.96.0.10"), "{saved}");
    drop(held);
    saves("iptables-legacy-save", "10.96.0.11");
    proxy.says("Sync succeeded again");
    let text = proxy.get(10249, "/metrics");
    let line = "kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total{ip_family=\"IPv4\"}";
    assert!(text.contains(line), "{text}");
}

#[test]
fn a_missing_match_costs_the_services_that_need_it_and_is_named() {
    for legacy in [false, true] {
        let namespace = Namespace::create("extensions").unwrap();
        if legacy {
            use_legacy(&namespace);
        }
        let extensions = extensions_without(&["statistic", "nfacct"]);
        let manifests = Manifests::new(&[
            service("one", "10.96.0.10", 30080, &["10.244.0.9"]),
            service("two", "10.96.0.11", 30081, &["10.244.0.9", "10.244.0.10"]),
            service("more", "10.96.0.12", 30082, &["10.244.0.9", "10.244.0.10"]),
        ]);
        let command = with_variable(&namespace, "XTABLES_LIBDIR", extensions.path());
        let proxy = Proxy::start_as(&namespace, command, &[MODE, &manifests.argument]);
        proxy.says(IN_FORCE);
        let variant = if legacy { "legacy" } else { "nft" };
        let saved = namespace.run(&format!("iptables-{variant}-save"), &[]).unwrap();
        assert!(
            saved.contains("10.96.0.10") && !saved.contains("10.96.0.11"),
            "{saved}"
        );
        assert!(
            saved.contains("--ctstate INVALID -j DROP") && !saved.contains("nfacct"),
            "{saved}"
        );
        let log = proxy.log();
        let reason = format!(
            "this machine lacks the match statistic of iptables-{variant}-restore: install all extensions of \
             iptables, libxt_statistic.so among them"
        );
        let refusals: Vec<&str> = log.lines().filter(|line| line.contains(&reason)).collect();
        assert_eq!(refusals.len(), 2, "{log}");
        assert!(
            refusals
                .iter()
                .any(|line| line.contains("service=\"default/two\"")),
            "{log}"
        );
        assert_eq!(log.matches("No nfacct counters here").count(), 1, "{log}");
        let text = proxy.get(10249, "/metrics");
        assert!(
            !text.contains("nodeports_accepted") && text.contains("kubeproxy_refused_elements 2"),
            "{text}"
        );
    }
}

#[test]
fn what_is_needed_for_anything_at_all_ends_the_program_with_its_name() {
    let nothing = tempfile::tempdir().unwrap();
    let extensions = extensions_without(&["conntrack"]);
    let manifests = Manifests::plain();
    let without = |capability: &str| {
        let mut command = vec!["setpriv".to_owned(), format!("--bounding-set=-{capability}")];
        command.push(PROGRAM.to_owned());
        command
    };
    let plain = || vec![PROGRAM.to_owned()];
    let no_variable = ("KUBE_PROXY_TEST_NOTHING", nothing.path());
    for (legacy, command, (variable, value), words) in [
        (
            false,
            plain(),
            ("PATH", nothing.path()),
            "this machine lacks the program iptables: install iptables",
        ),
        (
            false,
            plain(),
            ("XTABLES_LIBDIR", extensions.path()),
            "this machine lacks the match conntrack of iptables-nft-restore",
        ),
        (
            true,
            plain(),
            ("XTABLES_LIBDIR", extensions.path()),
            "this machine lacks the match conntrack of iptables-legacy-restore",
        ),
        (
            false,
            without("net_admin"),
            no_variable,
            "kube-proxy needs CAP_NET_ADMIN in",
        ),
        (
            true,
            without("net_admin"),
            no_variable,
            "kube-proxy needs CAP_NET_ADMIN in",
        ),
        (
            true,
            without("net_raw"),
            no_variable,
            "kube-proxy needs CAP_NET_ADMIN and CAP_NET_RAW in",
        ),
    ] {
        let namespace = Namespace::create("lacking").unwrap();
        if legacy {
            use_legacy(&namespace);
        }
        let mut started = namespace.command(&command[0]);
        started.args(&command[1..]).env(variable, value);
        let mut proxy = Proxy::start_as(&namespace, started, &[MODE, &manifests.argument]);
        let (code, log) = proxy.ends();
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(words), "{words} is not in\n{log}");
    }
}

#[test]
fn without_working_programs_for_ipv6_those_for_ipv4_do_their_work() {
    let for_ipv6 = |name: &str| name.starts_with("ip6tables");
    let missing = programs(|name| for_ipv6(name).then_some(""));
    let without_table = programs(|name| {
        let said = "echo \"ip6tables: can't initialize ip6tables table \\`nat': Table does not exist \
                    (do you need to insmod?)\" >&2; exit 3";
        for_ipv6(name).then_some(said)
    });
    let manifests = Manifests::plain();
    for (programs, words) in [
        (&missing, "lacks the program ip6tables"),
        (&without_table, "Table does not exist"),
    ] {
        let namespace = Namespace::create("ipv4").unwrap();
        let command = with_variable(&namespace, "PATH", programs.path());
        let proxy = Proxy::start_as(&namespace, command, &[MODE, &manifests.argument]);
        proxy.says(IN_FORCE);
        proxy.shows("iptables-nft-save", &["-t", "nat"], "-d 10.96.0.10/32");
        let log = proxy.log();
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("No iptables support for family"))
            .collect();
        let [line] = lines[..] else { panic!("{log}") };
        assert!(line.contains("IPv6") && line.contains(words), "{line}");
        let text = proxy.get(10249, "/metrics");
        assert!(
            text.contains("duration_seconds_count{ip_family=\"IPv4\"} 1"),
            "{text}"
        );
        assert!(
            !text.contains("sync_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"}"),
            "{text}"
        );
    }
    // A node that the cluster knows by its IPv6 address first is of no use so.
    let node = "---\napiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n\
                status: {addresses: [{type: InternalIP, address: 'fd00::1'}]}\n";
    let manifests = Manifests::new(&[node.to_owned(), service("web", "10.96.0.10", 0, &["10.244.0.9"])]);
    let namespace = Namespace::create("primary").unwrap();
    let command = with_variable(&namespace, "PATH", missing.path());
    let mut proxy = Proxy::start_as(&namespace, command, &[MODE, &manifests.argument]);
    let (code, log) = proxy.ends();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("this machine lacks the program ip6tables"), "{log}");
}

#[test]
fn a_failure_of_one_family_does_not_hold_up_the_other() {
    for (broken, family, working, ips) in [
        (
            "iptables-nft",
            "IPv4",
            "ip6tables-nft",
            ["fd00:96::10", "fd00:96::11"],
        ),
        (
            "ip6tables-nft",
            "IPv6",
            "iptables-nft",
            ["10.96.0.10", "10.96.0.11"],
        ),
    ] {
        let restore = format!("{broken}-restore");
        let programs = programs(|name| (name == restore).then_some("echo no >&2; exit 1"));
        let endpoint = if ips[0].contains(':') {
            "fd00:10:244::9"
        } else {
            "10.244.0.9"
        };
        let manifests = Manifests::new(&[service("web", ips[0], 0, &[endpoint])]);
        let namespace = Namespace::create("families").unwrap();
        let command = with_variable(&namespace, "PATH", programs.path());
        let proxy = Proxy::start_as(&namespace, command, &[MODE, &manifests.argument]);
        let save = format!("{working}-save");
        proxy.shows(&save, &["-t", "nat"], ips[0]);
        manifests.write(&[service("web", ips[1], 0, &[endpoint])]);
        proxy.shows(&save, &["-t", "nat"], ips[1]);
        proxy.says(&format!("err=\"{restore} -w 5 --noflush --counters: no\""));
        let text = proxy.get(10249, "/metrics");
        let failures: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("kubeproxy_sync_proxy_rules_iptables_restore_failures_total"))
            .collect();
        assert!(
            failures.len() == 1 && failures[0].contains(family),
            "{failures:?}"
        );
        // Health is told of each.
        let health = proxy.get(10256, "/healthz");
        let never = "\":{\"lastUpdated\":\"0001-01-01T00:00:00Z\"";
        assert!(
            health.contains(&format!("{family}{never}")) && health.matches(never).count() == 1,
            "{health}"
        );
    }
}

#[test]
fn on_a_kernel_without_ipv6_each_mode_does_without() {
    let manifests = Manifests::plain();
    for mode in ["iptables", "nftables"] {
        let namespace = Namespace::create("no-ipv6").unwrap();
        // What the kernel says of itself is in /proc.
        let mut command = namespace.command("unshare");
        let hide = "mount -t tmpfs none /proc && exec \"$0\" \"$@\"";
        command.args(["--mount", "sh", "-c", hide, PROGRAM]);
        let mode = format!("--proxy-mode={mode}");
        let proxy = Proxy::start_as(&namespace, command, &[&mode, &manifests.argument]);
        proxy.says(IN_FORCE);
        let log = proxy.log();
        assert_eq!(log.matches("This kernel has no IPv6").count(), 1, "{log}");
        assert!(log.contains("kube-proxy running in single-stack mode"), "{log}");
        let rules = namespace.run("nft", &["list", "ruleset"]).unwrap();
        assert!(
            rules.contains("10.96.0.10") && !rules.contains("ip6"),
            "{mode}: {rules}"
        );
    }
}

#[test]
fn ipv6_is_programmed_also_while_interfaces_have_it_switched_off() {
    let manifests = Manifests::plain();
    for mode in ["iptables", "nftables"] {
        let namespace = Namespace::create("disabled-ipv6").unwrap();
        let settings = ["all", "default"].map(|of| format!("net/ipv6/conf/{of}/disable_ipv6"));
        namespace
            .sysctls(&[(settings[0].as_str(), "1"), (settings[1].as_str(), "1")])
            .unwrap();
        let mode = format!("--proxy-mode={mode}");
        let proxy = Proxy::start(&namespace, &[&mode, &manifests.argument]);
        proxy.says(IN_FORCE);
        let log = proxy.log();
        assert!(log.contains("kube-proxy running in dual-stack mode"), "{log}");
        let rules = namespace.run("nft", &["list", "ruleset"]).unwrap();
        assert!(rules.contains("fd00:96::10"), "{mode}: {rules}");
    }
}
