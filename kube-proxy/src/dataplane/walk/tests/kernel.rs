//! The walker against the kernel: real packets go where it says, in each mode.

use std::collections::BTreeSet;
use std::time::Duration;

use lab::net::{self, Lab, Topology};
use lab::probe::{self, Outcome as Seen, RefusedBy, Request};
use lab::serve::Server;

use super::*;
use crate::model::object::TrafficPolicy::{self, Cluster as Anywhere, Local};
use crate::model::testing::{service, slice};

/// A Service: its name and port, its pods, its policies.
type Row = (
    &'static str,
    u16,
    &'static [&'static str],
    TrafficPolicy,
    TrafficPolicy,
);

/// Each has a ClusterIP, a load balancer's address and a node port, in both families and for all protocols.
const ROWS: [Row; 5] = [
    ("anywhere", 80, &["a", "c"], Anywhere, Anywhere),
    ("local", 81, &["a", "c"], Local, Local),
    ("elsewhere", 82, &["c"], Anywhere, Local),
    (RESTRICTED, 83, &["a"], Anywhere, Anywhere),
    ("empty", 84, &[], Anywhere, Anywhere),
];
/// The one whose load-balancer address has source ranges.
const RESTRICTED: &str = "restricted";
/// A port that is nobody's.
const UNDEFINED: u16 = 85;
const PROTOCOLS: [(Protocol, probe::Protocol); 3] = [
    (Protocol::Tcp, probe::Protocol::Tcp),
    (Protocol::Udp, probe::Protocol::Udp),
    (Protocol::Sctp, probe::Protocol::Sctp),
];

/// A lab, and its first node.
struct Proxied {
    lab: Lab,
    _servers: Vec<Server>,
    node: Node,
}

fn lab_family(family: Family) -> net::Family {
    match family {
        Family::V4 => net::Family::V4,
        Family::V6 => net::Family::V6,
    }
}

/// The addresses of the Service in this row: its ClusterIP and its load balancer's.
fn addresses(row: usize, family: Family) -> [IpAddr; 2] {
    let (row, family) = (u8::try_from(row + 1).unwrap(), lab_family(family));
    [
        net::address::cluster_ip(row, family),
        net::address::load_balancer_ip(row, family),
    ]
}

impl Proxied {
    /// Pods `a` and `b` on node 1, `c` on node 2, all serving port 8080.
    fn new(mode: Mode) -> Self {
        let lab = Lab::build(&Topology::with_pods(&[("a", 1), ("b", 1), ("c", 2)])).unwrap();
        let servers = lab
            .pods()
            .map(|pod| Server::start(pod, &[8080]).unwrap())
            .collect();
        let ip = |member: &str, family| lab.member(member).unwrap().ip(lab_family(family));
        let node_ips = Family::ALL.map(|family| ip("node-1", family));
        let second = Family::ALL.map(|family| net::address::node_second(1, lab_family(family)));
        let networks = |of: fn(net::Family) -> &'static str| Family::ALL.map(|family| of(lab_family(family)));
        let setup = Setup {
            mode,
            local_traffic: networks(net::address::network::pods)
                .map(|network| LocalTraffic::Cidr(network.parse().unwrap())),
            node_ips: node_ips.to_vec(),
            interface_addresses: [node_ips, second].concat(),
            localhost: node_ips.map(Some),
            service_cidrs: networks(net::address::network::cluster_ips)
                .map(|network| network.parse().unwrap())
                .to_vec(),
            ..Setup::default()
        };
        let (mut services, mut slices) = (Vec::new(), Vec::new());
        for (row, (name, port, pods, internal, external)) in ROWS.into_iter().enumerate() {
            let [v4, v6] = Family::ALL.map(|family| addresses(row, family));
            let ports =
                PROTOCOLS.map(|(protocol, _)| format!("{protocol}/{protocol}:{port}:{}", 30_000 + port));
            let both = |at: usize| format!("{} {}", v4[at], v6[at]);
            let mut service = service(&format!("ns/{name}"), &both(0), &ports.join(" "))
                .with_load_balancer(&both(1))
                .with_policies(internal, external);
            if name == RESTRICTED {
                // Pods may not use it.
                let allowed = ["client", "node-1"].map(|member| Family::ALL.map(|family| ip(member, family)));
                let allowed = allowed.as_flattened().iter();
                let ranges: Vec<String> = allowed.map(|ip| IpNet::from(*ip).to_string()).collect();
                service = service.with_source_ranges(&ranges.join(" "));
            }
            services.push(service);
            for family in Family::ALL {
                let ports = PROTOCOLS.map(|(protocol, _)| format!("{protocol}/{protocol}:8080"));
                let endpoints = pods.iter().map(|pod| {
                    let local = if *pod == "c" { "" } else { " local" };
                    format!("{}{local}", ip(pod, family))
                });
                let endpoints: Vec<String> = endpoints.collect();
                let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
                slices.push(slice(
                    &format!("ns/{name}-{family}"),
                    name,
                    &ports.join(" "),
                    &endpoints,
                ));
            }
        }
        let mut node = Node::with(&setup, &services, &slices);
        let namespace = &lab.member("node-1").unwrap().namespace;
        let report = namespace.enter(|| node.planned.commit()).unwrap().unwrap();
        assert_eq!(report.refused, []);
        Self {
            lab,
            _servers: servers,
            node,
        }
    }

