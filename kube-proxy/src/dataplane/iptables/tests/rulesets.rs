//! Whole rulesets as they are printed for `iptables-restore`; `UPDATE_SNAPSHOTS=1` writes them anew.

use std::collections::BTreeSet;

use super::*;
use crate::dataplane::NodePortAddresses;
use crate::dataplane::iptables::changed::Changed;
use crate::model::object::{ServiceType, TrafficPolicy};
use crate::model::testing::{service, slice};

fn assert_recorded(name: &str, dataplane: &Iptables) {
    let path = format!(
        "{}/src/dataplane/iptables/tests/rulesets/{name}.txt",
        env!("CARGO_MANIFEST_DIR")
    );
    let printed = Family::ALL
        .map(|family| format!("# {family}\n{}", printed(dataplane, family)))
        .concat();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &printed).unwrap();
    }
    assert_eq!(printed, std::fs::read_to_string(&path).unwrap(), "{path}");
}

#[test]
fn without_services() {
    assert_recorded("empty", &planned(config(), &[], &[]));
}

#[test]
fn cluster_ips_with_and_without_endpoints_in_both_families() {
    let services = [
        service(
            "ns/web",
            "10.96.0.1 fd00:96::1",
            "http/TCP:80 dns/UDP:53 sig/SCTP:5060",
        ),
        service("ns/none", "10.96.0.2", "http/TCP:80"),
    ];
    let slices = [
        slice(
            "ns/web-4",
            "web",
            "http/TCP:8080 dns/UDP:5353 sig/SCTP:5060",
            &["10.244.1.1 local", "10.244.2.1", "10.244.2.2"],
        ),
        slice("ns/web-6", "web", "http/TCP:8080", &["fd00:10:244:1::1 local"]),
    ];
    assert_recorded("cluster-ips", &planned(config(), &services, &slices));
}

#[test]
fn external_addresses_node_ports_and_source_ranges() {
    let services = [
        service("ns/web", "10.96.0.1", "http/TCP:80:30080")
            .with_load_balancer("203.0.113.1 203.0.113.2")
            .with_external_ips("198.51.100.1")
            .with_source_ranges("192.0.2.0/24 192.168.0.0/16"),
        service("ns/none", "10.96.0.2", "http/TCP:80:30081").with_load_balancer("203.0.113.3"),
        service("ns/unnamed", "10.96.0.3", "/TCP:80:30082").of_type(ServiceType::NodePort),
    ];
    let slices = [
        slice(
            "ns/web-1",
            "web",
            "http/TCP:8080",
            &["10.244.1.1 local", "10.244.2.1"],
        ),
        slice("ns/unnamed-1", "unnamed", "/TCP:8080", &["10.244.2.1"]),
    ];
    assert_recorded("external", &planned(config(), &services, &slices));
}

fn local_policies() -> ([Service; 3], [EndpointSlice; 3]) {
    let local = |name, ip, node_port: u16, vip| Service {
        external_traffic_policy: TrafficPolicy::Local,
        health_check_node_port: node_port + 1000,
        ..service(name, ip, &format!("http/TCP:80:{node_port}")).with_load_balancer(vip)
    };
    let services = [
        local("ns/here", "10.96.0.1", 30080, "203.0.113.1"),
        local("ns/elsewhere", "10.96.0.2", 30081, "203.0.113.2"),
        Service {
            internal_traffic_policy: TrafficPolicy::Local,
            ..service("ns/inside", "10.96.0.3", "http/TCP:80")
        },
    ];
    let slices = [
        slice(
            "ns/here-1",
            "here",
            "http/TCP:8080",
            &["10.244.1.1 local", "10.244.2.1"],
        ),
        slice("ns/elsewhere-1", "elsewhere", "http/TCP:8080", &["10.244.2.1"]),
        slice("ns/inside-1", "inside", "http/TCP:8080", &["10.244.2.1"]),
    ];
    (services, slices)
}

#[test]
fn local_traffic_policies() {
    let (services, slices) = local_policies();
    assert_recorded("local-policies", &planned(config(), &services, &slices));
}

#[test]
fn nobody_is_known_to_be_a_pod_and_node_ports_are_on_one_address_only() {
    let (services, slices) = local_policies();
    let mut dataplane = planned(
        Config {
            local_traffic: [
                LocalTraffic::Unknown,
                LocalTraffic::InterfacePrefix("veth".to_owned()),
            ],
            localhost_node_ports: false,
            drops_invalid: false,
            ..config()
        },
        &services,
        &slices,
    );
    let only = NodePortAddresses::Only(vec!["192.168.0.2".parse().unwrap()]);
    dataplane.set_node_port_addresses(Family::V4, only);
    assert_recorded("no-detector", &dataplane);
}

#[test]
fn session_affinity() {
    let services = [Service {
        session_affinity: Some(10_800),
        ..service("ns/web", "10.96.0.1", "http/TCP:80:30080").of_type(ServiceType::NodePort)
    }];
    let slices = [slice(
        "ns/web-1",
        "web",
        "http/TCP:8080",
        &["10.244.1.1 local", "10.244.2.1", "10.244.2.2"],
    )];
    assert_recorded("affinity", &planned(config(), &services, &slices));
}

