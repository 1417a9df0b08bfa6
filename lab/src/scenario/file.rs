//! The file format of scenarios.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::ask::Ask;
use super::expectation::Expectation;
use super::mode::{Mode, Modes};
use super::names::Names;
use super::placeholder;
use crate::net::{Family, Topology};

/// A scenario file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Scenario {
    /// The behaviour that it proves, in a sentence.
    pub behaviour: String,
    /// Number of nodes.
    #[serde(default = "two")]
    pub nodes: u8,
    /// Pods, with the number of their node: one or more names each, as wherever something is named: `{a: 1,
    /// p-1..100: 2}`.
    #[serde(default = "usual_pods")]
    pub pods: BTreeMap<Names, u8>,
    /// The bridge that every node's pods hang on; without one they hang on links `veth1`, `veth2`, …
    #[serde(default)]
    pub bridge: Option<String>,
    /// The pods (and nodes, as pods on the host network) that serve, on [`Scenario::ports`].
    #[serde(default = "usual_servers")]
    pub servers: Vec<Names>,
    /// The ports that every server serves.
    #[serde(default = "usual_ports")]
    pub ports: Vec<u16>,
    /// Number of outside clients.
    #[serde(default = "one")]
    pub clients: u8,
    /// Families to play in; both unless given.
    #[serde(default = "both_families", deserialize_with = "families")]
    pub families: Vec<Family>,
    /// Modes to play in; nftables, iptables and ipvs unless given. In a mode that is named `MODE::ipv4` or `MODE::ipv6`
    /// the scenario is played in that family only.
    #[serde(default = "Modes::usual")]
    pub modes: Modes,
    /// Modes to play in besides, by the same words: `[iptables-legacy]`.
    #[serde(default)]
    pub also_in: Modes,
    /// Where kube-proxy gets its objects from, if that matters.
    #[serde(default)]
    pub source: Option<SourceKind>,
    /// Fields of KubeProxyConfiguration, over those of [`crate::proxy::config`].
    #[serde(default)]
    pub config: Value,
    /// No kube-proxy runs until a step starts it.
    #[serde(default)]
    pub stopped: bool,
    /// Objects that are there from the start: YAML documents, separated by `---` lines.
    #[serde(default)]
    pub objects: String,
    /// Manifest files that are there from the start, by file name, written as they are.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// EndpointSlices that are there from the start, by Service; see [`Step::endpoints`].
    #[serde(default)]
    pub endpoints: BTreeMap<String, Vec<EndpointEntry>>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// One step: `ask`, or one or more of the others, which then happen in the order of this list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Step {
    /// A request, `PROTOCOL ADDRESS:PORT` (ping: no port), or a list of them. They are made from the places that
    /// `expect` names, all at the same time.
    #[serde(deserialize_with = "one_or_more")]
    pub ask: Vec<Ask>,
    /// Seconds between the requests of this step, which otherwise follow each other at once.
    pub pause: Option<f64>,
    /// What becomes of each request, by where it comes from: one or more names of pods, nodes or clients.
    pub expect: BTreeMap<Names, Expectation>,
    /// What is expected instead in certain modes, by their names in kube-proxy's configuration.
    pub except_in: BTreeMap<String, BTreeMap<Names, Expectation>>,
    /// Opens connections that stay open, by name.
    pub hold: BTreeMap<String, Flow>,
    /// Starts flows of new connections that go on in the background, by name.
    pub steady: BTreeMap<String, Flow>,
    /// Loads rules with `nft -f`, by names of nodes.
    pub rules: BTreeMap<Names, String>,
    /// Loads rules with `iptables-restore --noflush` of the family in play and of the variant that nodes of the mode in
    /// play have, by names of nodes.
    pub iptables_rules: BTreeMap<Names, String>,
    /// Changes addresses and routes with `ip -batch`, by names of nodes.
    pub ip: BTreeMap<Names, String>,
    /// Changes virtual servers of IPVS with `ipvsadm --restore`, which takes any of its commands, by names of nodes.
    pub ipvs: BTreeMap<Names, String>,
    /// Makes ipsets with `ipset restore`, by names of nodes.
    pub ipsets: BTreeMap<Names, String>,
    /// Starts serving in pods, on [`Scenario::ports`].
    pub serve: Vec<Names>,
    /// Objects that are created or changed.
    pub apply: String,
    /// Manifest files that are written, by file name; an empty one is removed.
    pub files: BTreeMap<String, String>,
    /// EndpointSlices that are created or changed, by Service, as the cluster's controller would write them: one
    /// slice of the family in play, its ports from the Service's (numeric) target ports. Entries are names
    /// of pods, or maps: `{pod: a, ready: false, serving: true, terminating: true}`.
    pub endpoints: BTreeMap<String, Vec<EndpointEntry>>,
    /// Objects that are deleted: `KIND/NAME`, or `KIND/NAMESPACE/NAME`.
    pub delete: Vec<String>,
    /// Makes the API unreachable, with all connections cut, or reachable again.
    pub api: Option<Reachability>,
    /// Kills the kube-proxy of these nodes.
    pub kill: Vec<String>,
    /// Starts the kube-proxy of these nodes.
    pub start: Vec<String>,
    /// Starts the kube-proxy of these nodes in the mode that they are given here, whatever mode is in play; `iptables`
    /// with the variant that nodes of the mode in play have.
    pub start_as: BTreeMap<Names, Mode>,
    /// Nodes that have nothing left of a kube-proxy in these modes, within ten seconds; `iptables` as above.
    pub without: BTreeMap<Names, Mode>,
    /// Nodes on which `kube-proxy --cleanup` is run.
    pub clean_up: Vec<Names>,
    /// Texts that the list of a node's virtual servers, as `ipvsadm --save` has it, holds within ten seconds.
    pub virtual_servers: BTreeMap<Names, String>,
    /// Held connections that still work, to the same server.
    pub still: Vec<String>,
    /// Held connections that are closed.
    pub let_go: Vec<String>,
    /// Texts that kube-proxies have logged or log within ten seconds, by names of nodes.
    pub logged: BTreeMap<Names, String>,
    /// Held connections (UDP, SCTP) whose next requests come to this, soon and from then on.
    pub moved: BTreeMap<String, Expectation>,
    /// Ends steady flows after some more requests: not one may have failed.
    pub unfailing: Vec<String>,
    /// Stops serving in pods: listeners and connections are closed, though none of a steady flow's that is under
    /// way, as a server that ends gracefully finishes what it began.
    pub unserve: Vec<Names>,
}

