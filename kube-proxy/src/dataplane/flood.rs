//! A flood of packets, for tests: each begins a connection, and there are as many a second as a processor can make. So some
//! are in the rules at the moment at which others come in force. What becomes of a packet then depends on what the kernel
//! shows it of sets and rules, in windows of a microsecond that steady requests find once in some hundred thousand times.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lab::net::{self, Lab, Topology};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use super::{Dataplane, commit};
use crate::model::testing::{service, slice, view_of};
use crate::model::view::ServiceView;

const FLOWS: u16 = 40_000;
/// Where the receiver listens.
pub(in crate::dataplane) const PORTS: [u16; 3] = [8080, 8081, 8082];

/// A pod that sends to a Service, one that receives, and their node.
pub(in crate::dataplane) struct Flood(Lab);

impl Flood {
    pub(in crate::dataplane) fn new() -> Self {
        Self(Lab::build(&Topology::with_pods(&[("a", 1), ("b", 1)])).unwrap())
    }

    /// The Service, with an endpoint at each of these ports of the receiver.
    fn view(&self, ports: &[u16]) -> ServiceView {
        let receiver = self.0.member("a").unwrap().ip(net::Family::V4).to_string();
        let slices = ports.iter().map(|port| {
            let name = format!("ns/web-{port}");
            slice(&name, "web", &format!("p/UDP:{port}"), &[&receiver])
        });
        let slices: Vec<_> = slices.collect();
        view_of(&service("ns/web", "10.96.0.1", "p/UDP:80"), &slices)
    }

    /// Does something on the node.
    pub(in crate::dataplane) fn on_node<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let node = self.0.member("node-1").unwrap();
        node.namespace.enter(what).unwrap()
    }

    /// Puts the Service in force with endpoints at these ports.
    pub(in crate::dataplane) fn program(&self, dataplane: &mut (impl Dataplane + Send), ports: &[u16]) {
        let view = self.view(ports);
        dataplane.update(&view.name, Some(&view));
        let report = self.on_node(|| commit(dataplane));
        assert_eq!(report.unwrap().refused, []);
    }

    /// All packets arrive while endpoints come and go.
    pub(in crate::dataplane) fn arrives_while_endpoints_change(&self, mut dataplane: impl Dataplane + Send) {
        let lists = [&PORTS[..1], &PORTS[..2], &PORTS[1..], &PORTS, &PORTS[2..]];
        let mut lists = lists.into_iter().cycle();
        let mut change = || self.program(&mut dataplane, lists.next().unwrap());
        change();
        self.arrives(change);
    }

    /// All packets arrive, whatever is done again and again `meanwhile`.
    pub(in crate::dataplane) fn arrives(&self, mut meanwhile: impl FnMut()) {
        let [a, b] = ["a", "b"].map(|name| self.0.member(name).unwrap());
        let bind = |port| a.namespace.enter(move || UdpSocket::bind(("0.0.0.0", port)));
        let servers = PORTS.map(|port| bind(port).unwrap().unwrap());
        let all_sent = &AtomicBool::new(false);
        let send = || {
            for port in 0..FLOWS {
                let client = UdpSocket::bind(("0.0.0.0", 10_000 + port)).unwrap();
                client.send_to(b"?", "10.96.0.1:80").unwrap();
            }
            all_sent.store(true, Ordering::Release);
        };
        let (arrived, times) = thread::scope(|scope| {
            let receivers = servers.each_ref().map(|server| {
                // Room for all of them.
                setsockopt(server, RcvBufForce, &(usize::from(FLOWS) * 2048)).unwrap();
                scope.spawn(|| received(server, all_sent))
            });
            scope.spawn(|| b.namespace.enter(send));
            let mut times = 0;
            while !all_sent.load(Ordering::Acquire) {
                meanwhile();
                times += 1;
            }
            let arrived = receivers.map(|receiver| receiver.join().unwrap());
            (arrived.iter().sum::<u16>(), times)
        });
        assert!(times > 0);
        assert_eq!(
            arrived, FLOWS,
            "of {FLOWS} packets, in which it was done {times} times"
        );
    }
}

/// How many packets a server gets until no more come.
fn received(server: &UdpSocket, all_sent: &AtomicBool) -> u16 {
    server.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut arrived = 0;
    loop {
        match server.recv(&mut [0]) {
            Ok(_) => arrived += 1,
            Err(_) if all_sent.load(Ordering::Acquire) => return arrived,
            Err(_) => {}
        }
    }
}
