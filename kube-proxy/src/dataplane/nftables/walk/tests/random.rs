//! Properties over random clusters and packets.

use std::collections::BTreeSet;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::packets::{any_picks, elsewhere, picked};
use super::plain::World;
use super::world::{any_node_port_addresses, any_service, any_service_cidrs, any_slice, any_world, any_zone};
use super::*;
use crate::model::change::Kind;
use crate::model::object::ObjectName;

/// The bit by which rules know what to masquerade.
const MASQUERADE: u32 = 1 << 14;

fn outcomes(paths: &[Path]) -> BTreeSet<Outcome> {
    paths.iter().map(|path| path.outcome).collect()
}

fn walk(table: &Table, packet: &Packet, surroundings: &Surroundings) -> Result<Vec<Path>, TestCaseError> {
    let paths = table.walk(packet, surroundings);
    paths.map_err(|error| TestCaseError::fail(format!("{packet:?}: {error:#}")))
}

fn endpoint(outcome: Outcome) -> Option<SocketAddr> {
    match outcome {
        Outcome::To { endpoint, .. } => Some(endpoint),
        _ => None,
    }
}

/// What a packet meets where this is remembered.
fn remembering(node: &Node, memory: &Memory) -> Surroundings {
    Surroundings {
        memory: memory.clone(),
        ..node.surroundings.clone()
    }
}

/// Every way of the first packet of a client, against what the objects say.
fn first_packet(
    world: &World,
    node: &Node,
    table: &Table,
    packet: &Packet,
) -> Result<Vec<Path>, TestCaseError> {
    let paths = walk(table, packet, &node.surroundings)?;
    let expected = world.outcomes(packet);
    prop_assert_eq!(&outcomes(&paths), &expected, "{:?}\n{}", packet, trails(&paths));
    let even = 1.0 / expected.len() as f64;
    for (outcome, share) in shares(&paths) {
        let is_even = (share - even).abs() < 1e-9;
        prop_assert!(is_even, "{packet:?}: {share} to {outcome} of\n{}", trails(&paths));
    }
    for path in &paths {
        prop_assert_eq!(
            path.mark & !MASQUERADE,
            packet.mark,
            "a mark of others was changed"
        );
        let is_untouched = path.outcome != Outcome::NotOurs || path.source == packet.source;
        prop_assert!(is_untouched, "{packet:?} is changed by\n{}", trails(&paths));
        let leaves = matches!(path.outcome, Outcome::To { endpoint, .. } if !node.surroundings.is_local(endpoint.ip()));
        let traces = (path.mark & MASQUERADE, path.priority);
        prop_assert!(
            !leaves || traces == (0, 0),
            "{packet:?} leaves with {traces:?} by\n{}",
            trails(&paths)
        );
    }
    Ok(paths)
}

/// Clients with session affinity come back to where they were, others go anywhere again.
fn next_packet(
    world: &World,
    node: &Node,
    table: &Table,
    packet: &Packet,
    before: &Path,
) -> Result<Vec<Path>, TestCaseError> {
    let paths = walk(table, packet, &remembering(node, &before.memory))?;
    let all = world.outcomes(packet);
    let expected = match world.affinity(packet).is_some() && all.contains(&before.outcome) {
        true => BTreeSet::from([before.outcome]),
        false => all,
    };
    let what = format!("{packet:?} after {}", before.outcome);
    prop_assert_eq!(outcomes(&paths), expected, "{}\n{}", what, trails(&paths));
    Ok(paths)
}

/// Nothing happens to what conntrack knows: it does what it did to the first packet.
fn established(node: &Node, table: &Table, packet: &Packet) -> Result<(), TestCaseError> {
    let known = Packet {
        connection: Connection::Established {
            redirected: None,
            masqueraded: false,
        },
        ..packet.clone()
    };
    let paths = walk(table, &known, &node.surroundings)?;
    prop_assert_eq!(
        outcomes(&paths),
        BTreeSet::from([Outcome::NotOurs]),
        "{:?}\n{}",
        known,
        trails(&paths)
    );
    Ok(())
}

