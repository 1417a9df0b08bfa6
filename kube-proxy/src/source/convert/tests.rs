//! Fields that parse, fields that do not, and what is left out.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::*;
use crate::model::object::{
    EndpointSlice, Family, IpMode, LoadBalancerIngress, Node, Service, ServiceType, TrafficPolicy,
};

fn convert_service(spec: Value, status: Value) -> Converted<Service> {
    let object = json!({"metadata": {"namespace": "default", "name": "web"}, "spec": spec, "status": status});
    service(&serde_json::from_value(object).unwrap(), &mut Interner::default())
}

fn convert_slice(mut object: Value) -> Converted<EndpointSlice> {
    object["metadata"] =
        json!({"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}});
    endpoint_slice(&serde_json::from_value(object).unwrap(), &mut Interner::default())
}

fn convert_node(object: Value) -> Converted<Node> {
    node(&serde_json::from_value(object).unwrap(), &mut Interner::default())
}

fn fields(problems: &[Problem]) -> Vec<&str> {
    problems.iter().map(|problem| problem.field.as_str()).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_service_is_taken_over_field_by_field() {
    let Converted { object, problems } = convert_service(
        json!({
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.10",
            "clusterIPs": ["10.96.0.10", "fd00::a"],
            "ipFamilies": ["IPv4", "IPv6"],
            "ports": [
                {"name": "http", "port": 80, "nodePort": 30080, "targetPort": "web"},
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 5353},
                {"name": "sig", "port": 36412, "protocol": "SCTP"},
            ],
            "externalIPs": ["192.0.2.001", ""],
            "loadBalancerSourceRanges": [" 203.0.113.0/25 "],
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
            "externalTrafficPolicy": "Local",
            "internalTrafficPolicy": "Local",
            "healthCheckNodePort": 31000,
        }),
        json!({"loadBalancer": {"ingress": [
            {"ip": "198.51.100.1"}, {"ip": "198.51.100.2", "ipMode": "Proxy"}, {"hostname": "lb.example"},
        ]}}),
    );
    assert_eq!(problems, []);
    let service = object.unwrap();
    assert_eq!(service.name.to_string(), "default/web");
    assert_eq!(service.service_type, ServiceType::LoadBalancer);
    assert_eq!(service.cluster_ip, Some(ip("10.96.0.10")));
    assert_eq!(service.cluster_ips, [Some(ip("10.96.0.10")), Some(ip("fd00::a"))]);
    assert_eq!(service.ip_families, [Family::V4, Family::V6]);
    let ports: Vec<_> = service
        .ports
        .iter()
        .map(|port| (&*port.name, port.protocol, port.port, port.node_port))
        .collect();
    assert_eq!(
        ports,
        [
            ("http", Protocol::Tcp, 80, 30080),
            ("dns", Protocol::Udp, 53, 0),
            ("sig", Protocol::Sctp, 36412, 0)
        ]
    );
    assert_eq!(service.external_ips, [ip("192.0.2.1")]);
    assert_eq!(service.source_ranges, ["203.0.113.0/25".parse().unwrap()]);
    assert_eq!(service.session_affinity, Some(60));
    assert_eq!(service.external_traffic_policy, TrafficPolicy::Local);
    assert_eq!(service.internal_traffic_policy, TrafficPolicy::Local);
    assert_eq!(service.health_check_node_port, 31000);
    let vip = |text, ip_mode| LoadBalancerIngress {
        ip: ip(text),
        ip_mode,
    };
    assert_eq!(
        service.load_balancer_ingress,
        [
            vip("198.51.100.1", IpMode::Vip),
            vip("198.51.100.2", IpMode::Proxy)
        ]
    );
}

#[test]
fn a_bad_field_of_a_service_is_reported_and_affects_only_itself() {
    let ok_port = json!({"name": "ok", "port": 1});
    for (spec, field) in [
        (json!({"type": "Magic"}), "spec.type"),
        (json!({"clusterIP": "10.0.0.300"}), "spec.clusterIP"),
        (json!({"clusterIPs": ["10.0.0.1", "x"]}), "spec.clusterIPs[1]"),
        (json!({"ipFamilies": ["IPv5"]}), "spec.ipFamilies[0]"),
        (json!({"externalIPs": ["1.2.3.4", "x"]}), "spec.externalIPs[1]"),
        (
            json!({"loadBalancerSourceRanges": ["10.0.0.1"]}),
            "spec.loadBalancerSourceRanges[0]",
        ),
        (json!({"sessionAffinity": "Cookie"}), "spec.sessionAffinity"),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
        ),
        (
            json!({"externalTrafficPolicy": "local"}),
            "spec.externalTrafficPolicy",
        ),
        (
            json!({"internalTrafficPolicy": "Nearby"}),
            "spec.internalTrafficPolicy",
        ),
        (json!({"healthCheckNodePort": 65536}), "spec.healthCheckNodePort"),
        (
            json!({"ports": [ok_port, {"name": "a", "port": 0}]}),
            "spec.ports[1].port",
        ),
        (
            json!({"ports": [ok_port, {"name": "a", "port": 65536}]}),
            "spec.ports[1].port",
        ),
        (
            json!({"ports": [ok_port, {"name": "a", "port": 1, "protocol": "ICMP"}]}),
            "spec.ports[1].protocol",
        ),
        (
            json!({"ports": [ok_port, {"name": "ok", "port": 2}]}),
            "spec.ports[1].name",
        ),
    ] {
        let Converted { object, problems } = convert_service(spec.clone(), Value::Null);
        assert_eq!(fields(&problems), [field], "{spec}");
        let service = object.unwrap();
        if spec.get("ports").is_some() {
            assert_eq!(service.ports.len(), 1, "{spec}");
        }
    }
    let bad_node_port = json!({"ports": [{"port": 80, "nodePort": -1}]});
    let Converted { object, problems } = convert_service(bad_node_port, Value::Null);
    assert_eq!(fields(&problems), ["spec.ports[0].nodePort"]);
    assert_eq!(object.unwrap().ports[0].node_port, 0);
}

#[test]
fn a_problem_reads_as_a_sentence() {
    let converted = convert_service(json!({"externalIPs": ["1.2.3.4.5"]}), Value::Null);
    assert_eq!(
        converted.problems[0].to_string(),
        r#"Service default/web: spec.externalIPs[0]: "1.2.3.4.5" is not an IP address; it is left out"#
    );
}

#[test]
fn a_bad_load_balancer_address_is_left_out() {
    for (entry, field) in [
        (json!({"ip": "x"}), "status.loadBalancer.ingress[0].ip"),
        (
            json!({"ip": "1.2.3.4", "ipMode": "Maybe"}),
            "status.loadBalancer.ingress[0].ipMode",
        ),
    ] {
        let status = json!({"loadBalancer": {"ingress": [entry, {"ip": "198.51.100.1"}]}});
        let Converted { object, problems } = convert_service(Value::Null, status);
        assert_eq!(fields(&problems), [field]);
        assert_eq!(object.unwrap().load_balancer_ingress.len(), 1);
    }
}

#[test]
fn session_affinity_without_a_configuration_lasts_three_hours() {
    for config in [
        Value::Null,
        json!({}),
        json!({"clientIP": null}),
        json!({"clientIP": {}}),
    ] {
        let spec = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config});
        assert_eq!(
            convert_service(spec, Value::Null)
                .object
                .unwrap()
                .session_affinity,
            Some(10800)
        );
    }
}

