//! What the iptables dataplane wants of the kernel: chains with their rules, and rules in the chains that all
//! Services share.

use std::sync::Arc;

use crate::model::object::Family;

/// A chain that is always there and to which Services contribute rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Shared {
    /// `KUBE-NODEPORTS` in filter: health-check ports are accepted.
    HealthCheckPorts,
    /// `KUBE-SERVICES` in filter: ClusterIPs without an endpoint.
    ClusterIpsWithoutEndpoint,
    /// `KUBE-EXTERNAL-SERVICES` in filter: external addresses and node ports without an endpoint.
    ExternalWithoutEndpoint,
    /// `KUBE-PROXY-FIREWALL` in filter: what no source range let through.
    Firewall,
    /// `KUBE-SERVICES` in nat: addresses.
    Services,
    /// `KUBE-NODEPORTS` in nat.
    NodePorts,
}

/// A table of iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Table {
    Mangle,
    Filter,
    Nat,
}

impl Table {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mangle => "mangle",
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

impl Shared {
    pub(super) const ALL: [Self; 6] = [
        Self::HealthCheckPorts,
        Self::ClusterIpsWithoutEndpoint,
        Self::ExternalWithoutEndpoint,
        Self::Firewall,
        Self::Services,
        Self::NodePorts,
    ];

    /// The chain of this name.
    pub(super) fn by_name(table: Table, name: &str) -> Option<Self> {
        let named = |chain: &Self| chain.table() == table && chain.name() == name;
        Self::ALL.into_iter().find(named)
    }

    pub(super) fn table(self) -> Table {
        match self {
            Self::Services | Self::NodePorts => Table::Nat,
            _ => Table::Filter,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::HealthCheckPorts | Self::NodePorts => "KUBE-NODEPORTS",
            Self::ClusterIpsWithoutEndpoint | Self::Services => "KUBE-SERVICES",
            Self::ExternalWithoutEndpoint => "KUBE-EXTERNAL-SERVICES",
            Self::Firewall => "KUBE-PROXY-FIREWALL",
        }
    }
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    /// A chain of a Service or endpoint, in nat.
    Chain(Family, Arc<str>),
    /// Rules of one ServicePort in a chain that all share; lines without `-A CHAIN`.
    Rules(Family, Shared, Arc<str>),
}

/// What it holds: of a chain its rules, lines without `-A CHAIN`; empty for rules of shared chains.
pub(super) type Value = Arc<str>;

impl Key {
    pub(super) fn family(&self) -> Family {
        match self {
            Self::Chain(family, _) | Self::Rules(family, ..) => *family,
        }
    }
}
