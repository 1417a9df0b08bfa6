//! The program as whoever runs it sees it: arguments, exit codes, log, servers, files and signals. Those tests
//! that program a kernel do so in a network namespace of their own. What packets do is the scenarios' business.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod iptables;
mod machine;
mod running;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use lab::net::Namespace;

use self::running::{PROGRAM, Proxy};

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
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
            "--proxy-mode=ipvs".to_owned(),
            "mode \"ipvs\" is not built yet in this kube-proxy; it has: nftables",
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

/// A load balancer's Service in both families with one endpoint here in each given family, and one elsewhere.
fn balanced(dir: &Path, port: u16, here: &[&str]) {
    let slice = |family: &str, prefix: &str| {
        let node = |here: bool| if here { "node-1" } else { "node-2" };
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: {family}\n\
             metadata: {{name: web-{family}, labels: {{kubernetes.io/service-name: web}}}}\n\
             ports: [{{name: '', port: 8080}}]\nendpoints:\n\
             - {{addresses: ['{prefix}8'], nodeName: {}}}\n- {{addresses: ['{prefix}9'], nodeName: node-2}}\n",
            node(here.contains(&family)),
        )
    };
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\nspec: {{type: LoadBalancer, \
         externalTrafficPolicy: Local, healthCheckNodePort: {port}, clusterIPs: [10.96.0.10, 'fd00::10'], \
         ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack, ports: [{{port: 80, nodePort: 30080}}]}}\n"
    );
    let slices = slice("IPv4", "10.244.0.") + &slice("IPv6", "fd01::");
    let slices = slices.replace("metadata: {", "metadata: {namespace: shop, ");
    fs::write(dir.join("web.yaml"), service + &slices).unwrap();
}

impl Proxy {
    /// Waits until this address answers with these words.
    fn answers(&self, url: &str, words: &[&str]) -> String {
        let start = Instant::now();
        loop {
            let answer = self.namespace.run("curl", &["-s", "-g", "-m", "5", "-i", url]);
            match answer {
                Ok(answer) if words.iter().all(|word| answer.contains(word)) => return answer,
                other => assert!(start.elapsed() < PATIENCE, "{url}: no {words:?} in {other:?}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until nobody listens there.
    fn is_refused(&self, url: &str) {
        let start = Instant::now();
        while self.namespace.run("curl", &["-s", "-g", "-m", "5", url]).is_ok() {
            assert!(start.elapsed() < PATIENCE, "{url} still answers");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_load_balancer_hears_on_the_health_check_node_port_how_many_endpoints_are_here() {
    let dir = tempfile::tempdir().unwrap();
    let namespace = Namespace::create("health-check").unwrap();
    balanced(dir.path(), 31000, &["IPv4"]);
    let mut proxy = Proxy::start(&namespace, &[&format!("--manifests={}", dir.path().display())]);
    let v4 = "http://127.0.0.1:31000/whatever";
    let answer = proxy.answers(v4, &["200 OK", "\"localEndpoints\": 1"]);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("X-Load-Balancing-Endpoint-Weight: 1"), "{head}");
    assert!(head.contains("Content-Type: application/json"), "{head}");
    assert!(head.contains("X-Content-Type-Options: nosniff"), "{head}");
    assert_eq!(
        body,
        "{\n\t\"service\": {\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"web\"\n\t},\n\t\
         \"localEndpoints\": 1,\n\t\"serviceProxyHealthy\": true\n}"
    );
    // Each family tells of itself.
    let v6 = "http://[::1]:31000/";
    let none = [
        "503 Service Unavailable",
        "\"localEndpoints\": 0",
        "Endpoint-Weight: 0",
    ];
    proxy.answers(v6, &none);

    balanced(dir.path(), 31000, &["IPv6"]);
    proxy.answers(v4, &none);
    proxy.answers(v6, &["200 OK", "\"localEndpoints\": 1"]);

    // The other port is somebody else's in one family: the other family answers all the same.
    let taken = namespace
        .enter(|| std::net::TcpListener::bind("0.0.0.0:31001"))
        .unwrap()
        .unwrap();
    balanced(dir.path(), 31001, &["IPv4", "IPv6"]);
    proxy.answers("http://[::1]:31001/", &["200 OK"]);
    proxy.is_refused(v4);
    proxy.is_refused(v6);
    drop(taken);
    proxy.answers("http://127.0.0.1:31001/", &["200 OK"]);

    fs::remove_file(dir.path().join("web.yaml")).unwrap();
    proxy.is_refused("http://127.0.0.1:31001/");
    proxy.process.kill().unwrap();
    let (_, log) = proxy.ends();
    assert!(
        log.contains("Failed to start healthcheck; trying again every 5 s\" service=\"shop/web\" address=\"0.0.0.0:31001\""),
        "{log}"
    );
}
