//! A program that is killed at any moment, again and again: no connection fails, and nothing stale stays.

use std::collections::BTreeSet;
use std::time::Duration;

use lab::net::Family;

use super::{IN_FORCE, Stage};
use crate::machine::service;
use crate::running::Proxy;

/// What the kernel holds, without what counts and numbers: its lines in order of the alphabet where order means
/// nothing (elements of sets, chains made as needed).
fn held(stage: &Stage, mode: &str) -> BTreeSet<String> {
    let program: &[(&str, &[&str])] = match mode {
        "nftables" => &[("nft", &["-s", "list", "ruleset"])],
        _ => &[("iptables-save", &[]), ("ip6tables-save", &[])],
    };
    let mut lines = BTreeSet::new();
    for (program, arguments) in program {
        let printed = stage.node().run(program, arguments).unwrap();
        let (mut table, mut chain) = (String::new(), String::new());
        for line in printed.lines().map(str::trim) {
            match line.split(' ').next() {
                Some("table") => table = line.to_owned(),
                Some("chain" | "map" | "set") => chain = line.to_owned(),
                Some(word) if word.starts_with('*') => table = format!("{program} {word}"),
                // A chain's counters, and the moment.
                Some(word) if word.starts_with(':') => {
                    lines.insert(format!("{table} {word}"));
                    continue;
                }
                Some(word) if word.starts_with('#') => continue,
                _ => {}
            }
            for part in line.trim_start_matches("elements = {").split(", ") {
                lines.insert(format!("{table} {chain} {}", part.trim_matches([' ', ',', '}'])));
            }
        }
    }
    lines
}

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
    assert!(fresh.len() > 10, "{fresh:?}");
    let stale: Vec<_> = after.difference(&fresh).collect();
    let missing: Vec<_> = fresh.difference(&after).collect();
    assert!(
        stale.is_empty() && missing.is_empty(),
        "seed {seed}: stale {stale:#?}, missing {missing:#?}"
    );
}

#[test]
fn a_hundred_kills_at_random_moments_cost_no_connection_and_leave_nothing_in_nftables_mode() {
    survives("nftables", 100, Duration::from_millis(250));
}

#[test]
fn kills_at_random_moments_cost_no_connection_and_leave_nothing_in_iptables_mode() {
    survives("iptables", 25, Duration::from_millis(900));
}