#[test]
fn the_cluster_ip_fields_complete_each_other() {
    let both = json!({"clusterIPs": ["fd00::1", "10.0.0.1"]});
    let service = convert_service(both, Value::Null).object.unwrap();
    assert_eq!(service.cluster_ip, Some(ip("fd00::1")));
    assert_eq!(service.ip_families, [Family::V6, Family::V4]);

    let unknown_family = json!({
        "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv9", "IPv6"]
    });
    let service = convert_service(unknown_family, Value::Null).object.unwrap();
    assert_eq!(service.cluster_ips, [Some(ip("fd00::1"))]);
    assert_eq!(service.ip_families, [Family::V6]);

    let headless = json!({"clusterIP": "None", "clusterIPs": ["None"]});
    let Converted { object, problems } = convert_service(headless, Value::Null);
    assert_eq!(problems, []);
    assert!(object.unwrap().headless);
}

#[test]
fn an_object_without_a_name_is_reported_and_ignored() {
    let converted = service(&wire::Service::default(), &mut Interner::default());
    assert_eq!(converted.object, None);
    assert_eq!(fields(&converted.problems), ["metadata.name"]);
}

#[test]
fn nil_conditions_mean_ready_serving_and_not_terminating() {
    for (conditions, expected) in [
        (json!(null), (true, true, false)),
        (json!({}), (true, true, false)),
        (json!({"ready": false}), (false, true, false)),
        (
            json!({"ready": null, "serving": false, "terminating": true}),
            (true, false, true),
        ),
    ] {
        let slice = json!({
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.1.0.1"], "conditions": conditions}],
        });
        let slice = convert_slice(slice).object.unwrap();
        let endpoint = &slice.endpoints[0];
        assert_eq!((endpoint.ready, endpoint.serving, endpoint.terminating), expected);
    }
}

