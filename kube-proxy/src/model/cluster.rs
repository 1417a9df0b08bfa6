//! The observed cluster and which Services a change touches.

use std::net::IpAddr;
use std::sync::Arc;

use super::change::Change;
use super::object::{Family, ObjectName};
use super::view::ServiceView;

/// What the model needs to know about the configuration. Fixed for the life of a [`Cluster`].
#[derive(Clone, Debug, Default)]
pub struct TrafficConfig {
    /// This node's name, lower case; an endpoint is local when its `nodeName` equals it.
    pub node_name: Arc<str>,
    /// Masquerade all traffic to ClusterIPs.
    pub masquerade_all: bool,
    /// Whether the dataplane can tell pods from others, for IPv4 and IPv6.
    pub detects_pods: [bool; 2],
    /// The node's addresses, for the question whether source ranges include the node.
    pub node_ips: Vec<IpAddr>,
}

impl TrafficConfig {
    /// Whether pods are told from others in this family.
    pub fn detects_pods(&self, family: Family) -> bool {
        self.detects_pods[family as usize]
    }
}

/// The observed state, indexed by Service, with the Services that need resolving.
#[derive(Debug)]
pub struct Cluster {
    config: TrafficConfig,
}

impl Cluster {
    /// An empty cluster.
    pub fn new(config: TrafficConfig) -> Self {
        Self { config }
    }

    /// Takes one change in and marks the Services that it touches.
    pub fn apply(&mut self, _change: Change) {}

    /// Services and EndpointSlices have both delivered their first state.
    pub fn is_synced(&self) -> bool {
        let _ = &self.config;
        false
    }

    /// The Services touched since the last call, each once, in order of name. Settles who holds contested
    /// addresses first, so a Service that won or lost one by another's change is named as well.
    pub fn take_dirty(&mut self) -> Vec<ObjectName> {
        Vec::new()
    }

    /// Decides everything about one Service; `None` when it does not exist or is not proxied.
    pub fn resolve(&self, _name: &ObjectName) -> Option<ServiceView> {
        None
    }
}