    fn ip(&self, member: &str, family: Family) -> IpAddr {
        self.lab.member(member).unwrap().ip(lab_family(family))
    }

    /// What the walker says about a packet, as its sender sees it: who answers and whom it sees, or what else.
    fn foretold(&self, from: &str, transport: Transport, to: IpAddr) -> BTreeSet<String> {
        let family = Family::of(to);
        let packet = Packet {
            source: match to.is_loopback() {
                true => to,
                false => self.ip(from, family),
            },
            destination: to,
            transport,
            origin: match from {
                "node-1" => Origin::Host,
                other => Origin::Interface(other.to_owned()),
            },
            connection: Connection::New,
            mark: 0,
        };
        let word = |outcome: Outcome| match outcome {
            Outcome::To {
                endpoint,
                masqueraded,
            } => {
                let seen_as = if masqueraded { "node-1" } else { from };
                format!("{} sees {}", endpoint.ip(), self.ip(seen_as, family))
            }
            other => other.to_string(),
        };
        let paths = self.node.walk(&packet);
        paths.iter().map(|path| word(path.outcome)).collect()
    }

    /// What becomes of a packet, in the same words, when a request waits for so long.
    fn seen(&self, from: &str, protocol: probe::Protocol, to: SocketAddr, timeout: Duration) -> String {
        let request = Request {
            protocol,
            to,
            timeout,
        };
        let from = &self.lab.member(from).unwrap().namespace;
        match probe::request(from, request).unwrap() {
            Seen::Ok(answer) => {
                let server = self.ip(&answer.server, Family::of(to.ip()));
                format!("{server} sees {}", answer.seen_as())
            }
            Seen::Refused(RefusedBy::Icmp) => Outcome::Rejected.to_string(),
            Seen::Timeout => Outcome::Dropped.to_string(),
            // The fabric and the nodes themselves refuse what nobody takes, by a reset.
            Seen::Refused(RefusedBy::Reset) => Outcome::NotOurs.to_string(),
            other => other.to_string(),
        }
    }

    /// Asks what the walker foretells, and says where it was wrong.
    fn differences(
        &self,
        from: &str,
        (transport, protocol): (Transport, probe::Protocol),
        to: SocketAddr,
    ) -> Vec<String> {
        let foretold = self.foretold(from, transport, to.ip());
        let says = |outcome: Outcome| foretold.contains(&outcome.to_string());
        // Other protocols than TCP tell nobody that a packet was not ours.
        if says(Outcome::NotOurs) && protocol != probe::Protocol::Tcp {
            return Vec::new();
        }
        // An answer that should not come would come at once.
        let timeout = match says(Outcome::Dropped) {
            true => Duration::from_millis(100),
            false => Duration::from_secs(3),
        };
        let seen = (0..foretold.len()).map(|_| self.seen(from, protocol, to, timeout));
        let wrong = seen.filter(|seen| !foretold.contains(seen));
        let difference = |seen| format!("{protocol} from {from} to {to}: {foretold:?}, but {seen}");
        wrong.map(difference).collect()
    }

    /// Where everybody on the node and outside of it asks, in one family.
    fn destinations(&self, family: Family) -> Vec<(IpAddr, u16)> {
        let nodes = [
            self.ip("node-1", family),
            net::address::node_second(1, lab_family(family)),
        ];
        let mut all = vec![
            (addresses(0, family)[0], UNDEFINED),
            (addresses(0, family)[1], UNDEFINED),
            (nodes[0], 30_000 + UNDEFINED),
            // Nobody's.
            (net::address::cluster_ip(9, lab_family(family)), 80),
        ];
        for (row, (_, port, ..)) in ROWS.into_iter().enumerate() {
            all.extend(addresses(row, family).map(|ip| (ip, port)));
            all.extend(nodes.map(|ip| (ip, 30_000 + port)));
        }
        all
    }
}

fn real_packets_go_where_the_walker_says(mode: Mode) {
    let proxied = Proxied::new(mode);
    let mut different = Vec::new();
    for family in Family::ALL {
        let localhost = testing::ip(lab_family(family).pick("127.0.0.1", "::1"));
        for (model, protocol) in PROTOCOLS {
            let how = |port| (Transport::To(model, port), protocol);
            for (ip, port) in proxied.destinations(family) {
                let to = SocketAddr::new(ip, port);
                let all = ["a", "b", "node-1", "client"];
                let asked = all.iter();
                different.extend(asked.flat_map(|from| proxied.differences(from, how(port), to)));
            }
            for port in [30_080, 30_081, 30_084] {
                let to = SocketAddr::new(localhost, port);
                different.extend(proxied.differences("node-1", how(port), to));
            }
        }
        let ping = (Transport::Ping { checksum: 80 }, probe::Protocol::Ping);
        let to = SocketAddr::new(addresses(0, family)[0], 0);
        let all = ["a", "node-1", "client"];
        different.extend(all.iter().flat_map(|from| proxied.differences(from, ping, to)));
    }
    assert!(different.is_empty(), "{mode}: {different:#?}");
}

#[test]
fn real_packets_go_where_the_walker_says_in_nftables_mode() {
    real_packets_go_where_the_walker_says(Mode::Nftables);
}

#[test]
fn real_packets_go_where_the_walker_says_in_iptables_mode() {
    real_packets_go_where_the_walker_says(Mode::Iptables);
}