#[test]
fn a_slice_keeps_what_can_be_used_of_it() {
    let Converted { object, problems } = convert_slice(json!({
        "addressType": "IPv6",
        "ports": [
            {"name": "", "port": 8080}, {"port": 1}, {"name": "nil"}, {"name": "zero", "port": 0},
            {"name": "high", "port": 70000}, {"name": "low", "port": -1},
            {"name": "odd", "port": 1, "protocol": "odd"}, {"name": "u", "port": 53, "protocol": "UDP"},
        ],
        "endpoints": [
            {"addresses": ["fd00::1", "fd00::2"], "nodeName": "n1"},
            {"addresses": []}, {"addresses": ["10.0.0.1"]}, {"addresses": ["fd00::x"]}, {},
            {"addresses": ["FD00:0::3"]},
        ],
    }));
    let slice = object.unwrap();
    assert_eq!(slice.service.as_deref(), Some("web"));
    let ports: Vec<_> = slice
        .ports
        .iter()
        .map(|port| (&*port.name, port.protocol, port.port))
        .collect();
    assert_eq!(ports, [("", Protocol::Tcp, 8080), ("u", Protocol::Udp, 53)]);
    let endpoints: Vec<_> = slice
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.ip, endpoint.node_name.as_deref()))
        .collect();
    assert_eq!(endpoints, [(ip("fd00::1"), Some("n1")), (ip("fd00::3"), None)]);
    assert_eq!(
        fields(&problems),
        [
            "ports[4].port",
            "ports[5].port",
            "ports[6].protocol",
            "endpoints[1].addresses",
            "endpoints[2].addresses[0]",
            "endpoints[3].addresses[0]",
            "endpoints[4].addresses",
        ]
    );
}

#[test]
fn a_slice_tells_when_that_happened_which_made_it_change() {
    for (value, nanoseconds) in [
        (
            json!("2026-11-22T23:20:04.25Z"),
            Some(1_795_389_604_250_000_000_u64),
        ),
        (json!("2026-11-22T23:20:04Z"), Some(1_795_389_604_000_000_000)),
        (json!("yesterday"), None),
        (json!(null), None),
    ] {
        let annotations = json!({"endpoints.kubernetes.io/last-change-trigger-time": value});
        let metadata = json!({"namespace": "default", "name": "web-1", "annotations": annotations});
        let slice = json!({"addressType": "IPv4", "metadata": metadata});
        let slice = endpoint_slice(&serde_json::from_value(slice).unwrap(), &mut Interner::default());
        let expected = nanoseconds.map(|nanos| UNIX_EPOCH + Duration::from_nanos(nanos));
        assert_eq!(
            slice.object.unwrap().last_change_trigger,
            expected,
            "{annotations}"
        );
    }
}

#[test]
fn a_slice_of_another_address_type_gives_no_object() {
    for (address_type, problems) in [
        ("FQDN", &[][..]),
        ("IPX", &["addressType"]),
        ("", &["addressType"]),
    ] {
        let converted = convert_slice(json!({"addressType": address_type}));
        assert_eq!(converted.object, None);
        assert_eq!(fields(&converted.problems), problems);
    }
}

#[test]
fn equal_hints_of_neighbours_are_kept_once() {
    let zone = json!({"forZones": [{"name": "a"}], "forNodes": [{"name": "n"}]});
    let slice = convert_slice(json!({"addressType": "IPv4", "endpoints": [
        {"addresses": ["10.0.0.1"], "hints": zone}, {"addresses": ["10.0.0.2"], "hints": zone},
        {"addresses": ["10.0.0.3"], "hints": {"forZones": [], "forNodes": null}}, {"addresses": ["10.0.0.4"]},
    ]}));
    let slice = slice.object.unwrap();
    let hints: Vec<_> = slice
        .endpoints
        .iter()
        .map(|endpoint| endpoint.hints.as_ref())
        .collect();
    assert_eq!(&*hints[0].unwrap().zones[0], "a");
    assert_eq!(&*hints[0].unwrap().nodes[0], "n");
    assert!(Arc::ptr_eq(hints[0].unwrap(), hints[1].unwrap()));
    assert_eq!((hints[2], hints[3]), (None, None));
}

