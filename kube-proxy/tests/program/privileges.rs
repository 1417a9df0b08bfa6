//! What the program keeps of its privileges, and that it works with what it keeps.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};

use lab::net::Namespace;

use super::machine::{Manifests, service, use_legacy};
use super::running::{PROGRAM, Proxy};

const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const NET_BIND_SERVICE: u64 = 1 << 10;
const IN_FORCE: &str = "SyncProxyRules complete for the first time";
/// Who is nobody.
const NOBODY: &str = "65534";

/// A thread's name, and the numbers of its status by their names.
fn threads(proxy: &Proxy) -> Vec<(String, impl Fn(&str) -> u64 + use<>)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", proxy.process.id())).unwrap();
    let threads = tasks.map(|task| {
        let text = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = move |name: &str| {
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{name}:")));
            value.unwrap_or_default().trim().to_owned()
        };
        let name = field("Name");
        (name, move |name: &str| {
            u64::from_str_radix(&field(name), 16).unwrap()
        })
    });
    threads.collect()
}

/// All threads have these capabilities and no others, and so have the programs that they start.
fn keeps(proxy: &Proxy, kept: u64) {
    for (name, number) in threads(proxy) {
        // It waits for the first sync, and ends soon after it.
        let kept = if name == "leftovers" {
            NET_ADMIN | NET_RAW
        } else {
            kept
        };
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(number(set), kept, "{set} of {name}");
        }
        assert_eq!(number("CapBnd"), kept, "CapBnd of {name}");
        assert_eq!(number("NoNewPrivs"), 1, "{name}");
    }
}

/// What it logged since it gave up what it does not need. Before, this machine may refuse it some settings.
fn after_giving_up(proxy: &Proxy) -> String {
    let log = proxy.log();
    let (_, after) = log.split_once("Gave up all other capabilities").unwrap();
    after.to_owned()
}

#[test]
fn once_initialised_it_keeps_what_its_mode_needs_and_works_with_that() {
    for (mode, legacy, port, kept) in [
        ("nftables", false, 10249, NET_ADMIN),
        ("nftables", false, 249, NET_ADMIN | NET_BIND_SERVICE),
        ("iptables", false, 10249, NET_ADMIN | NET_RAW),
        ("iptables", true, 10249, NET_ADMIN | NET_RAW),
    ] {
        let namespace = Namespace::create("privileges").unwrap();
        if legacy {
            use_legacy(&namespace);
        }
        let manifests = Manifests::plain();
        let mode_flag = format!("--proxy-mode={mode}");
        let metrics = format!("--metrics-bind-address=127.0.0.1:{port}");
        let bytes = "--conntrack-count-bytes";
        let proxy = Proxy::start(&namespace, &[&mode_flag, &metrics, bytes, &manifests.argument]);
        proxy.says(IN_FORCE);
        keeps(&proxy, kept);
        assert!(
            proxy.get(port, "/metrics").contains("service_bytes_total{"),
            "{mode}"
        );
        // What comes after it was initialised works: other rules, a socket on the configured port.
        manifests.write(&[service("web", "10.96.0.11", 30081, &["10.244.0.10"])]);
        match (mode, legacy) {
            ("nftables", _) => proxy.programs("10.96.0.11"),
            (_, false) => proxy.shows("iptables-nft-save", &["-t", "nat"], "10.96.0.11"),
            (_, true) => proxy.shows("iptables-legacy-save", &["-t", "nat"], "10.96.0.11"),
        }
        assert!(proxy.get(port, "/proxyMode").ends_with(mode), "{mode}");
        keeps(&proxy, kept);
        let log = after_giving_up(&proxy);
        assert!(
            !log.contains("ermission denied") && !log.contains("not permitted"),
            "{log}"
        );
    }
}

#[test]
fn the_rules_of_another_mode_are_removed_with_what_is_kept() {
    let namespace = Namespace::create("leftovers").unwrap();
    use_legacy(&namespace);
    let manifests = Manifests::plain();
    let mut old = Proxy::start(&namespace, &["--proxy-mode=iptables", &manifests.argument]);
    old.says(IN_FORCE);
    old.process.kill().unwrap();
    old.ends();
    let proxy = Proxy::start(&namespace, &["--proxy-mode=nftables", &manifests.argument]);
    proxy.says("Removed the iptables rules that a kube-proxy left");
    proxy.until("an end of the thread that removes", || {
        match threads(&proxy).iter().any(|(name, _)| name == "leftovers") {
            true => Err("it is still there".to_owned()),
            false => Ok(()),
        }
    });
    keeps(&proxy, NET_ADMIN);
    let saved = namespace.run("iptables-legacy-save", &["-t", "nat"]).unwrap();
    assert!(!saved.contains("10.96.0.10"), "{saved}");
}

