//! Connections as IPVS leaves them in the table become conntrack's own: real packets, without IPVS, whose entries are
//! written here.

use lab::net::address;

use super::packets::{everywhere, pods, ways};
use super::stage::{Held, Stage, TCP, Transport, by, lab_family, transports, wait};
use super::*;
use crate::conntrack::adopt::{Tracked, adopt, each, sources, write_nat};
use crate::conntrack::entry::{attribute, status, write_tuple};
use crate::conntrack::netlink::NEW;
use crate::model::object::Family;
use crate::netlink::{Attributes, Socket, begin, end, flag, nfproto};

/// TCP and UDP over both families. (Of SCTP there are only beginnings here, which hold nothing.)
fn over() -> impl Iterator<Item = Transport> {
    let tcp = Family::ALL.map(|family| Transport {
        family,
        lab_family: lab_family(family),
        ..TCP
    });
    transports()
        .filter(|over| over.protocol == Protocol::Udp)
        .chain(tcp)
}

/// What the node has tracked to where a flow asked.
fn tracked(stage: &Stage, asked: SocketAddr, protocol: Protocol) -> Vec<Tracked> {
    let read = || {
        let mut found = Vec::new();
        each(Family::of(asked.ip()), |tracked| found.push(tracked)).unwrap();
        found
    };
    let mut found = stage.node().enter(read).unwrap();
    found.retain(|entry| (entry.asked.protocol, entry.asked.to) == (protocol, asked));
    found
}

/// Makes an entry one of IPVS: it has the endpoint, and no mark that anything is to be rewritten but the source.
fn give_to_ipvs(stage: &Stage, entry: &Tracked) {
    let mut bytes = Vec::new();
    entry.write_deletion(&mut bytes, 1, true);
    let family = nfproto(Family::of(entry.asked.to.ip()));
    let start = begin(&mut bytes, NEW, flag::CREATE | flag::EXCL, 2, (family, 0));
    let mut message = Attributes::at_end(&mut bytes);
    let (protocol, client) = (entry.asked.protocol, entry.asked.from);
    write_tuple(
        &mut message,
        attribute::TUPLE_ORIG,
        protocol,
        [client, entry.asked.to],
    );
    write_tuple(
        &mut message,
        attribute::TUPLE_REPLY,
        protocol,
        [entry.answers.from, client],
    );
    if entry.status & status::SOURCE_NAT != 0 {
        write_nat(&mut message, attribute::NAT_SRC, entry.answers.to);
    }
    message.be32(attribute::STATUS, entry.status & status::KEPT);
    for (kind, value) in &entry.kept {
        message.bytes(*kind, value);
    }
    if !entry.protoinfo.is_empty() {
        message.nested(attribute::PROTOINFO, |info| info.copy(&entry.protoinfo));
    }
    end(&mut bytes, start);
    let asked = stage
        .node()
        .enter(|| Socket::open().unwrap().ask(&bytes).unwrap());
    assert_eq!(asked.unwrap(), []);
}

/// A Service with two endpoints on two nodes, and flows to each of its addresses whose entries look like IPVS'.
fn flows_of_ipvs(stage: &Stage) -> Vec<(Held, String, Tracked)> {
    stage.begin([apply(everywhere())]);
    stage.send(pods(stage, "dns", &["a", "c"]));
    let mut flows = Vec::new();
    for over in over() {
        let mut ways = ways(stage, over);
        // Its TCP port has no node port.
        ways.retain(|(_, to)| over.protocol == Protocol::Udp || to.port() == 80);
        for (from, to) in ways {
            let before = tracked(stage, to, over.protocol);
            let held = stage.hold(over, from, to, |outcome| outcome.answer().is_some());
            let server = held.ask().answer().unwrap().server.clone();
            let mut new = tracked(stage, to, over.protocol);
            new.retain(|entry| before.iter().all(|other| other.asked != entry.asked));
            let [entry] = new.as_slice() else {
                panic!("{}: {new:?}", held.what)
            };
            assert_ne!(entry.status & status::DESTINATION_NAT, 0, "{}", held.what);
            flows.push((held, server, entry.clone()));
        }
    }
    for (_, _, entry) in &flows {
        give_to_ipvs(stage, entry);
    }
    flows
}

