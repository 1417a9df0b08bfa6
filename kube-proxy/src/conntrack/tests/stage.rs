//! A lab whose first node is proxied by the loop itself, and flows through it that keep their ports.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lab::net::{self, Lab, Namespace, Topology};
use lab::probe::{self, Connection, Outcome};
use lab::serve::Server;
use tokio::sync::mpsc::{Sender, channel};

use super::table::list;
use super::*;
use crate::cli::{self, Command};
use crate::conntrack::Conntrack;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::model::object::{Family, Node};
use crate::proxy::{self, Setup};
use crate::status::Status;

pub(super) const PATIENCE: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(3);

/// UDP or SCTP over one family, as the model and as the lab has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transport {
    pub(super) family: Family,
    pub(super) protocol: Protocol,
    pub(super) lab_family: net::Family,
    pub(super) lab_protocol: probe::Protocol,
}

/// What nobody touches.
pub(super) const TCP: Transport = Transport {
    family: Family::V4,
    protocol: Protocol::Tcp,
    lab_family: net::Family::V4,
    lab_protocol: probe::Protocol::Tcp,
};

/// Both protocols over both families.
pub(super) fn transports() -> impl Iterator<Item = Transport> {
    let families = [(Family::V4, net::Family::V4), (Family::V6, net::Family::V6)];
    families.into_iter().flat_map(|(family, lab_family)| {
        let protocols = [
            (Protocol::Udp, probe::Protocol::Udp),
            (Protocol::Sctp, probe::Protocol::Sctp),
        ];
        protocols.map(|(protocol, lab_protocol)| Transport {
            family,
            protocol,
            lab_family,
            lab_protocol,
        })
    })
}

pub(super) struct Stage {
    pub(super) lab: Lab,
    pub(super) servers: Vec<Server>,
    proxy: Option<Running>,
}

struct Running {
    changes: Sender<Change>,
    metrics: Arc<Metrics>,
    thread: JoinHandle<anyhow::Result<()>>,
}

/// A flow that keeps its port.
pub(super) struct Held {
    pub(super) what: String,
    pub(super) over: Transport,
    /// Its entry begins with this.
    pub(super) asked: String,
    connection: Connection,
}

impl Stage {
    /// Pods a and b on node-1, c on node-2, which serve port 8080, and x on node-1.
    pub(super) fn set() -> Self {
        let lab = Lab::build(&Topology::with_pods(&[("a", 1), ("b", 1), ("c", 2), ("x", 1)])).unwrap();
        let serving = ["a", "b", "c"].map(|pod| lab.member(pod).unwrap());
        let servers = serving.map(|pod| Server::start(pod, &[8080]).unwrap()).into();
        // An association that gets no further than its INIT is forgotten after three seconds.
        let longer = [("net/netfilter/nf_conntrack_sctp_timeout_cookie_wait", "60")];
        lab.member("node-1").unwrap().namespace.sysctls(&longer).unwrap();
        let mut stage = Self {
            lab,
            servers,
            proxy: None,
        };
        stage.start();
        stage
    }

    /// Starts a proxy that knows of nothing yet.
    pub(super) fn start(&mut self) {
        let pods = Family::ALL.map(|family| net::network::pods(lab_family(family)));
        let flags = format!("--proxy-mode=nftables --cluster-cidr={} -v=4", pods.join(","));
        let Ok(Command::Run(flags)) = cli::parse(flags.split(' ').map(str::to_owned)) else {
            panic!("{flags}")
        };
        let config = crate::config::load(&flags, crate::dataplane::choose_mode)
            .unwrap()
            .config;
        let (changes, receiver) = channel(64);
        let metrics = Arc::new(Metrics::new().unwrap());
        let health = Arc::new(Health::new(config.sync_period, true));
        let setup = Setup {
            node_name: testing::NODE.into(),
            node_patience: PATIENCE,
            local_addresses: tokio::sync::watch::channel(Vec::new().into()).1,
            metrics: Arc::clone(&metrics),
            status: Arc::new(Status::new(&config, testing::NODE, Arc::clone(&health))),
            health,
            health_checks: crate::server::health_checks().0,
            remove_others: Box::new(|_| {}),
            config,
        };
        let node = self.node().clone();
        let run = move || {
            let (local, _) = crate::node::addresses::watch();
            let conntrack = Conntrack::start(Arc::clone(&setup.metrics), local.clone())?;
            let setup = Setup {
                local_addresses: local,
                ..setup
            };
            proxy::run(setup, receiver, crate::dataplane::open, conntrack)
        };
        let thread = std::thread::spawn(move || node.enter(run)?);
        self.proxy = Some(Running {
            changes,
            metrics,
            thread,
        });
        let node = Node {
            name: testing::NODE.into(),
            addresses: Family::ALL.map(|family| self.ip("node-1", family)).into(),
            ..Node::default()
        };
        self.send([Change::Node(Box::new(node)), Change::ListDone(Kind::Node)]);
    }

