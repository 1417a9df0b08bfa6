//! Pods and Endpoints, and the slices that are made of them.

use serde_json::{Value, json};

use super::super::derive::*;
use crate::model::object::ObjectName;
use crate::source::wire;

fn service(spec: Value) -> wire::Service {
    serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap()
}

fn pods(bodies: &[Value]) -> Vec<(ObjectName, wire::Pod)> {
    let named = |(index, body): (usize, &Value)| {
        let pod: wire::Pod = serde_json::from_value(body.clone()).unwrap();
        (ObjectName::new("default", format!("pod-{index}")), pod)
    };
    bodies.iter().enumerate().map(named).collect()
}

fn derive(spec: Value, bodies: &[Value]) -> Derived {
    let pods = pods(bodies);
    let name = ObjectName::new("default", "web");
    of_pods(&name, &service(spec), pods.iter().map(|(name, pod)| (name, pod)))
}

/// `name=port ip condition` of each endpoint, conditions as ready, serving, terminating.
fn lines(derived: &Derived) -> Vec<String> {
    let mut lines = Vec::new();
    for slice in &derived.slices {
        let ports = slice
            .ports
            .iter()
            .map(|port| format!("{}={}", port.name.as_deref().unwrap(), port.port.unwrap()));
        let ports = ports.collect::<Vec<_>>().join(" ");
        for endpoint in &slice.endpoints {
            let conditions = endpoint.conditions.unwrap();
            let flag = |set: Option<bool>, letter| if set == Some(true) { letter } else { '-' };
            lines.push(format!(
                "{} {ports} {} {}{}{}",
                slice.address_type,
                endpoint.addresses[0],
                flag(conditions.ready, 'r'),
                flag(conditions.serving, 's'),
                flag(conditions.terminating, 't'),
            ));
        }
    }
    lines
}

