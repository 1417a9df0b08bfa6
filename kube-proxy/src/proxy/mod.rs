//! THE loop: changes → [`Cluster`] → resolve → [`Dataplane`] → [`Conntrack`], health and metrics.
//!
//! It is plain code on a thread of its own. Changes come in through a channel; what is there when it looks is
//! taken together, so the first change of a burst goes to the kernel at once and those that arrive meanwhile
//! go together after it. Nothing is written before Services and EndpointSlices have both delivered their first
//! state. A sync that fails is tried again after a growing pause while everything that is in force stays so.

mod conflicts;
mod inbox;
mod measures;
mod report;
mod start;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use tokio::sync::mpsc::Receiver;
use tracing::{debug, info, warn};

use self::conflicts::Conflicts;
use self::inbox::{Inbox, Wait};
use self::measures::Measures;
use crate::config::{Config, DetectLocal, Mode};
use crate::conntrack::Conntrack;
use crate::dataplane::leftovers::Remover;
use crate::dataplane::{CommitReport, Dataplane, Host, KernelCounter, LocalTraffic, NodePortAddresses};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::model::change::{Change, Kind};
use crate::model::cluster::{Cluster, TrafficConfig};
use crate::model::object::{Family, Node};
use crate::node::addresses::LocalAddresses;
use crate::node::{self, NodeIps};
use crate::server::HealthChecks;
use crate::status::Status;

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// What the loop is built from.
pub struct Setup {
    /// The configuration.
    pub config: Config,
    /// This node's name.
    pub node_name: Arc<str>,
    /// The addresses of this machine, as they come and go.
    pub local_addresses: LocalAddresses,
    /// How long to wait for the Node's addresses once the source has listed its Nodes.
    pub node_patience: Duration,
    /// Where to count.
    pub metrics: Arc<Metrics>,
    /// Where to report.
    pub health: Arc<Health>,
    /// Where to tell more.
    pub status: Arc<Status>,
    /// The servers on the Services' health-check node ports.
    pub health_checks: HealthChecks,
    /// Removes what other modes left; called once, when this one is in force.
    pub remove_others: Remover,
}

/// Makes the dataplane, once it is known what it has to know about the machine.
pub type Open = fn(&Config, Host) -> Box<dyn Dataplane>;

/// [`run`] on a thread of its own. The future ends when the loop does.
///
/// # Errors
/// When there is no thread to be had; the future's errors are those of [`run`].
pub fn spawn(
    setup: Setup,
    changes: Receiver<Change>,
    open: Open,
) -> std::io::Result<impl Future<Output = anyhow::Result<()>>> {
    let (end, ended) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("proxy".to_owned())
        .spawn(move || {
            let ended = Conntrack::start(Arc::clone(&setup.metrics), setup.local_addresses.clone())
                .context("cannot start the thread of conntrack")
                .and_then(|mut conntrack| {
                    count_bytes(&mut conntrack, &setup)?;
                    run(setup, changes, open, conntrack)
                });
            // Nobody waits for it any more: the program is about to end.
            let _ = end.send(ended);
        })?;
    Ok(async {
        ended
            .await
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the proxy's thread is gone")))
    })
}

fn count_bytes(conntrack: &mut Conntrack, setup: &Setup) -> anyhow::Result<()> {
    if !setup.config.conntrack.count_bytes {
        return Ok(());
    }
    let by_ipvs = setup.config.mode == Mode::Ipvs;
    conntrack
        .count_bytes(&setup.metrics, setup.local_addresses.clone(), by_ipvs)
        .context("cannot count bytes")
}

