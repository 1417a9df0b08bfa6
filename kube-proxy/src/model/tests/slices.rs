//! Which slices belong to a Service, and what it counts in them.

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

fn a(ports: &str, endpoints: &[&str]) -> EndpointSlice {
    slice("ns/web-a", "web", ports, endpoints)
}

fn b(ports: &str, endpoints: &[&str]) -> EndpointSlice {
    slice("ns/web-b", "web", ports, endpoints)
}

#[test]
fn each_family_uses_its_own_slices() {
    let service = service("ns/web", "10.0.0.1 2001:db8::1", "h/TCP:80");
    let mut mixed = slice("ns/web-4", "web", "h/TCP:80", &["10.0.1.1"]);
    mixed.endpoints.push(endpoint("fd00::9"));
    let six = slice("ns/web-6", "web", "h/TCP:80", &["fd00::1"]);
    let view = view_of(&service, &[mixed, six]);
    assert_eq!(endpoints(&view), ["h/TCP: 10.0.1.1:80 |", "h/TCP: fd00::1:80 |"]);
}

#[test]
fn slices_of_other_services_and_namespaces_do_not_count() {
    let web = web("h/TCP:80");
    let slices = [
        slice("ns/web-a", "web", "h/TCP:80", &["10.0.0.1"]),
        slice("ns/api-a", "api", "h/TCP:80", &["10.0.0.2"]),
        slice("other/web-a", "web", "h/TCP:80", &["10.0.0.3"]),
        EndpointSlice {
            service: None,
            ..slice("ns/stray", "", "h/TCP:80", &["10.0.0.4"])
        },
    ];
    let view = view_of(&web, &slices);
    assert_eq!(endpoints(&view), ["h/TCP: 10.0.0.1:80 |"]);
}

#[test]
fn a_slice_that_moves_to_another_service_leaves_nothing_behind() {
    let (web, api) = (
        service("ns/web", "10.0.0.1", "h/TCP:80"),
        service("ns/api", "10.0.0.2", "h/TCP:80"),
    );
    let mut cluster = cluster([&web, &api], &[slice("ns/x", "web", "h/TCP:80", &["10.1.0.1"])]);
    cluster.take_dirty();
    observe(
        &mut cluster,
        &[],
        &[slice("ns/x", "api", "h/TCP:80", &["10.1.0.1"])],
    );
    assert_eq!(cluster.take_dirty(), [api.name.clone(), web.name.clone()]);
    assert_eq!(endpoints(&cluster.resolve(&web.name).unwrap()), ["h/TCP: |"]);
    assert_eq!(
        endpoints(&cluster.resolve(&api.name).unwrap()),
        ["h/TCP: 10.1.0.1:80 |"]
    );

    let stray = EndpointSlice {
        service: None,
        ..slice("ns/x", "", "h/TCP:80", &["10.1.0.1"])
    };
    observe(&mut cluster, &[], &[stray]);
    assert_eq!(cluster.take_dirty(), [name("ns/api")]);
    assert_eq!(endpoints(&cluster.resolve(&api.name).unwrap()), ["h/TCP: |"]);
}

#[test]
fn slices_may_come_before_their_service() {
    let web = web("h/TCP:80");
    let mut cluster = cluster(&[], &[a("h/TCP:80", &["10.0.0.1"])]);
    assert_eq!(cluster.take_dirty(), []);
    observe(&mut cluster, [&web], &[]);
    assert_eq!(cluster.take_dirty(), [name("ns/web")]);
    assert_eq!(
        endpoints(&cluster.resolve(&web.name).unwrap()),
        ["h/TCP: 10.0.0.1:80 |"]
    );
}

#[test]
fn the_health_check_counts_addresses_of_local_ready_endpoints() {
    let cases: &[(&str, Vec<EndpointSlice>, usize)] = &[
        ("nothing", vec![], 0),
        ("a remote one", vec![a("h/TCP:80", &["1.1.1.1"])], 0),
        ("a local one", vec![a("h/TCP:80", &["1.1.1.1 local"])], 1),
        (
            "two ports of one address",
            vec![a("h/TCP:80 s/TCP:443", &["1.1.1.1", "1.1.1.2 local"])],
            1,
        ),
        (
            "several slices with different ports",
            vec![
                a("h/TCP:80", &["1.1.1.1 local", "1.1.1.2 local"]),
                b("s/TCP:443", &["1.1.1.3 local"]),
            ],
            3,
        ),
        (
            "a port that the Service does not name",
            vec![a("other/TCP:80", &["1.1.1.1 local"])],
            1,
        ),
        (
            "a terminating one",
            vec![a("h/TCP:80", &["1.1.1.1 local", "1.1.1.2 local terminating"])],
            1,
        ),
        (
            "all terminate",
            vec![a("h/TCP:80", &["1.1.1.1 local terminating"])],
            0,
        ),
        (
            "a terminating one whose address is in use again",
            vec![
                a("h/TCP:80", &["1.1.1.1 local terminating"]),
                b("h/TCP:80", &["1.1.1.1 local"]),
            ],
            1,
        ),
    ];
    for (case, slices, expected) in cases {
        let web = web("h/TCP:80 s/TCP:443");
        let view = view_of(&web, slices);
        assert_eq!(
            view.health_check.unwrap().local_endpoints,
            [Some(*expected), None],
            "{case}"
        );
    }
}
