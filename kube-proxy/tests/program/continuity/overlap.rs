//! A successor beside its predecessor, as a DaemonSet with `maxSurge` starts it: what load balancers ask is answered
//! all the while. And what a plain restart costs there.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lab::api::Server;
use lab::net::{Family, Namespace};

use super::{IN_FORCE, PATIENCE, Stage};
use crate::machine::{Manifests, service};
use crate::running::{PROGRAM, Proxy};

const HEALTHZ: u16 = 10256;
const CHECK: u16 = 31000;
const METRICS: u16 = 10249;
const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
const BALANCED: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: balanced}\nspec: {type: LoadBalancer, \
    externalTrafficPolicy: Local, healthCheckNodePort: 31000, clusterIP: 10.96.0.10, \
    ports: [{port: 80, nodePort: 30081}]}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
    addressType: IPv4\nmetadata: {name: balanced-1, labels: {kubernetes.io/service-name: balanced}}\n\
    ports: [{name: '', port: 8080}]\nendpoints: [{addresses: [10.244.0.9], nodeName: node-1}]\n";

/// What became of the requests of a load balancer.
#[derive(Debug, Default)]
struct Asked {
    good: usize,
    refused: usize,
    /// Accepted, and ended without an answer.
    cut: usize,
    /// Answers that would take the node out.
    bad: Vec<String>,
}

/// Asks one port over new connections until it is told to end.
fn balancer(from: &Namespace, port: u16, ends: &Arc<AtomicBool>) -> JoinHandle<Asked> {
    let (from, ends) = (from.clone(), Arc::clone(ends));
    let ask = move || {
        let mut asked = Asked::default();
        while !ends.load(Ordering::Relaxed) {
            match request(port) {
                Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => asked.good += 1,
                Ok(answer) if answer.is_empty() => asked.cut += 1,
                Ok(answer) => asked.bad.push(answer),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => asked.refused += 1,
                Err(_) => asked.cut += 1,
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        asked
    };
    std::thread::spawn(move || from.enter(ask).unwrap())
}

fn request(port: u16) -> std::io::Result<String> {
    request_at(SocketAddr::from(([127, 0, 0, 1], port)))
}

fn request_at(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(REQUEST)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn send(proxy: &Proxy, signal: &str) {
    let id = proxy.process.id().to_string();
    let sent = Command::new("kill").args([signal, &id]).status().unwrap();
    assert!(sent.success());
}

fn listens(proxy: &Proxy) {
    proxy.says(IN_FORCE);
    proxy.says("\"Starting server\" server=\"healthz\"");
    proxy.says("\"Opening healthcheck\"");
}

#[test]
fn a_successor_that_starts_beside_its_predecessor_leaves_no_request_of_a_load_balancer_refused() {
    let namespace = Namespace::create("overlap").unwrap();
    let manifests = Manifests::new(&[BALANCED.to_owned()]);
    let mut running = Proxy::start(&namespace, &[&manifests.argument]);
    listens(&running);
    let ends = Arc::new(AtomicBool::new(false));
    let balancers = [HEALTHZ, CHECK].map(|port| balancer(&namespace, port, &ends));
    let handovers = ["-TERM", "-KILL"].repeat(6);
    for signal in &handovers {
        let successor = Proxy::start(&namespace, &[&manifests.argument]);
        listens(&successor);
        send(&running, signal);
        running.ends();
        running = successor;
    }
    ends.store(true, Ordering::Relaxed);
    for asking in balancers {
        let asked = asking.join().unwrap();
        println!("{asked:?}");
        assert!(asked.good > 100, "{asked:?}");
        assert_eq!((asked.refused, &asked.bad), (0, &Vec::new()), "{asked:?}");
        // Nobody answers what a process had accepted that is killed: at most the one request that was under way.
        assert!(asked.cut <= handovers.len() / 2, "{asked:?}");
    }
    // It holds the one port that is not shared, since numbers of two programs must not be mixed.
    running.get(METRICS, "/metrics");
}

#[test]
fn who_was_connected_before_sigterm_is_answered_and_who_says_nothing_is_not_waited_for() {
    let namespace = Namespace::create("last-words").unwrap();
    let manifests = Manifests::new(&[BALANCED.to_owned()]);
    let mut proxy = Proxy::start(&namespace, &[&manifests.argument]);
    listens(&proxy);
    proxy.get(METRICS, "/metrics");
    // The kernel takes connections and requests for it, which it finds together with the signal.
    send(&proxy, "-STOP");
    let connect = || {
        let silent = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], HEALTHZ))).unwrap();
        let asking = [HEALTHZ, CHECK, METRICS].map(|port| {
            let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(REQUEST).unwrap();
            (port, stream)
        });
        (silent, asking)
    };
    let (_silent, asking) = namespace.enter(connect).unwrap();
    send(&proxy, "-TERM");
    send(&proxy, "-CONT");
    for (port, mut stream) in asking {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{port}: {answer}");
    }
    let (code, log) = proxy.ends();
    assert_eq!(code, Some(128 + 15), "{log}");
}

/// What a load balancer sees of a restart: how long after the start of the program these ports answer.
fn until_it_answers(stage: &Stage, api: &Server) -> [Duration; 2] {
    let since = Instant::now();
    let proxy = stage.start_by(api);
    let node = stage.node_port(Family::V4).ip();
    let answers = |port: u16| loop {
        if request_at(SocketAddr::new(node, port)).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 ")) {
            return since.elapsed();
        }
        assert!(since.elapsed() < PATIENCE, "{}", proxy.log());
        std::thread::sleep(Duration::from_millis(1));
    };
    stage.node().enter(|| [HEALTHZ, CHECK].map(answers)).unwrap()
}

/// It is printed and not judged: no test fails on a clock.
#[test]
fn a_restart_with_a_thousand_services_answers_load_balancers_again() {
    const SERVICES: u32 = 1000;
    const ROUNDS: usize = 5;
    let stage = Stage::new();
    let api = stage.api();
    for number in 0..SERVICES {
        let (high, low) = (number / 250, number % 250);
        let service = service(
            &format!("web-{number}"),
            &format!("10.98.{high}.{low}"),
            0,
            &["10.244.2.9"],
        );
        api.apply(&service.replace("NodePort", "ClusterIP")).unwrap();
    }
    api.apply(BALANCED).unwrap();
    stage.start_by(&api).says(IN_FORCE);
    let mut rounds: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let since = Instant::now();
            let version = Command::new(PROGRAM).arg("--version").output().unwrap();
            assert!(version.status.success());
            let version = since.elapsed();
            let [health, check] = until_it_answers(&stage, &api);
            (health, check, version)
        })
        .collect();
    rounds.sort();
    let (health, check, version) = rounds[ROUNDS / 2];
    println!(
        "with {SERVICES} Services, median of {ROUNDS}: /healthz answers {health:?} after the start, the health-check node \
         port after {check:?}; beside it `kube-proxy --version` takes {version:?}"
    );
}
