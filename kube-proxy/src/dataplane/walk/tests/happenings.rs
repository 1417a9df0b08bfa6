//! What happens to random clusters.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::plain::World;
use super::world::{any_node_port_addresses, any_service, any_service_cidrs, any_slice, any_zone};
use super::*;
use crate::model::change::Kind;

/// Something that happens in a cluster.
#[derive(Clone, Debug)]
pub(in crate::dataplane) enum Happening {
    Service(Service),
    Slice(EndpointSlice),
    /// One of the slices that are there gets the endpoints of this one.
    Endpoints(Index, EndpointSlice),
    NoService(ObjectName),
    NoSlice(ObjectName),
    Zone(Option<&'static str>),
    ServiceCidrs(Vec<IpNet>),
    NodePorts([NodePortAddresses; 2]),
}

pub(in crate::dataplane) fn any_step() -> impl Strategy<Value = Happening> {
    let namespace = || select(vec!["a", "b"]);
    let service = (namespace(), select(vec!["one", "two"]));
    let slice = (namespace(), (0..4u8).prop_map(|number| format!("slice-{number}")));
    prop_oneof![
        4 => any_service().prop_map(Happening::Service),
        2 => any_slice().prop_map(Happening::Slice),
        6 => any_endpoints(),
        2 => service.prop_map(|(namespace, name)| Happening::NoService(ObjectName::new(namespace, name))),
        2 => slice.prop_map(|(namespace, name)| Happening::NoSlice(ObjectName::new(namespace, name))),
        1 => any_zone().prop_map(Happening::Zone),
        1 => any_service_cidrs().prop_map(Happening::ServiceCidrs),
        1 => any_node_port_addresses().prop_map(Happening::NodePorts),
    ]
}

pub(in crate::dataplane) fn any_endpoints() -> impl Strategy<Value = Happening> {
    (any::<Index>(), any_slice()).prop_map(|(which, slice)| Happening::Endpoints(which, slice))
}

impl Happening {
    /// Lets it happen in a world, which is told what it is then, and at a node, which is told the change.
    pub(in crate::dataplane) fn happen(self, world: &mut World, node: &mut Node) {
        match self {
            Self::Service(service) => {
                world.services.retain(|other| other.name != service.name);
                world.services.push(service.clone());
                node.apply([Change::Service(Box::new(service))]);
            }
            Self::Slice(slice) => {
                world.slices.retain(|other| other.name != slice.name);
                world.slices.push(slice.clone());
                node.apply([Change::EndpointSlice(Box::new(slice))]);
            }
            Self::Endpoints(_, _) if world.slices.is_empty() => {}
            Self::Endpoints(which, slice) => {
                let old = which.get(&world.slices).clone();
                let EndpointSlice {
                    family, endpoints, ..
                } = slice;
                let renewed = EndpointSlice {
                    family,
                    endpoints,
                    ..old
                };
                Self::Slice(renewed).happen(world, node);
            }
            Self::NoService(name) => {
                world.services.retain(|service| service.name != name);
                node.apply([Change::Deleted(Kind::Service, name)]);
            }
            Self::NoSlice(name) => {
                world.slices.retain(|slice| slice.name != name);
                node.apply([Change::Deleted(Kind::EndpointSlice, name)]);
            }
            Self::Zone(zone) => {
                world.setup.zone = zone;
                node.apply([in_zone(zone)]);
            }
            Self::ServiceCidrs(networks) => {
                node.apply([in_service_cidrs(&networks)]);
                world.setup.service_cidrs = networks;
            }
            Self::NodePorts(chosen) => {
                node.choose_node_port_addresses(&chosen);
                world.setup.node_port_addresses = chosen;
            }
        }
    }
}
