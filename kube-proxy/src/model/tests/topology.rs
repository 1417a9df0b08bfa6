//! Which endpoints count here, by topology hints (upstream's CategorizeEndpoints).

use super::choice::*;
use crate::model::change::{Change, Kind};
use crate::model::object::{Node, ObjectName};
use crate::model::testing::*;

const ZONES_ABCA: &[&str] = &[
    "10.0.0.3 zone:a",
    "10.0.0.4 zone:b",
    "10.0.0.5 zone:c",
    "10.0.0.6 zone:a",
];
const LOCAL_IN_A_AND_B: &[&str] = &[
    "10.0.0.3 local zone:a",
    "10.0.0.4 local zone:b",
    "10.0.0.5 zone:c",
    "10.0.0.6 zone:a",
];
const ZONE_A: &[&str] = &["10.0.0.3 zone:a"];

fn hint(
    name: &'static str,
    zone: &'static str,
    endpoints: &'static [&'static str],
    cluster: &'static [u8],
) -> Case {
    let zone = (!zone.is_empty()).then_some(zone);
    Case {
        name,
        policies: PLAIN,
        zone,
        endpoints,
        cluster,
        local: &[],
        any: true,
    }
}

fn hint_cases() -> Vec<Case> {
    vec![
        hint("zone hints are followed", "a", ZONES_ABCA, &[3, 6]),
        Case {
            local: &[3, 4],
            policies: EXTERNAL_LOCAL,
            ..hint(
                "external policy Local: hints do not count for the local list",
                "a",
                LOCAL_IN_A_AND_B,
                &[3, 6],
            )
        },
        Case {
            local: &[3, 4],
            policies: INTERNAL_LOCAL_WITH_NODE_PORT,
            ..hint(
                "internal policy Local: hints do not count for the local list",
                "a",
                LOCAL_IN_A_AND_B,
                &[3, 6],
            )
        },
        hint("a node without zone label", "", ZONE_A, &[3]),
        hint("a node of another zone", "b", ZONE_A, &[3]),
        hint(
            "an unready endpoint is left out",
            "a",
            &[
                "10.0.0.3 zone:a",
                "10.0.0.4 zone:b",
                "10.0.0.5 zone:c",
                "10.0.0.6 zone:a unready",
            ],
            &[3],
        ),
        hint(
            "only unready endpoints in this zone: hints are not followed",
            "a",
            &[
                "10.0.0.3 zone:a unready",
                "10.0.0.4 zone:b",
                "10.0.0.5 zone:c",
                "10.0.0.6 zone:a unready",
            ],
            &[4, 5],
        ),
        hint(
            "a ready endpoint without hint: hints are not followed",
            "a",
            &[
                "10.0.0.3 zone:a",
                "10.0.0.4 zone:b",
                "10.0.0.5",
                "10.0.0.6 zone:a",
            ],
            &[3, 4, 5, 6],
        ),
        hint(
            "an unready endpoint without hint does not matter",
            "a",
            &["10.0.0.3 zone:a", "10.0.0.4 zone:b", "10.0.0.5 unready"],
            &[3],
        ),
        hint(
            "several zones in one hint",
            "c",
            &[
                "10.0.0.3 zone:a zone:b zone:c",
                "10.0.0.4 zone:b zone:c",
                "10.0.0.5 zone:b zone:d",
                "10.0.0.6 zone:c",
            ],
            &[3, 4, 6],
        ),
        hint(
            "node hints go before zone hints",
            "a",
            &[
                "10.0.0.3 zone:a node:this-node",
                "10.0.0.4 zone:a node:x",
                "10.0.0.5 zone:b node:this-node",
            ],
            &[3, 5],
        ),
        hint(
            "a ready endpoint without node hint: zone hints are followed",
            "a",
            &[
                "10.0.0.3 zone:a node:this-node",
                "10.0.0.4 zone:a",
                "10.0.0.5 zone:b node:this-node",
            ],
            &[3, 4],
        ),
        hint(
            "no node hint for this node: zone hints are followed",
            "a",
            &["10.0.0.3 zone:a node:x", "10.0.0.4 zone:b node:y"],
            &[3],
        ),
        hint(
            "node hints need no zone",
            "",
            &["10.0.0.3 node:this-node", "10.0.0.4 node:x"],
            &[3],
        ),
        Case {
            local: &[0, 1],
            policies: EXTERNAL_LOCAL,
            ..hint(
                "local list and zone overlap only in part",
                "a",
                &[
                    "10.0.0.0 local zone:a",
                    "10.0.0.1 local zone:b",
                    "10.0.0.2 zone:a",
                    "10.0.0.3 zone:b",
                ],
                &[0, 2],
            )
        },
        hint(
            "all terminate: hints do not count",
            "a",
            &["10.0.0.3 zone:a terminating", "10.0.0.4 zone:b terminating"],
            &[3, 4],
        ),
    ]
}