    /// Delivers a first state, which puts rules in force.
    pub(super) fn begin(&self, changes: impl IntoIterator<Item = Change>) {
        self.send([
            Change::ListStart(Kind::Service),
            Change::ListStart(Kind::EndpointSlice),
        ]);
        self.send(changes);
        self.send([
            Change::ListDone(Kind::Service),
            Change::ListDone(Kind::EndpointSlice),
        ]);
    }

    pub(super) fn send(&self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            self.running().changes.blocking_send(change).unwrap();
        }
    }

    fn running(&self) -> &Running {
        self.proxy.as_ref().unwrap()
    }

    /// Ends the proxy; its rules stay.
    pub(super) fn stop(&mut self) {
        let Running { changes, thread, .. } = self.proxy.take().unwrap();
        drop(changes);
        thread.join().unwrap().unwrap();
    }

    pub(super) fn node(&self) -> &Namespace {
        &self.lab.member("node-1").unwrap().namespace
    }

    pub(super) fn ip(&self, member: &str, family: Family) -> IpAddr {
        self.lab.member(member).unwrap().ip(lab_family(family))
    }

    /// How many looks there were in a family, and how many entries they deleted.
    pub(super) fn looks(&self, family: Family) -> (u64, u64) {
        let metrics = &self.running().metrics;
        let label = &[family.to_string()];
        let looks = metrics
            .conntrack_duration
            .with_label_values(label)
            .get_sample_count();
        (looks, metrics.conntrack_deleted.with_label_values(label).get())
    }

    /// Waits until everything that is due by now was looked at. Takes two looks at IPv6, of which the first may
    /// have been under way; `number` tells the Services apart that are made for it.
    pub(super) fn settle(&self, number: u8) {
        for number in [number, number + 1] {
            let (before, _) = self.looks(Family::V6);
            let ip = net::address::cluster_ip(number, net::Family::V6);
            let full_name = format!("settle/{number}");
            self.send([apply(service(&full_name, &ip.to_string(), "u/UDP:1"))]);
            wait(|| match self.looks(Family::V6) {
                (looks, _) if looks > before => Ok(()),
                _ => Err("nobody looked".to_owned()),
            });
        }
    }

    /// Opens a flow.
    pub(super) fn open(&self, over: Transport, from: &str, to: SocketAddr) -> Held {
        let place = &self.lab.member(from).unwrap().namespace;
        let connection = Connection::open(place, over.lab_protocol, to, TIMEOUT);
        Held {
            what: format!("{} from {from} to {to}", over.protocol),
            over,
            asked: format!("{} {to}", over.protocol),
            connection: connection.unwrap().unwrap(),
        }
    }

    /// Opens a flow and checks what becomes of its packets.
    pub(super) fn hold(
        &self,
        over: Transport,
        from: &str,
        to: SocketAddr,
        outcome: impl Fn(&Outcome) -> bool,
    ) -> Held {
        let held = self.open(over, from, to);
        held.comes_to(outcome);
        held
    }

    /// Where the flows to an address go, by the table.
    pub(super) fn entries(&self, held: &Held) -> Vec<String> {
        let mut entries = list(self.node(), held.over.family, held.over.protocol);
        entries.retain(|entry| entry.split(" > ").next() == Some(&held.asked));
        entries
    }

    /// Waits until no entry is left of a flow that sends nothing meanwhile.
    pub(super) fn is_forgotten(&self, held: &Held) {
        wait(|| match self.entries(held) {
            entries if entries.is_empty() => Ok(()),
            entries => Err(format!("{}: {entries:?}", held.what)),
        });
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.proxy.is_some() && !std::thread::panicking() {
            self.stop();
        }
    }
}

impl Held {
    /// Asks again over the same port until the outcome is the expected one.
    pub(super) fn comes_to(&self, expected: impl Fn(&Outcome) -> bool) {
        wait(
            || match self.connection.ask(Duration::from_millis(300)).unwrap() {
                outcome if expected(&outcome) => Ok(()),
                outcome => Err(format!("{}: {outcome}", self.what)),
            },
        );
    }

    /// Asks again over the same port, once.
    pub(super) fn ask(&self) -> Outcome {
        self.connection.ask(TIMEOUT).unwrap()
    }
}

/// An answer of this pod.
pub(super) fn by(pod: &str) -> impl Fn(&Outcome) -> bool {
    move |outcome| outcome.answer().is_some_and(|answer| answer.server == pod)
}

/// Tries until it is so, for ten seconds.
pub(super) fn wait(mut so: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(why) = so() {
        assert!(Instant::now() < deadline, "{why}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(super) fn lab_family(family: Family) -> net::Family {
    match family {
        Family::V4 => net::Family::V4,
        Family::V6 => net::Family::V6,
    }
}
