//! An API server, in-process or real, and sources that observe it.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use kube_proxy::source::api::{ClientOptions, Source, Timing};
use lab::api::{Credential, Resource, Server};
use serde_json::Value;

use crate::observer::Observer;
use crate::real::Real;

/// The node that every source runs on.
pub(crate) const NODE: &str = "node-1";

/// Short times, so that what is retried or given up is so soon.
pub(crate) const TIMING: Timing = Timing {
    connect: Duration::from_secs(5),
    list: Duration::from_secs(5),
    initial_events: Duration::from_secs(5),
    idle: Duration::from_secs(60),
    first_retry: Duration::from_millis(10),
    longest_retry: Duration::from_millis(100),
    longest_retry_of_missing: Duration::from_millis(100),
    watch: Duration::from_secs(300),
};

/// An API server with what a test did to it.
pub(crate) struct Stage {
    api: Api,
    applied: Mutex<Vec<(Resource, String)>>,
}

enum Api {
    InProcess(Box<Server>),
    Real(Box<Real>),
}

impl Stage {
    pub(crate) fn in_process() -> Self {
        Self::of(Server::start().expect("the in-process API starts"))
    }

    pub(crate) fn of(server: Server) -> Self {
        Self::new(Api::InProcess(Box::new(server)))
    }

    pub(crate) fn real(real: Real) -> Self {
        Self::new(Api::Real(Box::new(real)))
    }

    fn new(api: Api) -> Self {
        let applied = Mutex::default();
        Self { api, applied }
    }

    /// The in-process API, for faults and for what was asked.
    pub(crate) fn server(&self) -> &Server {
        match &self.api {
            Api::InProcess(server) => server,
            Api::Real(_) => panic!("a real API server has no faults on demand"),
        }
    }

    /// Creates or replaces an object of the namespace `default` (or of none), `status` included.
    pub(crate) fn apply(&self, yaml: &str) {
        let object: Value = serde_saphyr::from_str(yaml).expect("YAML");
        let text = |key: &str| object[key].as_str().expect(key);
        let resource = Resource::of_kind(text("apiVersion"), text("kind")).expect("a kind that is served");
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        match &self.api {
            Api::InProcess(server) => server.apply(&object.to_string()).expect("applied"),
            Api::Real(real) => real.apply(resource, &name, &object),
        }
        self.applied.lock().expect("no panic").push((resource, name));
    }

    /// Deletes an object of the namespace `default` (or of none).
    pub(crate) fn delete(&self, resource: Resource, name: &str) {
        let namespace = if resource.namespaced() { "default" } else { "" };
        match &self.api {
            Api::InProcess(server) => server.delete(resource, namespace, name).expect("deleted"),
            Api::Real(real) => real.delete(resource, name),
        }
        let mut applied = self.applied.lock().expect("no panic");
        applied.retain(|applied| (applied.0, applied.1.as_str()) != (resource, name));
    }

    /// Deletes whatever was applied.
    pub(crate) fn clear(&self) {
        let mut applied = self.applied.lock().expect("no panic").clone();
        applied.sort();
        applied.dedup();
        for (resource, name) in applied {
            self.delete(resource, &name);
        }
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        match &self.api {
            Api::InProcess(server) => server.kubeconfig(Credential::Token).expect("a kubeconfig"),
            Api::Real(real) => real.kubeconfig(),
        }
    }

    /// The options of a source that uses the stage's kubeconfig.
    pub(crate) fn options(&self) -> ClientOptions {
        ClientOptions {
            kubeconfig: Some(self.kubeconfig()),
            ..ClientOptions::default()
        }
    }

    /// Starts a source.
    pub(crate) fn observe(&self) -> Observer {
        self.observe_with(self.options(), TIMING)
    }

    /// Starts a source with settings of its own.
    pub(crate) fn observe_with(&self, options: ClientOptions, timing: Timing) -> Observer {
        let make = move |metrics| Source::new(options, timing, metrics).expect("settings that can be used");
        match &self.api {
            Api::InProcess(_) => Observer::start(make, NODE, |run| run()),
            Api::Real(real) => {
                let namespace = real.namespace().clone();
                Observer::start(make, NODE, move |run| {
                    namespace.enter(run).expect("the namespace can be entered");
                })
            }
        }
    }
}

/// A Service with one TCP port 80, and more in its metadata and spec.
pub(crate) fn service(name: &str, metadata: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, {metadata}}}
spec: {{ports: [{{name: http, port: 80}}], {spec}}}
"
    )
}

/// An EndpointSlice of a Service, with ready endpoints on port 8080.
pub(crate) fn slice(name: &str, service: &str, metadata: &str, addresses: &[&str]) -> String {
    let endpoints: Vec<String> = addresses
        .iter()
        .map(|address| format!("{{addresses: [\"{address}\"], conditions: {{ready: true}}}}"))
        .collect();
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, labels: {{kubernetes.io/service-name: {service}, {metadata}}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: [{}]
",
        endpoints.join(", ")
    )
}

/// A ServiceCIDR with these networks, separated by commas.
pub(crate) fn service_cidr(name: &str, cidrs: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {{name: {name}}}
spec: {{cidrs: [{cidrs}]}}
"
    )
}

/// A Node of that name with an address and a label for its zone.
pub(crate) fn node(name: &str, zone: &str) -> String {
    format!(
        "apiVersion: v1
kind: Node
metadata: {{name: {name}, labels: {{topology.kubernetes.io/zone: {zone}}}}}
spec: {{podCIDR: 10.244.0.0/24, podCIDRs: [10.244.0.0/24]}}
status: {{addresses: [{{type: InternalIP, address: 192.0.2.1}}]}}
"
    )
}
