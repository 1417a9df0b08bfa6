//! The walker against the kernel: real packets go where it says.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use lab::net;
use lab::probe::{self, Outcome as Seen, RefusedBy, Request};

use super::packets::{Proxied, families_and_protocols, lab_family, service_address, service_port};
use super::*;
use crate::dataplane::nftables::walk::Table;
use crate::dataplane::walk::{Connection, Origin, Outcome, Packet, Surroundings, Transport, walk};

/// The port whose load-balancer address has source ranges.
const RESTRICTED: u16 = 83;
/// A port that is nobody's.
const UNDEFINED: u16 = 85;

/// A port, its pods, and what becomes of traffic inside the cluster and from outside.
type Row = (u16, &'static [&'static str], [Delivery; 3], [Delivery; 3]);

/// Every kind of address and delivery, each at another port of the same addresses.
fn everything(proxied: &Proxied) -> ServiceView {
    let elsewhere = [CLUSTER, CLUSTER_MASQUERADED, Delivery::Drop];
    let rows: [Row; 5] = [
        (80, &["a", "c"], OFF_CLUSTER, EXTERNAL),
        (
            81,
            &["a", "c"],
            [LOCAL, to(EndpointList::Local, true), LOCAL],
            EXTERNAL_LOCAL,
        ),
        (82, &["c"], OFF_CLUSTER, elsewhere),
        (RESTRICTED, &["a"], OFF_CLUSTER, EXTERNAL),
        (84, &[], [Delivery::Reject; 3], [Delivery::Reject; 3]),
    ];
    let ports = families_and_protocols().flat_map(|(family, protocol, _)| {
        rows.map(|(port, pods, inside, outside)| {
            let [cluster_ip, lb] = addresses(family);
            let ranges = [net::address::client(1, lab_family(family)).into(), lb.into()];
            let addresses = [
                service_address(AddressKind::ClusterIp, cluster_ip, port, inside),
                ServiceAddress {
                    source_ranges: (port == RESTRICTED).then(|| ranges.to_vec()),
                    ..service_address(AddressKind::LoadBalancerIp, lb, port, outside)
                },
                service_address(AddressKind::NodePort, None, 30_000 + port, outside),
            ];
            service_port(proxied, (family, protocol), pods, &addresses)
        })
    });
    view("web", ports.collect::<Vec<_>>())
}

/// A ClusterIP and a load balancer's.
fn addresses(family: Family) -> [IpAddr; 2] {
    let family = lab_family(family);
    [
        net::address::cluster_ip(1, family),
        net::address::load_balancer_ip(1, family),
    ]
}

/// What the walker says about a packet, as its sender sees it: who answers and whom it sees, or what else.
fn foretold(proxied: &Proxied, from: &str, transport: Transport, to: IpAddr) -> BTreeSet<String> {
    let family = Family::of(to);
    let node_addresses = vec![
        proxied.ip("node-1", family),
        net::address::node_second(1, lab_family(family)),
    ];
    let packet = Packet {
        source: match to.is_loopback() {
            true => to,
            false => proxied.ip(from, family),
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
    let surroundings = Surroundings {
        node_addresses,
        ..Surroundings::default()
    };
    let table = Table::planned(&proxied.dataplane, family).unwrap();
    let paths = walk(&table, &packet, &surroundings).unwrap();
    let word = |outcome: Outcome| match outcome {
        Outcome::To {
            endpoint,
            masqueraded,
        } => {
            let seen_as = if masqueraded { "node-1" } else { from };
            format!("{} sees {}", endpoint.ip(), proxied.ip(seen_as, family))
        }
        other => other.to_string(),
    };
    paths.iter().map(|path| word(path.outcome)).collect()
}

/// What becomes of a packet, in the same words, when a request waits for so long.
fn seen(
    proxied: &Proxied,
    from: &str,
    protocol: probe::Protocol,
    to: SocketAddr,
    timeout: Duration,
) -> String {
    let request = Request {
        protocol,
        to,
        timeout,
    };
    let from = &proxied.lab.member(from).unwrap().namespace;
    match probe::request(from, request).unwrap() {
        Seen::Ok(answer) => {
            let server = proxied.ip(&answer.server, Family::of(to.ip()));
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
    proxied: &Proxied,
    from: &str,
    (transport, protocol): (Transport, probe::Protocol),
    to: SocketAddr,
) -> Vec<String> {
    let foretold = foretold(proxied, from, transport, to.ip());
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
    let seen = (0..foretold.len()).map(|_| seen(proxied, from, protocol, to, timeout));
    let wrong = seen.filter(|seen| !foretold.contains(seen));
    let difference = |seen| format!("{protocol} from {from} to {to}: {foretold:?}, but {seen}");
    wrong.map(difference).collect()
}

#[test]
fn real_packets_go_where_the_walker_says() {
    let mut proxied = Proxied::new();
    for family in Family::ALL {
        let source = proxied.ip("node-1", family);
        let cluster_ips = net::address::network::cluster_ips(lab_family(family));
        proxied.dataplane.set_localhost_node_ports(family, Some(source));
        let cluster_ips = [cluster_ips.parse().unwrap()];
        proxied.dataplane.set_service_cidrs(family, &cluster_ips);
    }
    let web = everything(&proxied);
    proxied.update(&web);
    let mut different = Vec::new();
    for (family, model, protocol) in families_and_protocols() {
        let node = proxied.ip("node-1", family);
        let second = net::address::node_second(1, lab_family(family));
        for port in [80, 81, 82, RESTRICTED, 84, UNDEFINED] {
            let virtual_ips = addresses(family).map(|ip| SocketAddr::new(ip, port));
            let nodes = [node, second].map(|ip| SocketAddr::new(ip, 30_000 + port));
            for to in virtual_ips.into_iter().chain(nodes) {
                let how = (Transport::To(model, to.port()), protocol);
                let all = ["a", "b", "node-1", "client"];
                different.extend(all.iter().flat_map(|from| differences(&proxied, from, how, to)));
            }
        }
        for port in [30_080, 30_081, 30_084] {
            let how = (Transport::To(model, port), protocol);
            let localhost = match family {
                Family::V4 => Ipv4Addr::LOCALHOST.into(),
                Family::V6 => Ipv6Addr::LOCALHOST.into(),
            };
            let to = SocketAddr::new(localhost, port);
            different.extend(differences(&proxied, "node-1", how, to));
        }
        let how = (Transport::To(model, 80), protocol);
        let nobody = SocketAddr::new(net::address::cluster_ip(2, lab_family(family)), 80);
        different.extend(
            ["a", "node-1"]
                .iter()
                .flat_map(|from| differences(&proxied, from, how, nobody)),
        );
        let ping = (Transport::Ping { checksum: 80 }, probe::Protocol::Ping);
        let to = SocketAddr::new(addresses(family)[0], 0);
        let all = ["a", "node-1", "client"];
        different.extend(all.iter().flat_map(|from| differences(&proxied, from, ping, to)));
    }
    assert!(different.is_empty(), "{different:#?}");
}
