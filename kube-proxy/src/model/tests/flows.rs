//! To which endpoints the UDP and SCTP flows of a ServicePort may live on.

use crate::model::object::{Service, TrafficPolicy};
use crate::model::testing::*;

#[test]
fn flows_live_on_to_every_endpoint_that_is_ready_or_serves_and_tcp_has_none_to_name() {
    let strict = |service: Service| Service {
        internal_traffic_policy: TrafficPolicy::Local,
        external_traffic_policy: TrafficPolicy::Local,
        ..service
    };
    let any = |service: Service| service;
    type Policies<'a> = &'a dyn Fn(Service) -> Service;
    let table: &[(&str, Policies, &[&str], &str)] = &[
        ("none", &any, &[], ""),
        (
            "ready ones, sorted as addresses are",
            &any,
            &["10.0.1.9", "10.0.1.10 local"],
            " 10.0.1.9:53 10.0.1.10:53",
        ),
        (
            "terminating but serving, although ready ones get what is new",
            &any,
            &["10.0.1.1", "10.0.1.2 terminating"],
            " 10.0.1.1:53 10.0.1.2:53",
        ),
        (
            "serving, neither ready nor terminating, although it gets nothing new",
            &any,
            &["10.0.1.1 serving"],
            " 10.0.1.1:53",
        ),
        (
            "not serving any more",
            &any,
            &["10.0.1.1 stopped", "10.0.1.2 unready"],
            "",
        ),
        (
            "anywhere, although the policies keep what is new on this node",
            &strict,
            &["10.0.1.1", "10.0.1.2 local"],
            " 10.0.1.1:53 10.0.1.2:53",
        ),
        (
            "anywhere, although this node has none",
            &strict,
            &["10.0.1.1", "10.0.1.2 terminating"],
            " 10.0.1.1:53 10.0.1.2:53",
        ),
        (
            "in every zone, although hints keep what is new elsewhere",
            &any,
            &["10.0.1.1 node:this-node", "10.0.1.2 node:other-node"],
            " 10.0.1.1:53 10.0.1.2:53",
        ),
    ];
    for (case, policies, endpoints, expected) in table {
        let ports = "dns/UDP:53:30053 dns/TCP:53:30053 call/SCTP:53:30053";
        let service = policies(service("ns/web", "172.16.0.1", ports).with_load_balancer("1.2.3.4"));
        let slice = slice("ns/web-a", "web", "dns/UDP:53 dns/TCP:53 call/SCTP:53", endpoints);
        let expected = [
            format!("dns/UDP:{expected}"),
            "dns/TCP:".to_owned(),
            format!("call/SCTP:{expected}"),
        ];
        assert_eq!(flow_endpoints(&view_of(&service, &[slice])), expected, "{case}");
    }
}

#[test]
fn each_family_has_its_own_and_a_running_pod_hides_the_one_whose_address_it_has() {
    let service = service("ns/web", "172.16.0.1 2001:db8::1", "dns/UDP:53");
    let slices = [
        slice(
            "ns/web-a",
            "web",
            "dns/UDP:53",
            &["10.0.1.1 terminating", "10.0.1.2 terminating"],
        ),
        slice("ns/web-b", "web", "dns/UDP:53", &["10.0.1.1 unready"]),
        slice("ns/web-c", "web", "dns/UDP:5353", &["10.0.1.2"]),
        slice("ns/web-6", "web", "dns/UDP:53", &["fd00::1"]),
    ];
    assert_eq!(
        flow_endpoints(&view_of(&service, &slices)),
        ["dns/UDP: 10.0.1.2:53 10.0.1.2:5353", "dns/UDP: [fd00::1]:53"]
    );
}
