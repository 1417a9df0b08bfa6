//! EndpointSlices as they are held: reduced to what decides something on this node, and small, because there
//! are hundreds of thousands of endpoints.

use std::net::IpAddr;
use std::sync::Arc;

use super::object::{EndpointSlice, Family, Hints, SliceEndpoint, SlicePort};
use super::pool::Pool;

/// An EndpointSlice, without its namespace and Service, which its place says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HeldSlice {
    pub(super) name: Arc<str>,
    pub(super) family: Family,
    pub(super) ports: Box<[SlicePort]>,
    pub(super) endpoints: Box<[HeldEndpoint]>,
    pub(super) ipvs_weight: Option<u16>,
}

/// One endpoint. Of `nodeName` and the hints only what they mean for this node is kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HeldEndpoint {
    pub(super) ip: IpAddr,
    pub(super) ready: bool,
    pub(super) serving: bool,
    pub(super) terminating: bool,
    pub(super) is_local: bool,
    pub(super) node_hint: NodeHint,
    /// `None` when there are none. The node's own zone may change, so the names are kept.
    pub(super) zone_hints: Option<Arc<ZoneHints>>,
}

/// What an endpoint's `forNodes` hints say about this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeHint {
    /// There are no such hints.
    None,
    /// The endpoint is meant for this node.
    Here,
    /// The endpoint is meant for other nodes.
    Elsewhere,
}

/// The zones of an endpoint's `forZones` hints, sorted, never empty.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ZoneHints(Box<[Arc<str>]>);

impl ZoneHints {
    pub(super) fn name(&self, zone: &str) -> bool {
        self.0.iter().any(|hint| **hint == *zone)
    }
}

/// What the slices of a cluster repeat.
#[derive(Debug, Default)]
pub(super) struct Pools {
    pub(super) names: Pool<str>,
    zone_hints: Pool<ZoneHints>,
}

impl HeldSlice {
    /// Reduces an observed slice. An endpoint whose address is not of the slice's family is left out.
    pub(super) fn new(slice: EndpointSlice, node_name: &str, pools: &mut Pools) -> Self {
        let ports = slice.ports.into_iter().map(|port| SlicePort {
            name: pools.names.share(port.name),
            ..port
        });
        let ports = ports.collect();
        let endpoints = slice.endpoints.into_iter();
        Self {
            name: slice.name.name,
            family: slice.family,
            ports,
            endpoints: endpoints
                .filter(|endpoint| Family::of(endpoint.ip) == slice.family)
                .map(|endpoint| HeldEndpoint::new(&endpoint, node_name, pools))
                .collect(),
            ipvs_weight: slice.ipvs_weight,
        }
    }

    /// Some endpoint has zone hints, so that the zone of this node matters.
    pub(super) fn has_zone_hints(&self) -> bool {
        self.endpoints
            .iter()
            .any(|endpoint| endpoint.zone_hints.is_some())
    }
}

impl HeldEndpoint {
    fn new(endpoint: &SliceEndpoint, node_name: &str, pools: &mut Pools) -> Self {
        let is_here = |name: &Arc<str>| !node_name.is_empty() && **name == *node_name;
        let hints = endpoint.hints.as_deref();
        Self {
            ip: endpoint.ip,
            ready: endpoint.ready,
            serving: endpoint.serving,
            terminating: endpoint.terminating,
            is_local: endpoint.node_name.as_ref().is_some_and(is_here),
            node_hint: match hints.map(|hints| &hints.nodes) {
                Some(nodes) if nodes.iter().any(is_here) => NodeHint::Here,
                Some(nodes) if !nodes.is_empty() => NodeHint::Elsewhere,
                _ => NodeHint::None,
            },
            zone_hints: hints.and_then(|hints| zone_hints(hints, pools)),
        }
    }
}

fn zone_hints(hints: &Hints, pools: &mut Pools) -> Option<Arc<ZoneHints>> {
    if hints.zones.is_empty() {
        return None;
    }
    let mut zones = hints.zones.clone();
    zones.sort_unstable();
    zones.dedup();
    Some(pools.zone_hints.share(Arc::new(ZoneHints(zones.into()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_endpoint_takes_32_bytes() {
        assert_eq!(size_of::<HeldEndpoint>(), 32);
        assert_eq!(size_of::<Option<HeldEndpoint>>(), 32);
    }
}
