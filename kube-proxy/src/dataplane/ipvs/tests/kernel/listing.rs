//! How the kernel differs from a plan.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use super::*;

/// A balancer with external IPs and a node port, in both families.
fn balancer() -> Service {
    let mut service = service("default/web", "10.96.0.1 fd00:96::1", "http/TCP:80:30080").with_affinity(90);
    service.external_ips = vec![ip("198.51.100.1"), ip("2001:db8::1")];
    service
}

impl Node {
    /// How the kernel differs from what another process would plan for a Service with these endpoints.
    fn differs(&self, service: Option<&Service>, endpoints: &[&str]) -> Vec<String> {
        let mut planner = Ipvs::new(Config {
            exclude_cidrs: vec!["172.20.0.0/16".parse().unwrap()],
            ..Config::default()
        });
        planner.set_local_addresses(&[ip("192.168.0.2")]);
        if let Some(service) = service {
            let slice = slice("default/web-1", &service.name.name, "http/TCP:8080", endpoints);
            let view = view_of(service, [&slice]);
            planner.update(&service.name, Some(&view));
        }
        let found = self.namespace.enter(|| planner.differences()).unwrap().unwrap();
        let text: String = found.iter().map(ToString::to_string).collect();
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn what_another_hand_did_is_named() {
    let Some(mut node) = Node::new("what differs from a plan", Config::default()) else {
        return;
    };
    let web = balancer();
    let all = node.differs(Some(&web), &[A]);
    assert!(all.iter().all(|line| line.starts_with('+')), "{all:?}");
    for line in [
        "+ ip ipvs virtual server TCP 192.168.0.2:30080",
        "+     persistent 90s",
        "+     10.180.1.1:8080 weight 1",
        "+ ip6 ipvs device kube-ipvs0",
        "+     2001:db8::1",
        "+ ip kube-proxy set cluster-ips",
    ] {
        assert!(all.iter().any(|found| found == line), "{line} in {all:#?}");
    }
    node.update(&web, &[A]);
    node.commit();
    assert_eq!(node.differs(Some(&web), &[A]), [""; 0]);

    node.meddle(&[
        ("TCP 10.96.0.1:80", Step::SetServer(settings("wrr", None))),
        (
            "TCP 10.96.0.1:80",
            Step::SetEndpoint(backend("10.180.1.1:8080"), 0),
        ),
        ("TCP 192.168.0.2:30080", Step::DeleteServer),
        ("TCP 10.96.0.9:80", Step::NewServer(settings("rr", None))),
        ("TCP 172.20.0.9:80", Step::NewServer(settings("rr", None))),
    ]);
    let script = "addr del 10.96.0.1/32 dev kube-ipvs0\naddr add 10.96.0.9/32 dev kube-ipvs0\n";
    node.namespace
        .run_with_input("ip", &["-batch", "-"], script)
        .unwrap();
    assert_eq!(
        node.differs(Some(&web), &[A]),
        [
            "  ip ipvs device kube-ipvs0",
            "-     10.96.0.9",
            "+     10.96.0.1",
            "  ip ipvs virtual server TCP 10.96.0.1:80",
            "-     scheduler wrr",
            "-     10.180.1.1:8080 weight 0",
            "+     scheduler rr",
            "+     persistent 90s",
            "+     10.180.1.1:8080 weight 1",
            "- ip ipvs virtual server TCP 10.96.0.9:80",
            "-     scheduler rr",
            "+ ip ipvs virtual server TCP 192.168.0.2:30080",
            "+     scheduler rr",
            "+     persistent 90s",
            "+     10.180.1.1:8080 weight 1",
        ]
    );
}

#[test]
fn an_endpoint_that_finishes_what_it_began_is_as_it_should_be() {
    let Some(mut node) = Node::new("an endpoint that finishes", Config::default()) else {
        return;
    };
    const HERE: &str = "192.168.0.2";
    node.namespace
        .run("ip", &["addr", "add", "192.168.0.2/32", "dev", "lo"])
        .unwrap();
    node.update(&web(), &[HERE, A]);
    node.commit();
    node.update(&web(), &[HERE]);
    node.commit();
    node.commit_after(Duration::from_secs(2));
    let (mut client, _server) = node
        .namespace
        .enter(|| {
            let listener = TcpListener::bind((HERE, 8080)).unwrap();
            let client = TcpStream::connect(("10.96.0.1", 80)).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            server.write_all(b"!").unwrap();
            (client, server)
        })
        .unwrap();
    client.read_exact(&mut [0]).unwrap();
    node.update(&web(), &[A]);
    node.commit();
    assert_eq!(
        node.servers(),
        ["TCP 10.96.0.1:80 rr: 10.180.1.1=1 192.168.0.2=0"]
    );
    assert_eq!(node.differs(Some(&web()), &[A]), [""; 0]);
    node.meddle(&[(
        "TCP 10.96.0.1:80",
        Step::NewEndpoint(backend("10.180.9.1:8080"), 0),
    )]);
    assert_eq!(
        node.differs(Some(&web()), &[A]),
        [
            "  ip ipvs virtual server TCP 10.96.0.1:80",
            "-     10.180.9.1:8080 weight 0"
        ]
    );
    node.meddle(&[(
        "TCP 10.96.0.1:80",
        Step::DeleteEndpoint(backend("10.180.9.1:8080")),
    )]);
    // With it the virtual server stays, and the address.
    node.dataplane.update(&web().name, None);
    node.commit();
    node.commit_after(Duration::from_secs(2));
    assert_eq!(node.servers(), ["TCP 10.96.0.1:80 rr: 192.168.0.2=0"]);
    assert_eq!(node.differs(None, &[]), [""; 0]);
}