/// Whether kube-proxies can reach the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reachability {
    /// Every connection is cut, and new ones are refused.
    Unreachable,
    /// New connections are taken.
    Reachable,
}

/// A connection that is held open, or a flow of new ones.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Flow {
    /// The pod, node or client that it comes from.
    pub from: String,
    /// The request.
    pub ask: Ask,
    /// What becomes of a held connection's first request; an answer unless given.
    #[serde(default)]
    pub expect: Option<Expectation>,
    /// A steady flow makes all its requests from one port, and one server must answer them all.
    #[serde(default)]
    pub from_one_port: bool,
    /// Seconds between the requests of a steady flow; a thousandth unless given.
    #[serde(default)]
    pub pause: Option<f64>,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum EndpointEntry {
    /// A ready pod, or more.
    Pod(Names),
    /// A pod with conditions, or other fields of an endpoint.
    Fields {
        /// The pod, or more.
        pod: Names,
        /// Fields of the endpoint (`hints`, …) or of its conditions (`ready`, `serving`, `terminating`).
        #[serde(flatten)]
        fields: BTreeMap<String, Value>,
    },
}

impl EndpointEntry {
    /// The pods that it is about.
    pub(super) fn pods(&self) -> &Names {
        match self {
            Self::Pod(pods) | Self::Fields { pod: pods, .. } => pods,
        }
    }
}

/// Where kube-proxy gets its objects from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// A folder of manifests.
    #[default]
    Manifests,
    /// The in-process Kubernetes API.
    Api,
}

impl std::str::FromStr for SourceKind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "manifests" => Ok(Self::Manifests),
            "api" => Ok(Self::Api),
            _ => anyhow::bail!("the source is manifests or api"),
        }
    }
}

impl Scenario {
    /// Reads a file for a family.
    ///
    /// # Errors
    /// When it is not a scenario, or names a pod that it does not have.
    pub fn read(text: &str, family: Family) -> Result<Self> {
        let outline = Self::outline(text)?;
        Self::parse(&placeholder::fill(text, |name| {
            placeholder::value(name, family, &outline)
        })?)
    }

    /// A step starts a kube-proxy in this mode, whatever mode is in play.
    pub(super) fn starts_in(&self, mode: Mode) -> bool {
        self.steps
            .iter()
            .any(|step| step.start_as.values().any(|started| *started == mode))
    }

    /// Reads a file for what does not depend on the family; every placeholder is an arbitrary address.
    ///
    /// # Errors
    /// As [`Scenario::read`].
    pub fn outline(text: &str) -> Result<Self> {
        Self::parse(&placeholder::fill(text, |_| Ok("0.0.0.0".to_owned()))?)
    }

