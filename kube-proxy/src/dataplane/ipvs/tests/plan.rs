//! Views as virtual servers and addresses.

use super::super::entry::{Key, Scheduler, Value};
use super::super::plan::plan;
use crate::dataplane::nftables::Destination;
use crate::model::object::{EndpointSlice, Service, TrafficPolicy};
use crate::model::testing::{service, slice, view_of};

/// What is planned, a line each: `+ address`, or `address:port scheduler: endpoint=weight …`.
fn planned(service: &Service, slice: &EndpointSlice) -> Vec<String> {
    let view = view_of(service, [slice]);
    let entries = plan(&view, &Scheduler::round_robin());
    shown(&entries)
}

fn shown(entries: &[(Key, Value)]) -> Vec<String> {
    let shown = |(key, value): &(Key, Value)| match (key, value) {
        (Key::Address(ip), _) => format!("+ {ip}"),
        (Key::Server(frontend), Value::Server(server)) => {
            let ip = match frontend.address {
                Destination::Ip(ip) => ip.to_string(),
                Destination::Node(_) => "*".to_owned(),
            };
            let endpoints = server.endpoints.iter();
            let endpoints: String = endpoints
                .map(|(backend, weight)| format!(" {}={weight}", backend.ip))
                .collect();
            let persistence = server.settings.persistence;
            let persistence = persistence.map_or(String::new(), |seconds| format!(" {seconds}s"));
            let scheduler = server.settings.scheduler.name();
            let keeping = server.keeping.iter();
            let keeping: String = keeping
                .map(|backend| format!(", flows stay with {}", backend.ip))
                .collect();
            format!(
                "{ip}:{} {scheduler}{persistence}:{endpoints}{keeping}",
                frontend.port
            )
        }
        (key, Value::Present) => panic!("{key:?} without endpoints"),
    };
    let mut lines: Vec<String> = entries.iter().map(shown).collect();
    lines.dedup();
    lines
}

#[test]
fn every_address_is_a_virtual_server_with_the_endpoints_of_those_outside() {
    let web = service("default/web", "10.96.0.1", "http/TCP:80:30080")
        .with_load_balancer("203.0.113.9")
        .with_affinity(60);
    let endpoints = ["10.180.1.1 local", "10.180.2.1"];
    let two = slice("default/web-1", "web", "http/TCP:8080", &endpoints);
    let both = "10.180.1.1=1 10.180.2.1=1";
    assert_eq!(
        planned(&web, &two),
        [
            "+ 10.96.0.1".to_owned(),
            format!("10.96.0.1:80 rr 60s: {both}"),
            "+ 203.0.113.9".to_owned(),
            format!("203.0.113.9:80 rr 60s: {both}"),
            format!("*:30080 rr 60s: {both}"),
        ]
    );
    let local = web.with_policies(TrafficPolicy::Cluster, TrafficPolicy::Local);
    assert_eq!(
        planned(&local, &two),
        [
            "+ 10.96.0.1",
            "10.96.0.1:80 rr 60s: 10.180.1.1=1 10.180.2.1=1",
            "+ 203.0.113.9",
            "203.0.113.9:80 rr 60s: 10.180.1.1=1",
            "*:30080 rr 60s: 10.180.1.1=1",
        ]
    );
    // Pods and the host may go elsewhere, but that is not IPVS' business.
    let elsewhere = slice("default/web-1", "web", "http/TCP:8080", &["10.180.2.1"]);
    assert_eq!(
        planned(&local, &elsewhere),
        [
            "+ 10.96.0.1",
            "10.96.0.1:80 rr 60s: 10.180.2.1=1",
            "+ 203.0.113.9"
        ]
    );
}

#[test]
fn without_endpoints_the_addresses_stay_so_that_the_rules_see_their_packets() {
    let web = service("default/web", "10.96.0.1", "http/TCP:80:30080").with_external_ips("203.0.113.8");
    let none = slice("default/web-1", "web", "http/TCP:8080", &[]);
    assert_eq!(planned(&web, &none), ["+ 10.96.0.1", "+ 203.0.113.8"]);
}

#[test]
fn a_service_may_have_a_scheduler_of_its_own() {
    let mut web = service("default/web", "10.96.0.1", "http/TCP:80");
    web.ipvs_scheduler = Some("lc".into());
    let one = slice("default/web-1", "web", "http/TCP:8080", &["10.180.1.1"]);
    assert_eq!(
        planned(&web, &one),
        ["+ 10.96.0.1", "10.96.0.1:80 lc: 10.180.1.1=1"]
    );
}

#[test]
fn a_slice_may_give_its_endpoints_a_weight() {
    let web = service("default/web", "10.96.0.1", "http/TCP:80");
    let weighing = |name: &str, endpoints: &[&str], weight| EndpointSlice {
        ipvs_weight: weight,
        ..slice(name, "web", "http/TCP:8080", endpoints)
    };
    let line = |slices: &[EndpointSlice]| {
        let entries = plan(&view_of(&web, slices), &Scheduler::round_robin());
        shown(&entries).pop().unwrap()
    };
    let heavy = weighing("default/web-1", &["10.180.1.1", "10.180.2.1"], Some(3));
    let usual = weighing("default/web-2", &["10.180.3.1"], None);
    let none = weighing("default/web-3", &["10.180.4.1"], Some(0));
    assert_eq!(
        line(&[heavy.clone(), usual.clone(), none]),
        "10.96.0.1:80 rr: 10.180.1.1=3 10.180.2.1=3 10.180.3.1=1 10.180.4.1=0"
    );
    // While an endpoint moves between slices, whatever their order.
    let moving = weighing("default/web-0", &["10.180.1.1"], None);
    let moved = weighing("default/web-9", &["10.180.3.1"], Some(2));
    assert_eq!(
        line(&[heavy, usual, moving, moved]),
        "10.96.0.1:80 rr: 10.180.1.1=3 10.180.2.1=3 10.180.3.1=2"
    );
}

#[test]
fn flows_of_udp_may_stay_with_an_endpoint_that_serves_on() {
    let dns = service("kube-system/dns", "10.96.0.10", "dns/UDP:53");
    let of = |endpoints: &[&str]| slice("kube-system/dns-1", "dns", "dns/UDP:53", endpoints);
    let line = |endpoints: &[&str]| planned(&dns, &of(endpoints)).pop().unwrap();
    assert_eq!(
        line(&["10.180.1.1 terminating", "10.180.2.1"]),
        "10.96.0.10:53 rr: 10.180.2.1=1, flows stay with 10.180.1.1"
    );
    // One that does not serve keeps nothing.
    assert_eq!(
        line(&["10.180.1.1 stopped", "10.180.2.1"]),
        "10.96.0.10:53 rr: 10.180.2.1=1"
    );
}
