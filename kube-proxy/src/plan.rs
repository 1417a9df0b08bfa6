//! `kube-proxy plan`: what a proxy would program here, as text or JSON, or how the kernel differs from it. Reads the
//! cluster, or the manifests, once; writes nothing anywhere.
//!
//! It is the proxy's own loop that plans, with a dataplane that answers where another one commits.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::sync::oneshot::{Sender, channel as answer_channel};
use tokio::time::Instant;
use tracing::info;

use crate::cli::Plan;
use crate::config::{Config, Loaded};
use crate::conntrack::Conntrack;
use crate::dataplane::listing::{Difference, Lines, Listing, Place};
use crate::dataplane::{self, CommitError, CommitReport, Dataplane, Host, NodePortAddresses};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::model::change::{Change, Kind};
use crate::model::object::{Family, ObjectName};
use crate::model::view::ServiceView;
use crate::proxy::{self, Setup};
use crate::source::Source;
use crate::status::Status;
use crate::{events, node, server};

const WAITING_CHANGES: usize = 4096;
/// How long the lists may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait for ServiceCIDRs when all else is there: not every server has them.
const PATIENCE_WITH_SERVICE_CIDRS: Duration = Duration::from_secs(2);

/// What was found.
#[derive(Debug)]
pub enum Answer {
    /// The plan.
    Plan(Listing),
    /// How the kernel differs from it.
    Differences(Vec<Difference>),
}

/// Plans, and compares if that is asked for.
///
/// # Errors
/// When the objects or the kernel cannot be read.
pub async fn make(plan: Plan, loaded: &Loaded) -> anyhow::Result<Answer> {
    let config = &loaded.config;
    if loaded.why_this_mode.is_some() && !plan.diff {
        info!(
            "No proxy mode is configured; this is the plan for {}",
            config.mode
        );
    }
    let node_name: Arc<str> = node::name(config.hostname_override.as_deref())?.into();
    let metrics = Arc::new(Metrics::new()?);
    let changes = read(config, &node_name, &metrics).await?;
    let (health_checks, _orders) = server::health_checks();
    let (local_addresses, _watching) = node::addresses::watch();
    let health = Arc::new(Health::new(config.sync_period, true));
    let setup = Setup {
        config: config.clone(),
        status: Arc::new(Status::new(config, &node_name, Arc::clone(&health))),
        node_name,
        local_addresses,
        node_patience: Duration::ZERO,
        metrics,
        health,
        health_checks,
        remove_others: Box::new(|_| {}),
    };
    let (answer_to, answer) = answer_channel();
    let (end_to, end) = answer_channel();
    let (sender, receiver) = channel(changes.len().max(1));
    for change in changes {
        sender.try_send(change).context("the lists do not fit")?;
    }
    let open = move |config: &Config, host: Host| -> Box<dyn Dataplane> {
        Box::new(Planner {
            inner: dataplane::open(config, host),
            diff: plan.diff,
            answer: Some(answer_to),
        })
    };
    std::thread::Builder::new()
        .name("proxy".to_owned())
        .spawn(move || end_to.send(proxy::run(setup, receiver, open, Conntrack::default())))?;
    tokio::select! {
        Ok(answer) = answer => Ok(answer?),
        ended = end => match ended {
            Ok(ended) => ended.and_then(|()| bail!("the proxy's loop has ended without a plan")),
            Err(_) => bail!("the proxy's thread is gone"),
        },
    }
}

/// All objects, as a source lists them.
async fn read(config: &Config, node_name: &Arc<str>, metrics: &Arc<Metrics>) -> anyhow::Result<Vec<Change>> {
    let source = Source::new(&config.source, node_name, Arc::clone(metrics))?;
    let (sender, mut changes) = channel(WAITING_CHANGES);
    let (_recorder, recorded) = events::recorder();
    let gathered = tokio::select! {
        gathered = tokio::time::timeout(PATIENCE, gather(&mut changes)) => gathered,
        never = source.run(sender, recorded) => match never {},
    };
    gathered.with_context(|| {
        format!("Services, EndpointSlices and this Node were not listed within {PATIENCE:?}")
    })
}

