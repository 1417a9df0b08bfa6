//! Plays one scenario in one mode and family: lab, servers, kube-proxies, then step by step.

mod nodes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tempfile::TempDir;

use super::Play;
use super::ask::{PAUSE, Question, SETTLING, SHORT, seen_as};
use super::cluster::Cluster;
use super::expectation::Expectation;
use super::file::{EndpointEntry, Flow, Scenario, Step};
use super::names::Names;
use super::object;
use crate::kernel::init;
use crate::net::Lab;
use crate::probe::{Connection, Outcome, Request, Steady};
use crate::proxy::KubeProxy;
use crate::serve::Server;

pub(super) use nodes::running;

/// Timeout of a request in a flow: long enough that only a lost packet or a refusal is a failure.
const FLOW_TIMEOUT: Duration = Duration::from_secs(4);
/// Pause between the requests of a steady flow, here and in a guest.
const FLOW_PAUSE: Duration = Duration::from_millis(1);
const FLOW_PAUSE_INSIDE: Duration = Duration::from_millis(10);
/// Requests that a steady flow makes at least.
const FLOW_REQUESTS: usize = 100;

/// Plays scenarios with one kube-proxy program.
#[derive(Clone, Debug)]
pub struct Player {
    /// The program.
    pub program: PathBuf,
    /// Keeps a failed lab up until this returns.
    pub on_failure: Option<fn(&Lab)>,
}

/// A scenario that did not go as expected.
#[derive(Debug)]
pub struct Failure {
    /// The behaviour that is not there.
    pub behaviour: String,
    /// What was expected and what came.
    pub error: anyhow::Error,
    /// Rules and logs of the nodes.
    pub circumstances: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            behaviour,
            error,
            circumstances,
        } = self;
        write!(f, "not so: {behaviour}\n{error:#}\n{circumstances}")
    }
}

impl Player {
    /// Plays one; needs root.
    ///
    /// # Errors
    /// When anything is not as the scenario expects it.
    pub fn play(&self, play: &Play) -> Result<(), Box<Failure>> {
        let failure = |error, circumstances| {
            Box::new(Failure {
                behaviour: play.behaviour.clone(),
                error,
                circumstances,
            })
        };
        let stage = Stage::set(play, &self.program);
        let mut stage = stage.map_err(|error| failure(error, String::new()))?;
        stage.run().map_err(|error| {
            if let Some(look) = self.on_failure {
                look(&stage.lab);
            }
            failure(error, stage.circumstances())
        })
    }
}

/// A connection that is held open.
struct Held {
    connection: Connection,
    /// Who opened it.
    from: String,
    /// What became of its last request.
    outcome: Outcome,
}

/// A scenario under way.
struct Stage {
    scenario: Scenario,
    play: Play,
    program: PathBuf,
    // Before the lab, so that processes and flows end first.
    proxies: BTreeMap<String, KubeProxy>,
    held: BTreeMap<String, Held>,
    steady: BTreeMap<String, Steady>,
    servers: BTreeMap<String, Server>,
    lab: Lab,
    cluster: Cluster,
    folder: TempDir,
    changed: Instant,
}

impl Stage {
    fn set(play: &Play, program: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(&play.path).with_context(|| format!("read {}", play.path.display()))?;
        let scenario = Scenario::read(&text, play.family).with_context(|| play.path.display().to_string())?;
        let lab = Lab::build(&scenario.topology())?;
        let folder = tempfile::Builder::new()
            .prefix("kube-proxy-lab-")
            .tempdir()
            .context("make a folder")?;
        let cluster = Cluster::new(play.source, folder.path(), &lab)?;
        let mut stage = Self {
            scenario,
            play: play.clone(),
            program: program.to_owned(),
            proxies: BTreeMap::new(),
            held: BTreeMap::new(),
            steady: BTreeMap::new(),
            servers: BTreeMap::new(),
            lab,
            cluster,
            folder,
            changed: Instant::now(),
        };
        stage.prepare()?;
        Ok(stage)
    }

