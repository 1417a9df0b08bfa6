//! `kube-proxy plan`: what it prints, and what it says of a kernel. What touches a kernel does so in a network namespace of
//! its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::fs;
use std::net::TcpListener;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use lab::api::{Credential, Server as Api};
use lab::net::{Namespace, Process};
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-proxy");
/// Long, because the legacy variant of iptables has one lock for all namespaces of a machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A Service of both families with these endpoints in IPv4, one in IPv6, and source ranges.
fn objects(endpoints: &[&str]) -> String {
    let slice = |family: &str, ips: &[&str]| {
        let endpoints: Vec<String> = ips.iter().map(|ip| format!("{{addresses: ['{ip}']}}")).collect();
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: {family}\n\
             metadata: {{name: web-{}, namespace: default, labels: {{kubernetes.io/service-name: web}}}}\n\
             ports: [{{name: '', port: 8080}}]\nendpoints: [{}]\n",
            family.to_lowercase(),
            endpoints.join(", ")
        )
    };
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: default}\nspec: {type: LoadBalancer, \
        clusterIP: 10.96.0.10, clusterIPs: [10.96.0.10, 'fd00:96::10'], ipFamilies: [IPv4, IPv6], \
        loadBalancerSourceRanges: [192.0.2.0/24], ports: [{port: 80, nodePort: 30080}]}\n\
        status: {loadBalancer: {ingress: [{ip: 203.0.113.1}]}}\n";
    let cidr = "---\napiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: kubernetes}\n\
        spec: {cidrs: [10.96.0.0/16, 'fd00:96::/112']}\n";
    [
        service,
        &slice("IPv4", endpoints),
        &slice("IPv6", &["fd00:10:244::9"]),
        cidr,
    ]
    .concat()
}

/// A node without a proxy, and the manifests for it.
struct Node {
    namespace: Namespace,
    folder: TempDir,
    mode: &'static str,
}