#[test]
fn a_bad_network_of_a_service_cidr_is_reported_and_affects_only_itself() {
    let object = json!({
        "metadata": {"name": "more"},
        "spec": {"cidrs": ["010.96.1.1/16", "10.97.0.0", "fd00:10:96::/112"]},
    });
    let Converted { object, problems } = service_cidr(&serde_json::from_value(object).unwrap());
    let object = object.unwrap();
    assert_eq!(object.name.to_string(), "more");
    let cidrs: Vec<String> = object.cidrs.iter().map(ToString::to_string).collect();
    assert_eq!(cidrs, ["10.96.0.0/16", "fd00:10:96::/112"]);
    assert_eq!(
        problems[0].to_string(),
        r#"ServiceCIDR more: spec.cidrs[1]: "10.97.0.0" is not a CIDR; it is left out"#
    );
    assert_eq!(problems.len(), 1);
    assert_eq!(service_cidr(&wire::ServiceCidr::default()).object, None);
}

#[test]
fn a_node_gives_its_internal_addresses_first() {
    let Converted { object, problems } = convert_node(json!({
        "metadata": {
            "name": "n1",
            "labels": {"topology.kubernetes.io/zone": "z"},
            "deletionTimestamp": "2024-01-01T00:00:00Z",
        },
        "spec": {"podCIDRs": ["10.1.0.0/24", "x", "fd00::/64"], "taints": [{"key": "k", "effect": "NoSchedule"}]},
        "status": {"addresses": [
            {"type": "ExternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "n1"},
            {"type": "InternalIP", "address": "10.0.0.2"}, {"type": "InternalIP", "address": "y"},
        ]},
    }));
    let node = object.unwrap();
    assert_eq!(node.zone.as_deref(), Some("z"));
    assert_eq!(node.addresses, [ip("10.0.0.2"), ip("192.0.2.1")]);
    assert_eq!(node.pod_cidrs.len(), 2);
    assert!(node.deleting);
    assert_eq!(*node.taints[0], *"k");
    assert_eq!(
        fields(&problems),
        ["spec.podCIDRs[1]", "status.addresses[3].address"]
    );
}

#[test]
fn objects_of_others_are_not_selected() {
    for (object, expected) in [
        (json!({}), true),
        (json!({"spec": {"clusterIP": "10.0.0.1"}}), true),
        (json!({"spec": {"clusterIP": "None"}}), false),
        (
            json!({"metadata": {"labels": {LABEL_SERVICE_PROXY_NAME: ""}}}),
            false,
        ),
        (json!({"metadata": {"labels": {"a": "b"}}}), true),
    ] {
        let service: wire::Service = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(selects_service(&service), expected, "{object}");
    }
    for (object, expected) in [
        (json!({}), true),
        (json!({"metadata": {"labels": {LABEL_HEADLESS: ""}}}), false),
        (json!({"metadata": {"labels": {LABEL_SERVICE_NAME: "a"}}}), true),
    ] {
        let slice: wire::EndpointSlice = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(selects_endpoint_slice(&slice), expected, "{object}");
    }
    for (name, expected) in [("n1", true), ("n2", false)] {
        let node: wire::Node = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        assert_eq!(selects_node(&node, "n1"), expected);
    }
}

#[test]
fn a_scheduler_of_ipvs_is_named_by_an_annotation() {
    let named = |name: &str| {
        let metadata = json!({"name": "web", "annotations": {ANNOTATION_IPVS_SCHEDULER: name, "other": "x"}});
        let object = serde_json::from_value(json!({"metadata": metadata})).unwrap();
        let Converted { object, problems } = service(&object, &mut Interner::default());
        (object.unwrap().ipvs_scheduler, problems.len())
    };
    assert_eq!(named("lblcr"), (Some("lblcr".into()), 0));
    for name in ["", "no scheduler", "far-too-long-for-one", "RR"] {
        assert_eq!(named(name), (None, 1), "{name}");
    }
    assert_eq!(
        convert_service(json!({}), json!({}))
            .object
            .unwrap()
            .ipvs_scheduler,
        None
    );
}

#[test]
fn a_weight_of_ipvs_is_told_by_an_annotation_of_the_slice() {
    let weighing = |weight: &str| {
        let metadata = json!({"name": "web-1", "annotations": {ANNOTATION_IPVS_WEIGHT: weight}});
        let object = json!({"metadata": metadata, "addressType": "IPv4"});
        let Converted { object, problems } =
            endpoint_slice(&serde_json::from_value(object).unwrap(), &mut Interner::default());
        (object.unwrap().ipvs_weight, problems.len())
    };
    assert_eq!(weighing("3"), (Some(3), 0));
    assert_eq!(weighing("0"), (Some(0), 0));
    for weight in ["", "-1", "65536", "many"] {
        assert_eq!(weighing(weight), (None, 1), "{weight}");
    }
}