/// Runs until the channel is closed.
///
/// # Errors
/// When the proxy cannot work here (no permission, kernel lacks something), or must be started anew (the
/// Node's pod networks changed).
pub fn run(
    setup: Setup,
    changes: Receiver<Change>,
    open: impl FnOnce(&Config, Host) -> Box<dyn Dataplane>,
    conntrack: Conntrack,
) -> anyhow::Result<()> {
    let began = SystemTime::now();
    let mut inbox = Inbox::new(changes, setup.local_addresses.clone())?;
    let begun = start::await_node(&setup, &mut inbox)?;
    let host = start::host(&setup.config, &begun, node::families::of_this_kernel())?;
    let detects_pods = host
        .local_traffic
        .each_ref()
        .map(|traffic| *traffic != LocalTraffic::Unknown);
    let cluster = Cluster::new(TrafficConfig {
        node_name: Arc::clone(&setup.node_name),
        masquerade_all: setup.config.masquerade_all,
        detects_pods,
        node_ips: begun.ips.known(),
    });
    let families = host.families.clone();
    setup
        .health
        .programmed(Family::ALL.map(|family| families.contains(&family)));
    let dataplane = open(&setup.config, host);
    info!("Using {} Proxier", setup.config.mode);
    for KernelCounter { name, help, read } in dataplane.counters() {
        setup.metrics.read_at_scrape(name, help, read)?;
    }
    if let Some(read) = dataplane.connections() {
        setup.metrics.read_connections(read)?;
    }
    let mut proxy = Proxy {
        setup,
        cluster,
        dataplane,
        conntrack,
        node: begun.node,
        ips: begun.ips,
        node_ports: [None, None],
        localhost: [None, None],
        conflicts: Conflicts::default(),
        measures: Measures::new(began),
        families,
        queued: false,
        in_force: false,
        failures: 0,
        again: None,
    };
    proxy.note_queued();
    proxy.set_node_port_addresses();
    if let Some(node) = &proxy.node {
        proxy.setup.health.node(node);
    }
    for change in begun.changes {
        proxy.admit(change);
    }
    let mode = proxy.setup.config.mode;
    // Upstream's words, which differ by mode.
    let what = if mode == Mode::Ipvs { " rules" } else { "" };
    debug!("Not syncing {mode}{what} until Services and Endpoints have been received from master");
    loop {
        // Here and not only when nothing else happens: changes that never end must not put it off.
        if proxy.dataplane.look_due().is_some_and(|at| at <= Instant::now()) {
            proxy.hear();
        }
        proxy.sync()?;
        while let Some(listener) = proxy.dataplane.listener() {
            inbox.listen(listener);
        }
        let until = proxy.again.into_iter().chain(proxy.dataplane.look_due()).min();
        match inbox.wait(until) {
            Wait::Changes => {
                for change in inbox.take() {
                    proxy.observe(change)?;
                }
            }
            Wait::Addresses => proxy.set_node_port_addresses(),
            Wait::Heard => proxy.hear(),
            Wait::Elapsed => {}
            Wait::Closed => return Ok(()),
        }
    }
}

struct Proxy {
    setup: Setup,
    cluster: Cluster,
    dataplane: Box<dyn Dataplane>,
    conntrack: Conntrack,
    node: Option<Node>,
    ips: NodeIps,
    /// What the dataplane was told, for IPv4 and IPv6.
    node_ports: [Option<NodePortAddresses>; 2],
    /// The source of packets to node ports at the loopback address, as the dataplane was told.
    localhost: [Option<IpAddr>; 2],
    conflicts: Conflicts,
    measures: Measures,
    /// The families that the kernel has.
    families: Vec<Family>,
    /// The dataplane holds something that is not in force.
    queued: bool,
    /// A first sync has succeeded.
    in_force: bool,
    /// Failed syncs since the last success.
    failures: u32,
    /// When to sync again even without changes; while syncs fail, also not to sync before.
    again: Option<Instant>,
}

impl Proxy {
    /// Takes one change in.
    fn observe(&mut self, change: Change) -> anyhow::Result<()> {
        if let Change::Node(node) = &change {
            self.observe_node(node)?;
        }
        self.admit(change);
        Ok(())
    }

    /// Counts one change and gives it to the model.
    fn admit(&mut self, mut change: Change) {
        let metrics = &self.setup.metrics;
        match &mut change {
            Change::Service(service) if !self.setup.config.features.allow_external_ips => {
                service.external_ips.clear();
            }
            _ => {}
        }
        match &change {
            Change::Service(_) | Change::Deleted(Kind::Service, _) => {
                // As upstream, which has a proxier for each family.
                let families = self.families.len();
                metrics.service_changes.inc_by(families as u64);
                metrics
                    .service_changes_pending
                    .add(i64::try_from(families).unwrap_or_default());
            }
            Change::EndpointSlice(_) | Change::Deleted(Kind::EndpointSlice, _) => {
                metrics.endpoint_changes.inc();
                metrics.endpoint_changes_pending.inc();
            }
            _ => {}
        }
        match change {
            Change::EndpointSlice(slice) => {
                let (name, family, trigger) = (slice.name.clone(), slice.family, slice.last_change_trigger);
                if self.cluster.apply(Change::EndpointSlice(slice)) {
                    self.measures.slice_changed(name, family, trigger);
                }
            }
            Change::Deleted(Kind::EndpointSlice, name) => {
                self.measures.slice_gone(&name);
                self.cluster.apply(Change::Deleted(Kind::EndpointSlice, name));
            }
            change => {
                self.cluster.apply(change);
            }
        }
    }

