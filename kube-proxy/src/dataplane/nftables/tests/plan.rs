//! What a view becomes, without a kernel.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::dataplane::nftables::entry::{Backend, Destination, Frontend, Key, Target, Value, comment};
use crate::dataplane::nftables::plan::plan;
use crate::dataplane::nftables::seats::{Seated, numbers, seat, seated};
use proptest::prelude::*;

/// Where a key's verdict leads, e.g. `endpoints-3`, `drop`.
fn verdict(entries: &[(Key, Value)], wanted: &Key) -> Option<String> {
    entries
        .iter()
        .find(|(key, _)| key == wanted)
        .map(|(_, value)| match value {
            Value::Verdict(action) => match action.target {
                Target::Chain(chain) => chain.to_string(),
                Target::Reject => "reject".to_owned(),
                Target::Drop => "drop".to_owned(),
            },
            other => panic!("{wanted} is no verdict: {other:?}"),
        })
}

#[test]
fn deliveries_decide_which_chain_a_packet_goes_to() {
    use Delivery::{Drop, Reject};
    let local_masqueraded = to(EndpointList::Local, true);
    let expected = |service: &str, none: &str| {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        [some(service), some(none)]
    };
    for (by_source, knows_pods, expected) in [
        (
            OFF_CLUSTER,
            true,
            expected("endpoints-2-masquerade-host-outside", ""),
        ),
        (EXTERNAL, true, expected("endpoints-2-masquerade", "")),
        ([CLUSTER; 3], true, expected("endpoints-2", "")),
        ([LOCAL; 3], true, expected("local-endpoints-1", "")),
        (
            [LOCAL, local_masqueraded, LOCAL],
            true,
            expected("local-endpoints-1-masquerade-host", ""),
        ),
        (
            EXTERNAL_LOCAL,
            true,
            expected("by-source/cluster-2/cluster-2-masquerade/local-1", ""),
        ),
        (
            [CLUSTER, CLUSTER_MASQUERADED, Drop],
            true,
            expected("by-source/cluster-2/cluster-2-masquerade/none", "drop"),
        ),
        ([Drop; 3], true, expected("", "drop")),
        ([Reject; 3], true, expected("", "reject")),
        // Nobody is a pod: what would become of pods does not count.
        (OFF_CLUSTER, false, expected("endpoints-2-masquerade", "")),
        ([Reject, CLUSTER, CLUSTER], false, expected("endpoints-2", "")),
        (
            EXTERNAL_LOCAL,
            false,
            expected("by-source/local-1/cluster-2-masquerade/local-1", ""),
        ),
    ] {
        let external = address(AddressKind::ExternalIp, "198.51.100.1", 80, by_source);
        let port = port(Family::V4, &["*10.244.1.1:80", "10.244.2.1:80"], &[external]);
        let entries = plan(&view("web", [port]), [knows_pods; 2], &Seated::new());
        let at = Frontend {
            address: Destination::Ip("198.51.100.1".parse().unwrap()),
            protocol: Protocol::Tcp,
            port: 80,
        };
        let found = [Key::Service(at), Key::NoEndpoint(at)].map(|key| verdict(&entries, &key));
        assert_eq!(found, expected, "{by_source:?}");
    }
}

#[test]
fn planning_a_service_again_moves_nothing() {
    let addresses = [
        cluster_ip("10.96.0.1", 80),
        address(AddressKind::NodePort, None, 30080, EXTERNAL_LOCAL),
    ];
    for affinity in [None, Some(10_800)] {
        let with = |endpoints: &[&str]| ServicePortView {
            affinity,
            ..port(Family::V4, endpoints, &addresses)
        };
        let three = with(&["*10.244.1.1:80", "10.244.2.1:80", "10.244.2.2:80"]);
        let first = plan(&view("web", [three]), [true; 2], &Seated::new());
        // The first two change places in the view; they stay in their slots.
        let fewer = view("web", [with(&["10.244.2.1:80", "10.244.2.2:80"])]);
        let second = plan(
            &fewer,
            [true; 2],
            &seated(first.iter().map(|(key, value)| (key, value))),
        );
        let third = plan(
            &fewer,
            [true; 2],
            &seated(second.iter().map(|(key, value)| (key, value))),
        );
        assert_eq!(second, third);
        let kept = |entries: &[(Key, Value)]| {
            let entries: BTreeMap<_, _> = entries
                .iter()
                .cloned()
                .map(|(key, value)| (key, format!("{value:?}")))
                .collect();
            entries
        };
        let (first, second) = (kept(&first), kept(&second));
        let moved = second.iter().filter(|(key, value)| {
            matches!(key, Key::Endpoint(..) | Key::AffinitySlot(..)) && first.get(key) != Some(value)
        });
        assert_eq!(moved.count(), 2, "one slot of each address: {second:?}");
    }
}

#[test]
fn a_list_without_endpoints_refuses() {
    let port = port(Family::V4, &[], &[cluster_ip("10.96.0.1", 80)]);
    let entries = plan(&view("web", [port]), [true; 2], &Seated::new());
    let refused = entries.iter().any(|(key, _)| matches!(key, Key::NoEndpoint(_)));
    let served = entries.iter().any(|(key, _)| matches!(key, Key::Service(_)));
    assert_eq!((refused, served), (true, false), "{entries:?}");
}

#[test]
fn comments_name_the_service_and_stay_short_enough_to_load() {
    assert_eq!(&*comment("default/web", "http"), "default/web:http");
    assert_eq!(&*comment("default/web", ""), "default/web");
    let long = comment(&format!("{}/{}", "n".repeat(63), "s".repeat(63)), "a-port");
    assert_eq!((long.len(), long.ends_with("...")), (127, true), "{long}");
}

#[test]
fn numbers_tell_endpoints_and_lists_apart_whoever_comes_first() {
    let backend = |last: u8| Backend {
        ip: [10, 0, 0, last].into(),
        port: 80,
    };
    let backends: Vec<Backend> = (0..200).map(backend).collect();
    let mut reversed = backends.clone();
    reversed.reverse();
    let cluster = numbers(EndpointList::Cluster, &backends);
    assert_eq!(cluster, numbers(EndpointList::Cluster, &reversed));
    let local = numbers(EndpointList::Local, &backends);
    let all: BTreeSet<u32> = cluster.values().chain(local.values()).copied().collect();
    assert_eq!(all.len(), 400);
    assert!(all.iter().all(|id| id >> 31 == 1));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn slots_have_no_gaps_and_an_endpoint_below_the_new_number_keeps_its_own(
        states in prop::collection::vec(prop::collection::btree_set(0..12u8, 0..12), 1..12)
    ) {
        let mut held: Option<Vec<Backend>> = None;
        for state in states {
            let endpoints: Vec<Endpoint> = state
                .iter()
                .map(|last| endpoint(&format!("10.0.0.{last}:80")))
                .collect();
            let seats = seat(&endpoints, held.as_ref());
            let wanted: BTreeSet<Backend> = endpoints.iter().map(Backend::from).collect();
            prop_assert_eq!(seats.len(), wanted.len());
            prop_assert_eq!(&seats.iter().copied().collect::<BTreeSet<_>>(), &wanted);
            for (slot, backend) in held.iter().flatten().enumerate().take(seats.len()) {
                if wanted.contains(backend) {
                    prop_assert_eq!(seats[slot], *backend);
                }
            }
            held = Some(seats);
        }
    }
}
