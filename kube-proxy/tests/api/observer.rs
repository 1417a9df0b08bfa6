//! Runs the source and keeps what it says, as the model would: an independent, simple reading of
//! [`Change`]'s protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kube_proxy::events::{Recorder, recorder};
use kube_proxy::metrics::Metrics;
use kube_proxy::model::change::{Change, Kind};
use kube_proxy::model::object::{EndpointSlice, Node, ObjectName, Service, ServiceCidr};
use kube_proxy::source::api::Source;
use tokio::sync::{mpsc, oneshot};

/// How long a test waits for something that has to come. It is no measure of speed.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the source has said so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub(crate) services: BTreeMap<ObjectName, Service>,
    pub(crate) slices: BTreeMap<ObjectName, EndpointSlice>,
    pub(crate) nodes: BTreeMap<ObjectName, Node>,
    pub(crate) service_cidrs: BTreeMap<ObjectName, ServiceCidr>,
    /// Every step, in order.
    pub(crate) changes: Vec<Change>,
    /// What a list that is under way has named.
    named: Vec<(Kind, BTreeSet<ObjectName>)>,
}

impl Observed {
    fn take(&mut self, change: Change) {
        match change.clone() {
            Change::ListStart(kind) => {
                self.named.retain(|(other, _)| *other != kind);
                self.named.push((kind, BTreeSet::new()));
            }
            Change::ListDone(kind) => self.sweep(kind),
            Change::Service(service) => {
                self.name(Kind::Service, &service.name);
                self.services.insert(service.name.clone(), *service);
            }
            Change::EndpointSlice(slice) => {
                self.name(Kind::EndpointSlice, &slice.name);
                self.slices.insert(slice.name.clone(), *slice);
            }
            Change::Node(node) => {
                let name = ObjectName::new("", node.name.clone());
                self.name(Kind::Node, &name);
                self.nodes.insert(name, *node);
            }
            Change::ServiceCidr(cidr) => {
                self.name(Kind::ServiceCidr, &cidr.name);
                self.service_cidrs.insert(cidr.name.clone(), *cidr);
            }
            Change::Kept(kind, name) => self.name(kind, &name),
            Change::Deleted(kind, name) => self.forget(kind, &name),
        }
        self.changes.push(change);
    }

    fn name(&mut self, kind: Kind, name: &ObjectName) {
        for (_, names) in self.named.iter_mut().filter(|(other, _)| *other == kind) {
            names.insert(name.clone());
        }
    }

    fn forget(&mut self, kind: Kind, name: &ObjectName) {
        match kind {
            Kind::Service => drop(self.services.remove(name)),
            Kind::EndpointSlice => drop(self.slices.remove(name)),
            Kind::Node => drop(self.nodes.remove(name)),
            Kind::ServiceCidr => drop(self.service_cidrs.remove(name)),
        }
    }

    fn sweep(&mut self, kind: Kind) {
        let at = self.named.iter().position(|(other, _)| *other == kind);
        let (_, named) = self
            .named
            .remove(at.expect("a list that is done has been started"));
        match kind {
            Kind::Service => self.services.retain(|name, _| named.contains(name)),
            Kind::EndpointSlice => self.slices.retain(|name, _| named.contains(name)),
            Kind::Node => self.nodes.retain(|name, _| named.contains(name)),
            Kind::ServiceCidr => self.service_cidrs.retain(|name, _| named.contains(name)),
        }
    }

    /// How many lists of a kind have been completed.
    pub(crate) fn lists(&self, kind: Kind) -> usize {
        let done = |change: &&Change| **change == Change::ListDone(kind);
        self.changes.iter().filter(done).count()
    }

    /// Whether every kind's first state has come.
    pub(crate) fn is_complete(&self) -> bool {
        [Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::ServiceCidr]
            .into_iter()
            .all(|kind| self.lists(kind) > 0)
    }

    /// The Service of that name in the namespace `default`.
    pub(crate) fn service(&self, name: &str) -> Option<&Service> {
        self.services.get(&in_default(name))
    }

    /// The EndpointSlice of that name in the namespace `default`.
    pub(crate) fn slice(&self, name: &str) -> Option<&EndpointSlice> {
        self.slices.get(&in_default(name))
    }

    /// The ServiceCIDR of that name.
    pub(crate) fn service_cidr(&self, name: &str) -> Option<&ServiceCidr> {
        self.service_cidrs.get(&ObjectName::new("", name))
    }

    /// Names of all Services but the API server's own.
    pub(crate) fn service_names(&self) -> Vec<&str> {
        let names = self.services.keys().map(|name| name.name.as_ref());
        names.filter(|name| *name != "kubernetes").collect()
    }
}

pub(crate) fn in_default(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}

/// A running source.
pub(crate) struct Observer {
    shared: Arc<(Mutex<Observed>, Condvar)>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) recorder: Recorder,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    /// Runs a source on a thread that `enter` makes ready, such as by entering a network namespace.
    pub(crate) fn start(
        make: impl FnOnce(Arc<Metrics>) -> Source + Send + 'static,
        node: &str,
        enter: impl FnOnce(Box<dyn FnOnce() + Send>) + Send + 'static,
    ) -> Self {
        let shared = Arc::new((Mutex::new(Observed::default()), Condvar::new()));
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let (stop, stopped) = oneshot::channel();
        let (recorder, events) = recorder();
        let (kept, counted, node) = (shared.clone(), metrics.clone(), node.to_owned());
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let (sender, changes) = mpsc::channel(64);
                tokio::select! {
                    () = make(counted).run(&node, sender, events) => {}
                    () = keep(changes, &kept) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::spawn(move || enter(Box::new(run)));
        Self {
            shared,
            metrics,
            recorder,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Waits until what was observed is as it should be, and gives it.
    pub(crate) fn until(&self, what: &str, condition: impl Fn(&Observed) -> bool) -> Observed {
        let (observed, changed) = &*self.shared;
        let deadline = Instant::now() + PATIENCE;
        let mut observed = observed.lock().expect("no panic in the source");
        while !condition(&observed) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "never came: {what}; seen: {observed:#?}");
            let waited = changed.wait_timeout(observed, left);
            observed = waited.expect("no panic in the source").0;
        }
        observed.clone()
    }

    /// What is observed now.
    pub(crate) fn now(&self) -> Observed {
        self.until("anything", |_| true)
    }

    /// Waits for every kind's first state.
    pub(crate) fn first_state(&self) -> Observed {
        self.until("the first state", Observed::is_complete)
    }

    /// Failures counted, by resource and reason.
    pub(crate) fn failures(&self, resource: &str, reason: &str) -> u64 {
        let counter = self.metrics.api_failures.with_label_values(&[resource, reason]);
        counter.get()
    }

    /// Whether the metric says that a resource's watch delivers.
    pub(crate) fn is_watching(&self, resource: &str) -> bool {
        self.metrics.api_watching.with_label_values(&[resource]).get() == 1
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // The source may have ended by itself, which a test has seen or does not care for.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn keep(mut changes: mpsc::Receiver<Change>, shared: &(Mutex<Observed>, Condvar)) {
    let (observed, changed) = shared;
    while let Some(change) = changes.recv().await {
        observed.lock().expect("no panic in a test").take(change);
        changed.notify_all();
    }
}

/// Waits for something that no change announces.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
