//! What must not cost a connection: a crash, an update, another hand. Here are the stage and the traffic that runs
//! through such an event: from a pod, the node itself and outside, to a ClusterIP, a node port and a load balancer's
//! IP, of both families, over new connections all the time and over held ones.

mod crash;
mod drift;
mod held;
mod hostile;
mod overlap;
mod soak;
mod trouble;

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use lab::api::{self, Credential};
use lab::net::address::{cluster_ip, fabric, load_balancer_ip};
use lab::net::{Family, Lab, Member, Namespace, Topology, network};
use lab::probe::{Protocol, Request, Steady};
use lab::serve::Server;

use super::machine::Manifests;
use super::running::Proxy;

/// Far more than any answer takes: only what never comes fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two requests of one client, of whom there are forty.
const PACE: Duration = Duration::from_millis(12);
/// For elements that outlive what led to them, and then for chains.
const RETIREMENT: Duration = Duration::from_secs(3);
const IN_FORCE: &str = "SyncProxyRules complete for the first time";

/// Two nodes, pods `x` and `y`, and a Service with the endpoints `a` and `b`. `node-1` is the one to proxy.
struct Stage {
    lab: Lab,
    manifests: Manifests,
    _servers: [Server; 2],
}

impl Stage {
    fn new() -> Self {
        let lab = Lab::build(&Topology::with_pods(&[("x", 1), ("a", 1), ("b", 2), ("c", 2)])).unwrap();
        let servers = ["a", "b"].map(|name| Server::start(lab.member(name).unwrap(), &[8080]).unwrap());
        let manifests = Manifests::new(&[]);
        let stage = Self {
            lab,
            manifests,
            _servers: servers,
        };
        stage.write("");
        stage
    }

    /// The Service `web`, and what else is given.
    fn write(&self, more: &str) {
        self.manifests.write(&[self.objects(), more.to_owned()]);
    }

    /// The Service `web`, of both families, and the Node.
    fn objects(&self) -> String {
        let [v4, v6] = Family::ALL;
        let slice = |family: Family| {
            let endpoint = |name: &str| self.member(name).ip(family);
            format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: {family}\n\
                 metadata: {{name: web-{family}, labels: {{kubernetes.io/service-name: web}}}}\n\
                 ports: [{{name: tcp, port: 8080}}, {{name: udp, port: 8080, protocol: UDP}}]\n\
                 endpoints: [{{addresses: ['{a}'], nodeName: node-1}}, {{addresses: ['{b}'], nodeName: node-2}}]\n---\n",
                a = endpoint("a"),
                b = endpoint("b"),
            )
            .replace("web-IPv", "web-v")
        };
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  type: LoadBalancer\n  clusterIP: {ip}\n\
             \x20 clusterIPs: [{ip}, '{ip6}']\n  ipFamilies: [IPv4, IPv6]\n  ipFamilyPolicy: RequireDualStack\n\
             \x20 ports:\n  - {{name: tcp, port: 80, targetPort: 8080, nodePort: 30080}}\n\
             \x20 - {{name: udp, port: 80, targetPort: 8080, nodePort: 30080, protocol: UDP}}\n\
             status: {{loadBalancer: {{ingress: [{{ip: {lb}}}, {{ip: '{lb6}'}}]}}}}\n---\n{slices}\
             apiVersion: v1\nkind: Node\nmetadata: {{name: node-1}}\n\
             status: {{addresses: [{{type: InternalIP, address: {node}}}, {{type: InternalIP, address: '{node6}'}}]}}\n",
            ip = self.cluster_ip(v4).ip(),
            ip6 = self.cluster_ip(v6).ip(),
            lb = self.load_balancer_ip(v4).ip(),
            lb6 = self.load_balancer_ip(v6).ip(),
            slices = Family::ALL.map(slice).concat(),
            node = self.member("node-1").ip(v4),
            node6 = self.member("node-1").ip(v6),
        )
    }

    fn member(&self, name: &str) -> &Member {
        self.lab.member(name).unwrap()
    }

    fn node(&self) -> &Namespace {
        &self.member("node-1").namespace
    }

    fn cluster_ip(&self, family: Family) -> SocketAddr {
        SocketAddr::new(cluster_ip(1, family), 80)
    }

    fn load_balancer_ip(&self, family: Family) -> SocketAddr {
        SocketAddr::new(load_balancer_ip(1, family), 80)
    }

    fn node_port(&self, family: Family) -> SocketAddr {
        SocketAddr::new(self.member("node-1").ip(family), 30080)
    }

    /// The networks of pods, as an argument.
    fn pods() -> String {
        format!("--cluster-cidr={}", Family::ALL.map(network::pods).join(","))
    }

    /// An API server with these objects, where the nodes reach it.
    fn api(&self) -> api::Server {
        let listen = || TcpListener::bind((fabric(Family::V4), 6443));
        let listener = self.lab.fabric().enter(listen).unwrap().unwrap();
        let server = api::Server::builder().listener(listener).start().unwrap();
        server.apply(&self.objects()).unwrap();
        server
    }

    /// A kube-proxy in nftables mode that is told by an API server.
    fn start_by(&self, api: &api::Server) -> Proxy {
        let kubeconfig = api.kubeconfig(Credential::Token).unwrap();
        let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
        Proxy::start(
            self.node(),
            &["--proxy-mode=nftables", &Self::pods(), &kubeconfig],
        )
    }

    fn start(&self, mode: &str) -> Proxy {
        let mode = format!("--proxy-mode={mode}");
        Proxy::start(self.node(), &[&mode, &Self::pods(), &self.manifests.argument])
    }

    /// Traffic of every kind, once each kind has had an answer.
    fn traffic(&self) -> Traffic {
        let (x, node, client) = ("x", "node-1", "client");
        let mut flows = Vec::new();
        let ways = Family::ALL.map(|family| {
            [
                (x, self.cluster_ip(family)),
                (node, self.cluster_ip(family)),
                (x, self.node_port(family)),
                (client, self.node_port(family)),
                (client, self.load_balancer_ip(family)),
            ]
        });
        for (from, to) in ways.concat() {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let request = Request {
                    protocol,
                    to,
                    timeout: PATIENCE,
                };
                let from_here = &self.member(from).namespace;
                let what = format!("{protocol} {to} from {from}");
                let held = Steady::start_from_one_port(from_here, request, PACE);
                flows.push((format!("held {what}"), held));
                flows.push((format!("new {what}"), Steady::start(from_here, request, PACE)));
            }
        }
        for (_, flow) in &flows {
            flow.finish_one(PATIENCE).unwrap();
        }
        Traffic(flows)
    }
}

struct Traffic(Vec<(String, Steady)>);

impl Traffic {
    /// Ends it: every request was answered, by the same server where a flow was held. How many there were.
    fn was_never_disturbed(self) -> usize {
        let mut answered = 0;
        for (what, flow) in self.0 {
            let report = flow.stop_after(3).unwrap();
            assert!(report.failures.is_empty(), "{what}: {:?}", report.failures);
            answered += report.shares.answered();
        }
        answered
    }
}
