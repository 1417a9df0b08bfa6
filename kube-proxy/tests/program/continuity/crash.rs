//! A program that is killed at any moment, again and again: no connection fails, and nothing stale stays.

use std::time::Duration;

use lab::net::Family;

use super::held::{assert_same, held};
use super::{IN_FORCE, Stage};
use crate::machine::service;
use crate::running::Proxy;

/// Another Service, which comes, goes and changes between the lives of the victims.
fn other(stage: &Stage, random: &mut fastrand::Rng) {
    let endpoint = stage.member("c").ip(Family::V4).to_string();
    let mut more = String::new();
    for number in 0..random.u8(0..20) {
        let name = format!("other-{number}");
        let here = if random.bool() {
            &[endpoint.as_str()][..]
        } else {
            &[]
        };
        more += &service(&name, &format!("10.96.1.{}", number + 1), 0, here).replace("NodePort", "ClusterIP");
    }
    stage.write(&more);
}

/// `life` is the longest that a victim has, which is longer than a start takes.
fn survives(mode: &str, kills: usize, life: Duration) {
    let seed = fastrand::u64(..);
    println!("{mode}: seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let stage = Stage::new();
    let first = stage.start(mode);
    first.says(IN_FORCE);
    drop(first);
    let traffic = stage.traffic();
    let mut came_into_force = 0;
    for _ in 0..kills {
        other(&stage, &mut random);
        let mut victim: Proxy = stage.start(mode);
        std::thread::sleep(life.mul_f64(random.f64()));
        victim.process.kill().unwrap();
        victim.process.wait().unwrap();
        came_into_force += usize::from(victim.log().contains(IN_FORCE));
    }
    let last = stage.start(mode);
    last.says(IN_FORCE);
    let answered = traffic.was_never_disturbed();
    println!("{mode}: {kills} kills, {came_into_force} of them after the first sync; {answered} answers");
    let after = held(&stage, mode);
    drop(last);

    // The tables of iptables-nft are among them.
    stage.node().run("nft", &["flush", "ruleset"]).unwrap();
    let fresh = stage.start(mode);
    fresh.says(IN_FORCE);
    let fresh = held(&stage, mode);
    assert_same(&after, &fresh, seed);
}

#[test]
fn a_hundred_kills_at_random_moments_cost_no_connection_and_leave_nothing_in_nftables_mode() {
    survives("nftables", 100, Duration::from_millis(250));
}

#[test]
fn kills_at_random_moments_cost_no_connection_and_leave_nothing_in_iptables_mode() {
    survives("iptables", 25, Duration::from_millis(900));
}
