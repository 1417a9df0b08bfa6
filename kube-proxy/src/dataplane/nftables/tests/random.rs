//! Random changes, committed at random times, end in what a fresh start gives: compared in the real kernel.

use std::collections::BTreeMap;

use super::*;
use proptest::prelude::*;
use serde_json::Value as Json;

/// One step: a Service gets this shape, or goes; then perhaps a commit, so many milliseconds later.
type Step = (u8, Option<Shape>, Option<u16>);

#[derive(Clone, Debug)]
struct Shape {
    endpoints: Vec<u8>,
    node_port: Option<u8>,
    local: bool,
    ranges: bool,
    affinity: bool,
    family: Family,
}

fn shape() -> impl Strategy<Value = Shape> {
    let endpoints = prop::collection::btree_set(1..6u8, 0..5).prop_map(|set| set.into_iter().collect());
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    (endpoints, prop::option::of(0..2u8), any::<[bool; 3]>(), family).prop_map(
        |(endpoints, node_port, [local, ranges, affinity], family)| Shape {
            endpoints,
            node_port,
            local,
            ranges,
            affinity,
            family,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    (
        0..4u8,
        prop::option::weighted(0.8, shape()),
        prop::option::of(0..1500u16),
    )
}

/// Service `number` in this shape. Some addresses are wanted by all Services; the one that `holds` gets them.
fn shaped(number: u8, shape: &Shape, holds: bool) -> ServiceView {
    let ip = |v4: [u8; 4], v6: u16| match shape.family {
        Family::V4 => IpAddr::from(v4),
        Family::V6 => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, v6, u16::from(v4[3])]),
    };
    let endpoint = |last: &u8| {
        let local = if last.is_multiple_of(2) { "*" } else { "" };
        format!("{local}{}", SocketAddr::new(ip([10, 244, 1, *last], 1), 8080))
    };
    let endpoints: Vec<String> = shape.endpoints.iter().map(endpoint).collect();
    let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
    let external = if shape.local { EXTERNAL_LOCAL } else { EXTERNAL };
    let range = match shape.family {
        Family::V4 => format!("192.0.2.{number}/32"),
        Family::V6 => format!("2001:db8::{number}/128"),
    };
    let at = |kind, ip, port, by_source| ServiceAddress {
        ip,
        ..address(kind, None, port, by_source)
    };
    let mut addresses = vec![at(
        AddressKind::ClusterIp,
        Some(ip([10, 96, 0, number], 2)),
        80,
        OFF_CLUSTER,
    )];
    if holds {
        addresses.push(ServiceAddress {
            source_ranges: shape.ranges.then(|| vec![range.parse().unwrap()]),
            ..at(
                AddressKind::LoadBalancerIp,
                Some(ip([203, 0, 113, 1], 3)),
                80,
                external,
            )
        });
    }
    if let Some(port) = shape.node_port.filter(|_| holds) {
        addresses.push(at(
            AddressKind::NodePort,
            None,
            30_000 + u16::from(port),
            external,
        ));
    }
    let port = ServicePortView {
        affinity: shape.affinity.then_some(10_800),
        ..port(shape.family, &endpoints, &addresses)
    };
    view(&format!("service-{number}"), [port])
}

fn update_all(node: &mut Node, state: &BTreeMap<u8, Option<Shape>>) {
    let holder = state.iter().find(|(_, shape)| shape.is_some());
    let holder = holder.map(|(number, _)| *number);
    for (number, shape) in state {
        match shape {
            Some(shape) => node.update(&shaped(*number, shape, holder == Some(*number))),
            None => node.remove(&format!("service-{number}")),
        }
    }
}

/// What is in force, by object, whatever the order and whoever sits in which slot.
fn in_force(node: &Node) -> BTreeMap<String, Vec<String>> {
    let listed: Json = serde_json::from_str(&node.nft(&["-j", "list", "ruleset"])).unwrap();
    let mut objects = BTreeMap::new();
    for object in listed["nftables"].as_array().unwrap() {
        for kind in ["set", "map", "chain"] {
            let Some(object) = object.get(kind) else {
                continue;
            };
            let name = object["name"].as_str().unwrap();
            let elements = object["elem"].as_array().into_iter().flatten();
            let mut elements: Vec<String> = elements.map(|element| without_slot(name, element)).collect();
            elements.sort_unstable();
            objects.insert(format!("{kind} {} {name}", object["family"]), elements);
        }
    }
    objects
}

fn without_slot(object: &str, element: &Json) -> String {
    let mut element = element.clone();
    if object.ends_with("-slots") || object == "service-endpoints" || object == "nodeport-endpoints" {
        element[0]["concat"].as_array_mut().unwrap().pop();
    }
    element.to_string()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_changes_in_any_commits_end_in_what_a_fresh_start_gives(
        steps in prop::collection::vec(step(), 1..24)
    ) {
        let mut node = Node::new(config());
        let mut state = BTreeMap::new();
        let mut time = Duration::ZERO;
        for (number, shape, commit) in steps {
            state.insert(number, shape);
            update_all(&mut node, &state);
            if let Some(later) = commit {
                time += Duration::from_millis(later.into());
                prop_assert_eq!(node.commit_after(time).refused_now, 0);
            }
        }
        // All that retires goes within a few commits: elements, then chains, then those to which these led.
        for _ in 0..4 {
            time += Duration::from_millis(1100);
            node.commit_after(time);
        }
        prop_assert_eq!(node.commit_after(time), CommitReport::default());
        let mut fresh = Node::new(config());
        update_all(&mut fresh, &state);
        fresh.commit();
        prop_assert_eq!(in_force(&node), in_force(&fresh));
    }
}
