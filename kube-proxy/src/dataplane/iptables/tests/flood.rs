//! New connections at the moment at which rules come in force.

use super::*;
use crate::dataplane::flood::{Flood, PORTS};

#[test]
fn no_packet_is_lost_that_is_in_the_rules_while_a_successor_takes_over() {
    let flood = Flood::new();
    let start = || flood.program(&mut Iptables::new(config()), &PORTS[..1]);
    start();
    flood.arrives(start);
}

#[test]
fn no_packet_is_lost_while_endpoints_come_and_go() {
    let flood = Flood::new();
    let mut dataplane = Iptables::new(config());
    let lists = [&PORTS[..1], &PORTS[..2], &PORTS[1..], &PORTS, &PORTS[2..]];
    let mut lists = lists.into_iter().cycle();
    let mut change = || flood.program(&mut dataplane, lists.next().unwrap());
    change();
    flood.arrives(change);
}