/// Without the part of the entry that does not last: what was seen of it, and how long it still has.
fn lasting(entry: &Tracked) -> impl PartialEq + std::fmt::Debug + use<> {
    let rewritten = status::SOURCE_NAT | status::DESTINATION_NAT;
    (entry.asked, entry.answers, entry.status & rewritten)
}

#[test]
fn connections_through_ipvs_become_conntracks_own_and_go_on_with_their_endpoint() {
    let stage = Stage::set();
    let flows = flows_of_ipvs(&stage);
    // The proof that the entries are what they are taken for: nobody rewrites their packets.
    let (udp, ..) = flows
        .iter()
        .find(|(held, ..)| held.over.protocol == Protocol::Udp)
        .unwrap();
    udp.comes_to(|outcome| outcome.answer().is_none());
    let adopted = stage.node().enter(|| adopt(|_, _| true)).unwrap();
    assert_eq!(adopted, Ok(flows.len() as u64));
    for (held, server, before) in &flows {
        held.comes_to(by(server));
        let entries = tracked(&stage, before.asked.to, before.asked.protocol);
        let after = entries.iter().find(|entry| entry.asked == before.asked).unwrap();
        assert_eq!(lasting(after), lasting(before), "{}", held.what);
    }
    assert_eq!(stage.node().enter(|| adopt(|_, _| true)).unwrap(), Ok(0));
}

#[test]
fn connections_to_virtual_servers_that_stay_are_left_alone() {
    let stage = Stage::set();
    let flows = flows_of_ipvs(&stage);
    let leaving = SocketAddr::new(address::cluster_ip(1, lab_family(Family::V4)), 80);
    let adopted = stage
        .node()
        .enter(|| adopt(|protocol, asked| (protocol, asked) == (Protocol::Udp, leaving)));
    // Those of x and of node-1.
    assert_eq!(adopted.unwrap(), Ok(2));
    for (held, _, before) in &flows {
        let entries = tracked(&stage, before.asked.to, before.asked.protocol);
        let after = entries.iter().find(|entry| entry.asked == before.asked).unwrap();
        let is_adopted = after.status & status::DESTINATION_NAT != 0;
        let asked = (before.asked.protocol, before.asked.to);
        assert_eq!(is_adopted, asked == (Protocol::Udp, leaving), "{}", held.what);
    }
}

#[test]
fn the_sources_of_connections_are_those_of_the_table() {
    let stage = Stage::set();
    stage.begin([apply(everywhere())]);
    stage.send(pods(&stage, "dns", &["a"]));
    let (x, node) = (stage.ip("x", Family::V4), stage.ip("node-1", Family::V4));
    let over = over().find(|over| over.family == Family::V4).unwrap();
    let to = SocketAddr::new(address::cluster_ip(1, over.lab_family), 80);
    stage.hold(over, "x", to, by("a"));
    let found = || {
        stage
            .node()
            .enter(|| sources(|ip| ip == x || ip == node))
            .unwrap()
            .unwrap()
    };
    wait(|| match found() {
        found if found == [x].into() => Ok(()),
        found => Err(format!("{found:?}")),
    });
}

#[test]
fn connections_that_have_ended_are_left_to_be_forgotten() {
    let stage = Stage::set();
    stage.begin([apply(everywhere())]);
    stage.send(pods(&stage, "dns", &["a"]));
    let over = over().find(|over| over.family == Family::V4).unwrap();
    let to = SocketAddr::new(address::cluster_ip(1, over.lab_family), 80);
    // By now all of it is in force.
    stage.hold(over, "x", to, by("a"));
    drop(stage.hold(TCP, "x", to, by("a")));
    let ended = || {
        let mut entries = tracked(&stage, to, Protocol::Tcp);
        entries.retain(Tracked::has_ended);
        entries
    };
    wait(|| match ended().len() {
        1 => Ok(()),
        _ => Err(format!("{:?}", tracked(&stage, to, Protocol::Tcp))),
    });
    give_to_ipvs(&stage, &ended()[0]);
    assert_eq!(stage.node().enter(|| adopt(|_, _| true)).unwrap(), Ok(0));
    assert_eq!(ended().len(), 1);
}
