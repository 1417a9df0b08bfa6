//! Properties over random clusters and packets, in each mode.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::happenings::{any_endpoints, any_step};
use super::modes::rounding;
use super::packets::{any_picks, elsewhere, picked};
use super::plain::World;
use super::world::{AFFINITY, any_world};
use super::*;

/// The bit by which rules know what to masquerade.
const MASQUERADE: u32 = 1 << 14;

/// A node of a world, and what its kernel would hold.
struct Walked<'a> {
    world: &'a World,
    node: &'a Node,
    rules: [Box<dyn Rules + 'a>; 2],
}

fn outcomes(paths: &[Path]) -> BTreeSet<Outcome> {
    paths.iter().map(|path| path.outcome).collect()
}

fn endpoint(outcome: Outcome) -> Option<SocketAddr> {
    match outcome {
        Outcome::To { endpoint, .. } => Some(endpoint),
        _ => None,
    }
}

impl<'a> Walked<'a> {
    fn new(world: &'a World, node: &'a Node) -> Self {
        Self {
            world,
            node,
            rules: Family::ALL.map(|family| node.rules(family)),
        }
    }

    fn walk(&self, packet: &Packet) -> Result<Vec<Path>, TestCaseError> {
        self.remembering(packet, &Memory::new(), Duration::ZERO)
    }

    /// Every way of a packet when this is remembered.
    fn remembering(
        &self,
        packet: &Packet,
        memory: &Memory,
        now: Duration,
    ) -> Result<Vec<Path>, TestCaseError> {
        let surroundings = Surroundings {
            memory: memory.clone(),
            now,
            ..self.node.surroundings.clone()
        };
        let mode = self.world.setup.mode;
        let paths = walk(&*self.rules[packet.family() as usize], packet, &surroundings);
        paths.map_err(|error| TestCaseError::fail(format!("{mode}: {packet:?}: {error:#}")))
    }

    /// What an assertion about these ways says.
    fn about(&self, packet: &Packet, paths: &[Path]) -> String {
        format!("{}: {packet:?}\n{}", self.world.setup.mode, trails(paths))
    }

    /// Every way of the first packet of a client, against what the objects say.
    fn first_packet(&self, packet: &Packet) -> Result<Vec<Path>, TestCaseError> {
        let paths = self.walk(packet)?;
        let about = self.about(packet, &paths);
        let expected = self.world.outcomes(packet);
        prop_assert_eq!(&outcomes(&paths), &expected, "{}", about);
        let even = 1.0 / expected.len() as f64;
        for (outcome, share) in shares(&paths) {
            let is_even = (share - even).abs() < rounding(self.world.setup.mode);
            prop_assert!(is_even, "{share} to {outcome} of {about}");
        }
        for path in &paths {
            prop_assert_eq!(
                path.mark & !MASQUERADE,
                packet.mark,
                "a mark of others was changed"
            );
            let is_untouched = path.outcome != Outcome::NotOurs || path.source == packet.source;
            prop_assert!(is_untouched, "changed: {about}");
            let is_local = |ip| self.node.surroundings.is_local(ip);
            let leaves = endpoint(path.outcome).is_some_and(|endpoint| !is_local(endpoint.ip()));
            let traces = (path.mark & MASQUERADE, path.priority);
            prop_assert!(!leaves || traces == (0, 0), "leaves with {traces:?}: {about}");
        }
        Ok(paths)
    }

    /// Clients with session affinity come back to where they were, others go anywhere again.
    fn next_packet(&self, packet: &Packet, before: &Path, now: Duration) -> Result<Vec<Path>, TestCaseError> {
        let paths = self.remembering(packet, &before.memory, now)?;
        let all = self.world.outcomes(packet);
        let expected = match self.world.affinity(packet).is_some() && all.contains(&before.outcome) {
            true => BTreeSet::from([before.outcome]),
            false => all,
        };
        let about = self.about(packet, &paths);
        prop_assert_eq!(
            outcomes(&paths),
            expected,
            "after {} at {:?}: {}",
            before.outcome,
            now,
            about
        );
        Ok(paths)
    }

    /// A client is remembered from its last connection on, and not for longer.
    fn comes_back(&self, packet: &Packet, first: &Path) -> Result<(), TestCaseError> {
        let (second, affinity) = (Duration::from_secs(1), Duration::from_secs(AFFINITY.into()));
        let nearly = affinity - second;
        for next in self.next_packet(packet, first, nearly)? {
            self.next_packet(packet, &next, nearly * 2)?;
            let late = self.remembering(packet, &next.memory, nearly + affinity + second)?;
            let about = self.about(packet, &late);
            prop_assert_eq!(
                outcomes(&late),
                self.world.outcomes(packet),
                "too late: {}",
                about
            );
        }
        Ok(())
    }

