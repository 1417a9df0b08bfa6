//! Which endpoints a Service's ports get from its slices.

use crate::model::change::{Change, Kind};
use crate::model::object::{EndpointSlice, Service, TrafficPolicy};
use crate::model::testing::*;

/// A Service with policy Local outside, so that views carry both lists.
fn web(ports: &str) -> Service {
    Service {
        external_traffic_policy: TrafficPolicy::Local,
        health_check_node_port: 30000,
        ..service("ns/web", "172.16.0.1", ports).with_load_balancer("1.2.3.4")
    }
}

/// One change of a Service's slices: before, after, and the lists that result. A star marks the endpoints of
/// this node; the lists are the cluster's and this node's.
struct Step {
    name: &'static str,
    before: Vec<EndpointSlice>,
    after: Vec<EndpointSlice>,
    expected: &'static [&'static str],
}

fn a(ports: &str, endpoints: &[&str]) -> EndpointSlice {
    slice("ns/web-a", "web", ports, endpoints)
}

fn b(ports: &str, endpoints: &[&str]) -> EndpointSlice {
    slice("ns/web-b", "web", ports, endpoints)
}

fn unchanged(name: &'static str, slices: Vec<EndpointSlice>, expected: &'static [&'static str]) -> Step {
    Step {
        name,
        before: slices.clone(),
        after: slices,
        expected,
    }
}

const EMPTY: &[&str] = &["/UDP: |", "p11/UDP: |", "p12/UDP: |", "p13/UDP: |"];

fn unchanging_steps() -> Vec<Step> {
    vec![
        unchanged("nothing", vec![], EMPTY),
        unchanged(
            "no change, unnamed port",
            vec![a("/UDP:11", &["1.1.1.1"])],
            &["/UDP: 1.1.1.1:11 |", "p11/UDP: |", "p12/UDP: |", "p13/UDP: |"],
        ),
        unchanged(
            "no change, named port, local",
            vec![a("p11/UDP:11", &["1.1.1.1 local"])],
            &[
                "/UDP: |",
                "p11/UDP: 1.1.1.1:11* | 1.1.1.1:11*",
                "p12/UDP: |",
                "p13/UDP: |",
            ],
        ),
        unchanged(
            "no change, several slices",
            vec![a("p11/UDP:11", &["1.1.1.1"]), b("p12/UDP:12", &["1.1.1.2"])],
            &[
                "/UDP: |",
                "p11/UDP: 1.1.1.1:11 |",
                "p12/UDP: 1.1.1.2:12 |",
                "p13/UDP: |",
            ],
        ),
        unchanged(
            "no change, several slices, several ports, local",
            vec![
                a("p11/UDP:11 p12/UDP:12", &["1.1.1.1 local"]),
                b("p13/UDP:13", &["1.1.1.3"]),
            ],
            &[
                "/UDP: |",
                "p11/UDP: 1.1.1.1:11* | 1.1.1.1:11*",
                "p12/UDP: 1.1.1.1:12* | 1.1.1.1:12*",
                "p13/UDP: 1.1.1.3:13 |",
            ],
        ),
        unchanged(
            "no change, several slices, addresses and ports",
            vec![
                a("p11/UDP:11 p12/UDP:12", &["1.1.1.1", "1.1.1.2 local"]),
                b("p13/UDP:13", &["1.1.1.3", "1.1.1.4 local"]),
            ],
            &[
                "/UDP: |",
                "p11/UDP: 1.1.1.1:11 1.1.1.2:11* | 1.1.1.2:11*",
                "p12/UDP: 1.1.1.1:12 1.1.1.2:12* | 1.1.1.2:12*",
                "p13/UDP: 1.1.1.3:13 1.1.1.4:13* | 1.1.1.4:13*",
            ],
        ),
    ]
}

fn changing_steps() -> Vec<Step> {
    let one = || vec![a("p11/UDP:11", &["1.1.1.1"])];
    let two = || vec![a("p11/UDP:11", &["1.1.1.1", "1.1.1.2 local"])];
    let two_expected: &[&str] = &[
        "/UDP: |",
        "p11/UDP: 1.1.1.1:11 1.1.1.2:11* | 1.1.1.2:11*",
        "p12/UDP: |",
        "p13/UDP: |",
    ];
    let one_expected: &[&str] = &["/UDP: |", "p11/UDP: 1.1.1.1:11 |", "p12/UDP: |", "p13/UDP: |"];
    let step = |name, before, after, expected| Step {
        name,
        before,
        after,
        expected,
    };
    let complex = vec![
        a("p11/UDP:11", &["1.1.1.1", "1.1.1.11"]),
        slice(
            "ns/web-c",
            "web",
            "p12/UDP:12 p13/UDP:13",
            &["1.1.1.2", "4.4.4.4 local"],
        ),
    ];
    vec![
        step("the slice is added", vec![], one(), one_expected),
        step("the slice is removed", one(), vec![], EMPTY),
        step("an address is added", one(), two(), two_expected),
        step("an address is removed", two(), one(), one_expected),
        step(
            "a slice is added to another",
            one(),
            vec![a("p11/UDP:11", &["1.1.1.1"]), b("p12/UDP:22", &["1.1.1.2 local"])],
            &[
                "/UDP: |",
                "p11/UDP: 1.1.1.1:11 |",
                "p12/UDP: 1.1.1.2:22* | 1.1.1.2:22*",
                "p13/UDP: |",
            ],
        ),
        step(
            "a slice is removed from beside another",
            vec![a("p11/UDP:11", &["1.1.1.1"]), b("p12/UDP:22", &["1.1.1.2 local"])],
            one(),
            one_expected,
        ),
        step(
            "a port is renamed",
            one(),
            vec![a("p12/UDP:11", &["1.1.1.1"])],
            &["/UDP: |", "p11/UDP: |", "p12/UDP: 1.1.1.1:11 |", "p13/UDP: |"],
        ),
        step(
            "a port is renumbered",
            one(),
            vec![a("p11/UDP:22", &["1.1.1.1"])],
            &["/UDP: |", "p11/UDP: 1.1.1.1:22 |", "p12/UDP: |", "p13/UDP: |"],
        ),
        step(
            "slices, ports and addresses come and go at once",
            vec![
                a("p11/UDP:11", &["1.1.1.1"]),
                b("p12/UDP:22 p13/UDP:23", &["2.2.2.2 local", "2.2.2.22 local"]),
            ],
            complex,
            &[
                "/UDP: |",
                "p11/UDP: 1.1.1.11:11 1.1.1.1:11 |",
                "p12/UDP: 1.1.1.2:12 4.4.4.4:12* | 4.4.4.4:12*",
                "p13/UDP: 1.1.1.2:13 4.4.4.4:13* | 4.4.4.4:13*",
            ],
        ),
        step(
            "from no address to one",
            vec![a("p11/UDP:11", &[])],
            one(),
            one_expected,
        ),
        step(
            "from ready to terminating",
            one(),
            vec![a("p11/UDP:11", &["1.1.1.1 terminating"])],
            one_expected,
        ),
        step(
            "from terminating to no address",
            vec![a("p11/UDP:11", &["1.1.1.1 terminating"])],
            vec![a("p11/UDP:11", &[])],
            EMPTY,
        ),
        step(
            "all become unready",
            two(),
            vec![a("p11/UDP:11", &["1.1.1.1 unready", "1.1.1.2 unready"])],
            EMPTY,
        ),
        step(
            "one more becomes ready",
            vec![a("p11/UDP:11", &["1.1.1.1", "1.1.1.2 local unready"])],
            two(),
            two_expected,
        ),
        step(
            "some begin to terminate",
            two(),
            vec![a("p11/UDP:11", &["1.1.1.1", "1.1.1.2 local terminating"])],
            &[
                "/UDP: |",
                "p11/UDP: 1.1.1.1:11 | 1.1.1.2:11*",
                "p12/UDP: |",
                "p13/UDP: |",
            ],
        ),
    ]
}

#[test]
fn slices_make_up_the_endpoints_of_each_port() {
    let changed = [name("ns/web")];
    let web = web("/UDP:1 p11/UDP:11 p12/UDP:12 p13/UDP:13");
    for step in unchanging_steps().into_iter().chain(changing_steps()) {
        let mut cluster = cluster([&web], &step.before);
        cluster.take_dirty();
        for gone in step
            .before
            .iter()
            .filter(|old| step.after.iter().all(|new| new.name != old.name))
        {
            cluster.apply(Change::Deleted(Kind::EndpointSlice, gone.name.clone()));
        }
        observe(&mut cluster, &[], &step.after);
        let touched: &[_] = if step.before == step.after { &[] } else { &changed };
        assert_eq!(cluster.take_dirty(), touched, "{}", step.name);
        let view = cluster.resolve(&web.name).unwrap();
        assert_eq!(endpoints(&view), step.expected, "{}", step.name);
    }
}

#[test]
fn slices_are_merged_by_address_and_port() {
    let cases: &[(&str, Vec<EndpointSlice>, &[&str])] = &[
        (
            "two slices, one port",
            vec![
                a("h/TCP:80", &["10.0.1.1", "10.0.1.2"]),
                b("h/TCP:80", &["10.0.2.1"]),
            ],
            &["h/TCP: 10.0.1.1:80 10.0.1.2:80 10.0.2.1:80 |", "s/TCP: |"],
        ),
        (
            "one port name with two numbers, as named target ports give",
            vec![
                a("h/TCP:80", &["10.0.1.1 local"]),
                b("h/TCP:8080", &["10.0.1.1 local"]),
            ],
            &[
                "h/TCP: 10.0.1.1:80* 10.0.1.1:8080* | 10.0.1.1:80* 10.0.1.1:8080*",
                "s/TCP: |",
            ],
        ),
        (
            "overlapping slices count each endpoint once",
            vec![
                a("h/TCP:80", &["10.0.1.1", "10.0.1.2"]),
                b("h/TCP:80", &["10.0.1.2", "10.0.1.3"]),
            ],
            &["h/TCP: 10.0.1.1:80 10.0.1.2:80 10.0.1.3:80 |", "s/TCP: |"],
        ),
        (
            "a slice that has one of two ports, and says where its endpoints are",
            vec![
                a("h/TCP:80 s/TCP:443", &["10.0.1.1", "10.0.1.2 local"]),
                b("h/TCP:80", &["10.0.1.1 local", "10.0.1.3"]),
            ],
            &[
                "h/TCP: 10.0.1.1:80* 10.0.1.2:80* 10.0.1.3:80 | 10.0.1.1:80* 10.0.1.2:80*",
                "s/TCP: 10.0.1.1:443 10.0.1.2:443* | 10.0.1.2:443*",
            ],
        ),
        (
            "ready in one slice and not in the other is ready",
            vec![a("h/TCP:80", &["10.0.1.1 unready"]), b("h/TCP:80", &["10.0.1.1"])],
            &["h/TCP: 10.0.1.1:80 |", "s/TCP: |"],
        ),
        (
            "a running pod beats a terminating one whose address it has",
            vec![
                a("h/TCP:80", &["10.0.1.1", "10.0.1.2 terminating"]),
                b("h/TCP:80", &["10.0.1.1 terminating", "10.0.1.2"]),
            ],
            &["h/TCP: 10.0.1.1:80 10.0.1.2:80 |", "s/TCP: |"],
        ),
        (
            "even when it is not ready yet",
            vec![
                a("h/TCP:80", &["10.0.1.1 terminating"]),
                b("h/TCP:80", &["10.0.1.1 unready"]),
            ],
            &["h/TCP: |", "s/TCP: |"],
        ),
        (
            "the protocol has to match, and the name",
            vec![a("h/UDP:80 t/TCP:443", &["10.0.1.1"])],
            &["h/TCP: |", "s/TCP: |"],
        ),
        (
            "sorted by the bytes of address:port",
            vec![a("h/TCP:80", &["10.0.1.9", "10.0.1.10", "10.0.1.1", "9.0.0.1"])],
            &[
                "h/TCP: 10.0.1.10:80 10.0.1.1:80 10.0.1.9:80 9.0.0.1:80 |",
                "s/TCP: |",
            ],
        ),
    ];
    for (case, slices, expected) in cases {
        let web = web("h/TCP:80 s/TCP:443");
        let view = view_of(&web, slices);
        assert_eq!(endpoints(&view), *expected, "{case}");
        let reversed: Vec<_> = slices.iter().rev().cloned().collect();
        assert_eq!(view_of(&web, &reversed), view, "{case}, reversed");
    }
}

#[test]
fn ipv6_endpoints_are_sorted_by_their_bracketed_text() {
    let service = service("ns/web", "2001:db8::1", "h/TCP:80");
    let slice = slice(
        "ns/web-6",
        "web",
        "h/TCP:80",
        &["fd00::1:1", "fd00::2", "fd00::1"],
    );
    let view = view_of(&service, &[slice]);
    assert_eq!(endpoints(&view), ["h/TCP: fd00::1:1:80 fd00::1:80 fd00::2:80 |"]);
}