    fn parse(text: &str) -> Result<Self> {
        let scenario: Self = serde_saphyr::from_str(text).map_err(|error| anyhow::anyhow!("{error}"))?;
        for name in scenario.servers.iter().flat_map(Names::iter) {
            let known = scenario.pod(name).is_some() || name.starts_with("node-");
            ensure!(known, "servers: there is no pod {name}");
        }
        for (number, step) in (1..).zip(&scenario.steps) {
            let problem = step.problem();
            ensure!(
                problem.is_none(),
                "step {number}: {}",
                problem.unwrap_or_default()
            );
        }
        Ok(scenario)
    }

    /// The modes and families to play in.
    pub(super) fn plays(&self) -> impl Iterator<Item = (Mode, Family)> {
        let plays = self.modes.plays(&self.also_in);
        plays.filter(|(_, family)| self.families.contains(family))
    }

    /// All pods and the numbers of their nodes, in the order in which [`crate::net::Lab::build`] numbers them.
    fn all_pods(&self) -> impl Iterator<Item = (&str, u8)> {
        let pods = self.pods.iter();
        pods.flat_map(|(names, node)| names.iter().map(|name| (name, *node)))
    }

    /// The number of a pod's node and its number there, as [`crate::net::Lab::build`] gives them.
    pub(super) fn pod(&self, name: &str) -> Option<(u8, u8)> {
        let (_, node) = self.all_pods().find(|(other, _)| *other == name)?;
        let earlier = self.all_pods().take_while(|(other, _)| *other != name);
        let number = earlier.filter(|(_, other)| *other == node).count() + 1;
        Some((node, u8::try_from(number).ok()?))
    }

    /// The lab that it is played in.
    pub(super) fn topology(&self) -> Topology {
        Topology {
            nodes: self.nodes,
            pods: self
                .all_pods()
                .map(|(name, node)| (name.to_owned(), node))
                .collect(),
            clients: self.clients,
            entry: 1,
            bridge: self.bridge.clone(),
        }
    }
}

impl Step {
    fn problem(&self) -> Option<&'static str> {
        match (self.ask.is_empty(), self.expect.is_empty()) {
            (false, true) => Some("ask without expect"),
            (true, false) => Some("expect without ask"),
            _ if self.steady.values().any(|flow| flow.expect.is_some()) => Some("expect in a steady flow"),
            _ if self.hold.values().any(|flow| flow.from_one_port) => Some("from-one-port in a held one"),
            _ => None,
        }
    }

    /// The expectations of a mode: those of `expect`, replaced by those of `except-in`.
    pub(super) fn expectations(&self, mode: Mode) -> BTreeMap<String, Expectation> {
        let by_place = |map: &BTreeMap<Names, Expectation>| -> Vec<(String, Expectation)> {
            let places = map.iter().flat_map(|(names, expectation)| {
                names
                    .iter()
                    .map(move |name| (name.to_owned(), expectation.clone()))
            });
            places.collect()
        };
        let mut expectations = BTreeMap::from_iter(by_place(&self.expect));
        if let Some(exceptions) = self.except_in.get(mode.configured()) {
            expectations.extend(by_place(exceptions));
        }
        expectations
    }
}

fn two() -> u8 {
    2
}

fn one() -> u8 {
    1
}

fn usual_pods() -> BTreeMap<Names, u8> {
    [("a", 1), ("b", 1), ("c", 2), ("x", 1), ("y", 2)]
        .map(|(name, node)| (Names::one(name), node))
        .into()
}

fn usual_servers() -> Vec<Names> {
    ["a", "b", "c"].map(Names::one).to_vec()
}

fn usual_ports() -> Vec<u16> {
    vec![8080, 8081]
}

fn both_families() -> Vec<Family> {
    Family::ALL.to_vec()
}

/// By hand, since serde would say of a mistake only that it fits neither.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Ask>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Asks {
        One(String),
        More(Vec<String>),
    }
    let texts = match Asks::deserialize(deserializer)? {
        Asks::One(text) => vec![text],
        Asks::More(texts) => texts,
    };
    let ask = |text: &String| {
        text.parse()
            .map_err(|error| serde::de::Error::custom(format!("{text}: {error:#}")))
    };
    texts.iter().map(ask).collect()
}

fn families<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Family>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let family = |name: &String| {
        let known = Family::ALL.into_iter().find(|family| family.to_string() == *name);
        known.ok_or_else(|| serde::de::Error::custom(format!("{name} is no family: IPv4 or IPv6")))
    };
    names.iter().map(family).collect()
}
