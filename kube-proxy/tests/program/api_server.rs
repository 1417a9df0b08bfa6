//! The program and an API server: what it tells there, what it asks for, and what becomes of a Node that changes.

use std::net::TcpListener;

use lab::api::{Credential, Resource, Server};
use lab::net::Namespace;
use serde_json::{Value, json};

use super::running::Proxy;

const IN_FORCE: &str = "SyncProxyRules complete for the first time";
const OBJECTS: &str = "\
apiVersion: v1
kind: Node
metadata: {name: node-1}
spec: {podCIDR: 10.244.0.0/24, podCIDRs: [10.244.0.0/24]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  healthCheckNodePort: 31000
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10]
  ipFamilies: [IPv4]
  ports: [{port: 80, nodePort: 30080}]
";

/// An API server in the namespace, with the objects above.
fn server(namespace: &Namespace) -> Server {
    namespace.run("ip", &["link", "set", "lo", "up"]).unwrap();
    for ip in ["192.0.2.1/32", "192.0.2.7/32"] {
        namespace.run("ip", &["addr", "add", ip, "dev", "lo"]).unwrap();
    }
    let listener = namespace.enter(|| TcpListener::bind("127.0.0.1:0")).unwrap();
    let server = Server::builder().listener(listener.unwrap()).start().unwrap();
    server.apply(OBJECTS).unwrap();
    server
}

fn start(namespace: &Namespace, server: &Server, arguments: &[&str]) -> Proxy {
    let kubeconfig = server.kubeconfig(Credential::Token).unwrap();
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    let arguments = [&["--proxy-mode=nftables", &kubeconfig], arguments].concat();
    let proxy = Proxy::start(namespace, &arguments);
    proxy.says(IN_FORCE);
    proxy
}

fn change_node(server: &Server, patch: &Value) {
    server.patch(Resource::Nodes, "", "node-1", patch).unwrap();
}

/// The Event of this reason, once it is there.
fn event(proxy: &Proxy, server: &Server, reason: &str) -> Value {
    let mut found = Value::Null;
    proxy.until(reason, || {
        let all = server.all(Resource::Events);
        found = all
            .iter()
            .find(|event| event["reason"] == reason)
            .cloned()
            .unwrap_or_default();
        if found.is_null() {
            Err(format!("{all:?}"))
        } else {
            Ok(())
        }
    });
    found
}

#[test]
fn the_node_and_a_service_have_events_and_all_that_is_asked_for_is_in_upstreams_cluster_role() {
    let namespace = Namespace::create("events").unwrap();
    let server = server(&namespace);
    let taken = namespace.enter(|| TcpListener::bind("0.0.0.0:31000")).unwrap();
    let proxy = start(&namespace, &server, &[]);
    let started = event(&proxy, &server, "Starting");
    let failed = event(&proxy, &server, "FailedToStartServiceHealthcheck");
    let host = nix::unistd::gethostname().unwrap().to_string_lossy().into_owned();
    for event in [&started, &failed] {
        assert_eq!(event["reportingController"], "kube-proxy");
        assert_eq!(event["reportingInstance"], format!("kube-proxy-{host}"));
    }
    let about = |event: &Value| event["regarding"].clone();
    assert_eq!(
        about(&started),
        json!({"apiVersion": "v1", "kind": "Node", "name": "node-1"})
    );
    assert_eq!(
        (
            &started["type"],
            &started["action"],
            &started["metadata"]["namespace"]
        ),
        (&json!("Normal"), &json!("StartKubeProxy"), &json!("default"))
    );
    let web = json!({"apiVersion": "v1", "kind": "Service", "namespace": "shop", "name": "web"});
    assert_eq!(about(&failed), web);
    assert_eq!(
        (
            &failed["type"],
            &failed["action"],
            &failed["metadata"]["namespace"]
        ),
        (&json!("Warning"), &json!("Listen"), &json!("shop"))
    );
    let note = failed["note"].as_str().unwrap();
    assert!(
        note.starts_with("failed to start healthcheck \"shop/web\" on 192.0.2.1:31000: "),
        "{note}"
    );
    drop(taken);

    // Lists that are not streamed, too.
    server.set_streaming_lists(false);
    server.disconnect();
    proxy.until("another watch", || {
        let asked = server.requests_for(Resource::Services);
        match asked.iter().filter(|request| request.is_watch()).count() {
            0 | 1 => Err(format!("{asked:?}")),
            _ => Ok(()),
        }
    });
    for request in server.requests() {
        let verb = match request.method.as_str() {
            "GET" if request.is_watch() => "watch",
            "GET" => "list",
            "POST" => "create",
            other => other,
        };
        let granted: &[&str] = match request.resource {
            Some(
                Resource::Services | Resource::EndpointSlices | Resource::ServiceCidrs | Resource::Nodes,
            ) => &["list", "watch"],
            Some(Resource::Events) => &["create"],
            _ => &[],
        };
        assert!(granted.contains(&verb), "{verb} {}", request.path);
    }
}