    fn prepare(&mut self) -> Result<()> {
        self.serve(&self.scenario.servers.clone())?;
        for node in self.lab.nodes() {
            self.cluster.apply(&object::node(node)?)?;
        }
        let Scenario {
            objects,
            files,
            endpoints,
            stopped,
            ..
        } = self.scenario.clone();
        self.apply(&objects)?;
        for (name, text) in &files {
            self.cluster.file(name, text)?;
        }
        self.endpoints(&endpoints)?;
        for node in self.lab.nodes() {
            self.play.mode.prepare(&node.namespace)?;
        }
        if !stopped {
            let nodes: Vec<_> = self.lab.nodes().map(|node| node.name.clone()).collect();
            self.start(&nodes, self.play.mode)?;
        }
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        for (number, step) in (1..).zip(self.scenario.steps.clone()) {
            self.step(&step)
                .and_then(|()| running(&self.proxies))
                .with_context(|| format!("step {number}"))?;
        }
        // Whatever the rules are, an operator's nft must be able to print them, matches of iptables' as comments. Nodes have
        // rules of the same kinds, so of two each is asked one way; and JSON is the program's, whatever the kernel.
        let nodes: Vec<_> = self.lab.nodes().collect();
        let ways: [&[&str]; 2] = [&["list", "ruleset"], &["-j", "list", "ruleset"]];
        let asked = if init::is_inside() { 1 } else { ways.len() };
        for (number, way) in ways.into_iter().take(asked).enumerate() {
            nodes[number % nodes.len()].namespace.run("nft", way)?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        if step.ask.is_empty() {
            self.changed = Instant::now();
        }
        self.ask(step)?;
        for (name, flow) in &step.hold {
            self.hold(name, flow)?;
        }
        for (name, flow) in &step.steady {
            let from = self.lab.member(&flow.from)?;
            let start = if flow.from_one_port {
                Steady::start_from_one_port
            } else {
                Steady::start
            };
            let usual = if init::is_inside() {
                FLOW_PAUSE_INSIDE
            } else {
                FLOW_PAUSE
            };
            let pause = flow.pause.map_or(usual, Duration::from_secs_f64);
            let steady = start(&from.namespace, request(flow), pause);
            self.steady.insert(name.clone(), steady);
        }
        // What happens next must find them flowing: one from one port has its server by then.
        for steady in step.steady.keys().filter_map(|name| self.steady.get(name)) {
            steady.finish_one(FLOW_TIMEOUT * 2)?;
        }
        for name in &step.let_go {
            let held = self.held.remove(name);
            ensure!(held.is_some(), "let-go: {name} is not held");
        }
        self.prepare_nodes(step)?;
        self.serve(&step.serve)?;
        if let Some(reachability) = step.api {
            self.cluster.reach(reachability)?;
        }
        self.apply(&step.apply)?;
        for (name, text) in &step.files {
            self.cluster.file(name, text)?;
        }
        self.endpoints(&step.endpoints)?;
        for key in &step.delete {
            self.cluster.delete(&key.parse()?)?;
        }
        self.run_proxies(step)?;
        for name in &step.still {
            self.still(name)?;
        }
        for (nodes, text) in &step.logged {
            nodes.iter().try_for_each(|node| self.logged(node, text))?;
        }
        for (name, expected) in &step.moved {
            self.moved(name, expected)?;
        }
        // All at the same time, since each goes on for a while.
        for steady in step.unfailing.iter().filter_map(|name| self.steady.get(name)) {
            steady.end_after(FLOW_REQUESTS);
        }
        for name in &step.unfailing {
            self.unfailing(name)?;
        }
        self.unserve(&step.unserve)
    }

    /// All places and requests at the same time, since each may have to wait.
    fn ask(&self, step: &Step) -> Result<()> {
        let expectations = step.expectations(self.play.mode);
        let questions: Vec<_> = step
            .ask
            .iter()
            .map(|ask| Question {
                lab: &self.lab,
                ask,
                pause: step.pause.map(Duration::from_secs_f64),
                changed: self.changed,
                mode: self.play.mode,
                proxies: &self.proxies,
            })
            .collect();
        let problems: Vec<_> = thread::scope(|scope| {
            let asked = questions.iter().flat_map(|question| {
                let places = expectations.iter();
                places.map(move |(place, expected)| scope.spawn(move || question.put(place, expected)))
            });
            let threads: Vec<_> = asked.collect();
            let results = threads.into_iter().map(thread::ScopedJoinHandle::join);
            let results = results.map(|result| result.unwrap_or_else(|_| Err(anyhow!("a probe panicked"))));
            results
                .filter_map(Result::err)
                .map(|error| format!("{error:#}"))
                .collect()
        });
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        Ok(())
    }

    fn hold(&mut self, name: &str, flow: &Flow) -> Result<()> {
        let from = self.lab.member(&flow.from)?;
        let connection = Connection::open(&from.namespace, flow.ask.protocol, flow.ask.to, FLOW_TIMEOUT)?;
        let connection = connection.map_err(|outcome| anyhow!("open {name}: {outcome}"))?;
        let outcome = connection.ask(FLOW_TIMEOUT)?;
        match &flow.expect {
            None => ensure!(outcome.answer().is_some(), "open {name}: {outcome}"),
            Some(expected) => self
                .admits(expected, &outcome, &flow.from)
                .with_context(|| format!("open {name}"))?,
        }
        let from = flow.from.clone();
        self.held.insert(
            name.to_owned(),
            Held {
                connection,
                from,
                outcome,
            },
        );
        Ok(())
    }

    fn held(&self, name: &str) -> Result<&Held> {
        self.held.get(name).with_context(|| format!("{name} is not held"))
    }

    fn admits(&self, expected: &Expectation, outcome: &Outcome, from: &str) -> Result<()> {
        let from = self.lab.member(from)?;
        let resolve = |name: &str| seen_as(&self.lab, self.play.family, name, from);
        expected
            .admits(outcome, resolve)
            .with_context(|| outcome.to_string())
    }

    fn still(&self, name: &str) -> Result<()> {
        let held = self.held(name)?;
        let now = held.connection.ask(FLOW_TIMEOUT)?;
        ensure!(
            now == held.outcome,
            "the connection {name} was {}, and now it is {now}",
            held.outcome
        );
        Ok(())
    }

    /// Asks until the outcome is the expected one, then once more: after a moment, since IPVS forgets a flow at a tick of
    /// its clock, and until then drops what comes after the first packet.
    fn moved(&mut self, name: &str, expected: &Expectation) -> Result<()> {
        let held = self.held(name)?;
        let outcome = loop {
            let outcome = held.connection.ask(SHORT)?;
            match self.admits(expected, &outcome, &held.from) {
                Ok(()) => break outcome,
                Err(why) if self.changed.elapsed() > SETTLING => {
                    return Err(why.context(format!(
                        "the connection {name}, ten seconds after the last change"
                    )));
                }
                Err(_) => thread::sleep(PAUSE),
            }
        };
        if let Some(held) = self.held.get_mut(name) {
            held.outcome = outcome;
        }
        thread::sleep(PAUSE * 4);
        self.still(name)
    }

    fn unfailing(&mut self, name: &str) -> Result<()> {
        let steady = self
            .steady
            .remove(name)
            .with_context(|| format!("{name} does not flow"))?;
        let report = steady.report()?;
        let total = report.shares.answered() + report.shares.failed();
        let first: Vec<_> = report
            .failures
            .iter()
            .take(5)
            .map(|(when, outcome)| format!("after {} ms: {outcome}", when.as_millis()))
            .collect();
        ensure!(
            first.is_empty(),
            "of {total} requests of {name}, {} failed: {}",
            report.failures.len(),
            first.join(", ")
        );
        Ok(())
    }

    fn serve(&mut self, pods: &[Names]) -> Result<()> {
        for pod in pods.iter().flat_map(Names::iter) {
            let server = Server::start(self.lab.member(pod)?, &self.scenario.ports)?;
            self.servers.insert(pod.to_owned(), server);
        }
        Ok(())
    }

    fn unserve(&mut self, pods: &[Names]) -> Result<()> {
        for pod in pods.iter().flat_map(Names::iter) {
            for steady in self.steady.values() {
                steady.finish_one(FLOW_TIMEOUT * 2)?;
            }
            let served = self.servers.remove(pod);
            ensure!(served.is_some(), "unserve: {pod} serves nothing");
        }
        Ok(())
    }

    fn apply(&mut self, text: &str) -> Result<()> {
        object::objects(text)?
            .iter()
            .try_for_each(|object| self.cluster.apply(object))
    }

    fn endpoints(&mut self, endpoints: &BTreeMap<String, Vec<EndpointEntry>>) -> Result<()> {
        for (service, entries) in endpoints {
            self.cluster
                .endpoints(service, self.play.family, entries, &self.lab)?;
        }
        Ok(())
    }
}

fn request(flow: &Flow) -> Request {
    Request {
        protocol: flow.ask.protocol,
        to: flow.ask.to,
        timeout: FLOW_TIMEOUT,
    }
}
