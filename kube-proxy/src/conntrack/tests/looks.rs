//! The thread that looks: on which entries it works, and when it comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::net::Namespace;

use super::stage::{PATIENCE, wait};
use super::table::{inject, list, tracked};
use super::*;
use crate::conntrack::Conntrack;
use crate::metrics::Metrics;
use crate::model::object::Family;

/// When the machine is busy the second look may come before this test's packet does. Then all of it is done again.
#[test]
fn what_a_slow_packet_enters_behind_the_first_look_goes_with_the_second() {
    let other = ["UDP 10.0.0.11:53"];
    assert!(
        (0..5).any(|_| left_behind_a_slow_packet() == other),
        "in five tries"
    );
}

/// Which flows are there once a packet has entered one behind the first look.
fn left_behind_a_slow_packet() -> Vec<String> {
    let node = Namespace::create("conntrack").unwrap();
    let (_, local) = tokio::sync::watch::channel(Vec::new().into());
    let start = || Conntrack::start(Arc::new(Metrics::new().unwrap()), local.clone()).unwrap();
    let conntrack = node.enter(start).unwrap();
    let mut cluster = Cluster::new(testing::config());
    cluster.apply(apply(dns()));
    cluster.apply(endpoints(&["10.1.0.2"]));
    let view = cluster.resolve(&name("ns/dns"));
    let left = || list(&node, Family::V4, Protocol::Udp);
    let is_empty = || match left() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    };
    let late = "UDP 10.0.0.10:53 > 10.1.0.1:53";
    inject(&node, [tracked("10.2.0.1:1000", late)]);
    conntrack.note(&name("ns/dns"), view.as_ref());
    assert_eq!(left(), [late], "nothing is in force yet");
    conntrack.in_force();
    wait(is_empty);
    inject(
        &node,
        [
            tracked("10.2.0.1:1001", late),
            tracked("10.2.0.1:1002", "UDP 10.0.0.11:53"),
        ],
    );
    let deadline = Instant::now() + PATIENCE;
    while left().len() > 1 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    left()
}