#[test]
fn a_node_that_moves_or_is_about_to_go_is_heeded_and_one_that_is_gone_changes_nothing() {
    let namespace = Namespace::create("node").unwrap();
    let server = server(&namespace);
    let proxy = start(&namespace, &server, &[]);
    let healthz = "http://127.0.0.1:10256/healthz";
    proxy.answers(healthz, &["200 OK", "\"nodeEligible\":true"]);

    let addresses = json!([{"type": "InternalIP", "address": "192.0.2.7"}]);
    change_node(&server, &json!({"status": {"addresses": addresses}}));
    proxy.says("\"NodeIPs changed for the node\" node=\"node-1\" new=\"[192.0.2.7]\" old=\"[192.0.2.1]\"");
    // Upstream goes on with the address of its start.
    proxy.shows("nft", &["list", "ruleset"], "192.0.2.7");

    let taint = json!([{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]);
    change_node(&server, &json!({"spec": {"taints": taint}}));
    proxy.answers(
        healthz,
        &[
            "503 Service Unavailable",
            "\"nodeEligible\":false",
            "\"healthy\":true",
        ],
    );
    assert!(proxy.get(10256, "/livez").starts_with("HTTP/1.1 200"));
    change_node(&server, &json!({"spec": {"taints": null}}));
    proxy.answers(healthz, &["200 OK", "\"nodeEligible\":true"]);

    // Pods are not told by it here.
    change_node(&server, &json!({"spec": {"podCIDRs": ["10.244.9.0/24"]}}));
    server.delete(Resource::Nodes, "", "node-1").unwrap();
    let service = OBJECTS.rsplit("---\n").next().unwrap();
    let second = service
        .replace("10.96.0.10", "10.96.0.11")
        .replace("name: web", "name: second");
    let second = second.replace("31000", "31001").replace("30080", "30081");
    server.apply(&second).unwrap();
    proxy.programs("10.96.0.11");
    assert!(proxy.get(10256, "/healthz").starts_with("HTTP/1.1 200"));
}

#[test]
fn where_the_nodes_pod_networks_tell_its_pods_their_change_ends_the_program() {
    let namespace = Namespace::create("pods").unwrap();
    let server = server(&namespace);
    let mut proxy = start(&namespace, &server, &["--detect-local-mode=NodeCIDR"]);
    // A label changes nothing.
    change_node(&server, &json!({"metadata": {"labels": {"a": "b"}}}));
    change_node(&server, &json!({"spec": {"podCIDRs": ["10.244.9.0/24"]}}));
    let (code, log) = proxy.ends();
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains("\"command failed\" err=\"the podCIDRs of node node-1 changed: starting anew is needed"),
        "{log}"
    );
    // Its rules are still there.
    let rules = namespace.run("nft", &["list", "ruleset"]).unwrap();
    assert!(rules.contains("10.96.0.10"), "{rules}");
}
