//! What must not cost a connection: a crash, an update, another hand. Here are the stage and the traffic that runs
//! through such an event: from a pod, the node itself and outside, to a ClusterIP, a node port and a load balancer's
//! IP, over new connections all the time and over held ones.

mod crash;
mod drift;
mod held;
mod hostile;
mod overlap;
mod soak;

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
/// Between two requests of one client.
const PACE: Duration = Duration::from_millis(6);
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

    /// The Service `web` and the Node.
    fn objects(&self) -> String {
        let endpoint = |name: &str| self.member(name).ip(Family::V4);
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  type: LoadBalancer\n  clusterIP: {ip}\n\
             \x20 ports:\n  - {{name: tcp, port: 80, targetPort: 8080, nodePort: 30080}}\n\
             \x20 - {{name: udp, port: 80, targetPort: 8080, nodePort: 30080, protocol: UDP}}\n\
             status: {{loadBalancer: {{ingress: [{{ip: {lb}}}]}}}}\n---\napiVersion: discovery.k8s.io/v1\n\
             kind: EndpointSlice\naddressType: IPv4\n\
             metadata: {{name: web-1, labels: {{kubernetes.io/service-name: web}}}}\n\
             ports: [{{name: tcp, port: 8080}}, {{name: udp, port: 8080, protocol: UDP}}]\n\
             endpoints: [{{addresses: [{a}], nodeName: node-1}}, {{addresses: [{b}], nodeName: node-2}}]\n---\n\
             apiVersion: v1\nkind: Node\nmetadata: {{name: node-1}}\n\
             status: {{addresses: [{{type: InternalIP, address: {node}}}]}}\n",
            ip = self.cluster_ip().ip(),
            lb = self.load_balancer_ip().ip(),
            a = endpoint("a"),
            b = endpoint("b"),
            node = endpoint("node-1"),
        )
    }

    fn member(&self, name: &str) -> &Member {
        self.lab.member(name).unwrap()
    }

    fn node(&self) -> &Namespace {
        &self.member("node-1").namespace
    }

    fn cluster_ip(&self) -> SocketAddr {
        SocketAddr::new(cluster_ip(1, Family::V4), 80)
    }

    fn load_balancer_ip(&self) -> SocketAddr {
        SocketAddr::new(load_balancer_ip(1, Family::V4), 80)
    }

    fn node_port(&self) -> SocketAddr {
        SocketAddr::new(self.member("node-1").ip(Family::V4), 30080)
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
        let pods = format!("--cluster-cidr={}", network::pods(Family::V4));
        Proxy::start(self.node(), &["--proxy-mode=nftables", &pods, &kubeconfig])
    }

    fn start(&self, mode: &str) -> Proxy {
        let mode = format!("--proxy-mode={mode}");
        let pods = format!("--cluster-cidr={}", network::pods(Family::V4));
        Proxy::start(self.node(), &[&mode, &pods, &self.manifests.argument])
    }

    /// Traffic of every kind, once each kind has had an answer.
    fn traffic(&self) -> Traffic {
        let (x, node, client) = ("x", "node-1", "client");
        let mut flows = Vec::new();
        for (from, to) in [
            (x, self.cluster_ip()),
            (node, self.cluster_ip()),
            (x, self.node_port()),
            (client, self.node_port()),
            (client, self.load_balancer_ip()),
        ] {
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
