//! What the tests share: clusters in few words, and a dataplane that knows pods.

mod counting;
mod failures;
mod flood;
mod programs;
mod rulesets;

use std::time::Duration;

use super::counters::Counted;
use super::restore::Restore;
use super::saved::Saved;
use super::{Config, Iptables};
use crate::dataplane::{Dataplane, LocalTraffic};
use crate::model::cluster::Cluster;
use crate::model::object::{EndpointSlice, Family, Service};
use crate::model::testing;

/// Pods of 10.244.0.0/16 and fd00:10:244::/48.
pub(super) fn config() -> Config {
    let pods = |network: &str| LocalTraffic::Cidr(network.parse().unwrap());
    Config {
        masquerade_mark: 1 << 14,
        local_traffic: [pods("10.244.0.0/16"), pods("fd00:10:244::/48")],
        localhost_node_ports: true,
        families: Family::ALL.to_vec(),
        primary: Family::V4,
        sync_period: Duration::from_secs(30),
        drops_invalid: true,
    }
}

/// Resolves every Service of a cluster that was touched, and plans it.
fn update(dataplane: &mut Iptables, cluster: &mut Cluster) {
    for name in cluster.take_dirty() {
        dataplane.update(&name, cluster.resolve(&name).as_ref());
    }
}

/// A dataplane that wants what these objects say, on a machine that counts.
pub(super) fn planned(config: Config, services: &[Service], slices: &[EndpointSlice]) -> Iptables {
    let mut dataplane = Iptables::new(config);
    for state in &mut dataplane.families {
        state.fixed.counted = Counted::ALL;
    }
    update(&mut dataplane, &mut testing::cluster(services, slices));
    dataplane
}

/// What a family is told at the start, on a machine without any rule.
fn restore(dataplane: &Iptables, family: Family) -> Restore {
    let state = &dataplane.families[family as usize];
    let none = std::collections::BTreeSet::new();
    state.desired(&dataplane.ledger, &none).full(&Saved::default())
}

pub(super) fn printed(dataplane: &Iptables, family: Family) -> String {
    restore(dataplane, family).text
}