/// Waits for the lists of all kinds. Their ends come last, so that nothing is planned before everything is there.
async fn gather(changes: &mut Receiver<Change>) -> Vec<Change> {
    let (mut gathered, mut ends) = (Vec::new(), Vec::new());
    let mut until: Option<Instant> = None;
    loop {
        let next = match until {
            None => changes.recv().await,
            Some(until) => match tokio::time::timeout_at(until, changes.recv()).await {
                Ok(next) => next,
                Err(_) => {
                    info!("No ServiceCIDRs are listed: nothing is planned for unallocated addresses");
                    break;
                }
            },
        };
        match next {
            Some(end @ Change::ListDone(_)) => ends.push(end),
            Some(change) => gathered.push(change),
            None => break,
        }
        let listed = |kind| ends.contains(&Change::ListDone(kind));
        if [Kind::Service, Kind::EndpointSlice, Kind::Node]
            .into_iter()
            .all(listed)
        {
            if listed(Kind::ServiceCidr) {
                break;
            }
            until = until.or_else(|| Some(Instant::now() + PATIENCE_WITH_SERVICE_CIDRS));
        }
    }
    gathered.extend(ends);
    gathered
}

/// A dataplane that answers instead of committing.
struct Planner {
    inner: Box<dyn Dataplane>,
    diff: bool,
    answer: Option<Sender<Result<Answer, CommitError>>>,
}

impl Dataplane for Planner {
    fn update(&mut self, service: &ObjectName, view: Option<&ServiceView>) {
        self.inner.update(service, view);
    }

    fn set_node_port_addresses(&mut self, family: Family, addresses: NodePortAddresses) {
        self.inner.set_node_port_addresses(family, addresses);
    }

    fn set_local_addresses(&mut self, addresses: &[std::net::IpAddr]) -> bool {
        self.inner.set_local_addresses(addresses)
    }

    fn set_localhost_node_ports(&mut self, family: Family, source: Option<std::net::IpAddr>) {
        self.inner.set_localhost_node_ports(family, source);
    }

    fn set_service_cidrs(&mut self, family: Family, cidrs: &[IpNet]) {
        self.inner.set_service_cidrs(family, cidrs);
    }

    /// Answers, and lets nothing more happen: the program ends with the answer.
    fn commit(&mut self, _: &mut CommitReport) -> Result<(), CommitError> {
        let answer = match self.diff {
            true => self.differences().map(Answer::Differences),
            false => Ok(Answer::Plan(self.planned())),
        };
        if let Some(to) = self.answer.take() {
            // Nobody waits for it only if the program ends already.
            let _ = to.send(answer);
        }
        loop {
            std::thread::park();
        }
    }

    fn planned(&self) -> Listing {
        self.inner.planned()
    }

    fn differences(&mut self) -> Result<Vec<Difference>, CommitError> {
        self.inner.differences()
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    place: &'a Place,
    #[serde(flatten)]
    lines: &'a Lines,
}

impl Answer {
    /// Whether the kernel differs from the plan, as far as that was asked.
    pub fn differs(&self) -> bool {
        matches!(self, Self::Differences(found) if !found.is_empty())
    }

    /// What to print.
    pub fn print(&self, plan: Plan, config: &Config) -> String {
        let mode = config.mode.to_string();
        match self {
            Self::Plan(listing) if plan.json => {
                let listed: Vec<_> = listing
                    .iter()
                    .map(|(place, lines)| Listed { place, lines })
                    .collect();
                format!("{:#}\n", json!({ "mode": mode, "plan": listed }))
            }
            Self::Plan(listing) => text(listing),
            Self::Differences(found) if plan.json => {
                format!("{:#}\n", json!({ "mode": mode, "differences": found }))
            }
            Self::Differences(found) => found.iter().map(ToString::to_string).collect(),
        }
    }
}

/// One place after the other. Sets without elements are left out.
fn text(listing: &Listing) -> String {
    let mut text = String::new();
    for (place, Lines { lines, .. }) in listing {
        if lines.is_empty() && place.kind != "chain" {
            continue;
        }
        let _ = writeln!(text, "{place}");
        for line in lines {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}
