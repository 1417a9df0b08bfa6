//! Packets that have something to do with a random cluster.

use proptest::prelude::*;
use proptest::sample::Index;

use super::plain::World;
use super::*;
use crate::model::object::ServicePort;

/// Sources, and the interfaces that their packets come in through, if they do. (A source that is one of the
/// node's own is the host's.)
const SOURCES: [(&str, &str); 20] = [
    ("10.244.1.9", "veth9"),
    ("10.244.1.1", "veth1"),
    ("10.244.1.2", "veth2"),
    ("10.244.2.1", "eth0"),
    ("10.244.2.9", "eth0"),
    ("192.168.0.2", "host"),
    ("192.168.1.2", "host"),
    ("10.244.1.254", "host"),
    ("203.0.113.1", "host"),
    ("192.168.0.3", "eth0"),
    ("192.0.2.7", "eth0"),
    ("192.0.2.200", "eth0"),
    ("fd00:244:1::9", "veth9"),
    ("fd00:244:1::1", "veth1"),
    ("fd00:244:2::1", "eth0"),
    ("2001:db8::2", "host"),
    ("fd00:244:1::fe", "host"),
    ("2001:db8:1b::1", "host"),
    ("2001:db8::3", "eth0"),
    ("2001:db8:c::7", "eth0"),
];

/// Which packets to try, out of those that matter in a world.
pub(super) type Picks = Vec<(Index, Index)>;

pub(super) fn any_picks(count: usize) -> impl Strategy<Value = Picks> {
    prop::collection::vec(any::<(Index, Index)>(), count)
}

/// The packets that were picked.
pub(super) fn picked(world: &World, node: &Node, picks: &Picks) -> Vec<Packet> {
    let destinations = destinations(world);
    let pick = |(source, destination): &(Index, Index)| {
        let (ip, transport) = *destination.get(&destinations);
        // Twice, since source ranges treat a node that holds the address as nobody else.
        let itself = vec![(ip, Origin::Host); if node.surroundings.is_local(ip) { 2 } else { 0 }];
        let sources: Vec<_> = SOURCES
            .into_iter()
            .filter_map(|source| from(node, source, ip))
            .chain(itself)
            .collect();
        let (source, origin) = source.get(&sources).clone();
        Packet {
            source,
            destination: ip,
            transport,
            origin,
            connection: Connection::New,
            mark: 0x8001,
        }
    };
    picks.iter().map(pick).collect()
}

/// A source of the destination's family; none that is said to be the host's and is not. Only the loopback address
/// reaches itself.
fn from(node: &Node, (ip, interface): (&str, &str), to: IpAddr) -> Option<(IpAddr, Origin)> {
    let ip = testing::ip(ip);
    let origin = match (node.surroundings.is_local(ip), interface) {
        (true, _) => Origin::Host,
        (false, "host") => return None,
        (false, interface) => Origin::Interface(interface.to_owned()),
    };
    (Family::of(ip) == Family::of(to) && !to.is_loopback()).then_some((ip, origin))
}

/// The same packet to every place of its family where Services are.
pub(super) fn elsewhere(world: &World, packet: &Packet) -> Vec<Packet> {
    let reachable = |ip: &IpAddr| Family::of(*ip) == packet.family() && !ip.is_loopback();
    let mut others: Vec<Packet> = Vec::new();
    for (destination, transport) in frontends(world).into_iter().filter(|(ip, _)| reachable(ip)) {
        let other = Packet {
            destination,
            transport,
            ..packet.clone()
        };
        if !others.contains(&other) {
            others.push(other);
        }
    }
    others
}

/// Where Services are; those of load balancers three times, since most can happen there.
fn frontends(world: &World) -> Vec<(IpAddr, Transport)> {
    let mut at = Vec::new();
    let node_addresses = [
        world.setup.interface_addresses.clone(),
        ips("192.168.0.3 2001:db8::3"),
    ]
    .concat();
    for service in &world.services {
        let vips = service.load_balancer_ingress.iter().map(|ingress| ingress.ip);
        let vips = vips.flat_map(|ip| [ip; 3]);
        let cluster_ips = service.cluster_ips.iter().copied().flatten();
        for ip in cluster_ips
            .chain(vips)
            .chain(service.external_ips.iter().copied())
        {
            at.extend(service.ports.iter().map(|port| (ip, to(port, port.port))));
        }
        for port in service.ports.iter().filter(|port| port.node_port != 0) {
            let localhost = ips("127.0.0.1 ::1");
            let addresses = node_addresses.iter().chain(&localhost);
            at.extend(addresses.map(|ip| (*ip, to(port, port.node_port))));
        }
    }
    at
}

/// Where Services are, three times, and once what is beside it: other ports, other protocols, no port at all,
/// endpoints themselves, addresses that nobody has.
fn destinations(world: &World) -> Vec<(IpAddr, Transport)> {
    let at = frontends(world);
    let mut all = [at.clone(), at.clone(), at.clone()].concat();
    for (ip, transport) in at {
        let beside = match transport {
            Transport::To(Protocol::Tcp, 80) => Transport::To(Protocol::Tcp, 82),
            Transport::To(Protocol::Tcp, port) => Transport::To(Protocol::Udp, port),
            Transport::To(_, port) => Transport::To(Protocol::Tcp, port),
            ping => ping,
        };
        all.extend([(ip, beside), (ip, Transport::Ping { checksum: 80 })]);
    }
    let endpoints = world.slices.iter().flat_map(|slice| &slice.endpoints);
    let nobody = ips("10.96.0.9 fd00:96::9");
    for ip in nobody.into_iter().chain(endpoints.map(|endpoint| endpoint.ip)) {
        all.extend([80, 8080].map(|port| (ip, Transport::To(Protocol::Tcp, port))));
    }
    all
}

fn to(port: &ServicePort, number: u16) -> Transport {
    Transport::To(port.protocol, number)
}