fn plain() -> Value {
    json!({"clusterIP": "10.96.0.1", "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]})
}

fn pod(labels: Value, status: Value) -> Value {
    json!({"metadata": {"labels": labels}, "status": status})
}

fn web(status: Value) -> Value {
    pod(json!({"app": "web"}), status)
}

#[test]
fn pods_become_endpoints_by_labels_address_and_readiness() {
    let ready = json!([{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]);
    let unready = json!([{"type": "Ready", "status": "False"}]);
    let table = [
        (
            web(json!({"podIP": "10.1.0.1"})),
            vec!["IPv4 http=8080 10.1.0.1 rs-"],
        ),
        (
            web(json!({"podIP": "10.1.0.1", "phase": "Running", "conditions": ready})),
            vec!["IPv4 http=8080 10.1.0.1 rs-"],
        ),
        (
            web(json!({"podIP": "10.1.0.1", "phase": "Pending"})),
            vec!["IPv4 http=8080 10.1.0.1 ---"],
        ),
        (
            web(json!({"podIP": "10.1.0.1", "conditions": unready})),
            vec!["IPv4 http=8080 10.1.0.1 ---"],
        ),
        (
            web(json!({"podIP": "10.1.0.1", "conditions": [{"type": "Initialized", "status": "True"}]})),
            vec!["IPv4 http=8080 10.1.0.1 ---"],
        ),
        (
            web(json!({"podIPs": [{"ip": "fd01::1"}, {"ip": "10.1.0.1"}]})),
            vec!["IPv4 http=8080 10.1.0.1 rs-"],
        ),
        (web(json!({"podIP": "10.1.0.1", "phase": "Succeeded"})), vec![]),
        (web(json!({"podIP": "10.1.0.1", "phase": "Failed"})), vec![]),
        (web(json!({})), vec![]),
        (web(json!({"podIP": "fd01::1"})), vec![]),
        (pod(json!({"app": "other"}), json!({"podIP": "10.1.0.1"})), vec![]),
        (
            pod(json!({"app": "web", "tier": "x"}), json!({"podIP": "10.1.0.1"})),
            vec!["IPv4 http=8080 10.1.0.1 rs-"],
        ),
        (
            json!({"metadata": {"labels": {"app": "web"}, "deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"podIP": "10.1.0.1"}}),
            vec!["IPv4 http=8080 10.1.0.1 -st"],
        ),
    ];
    for (pod, expected) in table {
        assert_eq!(
            lines(&derive(plain(), std::slice::from_ref(&pod))),
            expected,
            "{pod}"
        );
    }
}

#[test]
fn a_service_that_publishes_unready_pods_has_them_ready() {
    let mut spec = plain();
    spec["publishNotReadyAddresses"] = json!(true);
    let pod = web(json!({"podIP": "10.1.0.1", "conditions": [{"type": "Ready", "status": "False"}]}));
    assert_eq!(lines(&derive(spec, &[pod])), ["IPv4 http=8080 10.1.0.1 r--"]);
}

#[test]
fn a_service_without_a_selector_selects_nothing() {
    let mut spec = plain();
    spec["selector"] = json!({});
    assert_eq!(
        derive(spec, &[web(json!({"podIP": "10.1.0.1"}))]),
        Derived::default()
    );
}

#[test]
fn named_ports_are_looked_up_in_each_pod() {
    let spec = json!({
        "clusterIPs": ["10.96.0.1", "fd00::1"], "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": "web"}, {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns"},
                  {"name": "same", "port": 99}],
    });
    let with = |containers: Value, ips: Value| {
        json!({
            "metadata": {"labels": {"app": "web"}}, "spec": containers, "status": {"podIPs": ips},
        })
    };
    let dns = json!({"name": "dns", "containerPort": 5353, "protocol": "UDP"});
    let bodies = [
        with(
            json!({"containers": [{"ports": [{"name": "web", "containerPort": 8080}, dns]}]}),
            json!([{"ip": "10.1.0.1"}, {"ip": "fd01::1"}]),
        ),
        with(
            json!({"containers": [{"ports": [{"name": "web", "containerPort": 9090}, {"name": "dns", "containerPort": 1}, dns]}]}),
            json!([{"ip": "10.1.0.2"}]),
        ),
        with(
            json!({"containers": [{"ports": [dns]}], "initContainers": [
                {"ports": [{"name": "web", "containerPort": 1}]},
                {"restartPolicy": "Always", "ports": [{"name": "web", "containerPort": 8080}]},
            ]}),
            json!([{"ip": "10.1.0.3"}]),
        ),
        with(
            json!({"containers": [{"ports": [{"name": "web", "containerPort": 7070}]}]}),
            json!([{"ip": "10.1.0.4"}]),
        ),
    ];
    let derived = derive(spec, &bodies);
    assert_eq!(
        lines(&derived),
        [
            "IPv4 http=7070 same=99 10.1.0.4 rs-",
            "IPv4 http=8080 dns=5353 same=99 10.1.0.1 rs-",
            "IPv4 http=8080 dns=5353 same=99 10.1.0.3 rs-",
            "IPv4 http=9090 dns=5353 same=99 10.1.0.2 rs-",
            "IPv6 http=8080 dns=5353 same=99 fd01::1 rs-",
        ]
    );
    assert_eq!(
        derived.hints,
        ["Pod default/pod-3 is selected by Service default/web, but has no port named \"dns\""]
    );
}

#[test]
fn a_pod_without_an_address_is_pointed_out() {
    let hints = derive(plain(), &[web(json!({}))]).hints;
    assert_eq!(hints.len(), 1);
    assert!(hints[0].contains("set status.podIP"), "{hints:?}");
}

#[test]
fn endpoints_become_slices_by_subset_and_family() {
    let endpoints: wire::Endpoints = serde_json::from_value(json!({"subsets": [
        {"addresses": [{"ip": "10.1.0.1", "nodeName": "n1"}, {"ip": "fd01::1"}],
         "notReadyAddresses": [{"ip": "10.1.0.2"}], "ports": [{"port": 8080}]},
        {"addresses": [{"ip": "10.1.0.3"}], "ports": [{"name": "x", "port": 1}]},
        {"ports": [{"port": 1}]},
    ]}))
    .unwrap();
    let slices = of_endpoints(&ObjectName::new("default", "web"), &endpoints);
    let derived = Derived {
        slices,
        hints: Vec::new(),
    };
    assert_eq!(
        lines(&derived),
        [
            "IPv4 =8080 10.1.0.1 r--",
            "IPv4 =8080 10.1.0.2 ---",
            "IPv6 =8080 fd01::1 r--",
            "IPv4 x=1 10.1.0.3 r--"
        ]
    );
    assert_eq!(derived.slices[0].endpoints[0].node_name.as_deref(), Some("n1"));
}
