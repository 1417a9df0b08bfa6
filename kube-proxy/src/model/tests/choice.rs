//! One case of choosing endpoints, for the tables of hints and of policies.

use crate::model::change::Change;
use crate::model::object::{Node, Service, ServiceType, TrafficPolicy};
use crate::model::testing::*;
use crate::model::view::AddressKind;

use TrafficPolicy::{Cluster, Local};

/// What the Service looks like: its policies and whether outside can reach it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policies {
    pub(super) internal: TrafficPolicy,
    pub(super) external: TrafficPolicy,
    pub(super) node_port: bool,
}

pub(super) const PLAIN: Policies = Policies {
    internal: Cluster,
    external: Cluster,
    node_port: false,
};
pub(super) const INTERNAL_LOCAL: Policies = Policies {
    internal: Local,
    ..PLAIN
};
pub(super) const EXTERNAL_LOCAL: Policies = Policies {
    external: Local,
    node_port: true,
    ..PLAIN
};
pub(super) const BOTH_LOCAL: Policies = Policies {
    internal: Local,
    ..EXTERNAL_LOCAL
};
pub(super) const INTERNAL_LOCAL_WITH_NODE_PORT: Policies = Policies {
    internal: Local,
    node_port: true,
    ..PLAIN
};

pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) policies: Policies,
    pub(super) zone: Option<&'static str>,
    pub(super) endpoints: &'static [&'static str],
    /// The last numbers of the addresses chosen for the cluster's list and the local one.
    pub(super) cluster: &'static [u8],
    pub(super) local: &'static [u8],
    /// Nothing is rejected for want of endpoints.
    pub(super) any: bool,
}

impl Case {
    /// Resolves the Service of the case and compares its lists.
    pub(super) fn check(&self) {
        let (ports, service_type) = if self.policies.node_port {
            ("p/TCP:80:30080", ServiceType::NodePort)
        } else {
            ("p/TCP:80", ServiceType::ClusterIp)
        };
        let service = Service {
            internal_traffic_policy: self.policies.internal,
            external_traffic_policy: self.policies.external,
            service_type,
            ..service("ns/web", "172.16.0.1", ports)
        };
        let slices = [slice("ns/web-a", "web", "p/TCP:80", self.endpoints)];
        let mut cluster = cluster([&service], &slices);
        cluster.apply(in_zone(self.zone));
        let view = cluster.resolve(&service.name).unwrap();
        let expected = format!("p/TCP:{} |{}", self.list(self.cluster), self.list(self.local));
        assert_eq!(endpoints(&view), [expected], "{}", self.name);
        let rejects = deliveries(&view, AddressKind::ClusterIp) == ["reject"; 3];
        assert_eq!(rejects, !self.any, "{}", self.name);
    }

    /// A list as the views print it.
    fn list(&self, numbers: &[u8]) -> String {
        let text = |number| {
            let local = format!("10.0.0.{number} local");
            let is_local = self.endpoints.iter().any(|endpoint| endpoint.starts_with(&local));
            format!(" 10.0.0.{number}:80{}", if is_local { "*" } else { "" })
        };
        numbers.iter().map(text).collect()
    }
}

/// This node is in a zone, or has no zone label.
pub(super) fn in_zone(zone: Option<&str>) -> Change {
    Change::Node(Box::new(Node {
        name: NODE.into(),
        zone: zone.map(Into::into),
        ..Node::default()
    }))
}
