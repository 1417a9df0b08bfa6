//! The servers on `healthCheckNodePort`, asked as a load balancer asks them.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use lab::net::Namespace;

use crate::running::Proxy;

/// A load balancer's Service in both families with one endpoint here in each given family, and one elsewhere.
fn balanced(dir: &Path, port: u16, here: &[&str]) {
    let slice = |family: &str, prefix: &str| {
        let node = |here: bool| if here { "node-1" } else { "node-2" };
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: {family}\n\
             metadata: {{name: web-{family}, labels: {{kubernetes.io/service-name: web}}}}\n\
             ports: [{{name: '', port: 8080}}]\nendpoints:\n\
             - {{addresses: ['{prefix}8'], nodeName: {}}}\n- {{addresses: ['{prefix}9'], nodeName: node-2}}\n",
            node(here.contains(&family)),
        )
    };
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\nspec: {{type: LoadBalancer, \
         externalTrafficPolicy: Local, healthCheckNodePort: {port}, clusterIPs: [10.96.0.10, 'fd00::10'], \
         ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack, ports: [{{port: 80, nodePort: 30080}}]}}\n"
    );
    let slices = slice("IPv4", "10.244.0.") + &slice("IPv6", "fd01::");
    let slices = slices.replace("metadata: {", "metadata: {namespace: shop, ");
    fs::write(dir.join("web.yaml"), service + &slices).unwrap();
}

#[test]
fn a_load_balancer_hears_on_the_health_check_node_port_how_many_endpoints_are_here() {
    let dir = tempfile::tempdir().unwrap();
    let namespace = Namespace::create("health-check").unwrap();
    balanced(dir.path(), 31000, &["IPv4"]);
    let mut proxy = Proxy::start(&namespace, &[&format!("--manifests={}", dir.path().display())]);
    let v4 = "http://127.0.0.1:31000/whatever";
    let answer = proxy.answers(v4, &["200 OK", "\"localEndpoints\": 1"]);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("X-Load-Balancing-Endpoint-Weight: 1"), "{head}");
    assert!(head.contains("Content-Type: application/json"), "{head}");
    assert!(head.contains("X-Content-Type-Options: nosniff"), "{head}");
    assert_eq!(
        body,
        "{\n\t\"service\": {\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"web\"\n\t},\n\t\
         \"localEndpoints\": 1,\n\t\"serviceProxyHealthy\": true\n}"
    );
    // Each family tells of itself.
    let v6 = "http://[::1]:31000/";
    let none = [
        "503 Service Unavailable",
        "\"localEndpoints\": 0",
        "Endpoint-Weight: 0",
    ];
    proxy.answers(v6, &none);

    balanced(dir.path(), 31000, &["IPv6"]);
    proxy.answers(v4, &none);
    proxy.answers(v6, &["200 OK", "\"localEndpoints\": 1"]);

    // The other port is somebody else's in one family: the other family answers all the same.
    let taken = namespace
        .enter(|| TcpListener::bind("0.0.0.0:31001"))
        .unwrap()
        .unwrap();
    balanced(dir.path(), 31001, &["IPv4", "IPv6"]);
    proxy.answers("http://[::1]:31001/", &["200 OK"]);
    proxy.is_refused(v4);
    proxy.is_refused(v6);
    drop(taken);
    proxy.answers("http://127.0.0.1:31001/", &["200 OK"]);

    fs::remove_file(dir.path().join("web.yaml")).unwrap();
    proxy.is_refused("http://127.0.0.1:31001/");
    proxy.process.kill().unwrap();
    let (_, log) = proxy.ends();
    assert!(
        log.contains("Failed to start healthcheck; trying again every 5 s\" service=\"shop/web\" address=\"0.0.0.0:31001\""),
        "{log}"
    );
}

#[test]
fn health_checks_are_answered_where_node_ports_are_accepted_also_without_a_health_server() {
    let dir = tempfile::tempdir().unwrap();
    let namespace = Namespace::create("health-check").unwrap();
    let add = ["addr", "add", "192.0.2.1/32", "dev", "lo"];
    namespace.run("ip", &add).unwrap();
    balanced(dir.path(), 31000, &["IPv4"]);
    let manifests = format!("--manifests={}", dir.path().display());
    let proxy = Proxy::start(
        &namespace,
        &[
            &manifests,
            "--healthz-port=0",
            "--nodeport-addresses=192.0.2.0/24",
        ],
    );
    proxy.answers("http://192.0.2.1:31000/", &["200 OK", "\"localEndpoints\": 1"]);
    proxy.is_refused("http://127.0.0.1:31000/");
    proxy.is_refused("http://127.0.0.1:10256/healthz");
    // Of the other family nothing is said, so it accepts node ports everywhere.
    proxy.answers("http://[::1]:31000/", &["503 Service Unavailable"]);
}
