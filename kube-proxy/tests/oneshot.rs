//! What the program does instead of being a proxy when it is asked to: clean up, initialise, write its configuration.
//! No API server is there for any of it. What touches a kernel does so in a network namespace of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use lab::net::{Namespace, Process};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-proxy");
/// Long, because the legacy variant has one lock for all namespaces of a machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Rules of kubelet and of others, in tables that kube-proxy uses. Kubelet has the rule of `KUBE-FIREWALL` in IPv4 only.
const OTHERS: &str = "\
*mangle
:KUBE-IPTABLES-HINT - [0:0]
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
:OTHERS - [0:0]
-A INPUT -j KUBE-FIREWALL
-A OUTPUT -j KUBE-FIREWALL
-A FORWARD -p tcp -m comment --comment \"kubernetes service portals\" -m tcp --dport 22 -j OTHERS
COMMIT
*nat
:OTHERS - [0:0]
-A PREROUTING -p tcp -m tcp --dport 8443 -j OTHERS
-A OUTPUT -p tcp -m tcp --dport 8443 -j OTHERS
-A POSTROUTING -p tcp -m tcp --dport 8443 -j ACCEPT
COMMIT
";
const GUARD: &str = "*filter\n-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \
    \"block incoming localnet connections\" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP\nCOMMIT\n";

fn run(namespace: &Namespace, arguments: &[&str]) -> Output {
    namespace.command(PROGRAM).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A node on which kubelet uses a variant of iptables.
struct Node {
    namespace: Namespace,
    variant: &'static str,
}

impl Node {
    fn new(variant: &'static str) -> Self {
        let namespace = Namespace::create("oneshot").unwrap();
        namespace.run("ip", &["link", "set", "lo", "up"]).unwrap();
        let node = Self { namespace, variant };
        node.restore("iptables", OTHERS);
        node.restore("iptables", GUARD);
        node.restore("ip6tables", OTHERS);
        let nft = "add table inet others\nadd chain inet others mine\nadd rule inet others mine counter";
        node.namespace.run_with_input("nft", &["-f", "-"], nft).unwrap();
        node
    }

    fn restore(&self, program: &str, rules: &str) {
        let program = format!("{program}-{}-restore", self.variant);
        let restored = self
            .namespace
            .run_with_input(&program, &["-w", "120", "--noflush"], rules);
        restored.unwrap();
    }

    /// Everything, byte for byte, but for the lines that say when it was listed.
    fn rules(&self) -> String {
        let list = |program: &str, args: &[&str]| {
            let listed = self.namespace.run(program, args).unwrap();
            let lines = listed.lines().filter(|line| !line.starts_with('#'));
            lines.collect::<Vec<_>>().join("\n")
        };
        let saved = |program: &str| list(&format!("{program}-{}-save", self.variant), &["-c"]);
        [
            list("nft", &["list", "ruleset"]),
            saved("iptables"),
            saved("ip6tables"),
        ]
        .join("\n")
    }

    /// Lets a kube-proxy program its rules, and kills it.
    fn crash(&self, mode: &str, manifests: &Path) {
        let log = manifests.join("log");
        let mut command = self.namespace.command(PROGRAM);
        command
            .arg(format!("--proxy-mode={mode}"))
            .arg(format!("--manifests={}", manifests.display()))
            .arg("--hostname-override=node-1")
            .stderr(Stdio::from(fs::File::create(&log).unwrap()));
        let process = Process::start(command).unwrap();
        let start = Instant::now();
        // It is listed to the last family, so that nothing is under way any more.
        while !(self.rules().contains("10.96.0.10") && self.rules().contains("fd00:96::10")) {
            let state = || {
                let log = fs::read_to_string(&log).unwrap();
                format!("{mode} {}\n{}\n{log}", self.variant, self.rules())
            };
            assert!(process.is_running(), "it has ended: {}", state());
            assert!(start.elapsed() < PATIENCE, "it does nothing: {}", state());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A Service of both families with an endpoint in each.
fn service(dir: &Path) {
    let slice = |family: &str, ip: &str| {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: {family}\n\
             metadata: {{name: web-{family}, labels: {{kubernetes.io/service-name: web}}}}\n\
             ports: [{{name: '', port: 8080}}]\nendpoints: [{{addresses: ['{ip}']}}]\n"
        )
    };
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: NodePort, clusterIP: 10.96.0.10, \
        clusterIPs: [10.96.0.10, 'fd00:96::10'], ipFamilies: [IPv4, IPv6], ports: [{port: 80, nodePort: 30080}]}\n";
    let slices = slice("IPv4", "10.244.0.9") + &slice("IPv6", "fd00:10:244::9");
    fs::write(dir.join("web.yaml"), format!("{service}{slices}")).unwrap();
}

#[test]
fn cleanup_leaves_nothing_of_kube_proxys_and_every_byte_of_others() {
    let dir = tempfile::tempdir().unwrap();
    service(dir.path());
    for variant in ["nft", "legacy"] {
        let node = Node::new(variant);
        let before = node.rules();
        let clean_up = || {
            let output = run(&node.namespace, &["--cleanup", "--kubeconfig=/nowhere"]);
            let log = text(&output.stderr);
            assert!(output.status.success(), "{variant}: {log}");
            for (now, before) in node.rules().lines().zip(before.lines()) {
                assert_eq!(now, before, "{variant}");
            }
            assert_eq!(node.rules().len(), before.len(), "{variant}");
            log
        };
        let log = clean_up();
        assert!(!log.contains("Removed"), "there is nothing to remove: {log}");
        // In this order neither removes what the other one left.
        node.crash("iptables", dir.path());
        let nft = "add table ip kube-proxy\nadd table ip6 kube-proxy";
        node.namespace.run_with_input("nft", &["-f", "-"], nft).unwrap();
        let log = clean_up();
        for line in [
            "\"Removed the nftables table that a kube-proxy left\" ip_family=\"IPv4\"",
            "\"Removed the nftables table that a kube-proxy left\" ip_family=\"IPv6\"",
            "\"Removed the iptables rules that a kube-proxy left\" ip_family=\"IPv4\"",
            "\"Removed the iptables rules that a kube-proxy left\" ip_family=\"IPv6\"",
        ] {
            assert!(log.contains(line), "{variant}: {line} is not in\n{log}");
        }
        node.crash("nftables", dir.path());
        clean_up();
    }
}

#[test]
fn what_cleanup_cannot_remove_is_named_and_fails() {
    let node = Node::new("nft");
    let mut command = node.namespace.command("setpriv");
    let output = command
        .args(["--bounding-set=-net_admin", PROGRAM, "--cleanup"])
        .output()
        .unwrap();
    let log = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    for words in [
        "encountered an error while tearing down rules",
        "the nftables tables kube-proxy could not be removed",
        "kube-proxy's chains of iptables in nf_tables could not be removed",
        "kube-proxy needs CAP_NET_ADMIN",
    ] {
        assert!(log.contains(words), "{words} is not in\n{log}");
    }
}

#[test]
fn a_lock_that_another_program_holds_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let lock = dir.path().join("xtables.lock");
    let node = Node::new("legacy");
    node.restore("iptables", "*nat\n:KUBE-SERVICES - [0:0]\nCOMMIT\n");
    let held = fs::File::create(&lock).unwrap();
    held.lock().unwrap();
    let clean_up = || {
        let mut command = node.namespace.command(PROGRAM);
        let output = command.arg("--cleanup").env("XTABLES_LOCKFILE", &lock).output();
        output.unwrap()
    };
    let output = clean_up();
    let log = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("another program has held the xtables lock"), "{log}");
    held.unlock().unwrap();
    assert!(clean_up().status.success());
    assert!(!node.rules().contains("KUBE-SERVICES"));
}