/// Something that happens in a cluster.
#[derive(Clone, Debug)]
enum Step {
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

fn any_step() -> impl Strategy<Value = Step> {
    let namespace = || select(vec!["a", "b"]);
    let service = (namespace(), select(vec!["one", "two"]));
    let slice = (namespace(), (0..4u8).prop_map(|number| format!("slice-{number}")));
    prop_oneof![
        4 => any_service().prop_map(Step::Service),
        2 => any_slice().prop_map(Step::Slice),
        6 => any_endpoints(),
        2 => service.prop_map(|(namespace, name)| Step::NoService(ObjectName::new(namespace, name))),
        2 => slice.prop_map(|(namespace, name)| Step::NoSlice(ObjectName::new(namespace, name))),
        1 => any_zone().prop_map(Step::Zone),
        1 => any_service_cidrs().prop_map(Step::ServiceCidrs),
        1 => any_node_port_addresses().prop_map(Step::NodePorts),
    ]
}

fn any_endpoints() -> impl Strategy<Value = Step> {
    (any::<Index>(), any_slice()).prop_map(|(which, slice)| Step::Endpoints(which, slice))
}

impl Step {
    /// Lets it happen in a world, which is told what it is then, and at a node, which is told the change.
    fn happen(self, world: &mut World, node: &mut Node) {
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

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packets_go_where_the_objects_say(world in any_world(), picks in any_picks(80)) {
        let node = world.node();
        let tables = Family::ALL.map(|family| node.table(family));
        for packet in picked(&world, &node, &picks) {
            let table = &tables[packet.family() as usize];
            for path in first_packet(&world, &node, table, &packet)? {
                match world.affinity(&packet) {
                    Some(_) => drop(next_packet(&world, &node, table, &packet, &path)?),
                    None => prop_assert!(path.memory.is_empty(), "{packet:?} is remembered"),
                }
            }
            established(&node, table, &packet)?;
        }
    }

    #[test]
    fn after_any_changes_packets_go_where_they_go_from_a_fresh_start(
        mut world in any_world(),
        steps in prop::collection::vec(any_step(), 1..16),
        picks in any_picks(48),
    ) {
        let mut node = world.node();
        for step in steps {
            step.happen(&mut world, &mut node);
        }
        let fresh = world.node();
        let tables = Family::ALL.map(|family| [node.table(family), fresh.table(family)]);
        for packet in picked(&world, &node, &picks) {
            let [changed, from_start] = &tables[packet.family() as usize];
            let (changed, from_start) = (
                walk(changed, &packet, &node.surroundings)?,
                walk(from_start, &packet, &fresh.surroundings)?,
            );
            let what = format!("{packet:?}\n{}but\n{}", trails(&changed), trails(&from_start));
            prop_assert_eq!(shares(&changed), shares(&from_start), "{}", what);
        }
    }

    #[test]
    fn clients_stay_with_their_endpoint_at_all_addresses_of_a_port_and_of_no_other(
        world in any_world(),
        picks in any_picks(12),
    ) {
        let node = world.node();
        let tables = Family::ALL.map(|family| node.table(family));
        for packet in picked(&world, &node, &picks) {
            let (table, list) = (&tables[packet.family() as usize], world.affinity(&packet));
            // Of the loopback address, packets of another source are known.
            if list.is_none() || packet.destination.is_loopback() {
                continue;
            }
            for path in walk(table, &packet, &node.surroundings)? {
                let surroundings = remembering(&node, &path.memory);
                for other in elsewhere(&world, &packet) {
                    let paths = walk(table, &other, &surroundings)?;
                    let mut endpoints: BTreeSet<_> = world.outcomes(&other).into_iter().map(endpoint).collect();
                    if world.affinity(&other) == list {
                        endpoints.retain(|other| *other == endpoint(path.outcome));
                    }
                    let seen: BTreeSet<_> = outcomes(&paths).into_iter().map(endpoint).collect();
                    let what = format!("{packet:?} before {other:?}\n{}", trails(&paths));
                    prop_assert_eq!(seen, endpoints, "{}", what);
                }
            }
        }
    }

    #[test]
    fn clients_stay_with_their_endpoint_as_long_as_it_may_serve_them(
        mut world in any_world(),
        steps in prop::collection::vec(any_endpoints(), 1..5),
        picks in any_picks(32),
    ) {
        let mut node = world.node();
        let packets = picked(&world, &node, &picks);
        let tables = Family::ALL.map(|family| node.table(family));
        let mut seen = Vec::new();
        for packet in packets {
            for path in walk(&tables[packet.family() as usize], &packet, &node.surroundings)? {
                seen.push((packet.clone(), path));
            }
        }
        for step in steps {
            step.happen(&mut world, &mut node);
        }
        let tables = Family::ALL.map(|family| node.table(family));
        for (packet, path) in seen {
            let table = &tables[packet.family() as usize];
            for path in next_packet(&world, &node, table, &packet, &path)? {
                next_packet(&world, &node, table, &packet, &path)?;
            }
        }
    }
}
