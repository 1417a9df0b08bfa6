//! Nodes, pods and outside clients as network namespaces with veths and routes.
//!
//! A [`Lab`] touches nothing of the host: every interface is in a namespace of its own, and all of it goes with
//! the last handle. Any number of labs can be up beside each other.

pub mod address;
mod layout;
mod names;
mod namespace;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};

pub use address::{Family, network};
pub use names::Names;
pub use namespace::{Namespace, Process};

/// Most pods on one node: as many as the address plan has room for.
const MOST_PODS: u8 = 240;

/// What a lab consists of.
#[derive(Clone, Debug)]
pub struct Topology {
    /// Number of nodes, named `node-1`, `node-2`, …
    pub nodes: u8,
    /// Pods: name, and the number of the node that they are on (from 1).
    pub pods: Vec<(String, u8)>,
    /// Number of clients outside the cluster, named `client-1`, …; the first is also called `client`.
    pub clients: u8,
    /// The number of the node that traffic from outside to ClusterIPs, load-balancer and external IPs enters by.
    pub entry: u8,
    /// The bridge that every node's pods hang on; without one each hangs on a point-to-point link.
    pub bridge: Option<String>,
}

impl Topology {
    /// Two nodes, one client, entry by `node-1`, and these pods: name and number of the node.
    pub fn with_pods(pods: &[(&str, u8)]) -> Self {
        Self {
            nodes: 2,
            pods: pods.iter().map(|&(name, node)| (name.to_owned(), node)).collect(),
            clients: 1,
            entry: 1,
            bridge: None,
        }
    }
}

/// What a member of the lab is. Numbers count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A node; its namespace is the host network.
    Node {
        /// Its number.
        number: u8,
    },
    /// A pod.
    Pod {
        /// The number of its node.
        node: u8,
        /// Its number on that node.
        number: u8,
    },
    /// A client outside the cluster.
    Client {
        /// Its number.
        number: u8,
    },
}

/// A node, pod or client.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name, unique in the lab.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Where its sockets and processes are.
    pub namespace: Namespace,
}

impl Member {
    fn create(lab: &str, name: String, role: Role) -> Result<Self> {
        Ok(Self {
            namespace: Namespace::create(&format!("{lab}-{name}"))?,
            name,
            role,
        })
    }

    /// Its address; of a node the first one, which its Node object shows.
    pub fn ip(&self, family: Family) -> IpAddr {
        match self.role {
            Role::Node { number } => address::node(number, family),
            Role::Pod { node, number } => address::pod(node, number, family),
            Role::Client { number } => address::client(number, family),
        }
    }
}

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    name: String,
    members: Vec<Member>,
    fabric: Namespace,
    entry: u8,
}

impl Lab {
    /// Makes the namespaces, links, addresses and routes.
    ///
    /// # Errors
    /// When the kernel refuses (root is needed), `ip` is missing, or the topology contradicts itself.
    pub fn build(topology: &Topology) -> Result<Self> {
        let lab = unique_name();
        let mut members = Vec::new();
        for number in 1..=topology.nodes {
            members.push(Member::create(
                &lab,
                format!("node-{number}"),
                Role::Node { number },
            )?);
        }
        for number in 1..=topology.clients {
            let name = format!("client-{number}");
            members.push(Member::create(&lab, name, Role::Client { number })?);
        }
        ensure!(
            (1..=topology.nodes).contains(&topology.entry),
            "there is no node-{} to enter by",
            topology.entry
        );
        for (index, (name, node)) in topology.pods.iter().enumerate() {
            ensure!(
                (1..=topology.nodes).contains(node),
                "pod {name}: there is no node-{node}"
            );
            ensure!(
                members.iter().all(|m| m.name != *name),
                "two members of the lab are called {name}"
            );
            let earlier = topology.pods[..index].iter().filter(|(_, n)| n == node).count();
            ensure!(
                earlier < usize::from(MOST_PODS),
                "more than {MOST_PODS} pods on node-{node}"
            );
            let number = u8::try_from(earlier + 1)?;
            let role = Role::Pod { node: *node, number };
            members.push(Member::create(&lab, name.clone(), role)?);
        }
        let fabric = Namespace::create(&format!("{lab}-fabric"))?;
        layout::build(&fabric, &members, topology).with_context(|| format!("lay out {lab}"))?;
        Ok(Self {
            name: lab,
            members,
            fabric,
            entry: topology.entry,
        })
    }

    /// The name of the lab, unique on this machine; the names of its namespaces begin with it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All namespaces: those of the members, and the fabric.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.members
            .iter()
            .map(|member| &member.namespace)
            .chain([&self.fabric])
    }

    /// The member of that name; `client` is `client-1`.
    ///
    /// # Errors
    /// When there is none.
    pub fn member(&self, name: &str) -> Result<&Member> {
        let name = if name == "client" { "client-1" } else { name };
        self.members
            .iter()
            .find(|member| member.name == name)
            .with_context(|| format!("the lab has no {name}"))
    }

    /// All members: nodes, clients, pods.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Member> {
        self.members
            .iter()
            .filter(|m| matches!(m.role, Role::Node { .. }))
    }

    /// The pods.
    pub fn pods(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|m| matches!(m.role, Role::Pod { .. }))
    }

    /// The router between nodes and clients; nodes reach it at [`address::fabric`].
    pub fn fabric(&self) -> &Namespace {
        &self.fabric
    }

    /// The node whose rules see a member's traffic first: its own, for a client the entry node.
    ///
    /// # Errors
    /// When the lab has no such node, which [`Lab::build`] rules out.
    pub fn node_of(&self, member: &Member) -> Result<&Member> {
        let number = match member.role {
            Role::Node { number } => number,
            Role::Pod { node, .. } => node,
            Role::Client { .. } => self.entry,
        };
        self.member(&format!("node-{number}"))
    }
}

/// A name that no other lab on this machine has.
fn unique_name() -> String {
    static LABS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(1);
    let number = LABS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("lab-{}-{number}", std::process::id())
}
