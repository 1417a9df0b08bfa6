//! Topology hints: whether traffic is to stay on this node or in its zone.

use super::endpoint::Candidate;
use super::slice::NodeHint;

/// Where the ready endpoints for this node have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topology<'a> {
    /// Anywhere.
    Anywhere,
    /// Where the hints name this node.
    SameNode,
    /// Where the hints name this zone.
    SameZone(&'a str),
}

impl<'a> Topology<'a> {
    /// Hints count all or none: every ready endpoint has to have one and some endpoint has to be meant for
    /// this node, else a node would be left without endpoints or an endpoint without traffic. Hints for nodes
    /// go before those for zones. A node without a zone label follows no zone hints.
    pub(super) fn of(candidates: &[Candidate<'_>], zone: Option<&'a str>) -> Self {
        let ready = || candidates.iter().filter(|candidate| candidate.held.ready);
        let node_hints = || ready().map(|candidate| candidate.held.node_hint);
        if node_hints().all(|hint| hint != NodeHint::None) && node_hints().any(|hint| hint == NodeHint::Here)
        {
            return Self::SameNode;
        }
        let all_have_zones = ready().all(|candidate| candidate.held.zone_hints.is_some());
        match zone.map(Self::SameZone) {
            Some(zone) if all_have_zones && ready().any(|candidate| zone.admits(candidate)) => zone,
            _ => Self::Anywhere,
        }
    }

    /// The endpoint is one that this node may use.
    pub(super) fn admits(self, candidate: &Candidate<'_>) -> bool {
        match self {
            Self::Anywhere => true,
            Self::SameNode => candidate.held.node_hint == NodeHint::Here,
            Self::SameZone(zone) => candidate
                .held
                .zone_hints
                .as_ref()
                .is_some_and(|hints| hints.name(zone)),
        }
    }
}
