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
    Flood::new().arrives_while_endpoints_change(Iptables::new(config()));
}