#[test]
fn each_endpoint_is_as_likely_as_the_others_up_to_five_thousand() {
    for count in [1, 2, 3, 7, 100, 1000, 5000] {
        let endpoints: Vec<String> = (0..count)
            .map(|at| format!("10.244.{}.{}", at / 250, at % 250 + 1))
            .collect();
        let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
        let services = [service("ns/web", "10.96.0.1", "http/TCP:80")];
        let text = printed(
            &planned(
                config(),
                &services,
                &[slice("ns/web-1", "web", "http/TCP:8080", &endpoints)],
            ),
            Family::V4,
        );
        // As the kernel does: one after the other, each with its own chance, in units of 2^-31.
        let mut left = 1.0;
        let mut chances = Vec::new();
        for line in text
            .lines()
            .filter(|line| line.starts_with("-A KUBE-SVC-") && line.contains("-j KUBE-SEP-"))
        {
            let chance = line.split("--probability ").nth(1).map_or(1.0, |rest| {
                let given: f64 = rest.split(' ').next().unwrap().parse().unwrap();
                (given * f64::from(1_u32 << 31)).round() / f64::from(1_u32 << 31)
            });
            chances.push(left * chance);
            left *= 1.0 - chance;
        }
        assert_eq!(chances.len(), count);
        let fair = 1.0 / f64::from(u32::try_from(count).unwrap());
        let worst = chances
            .iter()
            .map(|chance| (chance / fair - 1.0).abs())
            .fold(0.0, f64::max);
        assert!(worst < 1e-4, "of {count} one is off by {worst}");
    }
}

#[test]
fn beyond_a_thousand_endpoints_there_are_no_comments_for_each_of_them() {
    let many: Vec<String> = (0..1001)
        .map(|at| format!("10.244.{}.{}", at / 250, at % 250 + 1))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut cluster = testing::cluster(
        &[
            service("ns/many", "10.96.0.1", "http/TCP:80"),
            service("ns/web", "10.96.0.2", "http/TCP:80"),
        ],
        &[slice("ns/many-1", "many", "http/TCP:8080", &many)],
    );
    let mut dataplane = Iptables::new(config());
    update(&mut dataplane, &mut cluster);
    testing::observe(
        &mut cluster,
        [],
        [&slice("ns/web-1", "web", "http/TCP:8080", &["10.244.9.1"])],
    );
    update(&mut dataplane, &mut cluster);
    let text = printed(&dataplane, Family::V4);
    assert!(
        text.contains("ns/web:http cluster IP") && !text.contains("ns/web:http ->"),
        "{text}"
    );
    assert!(
        text.contains("ns/many:http -> 10.244.0.1:8080"),
        "planned before the limit was reached"
    );
}

#[test]
fn what_changed_is_all_that_is_written() {
    let services = [
        service("ns/web", "10.96.0.1", "http/TCP:80"),
        service("ns/other", "10.96.0.2", "http/TCP:80"),
    ];
    let endpoints = |web: &[&str]| [slice("ns/web-1", "web", "http/TCP:8080", web)];
    let mut cluster = testing::cluster(&services, &[]);
    testing::observe(
        &mut cluster,
        [],
        [&slice("ns/other-1", "other", "http/TCP:8080", &["10.244.1.9"])],
    );
    testing::observe(&mut cluster, [], &endpoints(&["10.244.1.1", "10.244.1.2"]));
    let mut dataplane = Iptables::new(config());
    dataplane.families[0].full = false;
    update(&mut dataplane, &mut cluster);
    let partial = |dataplane: &mut Iptables| {
        let none = BTreeSet::new();
        let [state, _] = &dataplane.families;
        let text = state
            .desired(&dataplane.ledger, &none)
            .partial(&state.changed)
            .text;
        dataplane.families[0].changed = Changed::default();
        text
    };
    partial(&mut dataplane);
    // One endpoint replaced: the Service's chain, the new endpoint's, and the old one's, which goes.
    testing::observe(&mut cluster, [], &endpoints(&["10.244.1.1", "10.244.1.3"]));
    update(&mut dataplane, &mut cluster);
    let text = partial(&mut dataplane);
    assert!(text.starts_with("*nat\n") && text.ends_with("COMMIT\n"), "{text}");
    let lines = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!(
        (
            lines(":KUBE-SVC-"),
            lines(":KUBE-SEP-"),
            lines("-X KUBE-SEP-"),
            lines(":")
        ),
        (1, 2, 1, 3),
        "{text}"
    );
    assert!(
        text.contains("10.244.1.3:8080") && !text.contains("10.244.1.2") && !text.contains("other"),
        "{text}"
    );
    // None left: rules of shared chains change as well.
    testing::observe(&mut cluster, [], &endpoints(&[]));
    update(&mut dataplane, &mut cluster);
    let text = partial(&mut dataplane);
    assert!(text.contains("ns/web:http has no endpoints\""), "{text}");
    assert!(
        text.contains("*filter\n-I KUBE-SERVICES -d 10.96.0.1/32 "),
        "{text}"
    );
    assert!(text.contains("\n-D KUBE-SERVICES -d 10.96.0.1/32 "), "{text}");
    assert!(
        !text.contains("other") && !text.contains("this must be the last rule"),
        "of a shared chain only what changed is written: {text}"
    );
}
