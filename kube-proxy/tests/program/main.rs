//! The program as whoever runs it sees it: arguments, exit codes, log, servers, files and signals. Those tests
//! that program a kernel do so in a network namespace of their own. What packets do is the scenarios' business.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod about;
mod api_server;
mod bytes;
mod bytes_cost;
mod connections;
mod continuity;
mod documents;
mod exposition;
mod health_checks;
mod iptables;
mod machine;
mod metrics;
mod privileges;
mod running;
mod settings;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use lab::net::Namespace;

use self::running::{PROGRAM, Proxy};

/// In a namespace of its own: what is refused late has made settings of the kernel by then.
fn run(arguments: &[&str]) -> Output {
    let mut command = Namespace::create("alone").unwrap().command(PROGRAM);
    command.args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_and_version_are_printed_and_nothing_else_is_done() {
    let help = run(&["--help"]);
    assert!(help.status.success());
    assert!(text(&help.stdout).contains("Usage:\n  kube-proxy [flags]"));
    let version = run(&["--version"]);
    assert!(version.status.success());
    // Scripts take the second word.
    assert_eq!(
        text(&version.stdout),
        concat!("kube-proxy v", env!("CARGO_PKG_VERSION"), "\n")
    );
    assert_eq!(
        text(&run(&["--version=raw"]).stdout),
        concat!(env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn a_start_that_cannot_be_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        format!("--config={}", path.display())
    };
    let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
    let table = [
        ("--nope".to_owned(), "Error: unknown flag: --nope"),
        (
            "serve".to_owned(),
            "Error: \"kube-proxy\" does not take any arguments, got [\"serve\"]",
        ),
        (
            "--proxy-mode=userspace".to_owned(),
            "Invalid value: \"userspace\": must be iptables, ipvs, nftables or blank",
        ),
        (
            "--metrics-port=0".to_owned(),
            "Error: KubeProxyConfiguration.MetricsBindAddress: Invalid value",
        ),
        (
            "--logging-format=xml".to_owned(),
            "Error: KubeProxyConfiguration.logging.format: Invalid value: \"xml\": Unsupported log format",
        ),
        (
            "--config=/nowhere".to_owned(),
            "Error: failed to read configuration file /nowhere: No such file",
        ),
        (
            file("a", "mode: nftables"),
            "Error: failed to decode: apiVersion: is missing",
        ),
        (
            file("b", &format!("{head}clusterCIDR: [1]")),
            "Error: failed to decode: clusterCIDR: invalid type",
        ),
        (
            file("c", &format!("{head}bindAddress: x")),
            "Error: KubeProxyConfiguration.BindAddress: Invalid value",
        ),
        (
            "--kubeconfig=/nowhere".to_owned(),
            "\"command failed\" err=\"cannot read kubeconfig /nowhere",
        ),
    ];
    for (argument, message) in table {
        let output = run(&[&argument]);
        assert_eq!(output.status.code(), Some(1), "{argument}");
        let error = text(&output.stderr);
        assert!(error.contains(message), "{argument}: {error}");
        let is_usage = argument == "--nope" || argument == "serve";
        assert_eq!(
            error.contains("Usage:\n  kube-proxy [flags]"),
            is_usage,
            "{argument}"
        );
    }
}

fn service(dir: &Path, ip: &str) {
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
        metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}\n\
        ports: [{name: '', port: 8080}]\nendpoints: [{addresses: [10.244.0.9]}]\n";
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}\n"
    );
    fs::write(dir.join("web.yaml"), format!("{service}---\n{slice}")).unwrap();
}

#[test]
fn rules_follow_the_manifests_and_stay_when_the_program_is_told_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let manifests = format!("--manifests={}", dir.path().display());
    let namespace = Namespace::create("program").unwrap();
    service(dir.path(), "10.96.0.10");
    let mut proxy = Proxy::start(&namespace, &[&manifests]);
    proxy.programs("10.96.0.10 . tcp . 80 . 0 : 10.244.0.9 . 8080");
    service(dir.path(), "10.96.0.11");
    proxy.programs("10.96.0.11 . tcp . 80 . 0 : 10.244.0.9 . 8080");

    assert!(proxy.get(10256, "/healthz").starts_with("HTTP/1.1 200 OK"));
    assert!(proxy.get(10249, "/proxyMode").ends_with("\r\n\r\nnftables"));
    let metrics = proxy.get(10249, "/metrics");
    assert!(
        metrics.contains("kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"}"),
        "{metrics}"
    );

    let id = proxy.process.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let (code, log) = proxy.ends();
    assert_eq!(code, Some(143));
    for line in [
        "\"No proxy mode is configured\" mode=\"nftables\" reason=\"this kernel has all that nftables mode needs\"",
        "\"Using nftables Proxier\"",
        "\"Can't determine this node's IP, assuming loopback",
        "\"Detect-local-mode set to ClusterCIDR, but no cluster CIDR specified\"",
        "\"SyncProxyRules complete\"",
    ] {
        assert!(log.contains(line), "{line} is not in\n{log}");
    }
    proxy.programs("10.96.0.11");

    service(dir.path(), "10.96.0.12");
    let successor = Proxy::start(&namespace, &[&manifests]);
    successor.programs("10.96.0.12 . tcp . 80 . 0");
    let table = namespace
        .run("nft", &["list", "table", "ip", "kube-proxy"])
        .unwrap();
    assert!(!table.contains("10.96.0.11"), "{table}");
}

#[test]
fn a_changed_configuration_file_ends_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.conf");
    let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nclusterCIDR: 10.0.0.0/8\n";
    fs::write(&config, text).unwrap();
    service(dir.path(), "10.96.0.10");
    let namespace = Namespace::create("config").unwrap();
    let arguments = [
        format!("--config={}", config.display()),
        format!("--manifests={}", dir.path().display()),
    ];
    let mut proxy = Proxy::start(&namespace, &[&arguments[0], &arguments[1]]);
    proxy.programs("10.96.0.10");
    fs::write(&config, format!("{text}oomScoreAdj: 0\n")).unwrap();
    let (code, log) = proxy.ends();
    assert_eq!(code, Some(1));
    assert!(
        log.contains("content of the proxy server's configuration file was updated"),
        "{log}"
    );
}

#[test]
fn without_permission_the_program_names_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    service(dir.path(), "10.96.0.10");
    let namespace = Namespace::create("powerless").unwrap();
    let mut command = namespace.command("setpriv");
    command.args(["--bounding-set=-net_admin", PROGRAM]);
    let output = command
        .arg(format!("--manifests={}", dir.path().display()))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("kube-proxy needs CAP_NET_ADMIN"), "{error}");
}

#[test]
fn a_taken_port_is_waited_for_and_is_fatal_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let manifests = format!("--manifests={}", dir.path().display());
    let namespace = Namespace::create("ports").unwrap();
    let first = Proxy::start(&namespace, &[&manifests]);
    first.programs("table ip kube-proxy");
    let mut hard = Proxy::start(&namespace, &[&manifests, "--bind-address-hard-fail"]);
    let (code, log) = hard.ends();
    assert_eq!(code, Some(1));
    assert!(log.contains("Address already in use"), "{log}");
}