    /// Takes over what the configuration makes of the Node. Its zone is the model's business.
    fn observe_node(&mut self, node: &Node) -> anyhow::Result<()> {
        self.setup.health.node(node);
        if node.deleting && !self.node.as_ref().is_some_and(|old| old.deleting) {
            info!(node = %node.name, "Node is being deleted");
        }
        if self.setup.config.detect_local == DetectLocal::NodeCidr
            && self
                .node
                .as_ref()
                .is_some_and(|old| old.pod_cidrs != node.pod_cidrs)
        {
            bail!(
                "the podCIDRs of node {} changed: starting anew is needed to recognise its pods",
                node.name
            );
        }
        let ips = NodeIps::of(Some(node), self.setup.config.node_ip_override);
        let moved = ips != self.ips;
        if moved {
            warn!(node = %node.name, new = ?ips.known(), old = ?self.ips.known(), "NodeIPs changed for the node");
        }
        self.ips = ips;
        self.node = Some(node.clone());
        if moved {
            self.cluster.set_node_ips(self.ips.known());
            self.set_node_port_addresses();
        }
        Ok(())
    }

    fn set_node_port_addresses(&mut self) {
        let local = Arc::clone(&self.setup.local_addresses.borrow());
        self.queued |= self.dataplane.set_local_addresses(&local);
        for family in Family::ALL {
            let configured = &self.setup.config.node_port_addresses;
            let addresses = node::node_port_addresses(configured, family, &self.ips, &local);
            if self.node_ports[family as usize].as_ref() != Some(&addresses) {
                debug!(ip_family = %family, ?addresses, "Addresses that accept node ports");
                self.node_ports[family as usize] = Some(addresses.clone());
                self.setup
                    .health_checks
                    .set_node_port_addresses(family, &addresses);
                self.dataplane.set_node_port_addresses(family, addresses);
                self.conntrack.node_ports_moved(family);
                self.queued = true;
            }
            let localhost = node::localhost_source(family, &self.ips, &local);
            if self.setup.config.localhost_node_ports && self.localhost[family as usize] != localhost {
                self.localhost[family as usize] = localhost;
                self.dataplane.set_localhost_node_ports(family, localhost);
                self.queued = true;
            }
        }
    }

    /// Others may have changed what is in force.
    fn hear(&mut self) {
        let repair = self.dataplane.hear().map(|pause| Instant::now() + pause);
        // After a failure the next attempt is planned already, and carries the repair.
        if self.failures == 0 {
            self.again = self.again.into_iter().chain(repair).min();
        }
    }

    /// Resolves what changed and puts it in force, unless it is too early to.
    fn sync(&mut self) -> anyhow::Result<()> {
        if !self.cluster.is_synced() {
            return Ok(());
        }
        let start = Instant::now();
        let services = self.plan();
        if self.queued {
            self.setup.health.queued(start);
        }
        let due = self.again.is_some_and(|again| again <= start);
        if !due && (!self.queued || self.failures > 0) {
            return Ok(());
        }
        let mut report = CommitReport::default();
        match self.dataplane.commit(&mut report) {
            Ok(()) => {
                self.synced(start, services, report);
                Ok(())
            }
            Err(error) => self.failed(start, error, report),
        }
    }

    /// Hands what changed to the dataplane; how many Services it was.
    fn plan(&mut self) -> usize {
        if let Some(cidrs) = self.cluster.take_service_cidrs() {
            info!(?cidrs, "ServiceCIDRs changed");
            for (family, cidrs) in Family::ALL.into_iter().zip(&cidrs) {
                self.dataplane.set_service_cidrs(family, cidrs);
            }
            self.conntrack.set_service_cidrs(cidrs.concat());
            self.queued = true;
        }
        let dirty = self.cluster.take_dirty();
        if dirty.is_empty() {
            return 0;
        }
        for name in &dirty {
            let view = self.cluster.resolve(name);
            let conflicts = view.as_ref().map(|view| view.conflicts.as_slice());
            self.conflicts.note(name, conflicts.unwrap_or_default());
            self.measures.resolved(name, view.as_ref());
            self.dataplane.update(name, view.as_ref());
            self.conntrack.note(name, view.as_ref());
            let health_check = view.as_ref().and_then(|view| view.health_check);
            self.setup.health_checks.note(name, health_check);
        }
        self.queued = true;
        let metrics = &self.setup.metrics;
        metrics
            .conflicts
            .set(i64::try_from(self.conflicts.count()).unwrap_or(i64::MAX));
        self.note_queued();
        dirty.len()
    }

    /// A sync is wanted.
    fn note_queued(&self) {
        for family in &self.families {
            let queued = &self.setup.metrics.sync_queued;
            queued
                .with_label_values(&[FAMILIES[*family as usize]])
                .set(report::unix_seconds());
        }
    }
}
