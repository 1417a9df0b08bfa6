//! What a running program tells of itself: its status, its log, and what becomes of a changed configuration.

use std::fs;
use std::process::Output;

use lab::net::Namespace;
use serde_json::Value;

use super::machine::{Manifests, service};
use super::running::{PROGRAM, Proxy};
use super::text;

const IN_FORCE: &str = "SyncProxyRules complete for the first time";
const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

fn status(namespace: &Namespace, arguments: &[&str]) -> Output {
    namespace
        .command(PROGRAM)
        .arg("status")
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn the_status_of_a_running_proxy_is_told_to_people_and_to_programs() {
    let namespace = Namespace::create("status").unwrap();
    let manifests = Manifests::new(&[
        service("old", "10.96.0.10", 30080, &["10.244.0.9"]),
        service("young", "10.96.0.10", 30081, &["10.244.0.9"]),
    ]);
    let port = "--metrics-bind-address=127.0.0.1:10349";
    let nobody = status(&namespace, &[port]);
    assert_eq!(nobody.status.code(), Some(1));
    let error = text(&nobody.stderr);
    assert!(
        error.starts_with("Error: no kube-proxy answers at 127.0.0.1:10349"),
        "{error}"
    );

    let proxy = Proxy::start(&namespace, &["--proxy-mode=nftables", port, &manifests.argument]);
    proxy.says(IN_FORCE);
    proxy.answers("http://127.0.0.1:10349/status", &["\"conflictingAddresses\":1"]);
    let told = status(&namespace, &[port]);
    let words = text(&told.stdout);
    assert!(told.status.success(), "{words}");
    for line in [
        "Mode            nftables",
        "Node            node-1",
        "Services        2",
        "EndpointSlices  2",
        "Waiting         nothing",
        "Last error      none",
        "Refused         0",
        "  conflict: default/young asks for TCP 10.96.0.10:80, which default/old has",
    ] {
        assert!(
            words.lines().any(|found| found == line),
            "{line} is not in\n{words}"
        );
    }
    let told = status(&namespace, &[port, "-o", "json"]);
    let object: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(
        (&object["mode"], &object["healthy"]),
        (&"nftables".into(), &true.into())
    );
    assert!(object["lastSync"].is_string(), "{object}");
}

#[test]
fn the_log_has_the_lines_that_people_look_for_in_either_format() {
    for mode in ["nftables", "iptables"] {
        let namespace = Namespace::create("log").unwrap();
        let manifests = Manifests::plain();
        let mode_flag = format!("--proxy-mode={mode}");
        let mut proxy = Proxy::start(&namespace, &[&mode_flag, &manifests.argument]);
        proxy.says(IN_FORCE);
        manifests.write(&[service("web", "10.96.0.11", 30081, &["10.244.0.10"])]);
        proxy.says("\"SyncProxyRules complete\" ");
        proxy.process.kill().unwrap();
        let (_, log) = proxy.ends();
        for words in [
            "] FLAG: --hostname-override=\"node-1\"",
            "] FLAG: --v=\"2\"",
            &format!("] \"Using {mode} Proxier\""),
            "kube-proxy running in dual-stack mode",
            "Can't determine this node's IP, assuming loopback",
            "Detect-local-mode set to ClusterCIDR, but no cluster CIDR specified",
            &format!("Not syncing {mode} until Services and Endpoints have been received from master"),
            &format!("\"Syncing {mode} rules\" fullSync=true"),
            &format!("\"Syncing {mode} rules\" fullSync=false"),
            "SyncProxyRules complete\" services=",
            " elapsed=\"",
        ] {
            assert!(log.contains(words), "{words} is not in\n{log}");
        }
        for line in log.lines() {
            let (head, _) = line.split_once("] ").unwrap_or_else(|| panic!("{line}"));
            let words: Vec<&str> = head.split_whitespace().collect();
            assert!(
                words.len() == 4 && "IWE".contains(&words[0][..1]) && words[3].contains(".rs:"),
                "{line}"
            );
        }
    }
    let namespace = Namespace::create("log").unwrap();
    let manifests = Manifests::plain();
    let proxy = Proxy::start(
        &namespace,
        &[
            "--logging-format=json",
            "--proxy-mode=nftables",
            &manifests.argument,
        ],
    );
    proxy.says(IN_FORCE);
    let log = proxy.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    let of = |message: &str| {
        lines
            .iter()
            .find(|line| line["msg"] == message)
            .unwrap_or_else(|| panic!("{log}"))
    };
    assert_eq!(of("Using nftables Proxier")["v"], 0);
    assert_eq!(of("Syncing nftables rules")["v"], 2);
    assert_eq!(of("Syncing nftables rules")["fullSync"], true);
    of("FLAG: --logging-format=\"json\"");
}

#[test]
fn a_changed_configuration_is_refused_applied_or_ends_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.conf");
    let write = |body: &str| fs::write(&config, format!("{HEAD}mode: nftables\n{body}")).unwrap();
    write("clusterCIDR: 10.0.0.0/8\n");
    let namespace = Namespace::create("reload").unwrap();
    let manifests = Manifests::plain();
    // Not by start, whose -v would win over the file's.
    let mut command = namespace.command("sh");
    command.args(["-c", "exec \"$0\" \"$1\" \"$2\"", PROGRAM]);
    command.args([
        format!("--config={}", config.display()),
        manifests.argument.clone(),
    ]);
    let mut proxy = Proxy::start_as(&namespace, command, &[]);
    proxy.programs("10.96.0.10");

    write("clusterCIDR: 10.0.0.0/80\n");
    proxy.says("going on with the old one\" err=\"KubeProxyConfiguration.ClusterCIDR: Invalid value");
    write("clusterCIDR: 10.0.0.0/8\nlogging: {verbosity: 2}\n");
    proxy.says("logging is as it says now\" verbosity=2");
    manifests.write(&[service("web", "10.96.0.11", 30081, &["10.244.0.10"])]);
    proxy.programs("10.96.0.11");
    proxy.says("Syncing nftables rules");
    assert!(proxy.get(10249, "/configz").contains("\"verbosity\":2"));
    assert!(proxy.process.try_wait().unwrap().is_none(), "{}", proxy.log());
    write("clusterCIDR: 11.0.0.0/8\n");
    let (code, log) = proxy.ends();
    assert_eq!(code, Some(1));
    assert!(
        log.contains("content of the proxy server's configuration file was updated"),
        "{log}"
    );
}