#[test]
fn hints_are_followed_all_or_none() {
    for case in hint_cases() {
        case.check();
    }
}

#[test]
fn a_new_zone_label_touches_the_services_with_zone_hints() {
    let plain = service("ns/plain", "10.0.0.1", "p/TCP:80");
    let hinted = service("ns/hinted", "10.0.0.2", "p/TCP:80");
    let slices = [
        slice("ns/plain-a", "plain", "p/TCP:80", &["10.1.0.1 node:x"]),
        slice(
            "ns/hinted-a",
            "hinted",
            "p/TCP:80",
            &["10.1.0.2 zone:a", "10.1.0.3 zone:b"],
        ),
        slice("ns/orphan-a", "orphan", "p/TCP:80", &["10.1.0.2 zone:a"]),
    ];
    let mut cluster = cluster(&[plain, hinted.clone()], &slices);
    cluster.take_dirty();
    let touched = [name("ns/hinted")];
    let node = |zone: Option<&str>, address: &str| Node {
        name: NODE.into(),
        zone: zone.map(Into::into),
        addresses: vec![ip(address)],
        ..Node::default()
    };
    let steps: [(_, &[_], _); 4] = [
        (node(None, "192.168.0.2"), &[], "p/TCP: 10.1.0.2:80 10.1.0.3:80 |"),
        (node(Some("a"), "192.168.0.2"), &touched, "p/TCP: 10.1.0.2:80 |"),
        (node(Some("a"), "192.168.0.3"), &[], "p/TCP: 10.1.0.2:80 |"),
        (node(Some("b"), "192.168.0.3"), &touched, "p/TCP: 10.1.0.3:80 |"),
    ];
    for (node, dirty, expected) in steps {
        cluster.apply(Change::Node(Box::new(node)));
        assert_eq!(cluster.take_dirty(), dirty);
        assert_eq!(endpoints(&cluster.resolve(&hinted.name).unwrap()), [expected]);
    }
}

#[test]
fn a_node_that_is_gone_for_a_while_keeps_its_zone() {
    let web = service("ns/web", "10.0.0.1", "p/TCP:80");
    let slices = [slice(
        "ns/web-a",
        "web",
        "p/TCP:80",
        &["10.1.0.2 zone:a", "10.1.0.3 zone:b"],
    )];
    let mut cluster = cluster([&web], &slices);
    cluster.apply(in_zone(Some("a")));
    cluster.take_dirty();
    cluster.apply(Change::Deleted(Kind::Node, ObjectName::new("", NODE)));
    cluster.apply(Change::ListStart(Kind::Node));
    cluster.apply(Change::ListDone(Kind::Node));
    assert_eq!(cluster.take_dirty(), []);
    assert_eq!(
        endpoints(&cluster.resolve(&web.name).unwrap()),
        ["p/TCP: 10.1.0.2:80 |"]
    );
}

#[test]
fn of_an_endpoint_in_two_slices_the_hints_of_the_first_one_by_name_count() {
    let web = service("ns/web", "10.0.0.1", "p/TCP:80");
    let first = slice(
        "ns/web-a",
        "web",
        "p/TCP:80",
        &["10.1.0.2 zone:a", "10.1.0.3 zone:b"],
    );
    let second = slice("ns/web-b", "web", "p/TCP:80", &["10.1.0.2 zone:b"]);
    for slices in [[&first, &second], [&second, &first]] {
        let mut cluster = cluster([&web], slices);
        cluster.apply(in_zone(Some("b")));
        let view = cluster.resolve(&web.name).unwrap();
        assert_eq!(endpoints(&view), ["p/TCP: 10.1.0.3:80 |"]);
    }
}
