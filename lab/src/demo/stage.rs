//! What the demo happens on: the lab, the API, a kube-proxy on each node, and the pods of my-app.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::traffic::Path;
use crate::api::{Credential, Server as Api};
use crate::net::{Family, Lab, Topology, address};
use crate::proxy::{self, KubeProxy, Setup, Source};
use crate::serve::Server;

/// The Service and its endpoints, as the demo starts.
pub(super) const SERVICE: &str = include_str!("../../../examples/my-app/service.yaml");
pub(super) const SLICES: &str = include_str!("../../../examples/my-app/endpointslices.yaml");

/// The pods of my-app in the order in which they are scaled up, each with its node.
pub(super) const PODS: [(&str, u8); 5] = [
    ("my-app-1", 1),
    ("my-app-2", 2),
    ("my-app-3", 1),
    ("my-app-4", 2),
    ("my-app-5", 1),
];
/// The pod that asks.
const CLIENT_POD: (&str, u8) = ("pod", 1);
const PORT: u16 = 8080;
/// Addresses of examples/my-app/service.yaml.
const NUMBER: u8 = 10;
const SERVICE_PORT: u16 = 80;
const NODE_PORT: u16 = 30080;

/// Everything that is running.
pub(super) struct Stage {
    // The processes before the lab, so that they end first.
    proxies: BTreeMap<String, KubeProxy>,
    servers: BTreeMap<&'static str, Server>,
    pub(super) lab: Lab,
    api: Api,
    setup: Setup,
    _folder: TempDir,
}

impl Stage {
    /// Lays out the network and starts the API; no kube-proxy runs yet.
    pub(super) fn set(program: PathBuf) -> Result<Self> {
        let mut pods = PODS.to_vec();
        pods.push(CLIENT_POD);
        let lab = Lab::build(&Topology::with_pods(&pods))?;
        let listen = || TcpListener::bind((address::fabric(Family::V4), 6443));
        let listener = lab.fabric().enter(listen)?.context("listen in the fabric")?;
        let api = Api::builder().listener(listener).start()?;
        for node in lab.nodes() {
            api.apply(&node_object(&node.name, node.ip(Family::V4), node.ip(Family::V6)).to_string())?;
        }
        let folder = tempfile::Builder::new()
            .prefix("kube-proxy-demo-")
            .tempdir()
            .context("make a folder")?;
        let setup = Setup {
            program,
            folder: folder.path().to_owned(),
            source: Source::Api(api.kubeconfig(Credential::Token)?),
            config: proxy::config("nftables"),
        };
        let mut stage = Self {
            proxies: BTreeMap::new(),
            servers: BTreeMap::new(),
            lab,
            api,
            setup,
            _folder: folder,
        };
        stage.api.apply(SERVICE)?;
        stage.serve(3)?;
        stage.api.apply(SLICES)?;
        Ok(stage)
    }

    /// Starts a kube-proxy on every node.
    pub(super) fn start_proxies(&mut self) -> Result<()> {
        for node in self.lab.nodes() {
            self.proxies
                .insert(node.name.clone(), KubeProxy::start(node, &self.setup)?);
        }
        Ok(())
    }

    /// Kills them, as a crash would.
    pub(super) fn kill_proxies(&mut self) {
        self.proxies.clear();
    }

    /// Fails with the log of a kube-proxy that has ended.
    pub(super) fn check_proxies(&mut self) -> Result<()> {
        for (node, proxy) in &mut self.proxies {
            anyhow::ensure!(
                proxy.is_running(),
                "the kube-proxy of {node} has ended:\n{}",
                proxy.log()
            );
        }
        Ok(())
    }

    /// Starts the servers of the first `count` pods that do not run yet.
    pub(super) fn serve(&mut self, count: usize) -> Result<()> {
        for (pod, _) in PODS.iter().take(count) {
            if !self.servers.contains_key(pod) {
                self.servers
                    .insert(pod, Server::start(self.lab.member(pod)?, &[PORT])?);
            }
        }
        Ok(())
    }