impl Node {
    fn new(mode: &'static str) -> Self {
        let namespace = Namespace::create("plan").unwrap();
        namespace.run("ip", &["link", "set", "lo", "up"]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let node = Self {
            namespace,
            folder,
            mode,
        };
        node.write(&["10.244.0.9"]);
        node
    }

    fn write(&self, endpoints: &[&str]) {
        fs::write(self.folder.path().join("web.yaml"), objects(endpoints)).unwrap();
    }

    fn arguments(&self) -> [String; 4] {
        [
            format!("--proxy-mode={}", self.mode),
            format!("--manifests={}", self.folder.path().display()),
            "--hostname-override=node-1".to_owned(),
            "--cluster-cidr=10.244.0.0/16,fd00:10:244::/48".to_owned(),
        ]
    }

    fn plan(&self, arguments: &[&str]) -> Output {
        let mut command = self.namespace.command(PROGRAM);
        command.arg("plan").args(self.arguments()).args(arguments);
        command.output().unwrap()
    }

    /// Plans, and expects this exit code; what was printed.
    fn prints(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.plan(arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{}\n{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Compares until the kernel is as it should be.
    fn settles(&self) {
        let start = Instant::now();
        loop {
            let output = self.plan(&["--diff"]);
            if output.status.success() {
                assert_eq!(text(&output.stdout), "");
                return;
            }
            let found = format!("{}\n{}", text(&output.stdout), text(&output.stderr));
            assert!(start.elapsed() < PATIENCE, "{} differs:\n{found}", self.mode);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn proxy(&self) -> Process {
        let mut command = self.namespace.command(PROGRAM);
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        command.args(self.arguments()).stderr(Stdio::from(log));
        Process::start(command).unwrap()
    }

    fn nft(&self, command: &str) {
        self.namespace
            .run_with_input("nft", &["-f", "-"], command)
            .unwrap();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(
            text.lines().any(|there| there == *line),
            "{line:?} is not in\n{text}"
        );
    }
}

const NFTABLES: [&str; 6] = [
    "ip kube-proxy map service-ips",
    "    10.96.0.10 . tcp . 80 comment \"default/web\" : goto endpoints-1-masquerade-host-outside",
    "    10.96.0.10 . tcp . 80 . 0 : 10.244.0.9 . 8080",
    "    10.96.0.0/16",
    "    203.0.113.1 . tcp . 80 . 192.0.2.0/24",
    "ip6 kube-proxy map service-ips",
];

#[test]
fn a_plan_is_printed_without_rights_and_changes_nothing() {
    for (mode, lines) in [
        ("nftables", &NFTABLES[..]),
        (
            "iptables",
            &[
                "ip nat chain KUBE-SERVICES",
                "ip6 nat chain KUBE-SERVICES",
                "    -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
                "ip filter chain KUBE-PROXY-FIREWALL",
            ],
        ),
        (
            "ipvs",
            &[
                "ip ipvs virtual server TCP 10.96.0.10:80",
                "    10.244.0.9:8080 weight 1",
            ],
        ),
    ] {
        let node = Node::new(mode);
        let mut command = node.namespace.command("setpriv");
        command.args(["--bounding-set=-all", PROGRAM, "plan"]);
        let output = command.args(node.arguments()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let printed = text(&output.stdout);
        has(&printed, lines);
        let json: Value = serde_json::from_str(&node.prints(0, &["--output=json"])).unwrap();
        assert_eq!(json["mode"], mode);
        let places = json["plan"].as_array().unwrap();
        for place in printed.lines().filter(|line| !line.starts_with(' ')) {
            let is_here = |listed: &&Value| {
                let word = |key: &str| listed[key].as_str().unwrap().to_owned();
                ["family", "table", "kind", "name"].map(word).join(" ") == place
            };
            assert!(places.iter().any(|listed| is_here(&listed)), "{place}");
        }
        assert_eq!(node.namespace.run("nft", &["list", "ruleset"]).unwrap(), "");
    }
}

#[test]
fn an_api_server_is_read_once() {
    let node = Node::new("nftables");
    let listener = node.namespace.enter(|| TcpListener::bind("127.0.0.1:6443"));
    let api = Api::builder()
        .listener(listener.unwrap().unwrap())
        .start()
        .unwrap();
    for object in objects(&["10.244.0.9"]).split("---\n") {
        api.apply(object).unwrap();
    }
    let kubeconfig = api.kubeconfig(Credential::Token).unwrap();
    let mut command = node.namespace.command(PROGRAM);
    command.args(["plan", "--proxy-mode=nftables", "--hostname-override=node-1"]);
    command.args(["--cluster-cidr=10.244.0.0/16,fd00:10:244::/48"]);
    let output = command
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    has(&text(&output.stdout), &NFTABLES);
}

#[test]
fn what_another_hand_did_to_the_nftables_mode_is_named() {
    let node = Node::new("nftables");
    let all = node.prints(1, &["--diff"]);
    has(&all, &["+ ip kube-proxy map service-ips"]);
    assert!(!all.contains("\n-"), "{all}");
    let proxy = node.proxy();
    node.settles();
    // The endpoints are not in the slots that a new proxy would give them.
    node.write(&["10.244.0.7", "10.244.0.8", "10.244.0.9"]);
    node.settles();
    node.write(&["10.244.0.6", "10.244.0.8", "10.244.0.9"]);
    node.settles();
    drop(proxy);

    node.nft("delete element ip kube-proxy service-ips { 10.96.0.10 . tcp . 80 }");
    node.nft("delete element ip kube-proxy service-endpoints { 10.96.0.10 . tcp . 80 . 1 }");
    node.nft("add element ip kube-proxy cluster-ips { 10.96.0.99 }");
    node.nft("delete element ip kube-proxy service-cidrs { 10.96.0.0/16 }");
    node.nft("add element ip kube-proxy service-cidrs { 10.96.0.0/17 }");
    node.nft("flush chain ip6 kube-proxy nat-prerouting");
    node.nft("add chain ip kube-proxy theirs");
    node.nft("insert rule ip kube-proxy firewall-check counter");
    let found = node.prints(1, &["--diff"]);
    let cluster_ip =
        "10.96.0.10 . tcp . 80 comment \"default/web\" : goto endpoints-3-masquerade-host-outside";
    has(
        &found,
        &[
            "  ip kube-proxy map service-ips",
            &format!("+     {cluster_ip}"),
            "  ip kube-proxy map service-endpoints",
            "  ip kube-proxy set cluster-ips",
            "-     10.96.0.99",
            "-     10.96.0.0/17",
            "+     10.96.0.0/16",
            "  ip6 kube-proxy chain nat-prerouting",
            "+     jump services",
            "- ip kube-proxy chain theirs",
            "  ip kube-proxy chain firewall-check",
            "-     [counter]",
        ],
    );
    let endpoints = found.lines().filter(|line| line.contains(". 8080"));
    assert_eq!(endpoints.count(), 1, "one endpoint is missing: {found}");
    let json: Value = serde_json::from_str(&node.prints(1, &["--diff", "--output", "json"])).unwrap();
    let differences = json["differences"].as_array().unwrap();
    let of = |name: &str| {
        let named = differences.iter().find(|difference| difference["name"] == name);
        named.unwrap_or_else(|| panic!("{name} is not in {json}"))
    };
    assert_eq!(of("service-ips")["missing"][0], cluster_ip);
    assert_eq!(of("theirs")["wanted"], false);

    // Whoever starts again puts it right.
    let _proxy = node.proxy();
    node.settles();
}

#[test]
fn what_another_hand_did_to_the_iptables_mode_is_named() {
    for variant in ["nft", "legacy"] {
        let node = Node::new("iptables");
        let program = |family: &str| format!("{family}-{variant}");
        let iptables = |family: &str, arguments: &str| {
            let arguments: Vec<&str> = ["-w", "120"].into_iter().chain(arguments.split(' ')).collect();
            node.namespace.run(&program(family), &arguments).unwrap()
        };
        for family in ["iptables", "ip6tables"] {
            // The node uses this variant.
            iptables(family, "-t mangle -N KUBE-IPTABLES-HINT");
        }
        let proxy = node.proxy();
        node.settles();
        node.write(&["10.244.0.8", "10.244.0.9"]);
        node.settles();
        drop(proxy);
        iptables("iptables", "-t filter -A FORWARD -p tcp --dport 22 -j ACCEPT");
        node.settles();

        iptables("iptables", "-t nat -F KUBE-NODEPORTS");
        iptables("iptables", "-t nat -N KUBE-SVC-STALE");
        iptables("iptables", "-t filter -A OUTPUT -j KUBE-SERVICES");
        iptables("ip6tables", "-t nat -F KUBE-POSTROUTING");
        let found = node.prints(1, &["--diff"]);
        has(
            &found,
            &[
                "  ip nat chain KUBE-NODEPORTS",
                "- ip nat chain KUBE-SVC-STALE",
                "  ip filter chain OUTPUT",
                "-     -j KUBE-SERVICES",
                "  ip6 nat chain KUBE-POSTROUTING",
                "+     -j MARK --set-xmark 0x4000/0x0",
            ],
        );
        assert!(found.contains("default/web"), "{variant}: {found}");
    }
}

#[test]
fn trouble_has_a_status_of_its_own() {
    let node = Node::new("nftables");
    let mut command = node.namespace.command("setpriv");
    command.args(["--bounding-set=-net_admin", PROGRAM, "plan", "--diff"]);
    let output = command.args(node.arguments()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("kube-proxy needs CAP_NET_ADMIN"));
    for (arguments, code, message) in [
        (&["plan", "--nope"][..], 2, "Error: unknown flag: --nope"),
        (&["plan", "--output=yaml"], 2, "must be text or json"),
        (&["plan", "--proxy-mode=x"], 2, "must be iptables, ipvs, nftables"),
        (
            &["plan", "--kubeconfig=/nowhere"],
            2,
            "cannot read kubeconfig /nowhere",
        ),
        (&["--diff"], 1, "Error: unknown flag: --diff"),
        (&["--cleanup", "plan"], 1, "does not take any arguments"),
    ] {
        let output = node.namespace.command(PROGRAM).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains(message), "{arguments:?}: {said}");
    }
}
