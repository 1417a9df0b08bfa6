//! What a view becomes, without a kernel.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::*;
use crate::dataplane::nftables::affinity::{Groups, MOST_NUMBERED, numbers};
use crate::dataplane::nftables::entry::{Backend, Destination, Frontend, Key, Target, Value, comment};
use crate::dataplane::nftables::plan::{self, Node as OfNode};
use crate::dataplane::nftables::seats::{Seated, seat, seated};
use proptest::prelude::*;

/// Plans a Service on a node that knows pods, and may know none.
fn plan(view: &ServiceView, knows_pods: bool, seated: &Seated) -> Vec<(Key, Value)> {
    let node = OfNode {
        knows_pods: [knows_pods; 2],
        localhost: true,
        beside_ipvs: false,
    };
    plan::plan(view, node, seated, Groups::default().of(&view.name, Some(view)))
}

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
        let entries = plan(&view("web", [port]), knows_pods, &Seated::new());
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
        let first = plan(&view("web", [three]), true, &Seated::new());
        // The first two change places in the view; they stay in their slots.
        let fewer = view("web", [with(&["10.244.2.1:80", "10.244.2.2:80"])]);
        let second = plan(
            &fewer,
            true,
            &seated(first.iter().map(|(key, value)| (key, value))),
        );
        let third = plan(
            &fewer,
            true,
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
fn the_loopback_address_serves_node_ports_of_tcp_and_udp_that_have_an_endpoint_for_the_host() {
    let with = |protocol, by_source| {
        let node_port = address(AddressKind::NodePort, None, 30080, by_source);
        let port = ServicePortView {
            protocol,
            ..port(Family::V4, &["*10.244.1.1:80", "10.244.2.1:80"], &[node_port])
        };
        let entries = plan(&view("web", [port]), true, &Seated::new());
        entries
            .iter()
            .any(|(key, _)| matches!(key, Key::LocalhostNodePort(_)))
    };
    let host_only = [Delivery::Drop, CLUSTER_MASQUERADED, Delivery::Drop];
    let host_not = [CLUSTER, Delivery::Drop, CLUSTER];
    for (protocol, by_source, serves) in [
        (Protocol::Tcp, EXTERNAL, true),
        (Protocol::Udp, EXTERNAL, true),
        (Protocol::Sctp, EXTERNAL, false),
        (Protocol::Tcp, host_only, true),
        (Protocol::Tcp, host_not, false),
        (Protocol::Tcp, [Delivery::Reject; 3], false),
    ] {
        assert_eq!(with(protocol, by_source), serves, "{protocol} {by_source:?}");
    }
}

#[test]
fn a_list_without_endpoints_refuses() {
    let port = port(Family::V4, &[], &[cluster_ip("10.96.0.1", 80)]);
    let entries = plan(&view("web", [port]), true, &Seated::new());
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

fn backend(last: u8) -> Backend {
    Backend {
        ip: [10, 0, 0, last].into(),
        port: 80,
    }
}

#[test]
fn numbers_tell_endpoints_lists_and_groups_apart_whoever_comes_first() {
    let backends: Vec<Backend> = (0..200).map(backend).collect();
    let mut reversed = backends.clone();
    reversed.reverse();
    let none = HashMap::new();
    let cluster = numbers(EndpointList::Cluster, 7, &backends, &none);
    assert_eq!(cluster, numbers(EndpointList::Cluster, 7, &reversed, &none));
    let local = numbers(EndpointList::Local, 7, &backends, &none);
    let other = numbers(EndpointList::Local, 8, &backends, &none);
    let lists = [&cluster, &local, &other];
    let all: BTreeSet<u32> = lists.iter().flat_map(|list| list.values()).copied().collect();
    assert_eq!(all.len(), 600);
    assert!(all.iter().all(|id| id >> 31 == 1));
    let groups: BTreeSet<u32> = all.iter().map(|id| id >> 16).collect();
    assert_eq!(groups.len(), 3, "the upper half is that of the list");
}

#[test]
fn an_endpoint_keeps_its_number_while_others_come_and_go() {
    let backends: Vec<Backend> = (0..200).map(backend).collect();
    let mut held = HashMap::new();
    // Whatever falls together with what: nobody who stays moves.
    for skip in [0, 7, 3, 19, 2] {
        let present: Vec<Backend> = backends.iter().skip(skip).copied().collect();
        let now = numbers(EndpointList::Cluster, 1, &present, &held);
        assert_eq!(now.len(), present.len());
        assert!(
            present
                .iter()
                .all(|at| held.get(at).is_none_or(|id| now[at] == *id))
        );
        held = now;
    }
    let moved = numbers(EndpointList::Cluster, 2, &backends, &held);
    assert!(
        moved.values().all(|id| id >> 16 & 0x3fff == 2),
        "another group, other numbers"
    );
}

#[test]
fn as_many_endpoints_as_there_are_numbers_all_get_one() {
    let all = |port: u16| Backend {
        ip: [10, 0, 0, 1].into(),
        port,
    };
    let backends: Vec<Backend> = (0..=u16::MAX).map(all).collect();
    assert_eq!(backends.len(), MOST_NUMBERED);
    let numbers = numbers(EndpointList::Cluster, 0, &backends, &HashMap::new());
    let distinct: BTreeSet<u32> = numbers.values().copied().collect();
    assert_eq!(distinct.len(), MOST_NUMBERED);
}

#[test]
fn service_ports_have_groups_of_their_own_and_keep_them() {
    let sticky = |service: &str, ports: &[&str]| {
        let port = |name: &&str| ServicePortView {
            port_name: (*name).into(),
            affinity: Some(10),
            ..port(Family::V4, &["10.0.0.1:80"], &[])
        };
        view(service, ports.iter().map(port).collect::<Vec<_>>())
    };
    let mut groups = Groups::default();
    let mut all = BTreeSet::new();
    // Far more than fit without two falling together.
    for number in 0..2000 {
        let view = sticky(&format!("web-{number}"), &["http", "https"]);
        all.extend(groups.of(&view.name, Some(&view)).iter().map(|port| port.group));
    }
    assert_eq!(all.len(), 4000);
    let before = groups
        .of(&name("web-7"), Some(&sticky("web-7", &["http", "https"])))
        .to_vec();
    let after = groups
        .of(&name("web-7"), Some(&sticky("web-7", &["new", "https"])))
        .to_vec();
    assert_eq!(after[1], before[1]);
    assert!(!all.contains(&after[0].group) || after[0].group == before[0].group);
    assert_eq!(groups.of(&name("web-7"), None), []);
    let again = groups
        .of(&name("web-7"), Some(&sticky("web-7", &["http", "https"])))
        .to_vec();
    assert!(again.iter().all(|port| port.group < 1 << 14));
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
            let seats = seat(&endpoints, held.as_deref());
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
