//! Both forms of the wire give the same objects.

use prost::Message as _;
use serde_json::json;

use super::*;

/// A protobuf field with a length (number, contents): message, string or bytes.
fn field(number: u8, contents: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    prost::encoding::encode_varint(u64::from(number) << 3 | 2, &mut encoded);
    prost::encoding::encode_varint(contents.len() as u64, &mut encoded);
    encoded.extend_from_slice(contents);
    encoded
}

/// A protobuf field that is a number.
fn number(number: u8, value: u64) -> Vec<u8> {
    let mut encoded = Vec::new();
    prost::encoding::encode_varint(u64::from(number) << 3, &mut encoded);
    prost::encoding::encode_varint(value, &mut encoded);
    encoded
}

fn message(fields: &[Vec<u8>]) -> Vec<u8> {
    fields.concat()
}

fn pair(key: &str, value: &str) -> Vec<u8> {
    message(&[field(1, key.as_bytes()), field(2, value.as_bytes())])
}

#[test]
fn a_service_reads_the_same_from_protobuf_and_json() {
    let meta = message(&[
        field(1, b"web"),
        field(3, b"default"),
        field(5, b"a-uid-that-we-skip"),
        field(6, b"42"),
        field(8, &message(&[number(1, 1_700_000_000), number(2, 0)])),
        field(11, &pair("app", "web")),
        field(12, &pair("annotation", "x")),
        field(17, b"managed fields, skipped"),
    ]);
    let port = message(&[
        field(1, b"http"),
        field(2, b"TCP"),
        number(3, 80),
        field(4, &message(&[number(1, 1), number(2, 0), field(3, b"web")])),
        number(5, 30080),
    ]);
    let spec = message(&[
        field(1, &port),
        field(2, &pair("app", "web")),
        field(3, b"10.96.0.10"),
        field(4, b"LoadBalancer"),
        field(5, b"192.0.2.1"),
        field(7, b"ClientIP"),
        field(8, b"skipped"),
        field(9, b"203.0.113.0/24"),
        field(11, b"Local"),
        number(12, 31000),
        number(13, 1),
        field(14, &field(1, &number(1, 60))),
        field(18, b"10.96.0.10"),
        field(19, b"IPv4"),
        field(22, b"Cluster"),
    ]);
    let ingress = message(&[field(1, b"198.51.100.1"), field(2, b""), field(3, b"VIP")]);
    let encoded = message(&[
        field(1, &meta),
        field(2, &spec),
        field(3, &field(1, &field(1, &ingress))),
    ]);
    let from_json: Service = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "web", "namespace": "default", "resourceVersion": "42", "uid": "skipped",
            "creationTimestamp": "2023-11-14T22:13:20Z", "labels": {"app": "web"},
            "annotations": {"annotation": "x"},
        },
        "spec": {
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": "web", "nodePort": 30080}],
            "selector": {"app": "web"}, "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"],
            "type": "LoadBalancer", "externalIPs": ["192.0.2.1"], "sessionAffinity": "ClientIP",
            "loadBalancerSourceRanges": ["203.0.113.0/24"], "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 31000, "publishNotReadyAddresses": true,
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
            "ipFamilies": ["IPv4"], "internalTrafficPolicy": "Cluster", "unknown": {"deep": [1]},
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1", "ipMode": "VIP"}]}},
    }))
    .unwrap();
    assert_eq!(Service::decode(&*encoded).unwrap(), from_json);
}

#[test]
fn an_endpoint_slice_reads_the_same_from_protobuf_and_json_and_keeps_nil_apart() {
    let hints = message(&[field(1, &field(1, b"z")), field(2, &field(1, b"n"))]);
    let endpoint = message(&[
        field(1, b"10.0.0.1"),
        field(2, &message(&[number(1, 0), number(3, 1)])),
        field(3, b"hostname, skipped"),
        field(4, b"target, skipped"),
        field(6, b"n1"),
        field(7, b"zone, skipped"),
        field(8, &hints),
    ]);
    let encoded = message(&[
        field(1, &message(&[field(1, b"web-1"), field(8, b"")])),
        field(2, &endpoint),
        field(2, &field(1, b"10.0.0.2")),
        field(3, &message(&[field(1, b""), field(2, b"UDP"), number(3, 53)])),
        field(3, b""),
        field(4, b"IPv4"),
    ]);
    let from_json: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "web-1"},
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": ["10.0.0.1"], "conditions": {"ready": false, "serving": null, "terminating": true},
                "nodeName": "n1", "hints": {"forZones": [{"name": "z"}], "forNodes": [{"name": "n"}]},
            },
            {"addresses": ["10.0.0.2"]},
        ],
        "ports": [{"name": "", "protocol": "UDP", "port": 53}, {}],
    }))
    .unwrap();
    let mut from_protobuf = EndpointSlice::decode(&*encoded).unwrap();
    // Go's zero time travels as an empty message and means the same as none.
    let created = from_protobuf.metadata.as_mut().unwrap().creation_timestamp.take();
    assert_eq!(created, Some(Time { seconds: None }));
    assert_eq!(from_protobuf, from_json);
    assert_eq!(from_json.endpoints[0].conditions.unwrap().serving, None);
    assert_eq!(from_json.ports[1].name, None);
}

