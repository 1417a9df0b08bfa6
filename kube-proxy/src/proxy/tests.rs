//! The loop with a dataplane that only remembers, over the channel that sources use.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver as StdReceiver, Sender as StdSender, channel as std_channel};
use std::thread::JoinHandle;

use tokio::sync::mpsc::{Sender, channel};

use super::*;
use crate::cli::{self, Command};
use crate::dataplane::{NodePortAddresses, Refusal};
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
}

type Answer = Result<CommitReport, CommitError>;

struct Fake {
    told: Told,
    commits: StdSender<Told>,
    answers: VecDeque<Answer>,
    /// Each commit waits for a word, where there is one to wait for.
    gate: Option<StdReceiver<()>>,
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

    fn commit(&mut self) -> Answer {
        self.commits.send(self.told.clone()).unwrap();
        if let Some(gate) = &self.gate {
            gate.recv_timeout(PATIENCE).unwrap();
        }
        let answer = self
            .answers
            .pop_front()
            .unwrap_or_else(|| Ok(CommitReport::default()));
        if answer.is_ok() {
            self.told = Told::default();
        }
        answer
    }
}

struct Running {
    changes: Sender<Change>,
    commits: StdReceiver<Told>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    thread: JoinHandle<anyhow::Result<()>>,
}

#[derive(Default)]
struct Start {
    flags: &'static str,
    answers: Vec<Answer>,
    gate: Option<StdReceiver<()>>,
    patience: Option<Patience>,
}

