//! Writes: by the handle and over HTTP.

use serde_json::json;

use super::*;
use crate::api::{QuickService, QuickSlice};

const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];
const MERGE: [(&str, &str); 1] = [("Content-Type", "application/merge-patch+json")];
const SERVICES: &str = "/api/v1/namespaces/default/services";

async fn write(server: &Server, method: &str, path: &str, body: Value) -> Answer {
    let headers = if method == "PATCH" { MERGE } else { JSON };
    ask(server, request(method, path, &headers, &body.to_string())).await
}

#[tokio::test]
async fn a_created_service_gets_addresses_ports_and_defaults() {
    let server = server();
    let body = json!({
        "kind": "Service", "apiVersion": "v1", "metadata": {"name": "a"},
        "spec": {
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ipFamilyPolicy": "PreferDualStack",
            "ports": [{"port": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
    });
    let created = write(&server, "POST", SERVICES, body.clone()).await;
    assert_eq!(created.code, 201, "{}", created.json());
    let service = created.json();
    let spec = &service["spec"];
    assert_eq!(spec["clusterIPs"][0], spec["clusterIP"]);
    assert_eq!(spec["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert_eq!(spec["ports"][0]["targetPort"], 80);
    assert_eq!(spec["ports"][1]["targetPort"], "dns");
    assert_eq!(spec["ports"][0]["protocol"], "TCP");
    for port in [
        &spec["ports"][0]["nodePort"],
        &spec["ports"][1]["nodePort"],
        &spec["healthCheckNodePort"],
    ] {
        assert!(
            port.as_u64().is_some_and(|port| (30_000..32_768).contains(&port)),
            "{port}"
        );
    }
    assert_eq!(
        service["status"],
        json!({"loadBalancer": {}}),
        "only through the subresource"
    );
    let metadata = &service["metadata"];
    assert_eq!(metadata["uid"].as_str().map(str::len), Some(36));
    let created: jiff::Timestamp = metadata["creationTimestamp"]
        .as_str()
        .and_then(|time| time.parse().ok())
        .expect("RFC 3339");
    assert_eq!(created.subsec_nanosecond(), 0);

    let again = write(&server, "POST", SERVICES, body).await;
    assert_eq!(
        (again.code, &again.json()["reason"]),
        (409, &"AlreadyExists".into())
    );
}

#[tokio::test]
async fn an_update_keeps_what_was_allocated_and_its_identity() {
    let server = server();
    server
        .apply("{kind: Service, apiVersion: v1, metadata: {name: a}, spec: {type: NodePort, ports: [{port: 80}]}}")
        .expect("applied");
    let before = server.get(Resource::Services, "default", "a").expect("there");
    let body = json!({"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": [{"port": 80}, {"port": 81}]}});
    let path = format!("{SERVICES}/a");
    let after = write(&server, "PUT", &path, body).await.json();
    for field in ["clusterIP", "clusterIPs", "ipFamilies"] {
        assert_eq!(after["spec"][field], before["spec"][field]);
    }
    assert_eq!(
        after["spec"]["ports"][0]["nodePort"],
        before["spec"]["ports"][0]["nodePort"]
    );
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_ne!(
        after["metadata"]["resourceVersion"],
        before["metadata"]["resourceVersion"]
    );

    let stale = json!({"metadata": {"name": "a", "resourceVersion": "1"}, "spec": {"ports": [{"port": 80}]}});
    let conflict = write(&server, "PUT", &path, stale).await;
    assert_eq!(
        (conflict.code, &conflict.json()["reason"]),
        (409, &"Conflict".into())
    );
}

#[tokio::test]
async fn an_update_that_changes_nothing_is_none() {
    let server = server();
    server.apply(&service("a", ", labels: {x: z}")).expect("applied");
    let version = server.version();
    server.apply(&service("a", ", labels: {x: z}")).expect("applied");
    let patch = json!({"metadata": {"labels": {"x": "z"}}});
    assert_eq!(
        write(&server, "PATCH", &format!("{SERVICES}/a"), patch)
            .await
            .code,
        200
    );
    assert_eq!(server.version(), version);
}

#[tokio::test]
async fn a_put_creates_a_service_that_is_not_there_but_no_slice() {
    let server = server();
    let service = json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}});
    let path = format!("{SERVICES}/a");
    assert_eq!(write(&server, "PUT", &path, service.clone()).await.code, 201);
    assert_eq!(write(&server, "PUT", &path, service.clone()).await.code, 200);
    let other = write(&server, "PUT", &format!("{SERVICES}/b"), service.clone()).await;
    assert_eq!(other.code, 400, "it has another name");
    let slice = json!({"metadata": {"name": "s"}, "addressType": "IPv4"});
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/s";
    assert_eq!(write(&server, "PUT", path, slice).await.code, 404);
    let everywhere = write(&server, "POST", "/api/v1/services", service).await;
    assert_eq!(everywhere.code, 405);
}

#[tokio::test]
async fn status_is_written_through_its_subresource_only() {
    let server = server();
    apply_services(&server, &["a"]);
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
    let path = format!("{SERVICES}/a");
    let main = write(&server, "PATCH", &path, status.clone()).await.json();
    assert_eq!(main["status"], json!({"loadBalancer": {}}));
    let sub = write(&server, "PATCH", &format!("{path}/status"), status)
        .await
        .json();
    assert_eq!(sub["status"]["loadBalancer"]["ingress"][0]["ip"], "192.0.2.1");
}

#[tokio::test]
async fn a_deletion_answers_with_the_object_or_a_status_as_the_kind_has_it() {
    let server = server();
    apply_services(&server, &["a"]);
    server
        .apply(
            "{kind: EndpointSlice, apiVersion: discovery.k8s.io/v1, metadata: {name: s}, addressType: IPv4}",
        )
        .expect("applied");
    let path = format!("{SERVICES}/a");
    assert_eq!(
        ask(&server, request("DELETE", &path, &[], "")).await.json()["kind"],
        "Service"
    );
    assert_eq!(ask(&server, request("DELETE", &path, &[], "")).await.code, 404);
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/s";
    let status = ask(&server, request("DELETE", path, &[], "")).await.json();
    assert_eq!(
        (&status["kind"], &status["status"]),
        (&"Status".into(), &"Success".into())
    );
    assert_eq!(status["details"]["group"], "discovery.k8s.io");
}

#[tokio::test]
async fn a_wrong_type_is_refused_and_changes_nothing() {
    let server = server();
    let version = server.version();
    let body = json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": "x"}]}});
    let refused = write(&server, "POST", SERVICES, body).await;
    assert_eq!(
        (refused.code, &refused.json()["reason"]),
        (400, &"BadRequest".into())
    );
    assert_eq!(server.version(), version);
}

#[tokio::test]
async fn manifests_of_several_documents_and_lists_are_applied_and_deleted() {
    let server = server();
    let text = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDR: 10.0.0.0/24}}
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: prod}
spec: {clusterIP: None, ports: [{port: 80}]}
---
";
    server.apply(text).expect("applied");
    let node = server.get(Resource::Nodes, "", "n1").expect("there");
    assert_eq!(node["spec"]["podCIDRs"], json!(["10.0.0.0/24"]));
    let service = server.get(Resource::Services, "prod", "headless").expect("there");
    assert_eq!(service["spec"]["clusterIPs"], json!(["None"]));
    server.delete_all(text).expect("deleted");
    assert_eq!(server.get(Resource::Nodes, "", "n1"), None);
    let error = server
        .apply("{apiVersion: v1, kind: Secret, metadata: {name: x}}")
        .expect_err("refused");
    assert!(error.to_string().contains("Secret"), "{error}");
}