#[test]
fn a_node_reads_the_same_from_protobuf_and_json() {
    let encoded = message(&[
        field(
            1,
            &message(&[
                field(1, b"n1"),
                field(9, &number(1, 1)),
                field(11, &pair("zone", "z")),
            ]),
        ),
        field(
            2,
            &message(&[
                field(1, b"skipped"),
                field(5, &field(1, b"k")),
                field(7, b"10.1.0.0/24"),
            ]),
        ),
        field(
            3,
            &field(5, &message(&[field(1, b"InternalIP"), field(2, b"10.0.0.2")])),
        ),
    ]);
    let from_json: Node = serde_json::from_value(json!({
        "metadata": {"name": "n1", "labels": {"zone": "z"}, "deletionTimestamp": "1970-01-01T00:00:01Z"},
        "spec": {"podCIDR": "skipped", "podCIDRs": ["10.1.0.0/24"], "taints": [{"key": "k", "effect": "NoExecute"}]},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.2"}], "capacity": {"cpu": "2"}},
    }))
    .unwrap();
    assert_eq!(Node::decode(&*encoded).unwrap(), from_json);
}

#[test]
fn a_service_cidr_reads_the_same_from_protobuf_and_json() {
    let encoded = message(&[
        field(1, &field(1, b"kubernetes")),
        field(2, &message(&[field(1, b"10.96.0.0/16"), field(1, b"fd00::/112")])),
        field(3, b"status, skipped"),
    ]);
    let from_json: ServiceCidr = serde_json::from_value(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes", "namespace": null},
        "spec": {"cidrs": ["10.96.0.0/16", "fd00::/112"]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }))
    .unwrap();
    assert_eq!(ServiceCidr::decode(&*encoded).unwrap(), from_json);
}

#[test]
fn a_status_reads_the_same_from_protobuf_and_json() {
    let cause = message(&[
        field(1, b"ResourceVersionTooLarge"),
        field(2, b"Too large resource version"),
    ]);
    let encoded = message(&[
        field(1, b""),
        field(2, b"Failure"),
        field(3, b"later"),
        field(4, b"Timeout"),
        field(5, &message(&[field(4, &cause), number(5, 1)])),
        number(6, 504),
    ]);
    let from_json: Status = serde_json::from_value(json!({
        "kind": "Status", "status": "Failure", "message": "later", "reason": "Timeout", "code": 504,
        "details": {
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        },
    }))
    .unwrap();
    assert_eq!(Status::decode(&*encoded).unwrap(), from_json);
}

#[test]
fn null_reads_as_nothing_everywhere() {
    let null_spec = json!({"metadata": null, "spec": null, "status": null});
    assert_eq!(
        serde_json::from_value::<Service>(null_spec).unwrap(),
        Service::default()
    );
    let null_fields = json!({
        "metadata": {"name": null, "labels": null, "annotations": null, "creationTimestamp": null},
        "spec": {"ports": null, "selector": null, "clusterIP": null, "externalIPs": null, "type": null},
    });
    let service: Service = serde_json::from_value(null_fields).unwrap();
    assert_eq!(service.spec, Some(ServiceSpec::default()));
    assert_eq!(service.metadata, Some(ObjectMeta::default()));
    let null_label = json!({"metadata": {"labels": {"a": null}}});
    let service: Service = serde_json::from_value(null_label).unwrap();
    assert_eq!(value_of(&service.metadata.unwrap().labels, "a"), Some(""));
}

#[test]
fn target_ports_are_numbers_or_names() {
    for (value, expected) in [
        (json!(8080), Some((0, 8080, ""))),
        (json!("web"), Some((1, 0, "web"))),
        (json!("8080"), Some((1, 0, "8080"))),
        (json!(3_000_000_000_u32), None),
        (json!(true), None),
    ] {
        let read = serde_json::from_value::<IntOrString>(value.clone()).ok();
        let read = read
            .as_ref()
            .map(|port| (port.kind, port.int_val, port.str_val.as_str()));
        assert_eq!(read, expected, "{value}");
    }
}

#[test]
fn a_time_that_is_none_is_an_error_that_quotes_it() {
    let error = serde_json::from_value::<Time>(json!("yesterday")).unwrap_err();
    assert!(error.to_string().contains("yesterday"), "{error}");
}
