//! New connections at the moment at which rules come in force.

use super::super::kernel::Kernel;
use super::super::retire::retire;
use super::super::takeover::{remove_tables, stand_in};
use super::*;
use crate::dataplane::flood::{Flood, PORTS};

/// A new process, whose tables are these, puts all in force.
fn start(flood: &Flood, table: &str) {
    let mut dataplane = Nftables::new(Config {
        table: table.to_owned(),
        ..config()
    });
    flood.program(&mut dataplane, &PORTS[..1]);
}

#[test]
fn no_packet_is_lost_that_is_in_the_rules_while_a_successor_takes_over() {
    let flood = Flood::new();
    start(&flood, "kube-proxy");
    flood.arrives(|| start(&flood, "kube-proxy"));
}

#[test]
fn no_packet_is_lost_while_one_takes_over_from_a_predecessor_that_was_stopped_in_the_middle() {
    let flood = Flood::new();
    start(&flood, "kube-proxy");
    let mut late = false;
    flood.arrives(|| {
        start(&flood, &stand_in("kube-proxy"));
        if late {
            let (mut kernel, mut report) = (Kernel::default(), CommitReport::default());
            let gone = flood.on_node(|| retire(&mut kernel, &Family::ALL, "kube-proxy", &mut report));
            assert_eq!(gone.unwrap(), Family::ALL);
        }
        late = !late;
        start(&flood, "kube-proxy");
    });
}

#[test]
fn no_packet_is_lost_while_tables_go_in_whose_place_others_are() {
    let flood = Flood::new();
    start(&flood, "other-mode");
    flood.arrives(|| {
        start(&flood, "kube-proxy");
        flood.on_node(remove_tables).unwrap();
    });
}

#[test]
fn no_packet_is_lost_while_endpoints_come_and_go() {
    Flood::new().arrives_while_endpoints_change(Nftables::new(config()));
}