    /// Nothing happens to what conntrack knows: it does what it did to the first packet.
    fn established(&self, packet: &Packet) -> Result<(), TestCaseError> {
        let known = Connection::Established {
            redirected: None,
            masqueraded: false,
        };
        for connection in [known, Connection::Related] {
            let known = Packet {
                connection,
                ..packet.clone()
            };
            let paths = self.walk(&known)?;
            let about = self.about(&known, &paths);
            prop_assert_eq!(outcomes(&paths), BTreeSet::from([Outcome::NotOurs]), "{}", about);
        }
        Ok(())
    }
}

/// A world in each mode.
fn in_each_mode(
    world: &World,
    holds: impl Fn(World) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    MODES.into_iter().try_for_each(|mode| holds(world.in_mode(mode)))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packets_go_where_the_objects_say(world in any_world(), picks in any_picks(80)) {
        in_each_mode(&world, |world| {
            let node = world.node();
            let walked = Walked::new(&world, &node);
            for packet in picked(&world, &node, &picks) {
                let paths = walked.first_packet(&packet)?;
                if world.affinity(&packet).is_some() {
                    walked.comes_back(&packet, &paths[0])?;
                }
                for path in &paths {
                    match world.affinity(&packet) {
                        Some(_) => drop(walked.next_packet(&packet, path, Duration::ZERO)?),
                        None => prop_assert!(path.memory.is_empty(), "{packet:?} is remembered"),
                    }
                }
                walked.established(&packet)?;
            }
            Ok(())
        })?;
    }

    #[test]
    fn after_any_changes_packets_go_where_they_go_from_a_fresh_start(
        world in any_world(),
        steps in prop::collection::vec(any_step(), 1..16),
        picks in any_picks(48),
    ) {
        in_each_mode(&world, |mut world| {
            let mut node = world.node();
            for step in steps.clone() {
                step.happen(&mut world, &mut node);
            }
            let fresh = world.node();
            let (changed, from_start) = (Walked::new(&world, &node), Walked::new(&world, &fresh));
            for packet in picked(&world, &node, &picks) {
                let (changed, from_start) = (changed.walk(&packet)?, from_start.walk(&packet)?);
                let what = format!("{packet:?}\n{}but\n{}", trails(&changed), trails(&from_start));
                prop_assert_eq!(shares(&changed), shares(&from_start), "{}", what);
            }
            Ok(())
        })?;
    }

    #[test]
    fn clients_stay_with_their_endpoint_at_all_addresses_of_a_port_and_of_no_other(
        world in any_world(),
        picks in any_picks(12),
    ) {
        in_each_mode(&world, |world| {
            let node = world.node();
            let walked = Walked::new(&world, &node);
            for packet in picked(&world, &node, &picks) {
                let list = world.affinity(&packet);
                // Of the loopback address, packets of another source are known.
                if list.is_none() || packet.destination.is_loopback() {
                    continue;
                }
                for path in walked.walk(&packet)? {
                    for other in elsewhere(&world, &packet) {
                        let paths = walked.remembering(&other, &path.memory, Duration::ZERO)?;
                        let mut endpoints: BTreeSet<_> =
                            world.outcomes(&other).into_iter().map(endpoint).collect();
                        let before = endpoint(path.outcome);
                        // Two lists that are one to their clients need not have the same endpoints.
                        if world.affinity(&other) == list && endpoints.contains(&before) {
                            endpoints.retain(|other| *other == before);
                        }
                        let seen: BTreeSet<_> = outcomes(&paths).into_iter().map(endpoint).collect();
                        let about = walked.about(&other, &paths);
                        prop_assert_eq!(seen, endpoints, "{:?} before {}", packet, about);
                    }
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn clients_stay_with_their_endpoint_as_long_as_it_may_serve_them(
        world in any_world(),
        steps in prop::collection::vec(any_endpoints(), 1..5),
        picks in any_picks(32),
    ) {
        in_each_mode(&world, |mut world| {
            let mut node = world.node();
            let mut seen = Vec::new();
            let walked = Walked::new(&world, &node);
            for packet in picked(&world, &node, &picks) {
                let paths = walked.walk(&packet)?.into_iter();
                seen.extend(paths.map(|path| (packet.clone(), path)));
            }
            drop(walked);
            for step in steps.clone() {
                step.happen(&mut world, &mut node);
            }
            let walked = Walked::new(&world, &node);
            for (packet, path) in seen {
                for path in walked.next_packet(&packet, &path, Duration::ZERO)? {
                    walked.next_packet(&packet, &path, Duration::ZERO)?;
                }
            }
            Ok(())
        })?;
    }
}
