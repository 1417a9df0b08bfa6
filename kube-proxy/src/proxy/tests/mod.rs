//! The loop with a dataplane that only remembers, over the channel that sources use.

mod node;
mod sync;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver as StdReceiver, Sender as StdSender, channel as std_channel};
use std::thread::{JoinHandle, ThreadId};

use ipnet::IpNet;
use tokio::sync::mpsc::{Sender, channel};
use tokio::sync::watch;

use super::*;
use crate::cli::{self, Command};
use crate::config::Mode;
use crate::dataplane::listing::{Difference, Listing};
use crate::dataplane::{CommitError, FamilyReport, NodePortAddresses, Refusal, TableRules};
use crate::model::object::{ObjectName, Service, ServicePort};
use crate::model::view::ServiceView;

const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough that a loop which does something it must not is caught, most of the time.
const A_WHILE: Duration = Duration::from_millis(60);

/// What the dataplane was told in one commit.
#[derive(Debug, Default, Clone, PartialEq)]
struct Told {
    services: Vec<(String, bool)>,
    external_ips: usize,
    node_ports: Vec<(Family, NodePortAddresses)>,
    localhost: Vec<(Family, Option<IpAddr>)>,
    service_cidrs: Vec<(Family, Vec<IpNet>)>,
}

type Answer = Result<CommitReport, CommitError>;

struct Fake {
    told: Told,
    commits: StdSender<Told>,
    answers: VecDeque<Answer>,
    /// Each commit waits for a word, where there is one to wait for.
    gate: Option<StdReceiver<()>>,
    /// Something has to be put right as soon as it hears, or looks.
    listeners: Vec<OwnedFd>,
    look_due: Option<Instant>,
}

impl Dataplane for Fake {
    fn update(&mut self, service: &ObjectName, view: Option<&ServiceView>) {
        self.told
            .services
            .push((service.name.to_string(), view.is_some()));
        let addresses = view
            .iter()
            .flat_map(|view| &view.ports)
            .flat_map(|port| &port.addresses);
        self.told.external_ips += addresses
            .filter(|address| address.kind == crate::model::view::AddressKind::ExternalIp)
            .count();
    }

    fn set_node_port_addresses(&mut self, family: Family, addresses: NodePortAddresses) {
        self.told.node_ports.push((family, addresses));
    }

    fn set_localhost_node_ports(&mut self, family: Family, source: Option<IpAddr>) {
        self.told.localhost.push((family, source));
    }

    fn set_service_cidrs(&mut self, family: Family, cidrs: &[IpNet]) {
        self.told.service_cidrs.push((family, cidrs.to_vec()));
    }

    fn commit(&mut self, report: &mut CommitReport) -> Result<(), CommitError> {
        self.commits.send(self.told.clone()).unwrap();
        if let Some(gate) = &self.gate {
            gate.recv_timeout(PATIENCE).unwrap();
        }
        let answer = self
            .answers
            .pop_front()
            .unwrap_or_else(|| Ok(CommitReport::default()));
        match answer {
            Ok(done) => *report = done,
            Err(error) => {
                for family in &mut report.families {
                    family.failures = 1;
                }
                return Err(error);
            }
        }
        self.told = Told::default();
        Ok(())
    }

    fn listener(&mut self) -> Option<OwnedFd> {
        self.listeners.pop()
    }

    fn look_due(&self) -> Option<Instant> {
        self.look_due
    }

    fn hear(&mut self) -> Option<Duration> {
        self.look_due = None;
        Some(Duration::ZERO)
    }

    fn planned(&self) -> Listing {
        Listing::new()
    }

    fn differences(&mut self) -> Result<Vec<Difference>, CommitError> {
        Ok(Vec::new())
    }
}

struct Running {
    changes: Sender<Change>,
    addresses: watch::Sender<Arc<[IpAddr]>>,
    commits: StdReceiver<Told>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    thread: JoinHandle<anyhow::Result<()>>,
}

/// The loops, by their threads, that had what other modes left removed.
static REMOVALS: Mutex<Vec<ThreadId>> = Mutex::new(Vec::new());

fn note_removal() {
    REMOVALS.lock().unwrap().push(std::thread::current().id());
}

