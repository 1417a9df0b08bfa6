//! Churn: random changes at hundreds a second with restarts and kills in between, under traffic. At the end the kernel
//! holds what a fresh start programs, and the program has grown in neither memory nor descriptors.
//! `KUBE_PROXY_SOAK_SECONDS` makes it longer.

use std::process::Command;
use std::time::{Duration, Instant};

use lab::api::{Resource, Server};

use super::held::{assert_same, held};
use super::{IN_FORCE, PATIENCE, RETIREMENT, Stage};
use crate::running::Proxy;

const SERVICES: u8 = 80;
/// Between two changes.
const PACE: Duration = Duration::from_millis(2);

/// One change to one of the Services or its endpoints.
fn change(api: &Server, random: &mut fastrand::Rng) {
    let number = random.u8(1..=SERVICES);
    let name = format!("churn-{number}");
    match random.u8(0..8) {
        // There may be none.
        0 => _ = api.delete(Resource::Services, "default", &name),
        1 => _ = api.delete(Resource::EndpointSlices, "default", &format!("{name}-1")),
        2 | 3 => {
            let ports: Vec<String> = (0..random.u8(1..4))
                .map(|port| {
                    format!(
                        "{{name: p{port}, port: {}, protocol: {}}}",
                        80 + port,
                        ["TCP", "UDP"][random.usize(0..2)]
                    )
                })
                .collect();
            let policy = ["Cluster", "Local"][random.usize(0..2)];
            let service = format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: 10.96.2.{number}, \
                 internalTrafficPolicy: {policy}, ports: [{}]}}\n",
                ports.join(", ")
            );
            api.apply(&service).unwrap();
        }
        _ => {
            let endpoints: Vec<String> = (0..random.u8(0..6))
                .map(|_| {
                    let (node, ready) = (random.u8(1..3), random.u8(0..4) > 0);
                    format!(
                        "{{addresses: [10.244.{node}.{}], nodeName: node-{node}, conditions: {{ready: {ready}}}}}",
                        random.u8(50..250)
                    )
                })
                .collect();
            let slice = format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
                 metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}\n\
                 ports: [{{name: p0, port: 8080}}, {{name: p1, port: 8081}}, {{name: p2, port: 8082}}]\n\
                 endpoints: [{}]\n",
                endpoints.join(", ")
            );
            api.apply(&slice).unwrap();
        }
    }
}

fn changes_for(api: &Server, random: &mut fastrand::Rng, time: Duration) -> usize {
    let (since, mut made) = (Instant::now(), 0);
    while since.elapsed() < time {
        change(api, random);
        made += 1;
        std::thread::sleep(PACE);
    }
    made
}

/// Resident memory in KiB, and how many descriptors are open.
fn size(proxy: &Proxy) -> (u64, usize) {
    let process = format!("/proc/{}", proxy.process.id());
    let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let resident = resident.trim().trim_end_matches(" kB").parse().unwrap();
    (
        resident,
        std::fs::read_dir(format!("{process}/fd")).unwrap().count(),
    )
}

#[test]
fn churn_with_restarts_and_kills_ends_in_what_a_fresh_start_programs() {
    let seconds = std::env::var("KUBE_PROXY_SOAK_SECONDS").map_or(20, |text| text.parse().unwrap());
    let whole = Duration::from_secs(seconds);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let stage = Stage::new();
    let api = stage.api();
    let mut proxy = stage.start_by(&api);
    proxy.says(IN_FORCE);
    let traffic = stage.traffic();
    let (since, mut made, mut ends) = (Instant::now(), 0, 0);
    while since.elapsed() < whole / 2 {
        made += changes_for(&api, &mut random, Duration::from_millis(random_pause(seed, ends)));
        let signal = ["-KILL", "-TERM"][ends % 2];
        let id = proxy.process.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &id])
                .status()
                .unwrap()
                .success()
        );
        proxy.ends();
        ends += 1;
        // Changes that nobody sees.
        made += changes_for(&api, &mut random, Duration::from_millis(50));
        proxy = stage.start_by(&api);
    }
    proxy.says(IN_FORCE);
    made += changes_for(&api, &mut random, whole / 4);
    let early = size(&proxy);
    made += changes_for(&api, &mut random, whole / 4);
    let late = size(&proxy);
    println!("{made} changes, {ends} ends; {early:?} then {late:?} (KiB, descriptors)");
    assert!(
        late.0 < early.0 + early.0 / 3,
        "memory grew: {early:?} then {late:?}"
    );
    // Connections of requests that are under way.
    assert!(late.1 <= early.1 + 2, "descriptors grew: {early:?} then {late:?}");
    api.apply("apiVersion: v1\nkind: Service\nmetadata: {name: last}\nspec: {clusterIP: 10.96.3.1, ports: [{port: 80}]}\n")
        .unwrap();
    proxy.programs("10.96.3.1 . tcp . 80");
    let rest = Instant::now();
    let mut after = held(&stage, "nftables");
    loop {
        std::thread::sleep(RETIREMENT);
        let now = held(&stage, "nftables");
        if now == after || rest.elapsed() > PATIENCE {
            break;
        }
        after = now;
    }
    println!("{} answers", traffic.was_never_disturbed());
    drop(proxy);
    stage.node().run("nft", &["flush", "ruleset"]).unwrap();
    let fresh = stage.start_by(&api);
    fresh.says(IN_FORCE);
    assert_same(&after, &held(&stage, "nftables"), seed);
}

/// How long the next life lasts, in ms: shorter than a start at times.
fn random_pause(seed: u64, ends: usize) -> u64 {
    fastrand::Rng::with_seed(seed ^ ends as u64).u64(20..900)
}