impl Start {
    fn run(self) -> Running {
        let arguments = self.flags.split_whitespace().map(str::to_owned);
        let Ok(Command::Run(flags)) = cli::parse(arguments) else {
            panic!("{}", self.flags)
        };
        let config = crate::config::load(&flags).unwrap().config;
        let (changes, receiver) = channel(64);
        let (sender, commits) = std_channel();
        let metrics = Arc::new(Metrics::new().unwrap());
        let health = Arc::new(Health::new(config.sync_period, true));
        let setup = Setup {
            config,
            node_name: "node-1".into(),
            node_patience: self.patience.unwrap_or(Patience::For(Duration::ZERO)),
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
        };
        let fake = Fake {
            told: Told::default(),
            commits: sender,
            answers: self.answers.into(),
            gate: self.gate,
        };
        let thread = std::thread::spawn(move || run(setup, receiver, |_, _| Box::new(fake)));
        Running {
            changes,
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

    fn commit(&self) -> Told {
        self.commits.recv_timeout(PATIENCE).unwrap()
    }

    /// Delivers a first state of these Services, and takes its commit.
    fn begin(&self, services: &[&str]) -> Told {
        self.send([Change::ListStart(Kind::Service)]);
        self.send(services.iter().map(|name| service(name, 80)));
        self.send([Change::ListDone(Kind::Service)]);
        self.send([
            Change::ListStart(Kind::EndpointSlice),
            Change::ListDone(Kind::EndpointSlice),
        ]);
        self.commit()
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

#[test]
fn nothing_is_committed_before_services_and_slices_have_delivered_their_first_state() {
    let running = Start::default().run();
    running.send([
        Change::ListStart(Kind::Service),
        service("a", 80),
        Change::ListDone(Kind::Service),
    ]);
    running.send([Change::ListStart(Kind::EndpointSlice)]);
    assert!(running.is_quiet());
    running.send([Change::ListDone(Kind::EndpointSlice)]);
    assert_eq!(names(&running.commit()), ["a"]);
    assert!(running.is_quiet(), "once");
    running.end().unwrap();
}

#[test]
fn the_first_change_goes_at_once_and_those_that_come_meanwhile_go_together() {
    let (open, gate) = std_channel();
    let running = Start {
        gate: Some(gate),
        ..Start::default()
    }
    .run();
    running.begin(&[]);
    open.send(()).unwrap();
    running.send([service("a", 80)]);
    assert_eq!(names(&running.commit()), ["a"]);
    running.send([service("b", 81), service("c", 82), service("b", 83)]);
    open.send(()).unwrap();
    assert_eq!(names(&running.commit()), ["b", "c"]);
    open.send(()).unwrap();
    assert!(running.is_quiet());
    assert_eq!(
        running.metrics.service_changes.get(),
        8,
        "each change counts once a family"
    );
    assert_eq!(running.metrics.service_changes_pending.get(), 0);
    running.end().unwrap();
}

#[test]
fn a_failed_commit_is_tried_again_with_all_that_came_meanwhile() {
    let running = Start {
        answers: vec![
            Ok(CommitReport::default()),
            Err(refused("busy")),
            Err(refused("busy")),
        ],
        ..Start::default()
    }
    .run();
    running.begin(&[]);
    running.send([service("a", 80)]);
    assert_eq!(names(&running.commit()), ["a"]);
    running.send([service("b", 81)]);
    // The second failure, then the third attempt, which holds both.
    running.commit();
    assert_eq!(names(&running.commit()), ["a", "b"]);
    assert!(running.is_quiet());
    let failures = running
        .metrics
        .nftables_sync_failures
        .with_label_values(&["IPv4"]);
    assert_eq!(failures.get(), 2);
    assert!(running.health.report(Instant::now()).synced.is_some());
    running.end().unwrap();
}

#[test]
fn pauses_between_attempts_grow_to_the_sync_period() {
    let longest = Duration::from_secs(30);
    for (failures, most) in [(0, 100), (1, 200), (5, 3200), (9, 30_000), (u32::MAX, 30_000)] {
        let most = Duration::from_millis(most);
        for _ in 0..20 {
            let pause = pause(failures, longest);
            assert!(pause <= most && pause >= most / 2, "{failures}: {pause:?}");
        }
    }
}

#[test]
fn a_node_on_which_it_cannot_work_ends_the_program_with_the_reason() {
    let running = Start {
        answers: vec![Err(CommitError::Permission {
            tried: "opening a netlink socket".to_owned(),
        })],
        ..Start::default()
    }
    .run();
    running.begin(&["a"]);
    let error = running.thread.join().unwrap().unwrap_err();
    assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
}

#[test]
fn a_permission_lost_later_is_waited_for() {
    let lost = CommitError::Permission {
        tried: "a transaction".to_owned(),
    };
    let running = Start {
        answers: vec![Ok(CommitReport::default()), Err(lost)],
        ..Start::default()
    }
    .run();
    running.begin(&[]);
    running.send([service("a", 80)]);
    running.commit();
    assert_eq!(names(&running.commit()), ["a"], "tried again");
    running.end().unwrap();
}

#[test]
fn the_dataplane_is_called_again_when_it_asks_for_it() {
    let later = CommitReport {
        again_after: Some(Duration::from_millis(20)),
        refused: vec![Refusal {
            service: ObjectName::new("default", "a"),
            element: "10.96.0.1 . tcp . 80".to_owned(),
            reason: "File exists".to_owned(),
        }],
        refused_now: 1,
        ..CommitReport::default()
    };
    let running = Start {
        answers: vec![Ok(later)],
        ..Start::default()
    }
    .run();
    running.begin(&["a"]);
    assert_eq!(running.commit(), Told::default(), "without a change");
    assert!(running.is_quiet());
    assert_eq!(running.metrics.refusals.get(), 1);
    assert_eq!(running.metrics.refused_now.get(), 0);
    running.end().unwrap();
}

#[test]
fn the_node_is_waited_for_as_long_as_there_is_patience() {
    let on = |ip: &str| NodePortAddresses::Only(vec![ip.parse().unwrap()]);
    let table: &[(Patience, Option<Change>, NodePortAddresses)] = &[
        (
            Patience::For(PATIENCE),
            Some(node(&["10.0.0.1"], &[])),
            on("10.0.0.1"),
        ),
        (
            Patience::For(Duration::from_millis(10)),
            None,
            NodePortAddresses::All,
        ),
        (
            Patience::UntilListed,
            Some(node(&["10.0.0.1"], &[])),
            on("10.0.0.1"),
        ),
        (
            Patience::UntilListed,
            Some(Change::ListDone(Kind::Node)),
            NodePortAddresses::All,
        ),
        (
            Patience::UntilListed,
            Some(node(&["fd00::1"], &[])),
            NodePortAddresses::All,
        ),
    ];
    for (patience, node, addresses) in table {
        let running = Start {
            patience: Some(*patience),
            ..Start::default()
        }
        .run();
        running.send([Change::ListStart(Kind::Service), Change::ListDone(Kind::Service)]);
        running.send([
            Change::ListStart(Kind::EndpointSlice),
            Change::ListDone(Kind::EndpointSlice),
        ]);
        if let Some(node) = node {
            assert!(running.is_quiet(), "{patience:?}: waits for {node:?}");
            running.send([node.clone()]);
        }
        let told = running.commit();
        assert_eq!(
            told.node_ports[0],
            (Family::V4, addresses.clone()),
            "{patience:?} {node:?}"
        );
        running.end().unwrap();
    }
}

#[test]
fn a_node_without_addresses_is_not_enough_but_one_that_gets_them_is() {
    let running = Start {
        patience: Some(Patience::For(PATIENCE)),
        ..Start::default()
    }
    .run();
    running.send([node(&[], &[])]);
    running.send([Change::ListStart(Kind::Service), Change::ListDone(Kind::Service)]);
    running.send([
        Change::ListStart(Kind::EndpointSlice),
        Change::ListDone(Kind::EndpointSlice),
    ]);
    assert!(running.is_quiet());
    running.send([node(&["10.0.0.1"], &[])]);
    running.commit();
    running.send([node(&["10.0.0.2"], &[])]);
    let moved = NodePortAddresses::Only(vec!["10.0.0.2".parse().unwrap()]);
    assert_eq!(running.commit().node_ports[0], (Family::V4, moved));
    running.send([node(&["10.0.0.2"], &["10.1.0.0/24"])]);
    assert!(running.is_quiet(), "nothing of it matters");
    running.end().unwrap();
}

#[test]
fn pod_networks_are_waited_for_where_they_tell_pods_and_their_change_ends_the_program() {
    let running = Start {
        flags: "--detect-local-mode=NodeCIDR",
        patience: Some(Patience::For(PATIENCE)),
        ..Start::default()
    }
    .run();
    running.send([node(&["10.0.0.1"], &[])]);
    running.send([Change::ListStart(Kind::Service), Change::ListDone(Kind::Service)]);
    running.send([
        Change::ListStart(Kind::EndpointSlice),
        Change::ListDone(Kind::EndpointSlice),
    ]);
    assert!(running.is_quiet());
    running.send([node(&["10.0.0.1"], &["10.1.0.0/24"])]);
    running.commit();
    running.send([node(&["10.0.0.1"], &["10.2.0.0/24"])]);
    let error = running.thread.join().unwrap().unwrap_err();
    assert!(error.to_string().contains("podCIDRs"), "{error}");

    let running = Start {
        flags: "--detect-local-mode=NodeCIDR",
        patience: Some(Patience::UntilListed),
        ..Start::default()
    }
    .run();
    running.send([Change::ListDone(Kind::Node)]);
    let error = running.thread.join().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "timeout waiting for node node-1 to exist");
}

#[test]
fn external_ips_count_unless_their_gate_is_off() {
    for (flags, external_ips) in [("", 1), ("--feature-gates=AllowServiceExternalIPs=false", 0)] {
        let running = Start {
            flags,
            ..Start::default()
        }
        .run();
        assert_eq!(running.begin(&["a"]).external_ips, external_ips, "{flags}");
        running.end().unwrap();
    }
}

#[test]
fn contested_addresses_are_counted_while_they_are_contested() {
    let running = Start::default().run();
    running.begin(&["a", "b"]);
    running.send([service("c", 99)]);
    running.commit();
    assert_eq!(
        running.metrics.conflicts.get(),
        2,
        "clusterIP and external IP of b"
    );
    running.send([Change::Deleted(Kind::Service, ObjectName::new("default", "a"))]);
    assert_eq!(
        running.commit().services,
        [("a".to_owned(), false), ("b".to_owned(), true)]
    );
    running.send([service("c", 98)]);
    running.commit();
    assert_eq!(running.metrics.conflicts.get(), 0);
    running.end().unwrap();
}