#[test]
fn after_init_only_another_user_than_root_needs_cap_net_admin_alone() {
    let namespace = Namespace::create("nobody").unwrap();
    let dir = tempfile::tempdir().unwrap();
    // Neither the folder of the build nor that of the test may be open to everybody.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("kube-proxy");
    fs::copy(PROGRAM, &program).unwrap();
    let manifests = Manifests::plain();
    manifests.open_to_all();
    let arguments = [
        // The one setting that a network namespace other than the first may not make.
        "--conntrack-max-per-core=0",
        "--conntrack-count-bytes",
        "--proxy-mode=nftables",
        &manifests.argument,
    ];
    let init = [&["--init-only"], &arguments[..]].concat();
    let init = Proxy::start(&namespace, &init).ends();
    assert_eq!(init.0, Some(0), "{}", init.1);

    let mut command = namespace.command("setpriv");
    let identity = [
        format!("--reuid={NOBODY}"),
        format!("--regid={NOBODY}"),
        "--clear-groups".to_owned(),
    ];
    command.args(identity);
    command.args([
        "--bounding-set=-all,+net_admin",
        "--inh-caps=-all,+net_admin",
        "--ambient-caps=-all,+net_admin",
    ]);
    command.arg(&program);
    let proxy = Proxy::start_as(&namespace, command, &arguments);
    proxy.programs("10.96.0.10");
    proxy.says(IN_FORCE);
    keeps(&proxy, NET_ADMIN);
    assert!(proxy.get(10249, "/metrics").contains("service_bytes_total{"));
    manifests.write(&[service("web", "10.96.0.11", 30081, &["10.244.0.10"])]);
    manifests.open_to_all();
    proxy.programs("10.96.0.11");
    assert!(proxy.get(10256, "/livez").starts_with("HTTP/1.1 200"));
    let log = proxy.log();
    assert!(
        !log.contains("could not be made") && !log.contains("Cannot") && !log.contains("not counted"),
        "{log}"
    );
    // It needs no programs, and it says what it lacks where it lacks something.
    let mut without = namespace.command("setpriv");
    without.args([
        &format!("--reuid={NOBODY}"),
        &format!("--regid={NOBODY}"),
        "--clear-groups",
        "--inh-caps=-all",
    ]);
    without.arg(&program);
    let mut refused = Proxy::start_as(
        &namespace,
        without,
        &["--proxy-mode=nftables", &manifests.argument],
    );
    let (code, log) = refused.ends();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("kube-proxy needs CAP_NET_ADMIN"), "{log}");
}

#[test]
fn a_file_that_only_a_privilege_could_read_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    fs::write(&kubeconfig, "").unwrap();
    fs::set_permissions(&kubeconfig, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&kubeconfig, Some(NOBODY.parse().unwrap()), None).unwrap();
    let namespace = Namespace::create("unreadable").unwrap();
    let argument = format!("--kubeconfig={}", kubeconfig.display());
    let (code, log) = Proxy::start(&namespace, &["--proxy-mode=nftables", &argument]).ends();
    assert_eq!(code, Some(1), "{log}");
    let words = format!(
        "\"command failed\" err=\"cannot read kubeconfig {}",
        kubeconfig.display()
    );
    assert!(log.contains(&words) && log.contains("ermission denied"), "{log}");
}

#[test]
fn root_of_a_container_that_has_cap_net_admin_alone_can_do_with_it() {
    let namespace = Namespace::create("container").unwrap();
    let manifests = Manifests::plain();
    let mut command = namespace.command("setpriv");
    command.args(["--bounding-set=-all,+net_admin", "--inh-caps=-all", PROGRAM]);
    let proxy = Proxy::start_as(
        &namespace,
        command,
        &["--proxy-mode=nftables", &manifests.argument],
    );
    proxy.programs("10.96.0.10");
    proxy.says(IN_FORCE);
    for (name, number) in threads(&proxy) {
        for set in ["CapEff", "CapPrm", "CapInh", "CapBnd"] {
            assert_eq!(number(set), NET_ADMIN, "{set} of {name}");
        }
        assert_eq!(number("NoNewPrivs"), 1, "{name}");
    }
}