#[tokio::test]
async fn quickly_made_objects_are_as_good_as_applied_ones() {
    let server = server();
    let ip = "10.96.5.5".parse().expect("an address");
    let quick = QuickService {
        namespace: "default",
        name: "q",
        cluster_ip: ip,
        port: 80,
        node_port: 30_080,
    };
    let endpoints = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().expect("an address"));
    let slice = QuickSlice {
        namespace: "default",
        name: "q-1",
        service: "q",
        endpoints: &endpoints,
        port: 8080,
        node: "n1",
    };
    for _ in 0..2 {
        server.put_service(&quick);
        server.put_slice(&slice);
        for (resource, name) in [(Resource::Services, "q"), (Resource::EndpointSlices, "q-1")] {
            let object = server.get(resource, "default", name).expect("there");
            let path = format!("{}/{name}", resource.path(Some("default")));
            let mut applied = object.clone();
            applied["metadata"]["annotations"]["again"] = "x".into();
            let applied = write(&server, "PUT", &path, applied).await;
            assert_eq!(applied.code, 200, "{}", applied.json());
            // Applying adds what the real server would have added: nothing to spec.
            assert_eq!(applied.json()["spec"], object["spec"]);
            assert_eq!(applied.json()["endpoints"], object["endpoints"]);
            assert_eq!(applied.json()["metadata"]["uid"], object["metadata"]["uid"]);
            let protobuf = ask(&server, request("GET", &path, &[("Accept", PROTOBUF)], "")).await;
            assert!(protobuf.body.len() > 300);
        }
    }
    let list = get(
        &server,
        "/api/v1/services?fieldSelector=spec.clusterIP%3D10.96.5.5",
    )
    .await;
    assert_eq!(list.names(), ["q"]);
}

#[tokio::test]
async fn events_that_are_not_json_are_taken_in_and_given_back() {
    let server = server();
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    let headers = [("Content-Type", PROTOBUF)];
    let answer = ask(&server, request("POST", path, &headers, "k8s\0anything")).await;
    assert_eq!((answer.code, answer.header("content-type")), (201, PROTOBUF));
    assert_eq!(answer.body.as_ref(), b"k8s\0anything");
}