    /// Stops the servers of all but the first `count` pods.
    pub(super) fn unserve(&mut self, count: usize) {
        let kept: Vec<_> = PODS.iter().take(count).map(|(pod, _)| *pod).collect();
        self.servers.retain(|pod, _| kept.contains(pod));
    }

    /// Tells the API that the first `count` pods are the endpoints.
    pub(super) fn publish(&self, count: usize) -> Result<()> {
        for family in Family::ALL {
            self.api.apply(&self.slice(family, count)?.to_string())?;
        }
        Ok(())
    }

    fn slice(&self, family: Family, count: usize) -> Result<Value> {
        let endpoint = |(pod, node): &(&str, u8)| -> Result<Value> {
            Ok(json!({
                "addresses": [self.lab.member(pod)?.ip(family)],
                "nodeName": format!("node-{node}"),
                "conditions": { "ready": true },
            }))
        };
        let endpoints = PODS
            .iter()
            .take(count)
            .map(endpoint)
            .collect::<Result<Vec<_>>>()?;
        Ok(json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("my-app-{}", family.pick("ipv4", "ipv6")),
                "labels": { "kubernetes.io/service-name": "my-app" },
            },
            "addressType": family.to_string(),
            "ports": [{ "name": "", "port": PORT, "protocol": "TCP" }],
            "endpoints": endpoints,
        }))
    }

    /// The ways to the Service: from a pod, from the host and from outside, to each kind of address.
    pub(super) fn paths(&self) -> Result<Vec<Path>> {
        let cluster_ip = |family| SocketAddr::new(address::cluster_ip(NUMBER, family), SERVICE_PORT);
        let load_balancer = SocketAddr::new(address::load_balancer_ip(NUMBER, Family::V4), SERVICE_PORT);
        let node_port = SocketAddr::new(address::node(2, Family::V4), NODE_PORT);
        let mut paths = Vec::new();
        for (from, member) in [("pod", CLIENT_POD.0), ("host", "node-1"), ("outside", "client")] {
            for (kind, to) in [
                ("ClusterIP", cluster_ip(Family::V4)),
                ("ClusterIP", cluster_ip(Family::V6)),
                ("NodePort", node_port),
                ("load balancer", load_balancer),
            ] {
                // Outside a cluster nobody uses ClusterIPs.
                if from == "outside" && kind == "ClusterIP" {
                    continue;
                }
                let namespace = self.lab.member(member)?.namespace.clone();
                paths.push(Path {
                    from,
                    kind,
                    to,
                    namespace,
                });
            }
        }
        Ok(paths)
    }

    /// The kubeconfig of the API, which is reached from the lab only.
    pub(super) fn kubeconfig(&self) -> Result<PathBuf> {
        self.api.kubeconfig(Credential::Token)
    }

    /// Resident memory in bytes and CPU time of each node's kube-proxy.
    pub(super) fn costs(&self) -> Vec<(String, u64, Duration)> {
        let cost = |(node, proxy): (&String, &KubeProxy)| {
            let (memory, cpu) = cost_of(proxy.id())?;
            Some((node.clone(), memory, cpu))
        };
        self.proxies.iter().filter_map(cost).collect()
    }
}

/// Resident memory in bytes and CPU time of a process; `None` when it is gone.
fn cost_of(process: u32) -> Option<(u64, Duration)> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = resident.split_whitespace().next()?.parse().ok()?;
    let times = fs::read_to_string(format!("/proc/{process}/schedstat")).ok()?;
    let nanoseconds = times.split_whitespace().next()?.parse().ok()?;
    Some((kilobytes * 1024, Duration::from_nanos(nanoseconds)))
}

fn node_object(name: &str, v4: IpAddr, v6: IpAddr) -> Value {
    let addresses = [v4, v6].map(|ip| json!({ "type": "InternalIP", "address": ip }));
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name },
        "status": { "addresses": addresses },
    })
}
