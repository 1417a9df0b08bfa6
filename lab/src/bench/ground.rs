//! Where a kube-proxy is measured: one node with three pods, of which one asks and two answer on as many addresses
//! as there are endpoints; and beside it, for the whole run, the namespace of the Kubernetes API.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};

use super::objects::{CLUSTER_IPS, FAR, NEAR, TARGET_PORT};
use crate::net::{Family, Lab, Member, Namespace, Topology};
use crate::probe::Door;

/// The API's address.
pub(super) const API: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 77, 1));
/// The name of the link to the node, in the API's namespace.
const LINK: &str = "node";

/// The namespace of the API. It outlives the nodes, so that a cluster is loaded only once.
#[derive(Debug)]
pub(super) struct ApiSite(Namespace);

impl ApiSite {
    /// Makes the namespace, with the API's address.
    pub(super) fn make() -> Result<Self> {
        let namespace = Namespace::create("bench-api")?;
        let script = format!("link set lo up\naddr add {API}/32 dev lo\n");
        namespace.run_with_input("ip", &["-batch", "-"], &script)?;
        Ok(Self(namespace))
    }

    /// The namespace.
    pub(super) fn namespace(&self) -> &Namespace {
        &self.0
    }
}

/// A node that no kube-proxy has touched, its pods, and the doors of the two that answer.
#[derive(Debug)]
pub(super) struct Ground {
    lab: Lab,
    api: Namespace,
    /// The near pod's and the far pod's.
    pub(super) doors: [Door; 2],
}

/// Index of the far pod's door.
pub(super) const FAR_DOOR: usize = 1;

impl Ground {
    /// Lays it out, with a link to the API. There may be one at a time for an [`ApiSite`].
    pub(super) fn lay_out(api: &ApiSite) -> Result<Self> {
        let pods = ["asking", "near", "far"].map(|name| (name.to_owned(), 1));
        let lab = Lab::build(&Topology {
            nodes: 1,
            pods: pods.to_vec(),
            clients: 0,
            entry: 1,
            bridge: None,
        })?;
        let node = lab.member("node-1")?;
        let [near, far] = [lab.member("near")?, lab.member("far")?];
        let (near_ip, far_ip, node_ip) = (near.ip(Family::V4), far.ip(Family::V4), node.ip(Family::V4));
        let script = format!(
            "route add {NEAR} via {near_ip} dev veth2 onlink\n\
             route add {FAR} via {far_ip} dev veth3 onlink\n\
             route add unreachable {CLUSTER_IPS}\n"
        );
        node.namespace.run_with_input("ip", &["-batch", "-"], &script)?;
        for (pod, network) in [(near, NEAR), (far, FAR)] {
            pod.namespace
                .run("ip", &["route", "add", "local", network, "dev", "lo"])?;
        }
        let script = format!(
            "link add {LINK} type veth peer name api netns {}\nlink set {LINK} up\nroute add {node_ip} dev {LINK}\n",
            node.namespace.path()
        );
        api.0.run_with_input("ip", &["-batch", "-"], &script)?;
        let script = format!("link set api up\nroute add {API} dev api src {node_ip}\n");
        node.namespace.run_with_input("ip", &["-batch", "-"], &script)?;
        let open = |pod: &Member| {
            let door = Door::open(&pod.namespace, TARGET_PORT);
            door.with_context(|| format!("listen in {}", pod.name))
        };
        let doors = [open(near)?, open(far)?];
        Ok(Self {
            doors,
            api: api.0.clone(),
            lab,
        })
    }

    /// The node.
    pub(super) fn node(&self) -> Result<&Member> {
        self.lab.member("node-1")
    }

    /// The namespace of the pod that asks.
    pub(super) fn asking(&self) -> Result<&Namespace> {
        Ok(&self.lab.member("asking")?.namespace)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // At once, because the next ground wants the name; the rest goes with the namespaces. It fails only when
        // the link is gone already.
        let _ = self.api.run("ip", &["link", "delete", LINK]);
    }
}
