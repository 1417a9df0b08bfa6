//! Settings of the kernel and of the process: that they are made, and that the program goes on where they cannot be.

use std::fs;
use std::process::Command;

use lab::net::Namespace;

use super::machine::Manifests;
use super::running::{PROGRAM, Proxy};

const IN_FORCE: &str = "SyncProxyRules complete for the first time";

/// The program where `/proc/sys` cannot be written, as in a container that is not privileged.
fn where_settings_are_read_only(namespace: &Namespace) -> Command {
    let mut command = namespace.command("unshare");
    let script =
        "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$0\" \"$@\"";
    command.args(["--mount", "sh", "-c", script, PROGRAM]);
    command
}

fn setting(namespace: &Namespace, name: &str) -> String {
    let path = format!("/proc/sys/net/{name}");
    namespace.run("cat", &[&path]).unwrap().trim().to_owned()
}

#[test]
fn settings_that_cannot_be_made_are_named_and_cost_nothing_else() {
    for (mode, named) in [
        (
            "nftables",
            &[
                "nf_conntrack_udp_timeout\" value=77",
                "nf_conntrack_acct\" value=1",
            ][..],
        ),
        (
            "iptables",
            &["nf_conntrack_udp_timeout\" value=77", "route_localnet"],
        ),
    ] {
        let namespace = Namespace::create("read-only").unwrap();
        let manifests = Manifests::plain();
        let proxy = Proxy::start_as(
            &namespace,
            where_settings_are_read_only(&namespace),
            &[
                &format!("--proxy-mode={mode}"),
                "--conntrack-max-per-core=0",
                "--conntrack-udp-timeout=77s",
                "--conntrack-count-bytes",
                &manifests.argument,
            ],
        );
        proxy.says(IN_FORCE);
        assert!(proxy.get(10256, "/healthz").starts_with("HTTP/1.1 200"), "{mode}");
        let log = proxy.log();
        for words in named {
            let line = log.lines().find(|line| line.contains(words));
            let line = line.unwrap_or_else(|| panic!("{words} is not in\n{log}"));
            assert!(
                line.starts_with('W') && line.contains("Read-only file system"),
                "{line}"
            );
        }
        assert_ne!(setting(&namespace, "netfilter/nf_conntrack_udp_timeout"), "77");
    }
}

#[test]
fn what_init_only_made_is_not_made_again_where_it_could_not_be() {
    for mode in ["nftables", "iptables"] {
        let namespace = Namespace::create("made").unwrap();
        let manifests = Manifests::plain();
        let mode = format!("--proxy-mode={mode}");
        let arguments = [
            &*mode,
            "--conntrack-max-per-core=0",
            "--conntrack-udp-timeout=77s",
            "--conntrack-count-bytes",
            &manifests.argument,
        ];
        let init = [&["--init-only"], &arguments[..]].concat();
        let (code, log) = Proxy::start(&namespace, &init).ends();
        assert_eq!(code, Some(0), "{log}");
        assert_eq!(setting(&namespace, "netfilter/nf_conntrack_udp_timeout"), "77");
        assert_eq!(setting(&namespace, "netfilter/nf_conntrack_acct"), "1");
        let proxy = Proxy::start_as(&namespace, where_settings_are_read_only(&namespace), &arguments);
        proxy.says(IN_FORCE);
        let log = proxy.log();
        assert!(
            !log.contains("Read-only file system") && !log.contains("Set sysctl"),
            "{mode}: {log}"
        );
    }
}

#[test]
fn the_process_is_as_likely_to_be_killed_for_memory_as_it_is_told() {
    let namespace = Namespace::create("memory").unwrap();
    let manifests = Manifests::plain();
    let proxy = Proxy::start(
        &namespace,
        &[
            "--proxy-mode=nftables",
            "--oom-score-adj=123",
            &manifests.argument,
        ],
    );
    proxy.says(IN_FORCE);
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", proxy.process.id())).unwrap();
    assert_eq!(score, "123\n");
}
