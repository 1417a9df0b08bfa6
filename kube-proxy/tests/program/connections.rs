//! The connections of each ServicePort among the metrics, counted by the kernel.

use std::net::SocketAddr;
use std::time::Duration;

use lab::net::{Family, Lab, Namespace, Topology};
use lab::probe::{self, Protocol, Request};
use lab::serve::Server;

use super::machine::{Manifests, service};
use super::running::Proxy;

const IN_FORCE: &str = "SyncProxyRules complete for the first time";
const METRICS: &str = "http://127.0.0.1:10249/metrics";

fn connect(from: &Namespace, to: &str) {
    let request = Request {
        protocol: Protocol::Tcp,
        to: to.parse::<SocketAddr>().unwrap(),
        timeout: Duration::from_secs(10),
    };
    let outcome = probe::request(from, request).unwrap();
    assert!(outcome.answer().is_some(), "{to}: {outcome:?}");
}

#[test]
fn connections_are_counted_by_service_port_where_that_is_asked_for() {
    let lab = Lab::build(&Topology::with_pods(&[("a", 1), ("b", 1)])).unwrap();
    let member = |name: &str| lab.member(name).unwrap();
    let (node, a, b) = (member("node-1"), member("a"), member("b"));
    let _server = Server::start(b, &[8080]).unwrap();
    let endpoint = b.ip(Family::V4).to_string();
    let web = |endpoints: &[&str]| service("web", "10.96.0.10", 30080, endpoints);
    let idle = service("idle", "10.96.0.11", 0, &[&endpoint]);
    let manifests = Manifests::new(&[web(&[&endpoint]), idle.clone()]);
    let mode = "--proxy-mode=nftables";
    let plain = Proxy::start(&node.namespace, &[mode, &manifests.argument]);
    plain.says(IN_FORCE);
    assert!(!plain.get(10249, "/metrics").contains("service_connections"));
    drop(plain);

    let counting = [mode, "--nftables-count-connections", &manifests.argument];
    let proxy = Proxy::start(&node.namespace, &counting);
    proxy.says(IN_FORCE);
    let counts = |of_web: u64| {
        let line = |name: &str, count: u64| {
            format!(
                "kubeproxy_service_connections_total{{ip_family=\"IPv4\",namespace=\"default\",port=\"\",\
                 protocol=\"TCP\",service=\"{name}\"}} {count}\n"
            )
        };
        proxy.answers(METRICS, &[&line("web", of_web), &line("idle", 0)]);
    };
    counts(0);
    for _ in 0..3 {
        connect(&a.namespace, "10.96.0.10:80");
    }
    counts(3);
    connect(&node.namespace, "10.96.0.10:80");
    connect(&a.namespace, &format!("{}:30080", node.ip(Family::V4)));
    // Those that go past every Service.
    connect(&a.namespace, &format!("{endpoint}:8080"));
    counts(5);
    // The element of its address is another one now.
    manifests.write(&[web(&[&endpoint, "10.244.250.250"]), idle.clone()]);
    proxy.programs("10.244.250.250");
    manifests.write(&[web(&[&endpoint]), idle]);
    proxy.until("way to the one endpoint", || {
        let map = ["list", "map", "ip", "kube-proxy", "service-ips"];
        match node.namespace.run("nft", &map).unwrap() {
            listed if listed.contains("endpoints-2") => Err(listed),
            _ => Ok(()),
        }
    });
    connect(&node.namespace, "10.96.0.10:80");
    counts(6);
}
