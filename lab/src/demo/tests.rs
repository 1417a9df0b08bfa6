//! The parts of the demo that can be wrong without anybody seeing it.

use std::net::SocketAddr;

use serde_json::Value;

use super::stage::{PODS, SERVICE, SLICES};
use super::table::{self, lines};
use super::terminal::Painter;
use super::traffic::{Counts, Path};
use crate::net::{Family, Lab, Topology};
use crate::probe::{Outcome, RefusedBy};
use crate::serve::Answer;

/// Every address of the example's slices, with its node.
fn endpoints(family: Family) -> Vec<(String, String)> {
    let slices: Vec<Value> = serde_saphyr::from_multiple(SLICES).unwrap();
    let slice = slices
        .iter()
        .find(|slice| slice["addressType"] == family.to_string())
        .unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let endpoint = |e: &Value| (text(&e["addresses"][0]), text(&e["nodeName"]));
    slice["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(endpoint)
        .collect()
}

#[test]
fn the_example_names_the_first_three_pods_of_the_demo() {
    let lab = Lab::build(&Topology::with_pods(&PODS)).unwrap();
    for family in Family::ALL {
        let pod = |(pod, node): &(&str, u8)| {
            let ip = lab.member(pod).unwrap().ip(family);
            (ip.to_string(), format!("node-{node}"))
        };
        assert_eq!(endpoints(family), PODS[..3].iter().map(pod).collect::<Vec<_>>());
    }
    let service: Value = serde_saphyr::from_str(SERVICE).unwrap();
    assert_eq!(service["kind"], "Service");
}

#[test]
fn the_table_shows_shares_refusals_and_failures() {
    let lab = Lab::build(&Topology::with_pods(&[])).unwrap();
    let to: SocketAddr = "10.96.0.10:80".parse().unwrap();
    let namespace = lab.member("client").unwrap().namespace.clone();
    let path = |from| Path {
        from,
        kind: "ClusterIP",
        to,
        namespace: namespace.clone(),
    };
    let answer = |server: &str| {
        Outcome::Ok(Answer {
            server: server.to_owned(),
            port: 8080,
            source: to,
        })
    };
    let refused = Outcome::Refused(RefusedBy::Icmp);
    let mut counts = [Counts::default(), Counts::default(), Counts::default()];
    (0..3).for_each(|_| counts[0].take(&answer("my-app-1"), false));
    counts[0].take(&answer("my-app-3"), false);
    counts[1].take(&refused, true);
    counts[2].take(&refused, false);
    let paths = ["pod", "pod", "outside"].map(path);
    let plain = Painter { colours: false };
    let wide = lines(&paths, &counts, plain, table::WIDTH);
    let ends = [
        "  pod     ClusterIP     10.96.0.10:80           ███  75% ·        █    25% ·        ·              0",
        "          ClusterIP     10.96.0.10:80           refused (no endpoints)                             0",
        "  outside ClusterIP     10.96.0.10:80           ·        ·        ·        ·        ·              1",
    ];
    assert_eq!(wide[2..], ends);
    let widest = |lines: &[String]| lines.iter().map(|line| line.chars().count()).max().unwrap();
    assert!(widest(&wide) <= table::WIDTH);
    assert!(widest(&lines(&paths, &counts, plain, 80)) <= 80);
}