#[test]
fn init_only_makes_the_settings_of_the_kernel_and_no_rules() {
    let node = Node::new("nft");
    let before = node.rules();
    let setting = |name: &str| {
        let value = node.namespace.run("cat", &[&format!("/proc/sys/net/{name}")]);
        value.unwrap().trim().to_owned()
    };
    assert_eq!(setting("ipv4/conf/all/route_localnet"), "0");
    let arguments = [
        "--init-only",
        "--proxy-mode=nftables",
        "--kubeconfig=/nowhere",
        "--conntrack-tcp-timeout-established=2h",
        "--conntrack-tcp-be-liberal",
        "--conntrack-count-bytes",
    ];
    let output = run(&node.namespace, &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(setting("netfilter/nf_conntrack_tcp_timeout_established"), "7200");
    assert_eq!(setting("netfilter/nf_conntrack_tcp_be_liberal"), "1");
    assert_eq!(setting("netfilter/nf_conntrack_acct"), "1");
    assert_eq!(
        setting("ipv4/conf/all/route_localnet"),
        "0",
        "this mode needs none"
    );
    let output = run(&node.namespace, &["--init-only", "--proxy-mode=iptables"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(setting("ipv4/conf/all/route_localnet"), "1");
    assert_eq!(node.rules(), before);
}

#[test]
fn init_only_in_ipvs_mode_makes_the_settings_of_ipvs_or_says_that_there_is_none() {
    let node = Namespace::create("ipvs").unwrap();
    let arguments = ["--init-only", "--proxy-mode=ipvs", "--conntrack-max-per-core=0"];
    let output = run(&node, &arguments);
    let log = text(&output.stderr);
    // It makes the kernel load IPVS, so afterwards is the time to look.
    if Path::new("/proc/net/ip_vs").exists() {
        assert!(output.status.success(), "{log}");
        let set = node.run("cat", &["/proc/sys/net/ipv4/vs/expire_nodest_conn"]);
        assert_eq!(set.unwrap(), "1\n");
    } else {
        assert_eq!(output.status.code(), Some(1), "{log}");
        let reason = "\"command failed\" err=\"prepare for mode ipvs: this kernel lacks IPVS (module ip_vs, CONFIG_IP_VS)\"";
        assert!(log.contains(reason), "{log}");
        assert!(!log.contains("Cannot set a sysctl"), "{log}");
    }
    // Conntrack has its settings in either case.
    let conntrack = node.run(
        "cat",
        &["/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait"],
    );
    assert_eq!(conntrack.unwrap(), "3600\n");
}

#[test]
fn the_complete_configuration_is_written_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.conf");
    let to = format!("--write-config-to={}", path.display());
    let write = |arguments: &[&str]| Command::new(PROGRAM).args(arguments).output().unwrap();
    let output = write(&[&to, "--cluster-cidr=10.0.0.0/8", "--proxy-mode=iptables"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let written = fs::read_to_string(&path).unwrap();
    for line in [
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1",
        "clusterCIDR: 10.0.0.0/8",
        "mode: iptables",
        "metricsBindAddress: 127.0.0.1:10249",
    ] {
        assert!(
            written.lines().any(|there| there == line),
            "{line} is not in\n{written}"
        );
    }
    // What was written says the same when it is read.
    let config = format!("--config={}", path.display());
    let again = dir.path().join("again.conf");
    let output = write(&[&config, &format!("--write-config-to={}", again.display())]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(&again).unwrap(), written);

    let output = write(&["--write-config-to=/nowhere/config.conf"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("cannot write /nowhere/config.conf"),
        "{}",
        text(&output.stderr)
    );
}