#[derive(Default)]
struct Start {
    flags: &'static str,
    answers: Vec<Answer>,
    gate: Option<StdReceiver<()>>,
    listeners: Vec<OwnedFd>,
    look_due: Option<Instant>,
    patience: Duration,
    /// Nobody looks at the kernel for it.
    conntrack: Conntrack,
}

impl Start {
    fn run(self) -> Running {
        let arguments = self.flags.split_whitespace().map(str::to_owned);
        let Ok(Command::Run(flags)) = cli::parse(arguments) else {
            panic!("{}", self.flags)
        };
        let config = crate::config::load(&flags, || (Mode::Nftables, String::new()))
            .unwrap()
            .config;
        let (changes, receiver) = channel(64);
        let (sender, commits) = std_channel();
        let (addresses, local_addresses) = watch::channel(Arc::from([]));
        let metrics = Arc::new(Metrics::new().unwrap());
        let health = Arc::new(Health::new(config.sync_period, true));
        let setup = Setup {
            node_name: "node-1".into(),
            local_addresses,
            node_patience: self.patience,
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
            status: Arc::new(Status::new(&config, "node-1", Arc::clone(&health))),
            health_checks: crate::server::health_checks().0,
            remove_others: Box::new(|_| note_removal()),
            config,
        };
        let fake = Fake {
            told: Told::default(),
            commits: sender,
            answers: self.answers.into(),
            gate: self.gate,
            listeners: self.listeners,
            look_due: self.look_due,
        };
        let thread = std::thread::spawn(move || run(setup, receiver, |_, _| Box::new(fake), self.conntrack));
        Running {
            changes,
            addresses,
            commits,
            metrics,
            health,
            thread,
        }
    }
}

impl Running {
    fn send(&self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            self.changes.blocking_send(change).unwrap();
        }
    }

    /// The machine has these addresses now.
    fn has_addresses(&self, ips: &[&str]) {
        let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        self.addresses.send(ips).unwrap();
    }

    fn commit(&self) -> Told {
        self.commits.recv_timeout(PATIENCE).unwrap()
    }

    /// Delivers a first state of these Services, and takes its commit.
    fn begin(&self, services: &[&str]) -> Told {
        self.send([Change::ListDone(Kind::Node), Change::ListStart(Kind::Service)]);
        self.send(services.iter().map(|name| service(name, 80)));
        self.send([Change::ListDone(Kind::Service)]);
        self.send([
            Change::ListStart(Kind::EndpointSlice),
            Change::ListDone(Kind::EndpointSlice),
        ]);
        self.commit()
    }

    /// How often its loop had removed what other modes left.
    fn removals(&self) -> usize {
        let thread = self.thread.thread().id();
        REMOVALS
            .lock()
            .unwrap()
            .iter()
            .filter(|by| **by == thread)
            .count()
    }

    fn is_quiet(&self) -> bool {
        self.commits.recv_timeout(A_WHILE).is_err()
    }

    /// Closes the channel and waits for the loop's end.
    fn end(self) -> anyhow::Result<()> {
        drop(self.changes);
        self.thread.join().unwrap()
    }
}

fn service(name: &str, port: u16) -> Change {
    let mut service = Service::new(ObjectName::new("default", name));
    service.cluster_ip = Some("10.96.0.1".parse().unwrap());
    service.external_ips = vec!["198.51.100.1".parse().unwrap()];
    service.ports = vec![ServicePort {
        name: "".into(),
        protocol: crate::model::object::Protocol::Tcp,
        port,
        node_port: 0,
    }];
    Change::Service(Box::new(service))
}

fn node(addresses: &[&str], pod_cidrs: &[&str]) -> Change {
    Change::Node(Box::new(Node {
        name: "node-1".into(),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        pod_cidrs: pod_cidrs.iter().map(|net| net.parse().unwrap()).collect(),
        ..Node::default()
    }))
}

fn names(told: &Told) -> Vec<&str> {
    told.services.iter().map(|(name, _)| name.as_str()).collect()
}

fn refused(reason: &str) -> CommitError {
    CommitError::Refused {
        tried: "a transaction".to_owned(),
        reason: reason.to_owned(),
    }
}
