//! The in-process Kubernetes API: lists, watches and streaming lists over HTTPS, with faults on demand.
//!
//! It behaves as kube-apiserver 1.36 does where a watching client can tell the difference: resource versions,
//! pages, expiry, selectors, bookmarks, Status objects, JSON and protobuf. It checks less than the real one,
//! knows no authorization beyond a token, and runs no controllers.
//!
//! ```no_run
//! use lab::api::{Credential, Resource, Server};
//!
//! # fn main() -> anyhow::Result<()> {
//! let server = Server::start()?;
//! server.apply(
//!     "apiVersion: v1
//! kind: Service
//! metadata: {name: my-app}
//! spec: {clusterIP: 10.96.0.10, ports: [{port: 80, targetPort: 8080}]}
//! ",
//! )?;
//! let kubeconfig = server.kubeconfig(Credential::Token)?; // for kube-proxy --kubeconfig
//! server.delete(Resource::Services, "default", "my-app")?;
//! # Ok(())
//! # }
//! ```
//!
//! The handle's methods may be called from any thread, and none waits for a client. The server runs on a
//! thread of its own until the handle is dropped. [`Server::builder`] takes a listener that is already bound,
//! so that the server can live in a network namespace.

mod admit;
mod discovery;
mod fault;
mod http;
mod kubeconfig;
mod list;
mod listen;
mod manifest;
mod object;
mod proto;
mod query;
mod quick;
mod render;
mod resource;
mod select;
mod state;
mod status;
mod store;
mod stream;
mod tls;
mod write;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

pub use fault::{Fault, Rule, Verb};
pub use kubeconfig::Credential;
pub use quick::{QuickService, QuickSlice};
pub use resource::Resource;
pub use state::Request;
pub use status::Status;
pub use store::Backup;
pub use stream::StreamFault;

use kubeconfig::Files;
use listen::Listener;
use state::{Settings, State};
use store::Signal;

/// How a server is to be started.
#[derive(Debug)]
pub struct Builder {
    listener: Option<TcpListener>,
    plain: bool,
    token: String,
    names: Vec<String>,
    bookmark_interval: Duration,
}

impl Builder {
    /// Serves this listener instead of one on 127.0.0.1 with a free port.
    #[must_use]
    pub fn listener(self, listener: TcpListener) -> Self {
        Self {
            listener: Some(listener),
            ..self
        }
    }

    /// Speaks plain HTTP.
    #[must_use]
    pub fn plain_http(self) -> Self {
        Self { plain: true, ..self }
    }

    /// Lets this bearer token in.
    #[must_use]
    pub fn token(self, token: impl Into<String>) -> Self {
        Self {
            token: token.into(),
            ..self
        }
    }

    /// A further name or address in the server's certificate, beyond the listener's address and `localhost`.
    #[must_use]
    pub fn also_known_as(mut self, name: impl Into<String>) -> Self {
        self.names.push(name.into());
        self
    }

    /// How often a watch that takes bookmarks gets one; a minute unless told otherwise.
    #[must_use]
    pub fn bookmark_interval(self, interval: Duration) -> Self {
        Self {
            bookmark_interval: interval,
            ..self
        }
    }

    /// Starts the server with the namespaces `default` and `kube-system`.
    ///
    /// # Errors
    /// When the port cannot be bound or the certificates cannot be made.
    pub fn start(self) -> Result<Server> {
        let listener = match self.listener {
            Some(listener) => listener,
            None => {
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening on 127.0.0.1 for the API")?
            }
        };
        let address = listener.local_addr().context("reading the listener's address")?;
        let (tls, certificates) = if self.plain {
            (None, None)
        } else {
            let (tls, certificates) = tls::make(&[address.ip()], &self.names)?;
            (Some(tls), Some(certificates))
        };
        let files = Files::write(certificates.as_ref(), &self.token)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let state = Arc::new(State::new(Settings {
            tokens: vec![self.token.clone()],
            protobuf: true,
            streaming_lists: true,
            bookmark_interval: self.bookmark_interval,
        }));
        for name in ["default", "kube-system"] {
            let namespace =
                json!({"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}});
            state.cluster().apply(Resource::Namespaces, "", namespace)?;
        }
        Ok(Server {
            listener: Listener::start(listener, tls, state.clone())?,
            state,
            files,
            address,
            url: format!("{scheme}://{address}"),
        })
    }
}

/// A running API server; dropping it ends it.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    state: Arc<State>,
    files: Files,
    address: SocketAddr,
    url: String,
}

impl Server {
    /// Starts a server on 127.0.0.1 with a free port.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// Options before the start.
    pub fn builder() -> Builder {
        Builder {
            listener: None,
            plain: false,
            token: "lab-token".to_owned(),
            names: Vec::new(),
            bookmark_interval: Duration::from_secs(60),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The file with the certificate of its authority, PEM. Not there for plain HTTP.
    pub fn authority_file(&self) -> PathBuf {
        self.files.path("ca.crt")
    }

    /// Writes a kubeconfig and gives its path; the file lives as long as the server.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig(&self, credential: Credential) -> Result<PathBuf> {
        let token = self.state.settings().tokens.last().cloned().unwrap_or_default();
        self.files.kubeconfig(&self.url, credential, &token)
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    // Objects.

    /// Creates or replaces every object of a text: JSON or YAML, several documents, `List` accepted; `status`
    /// included. Objects without a namespace go to `default`.
    ///
    /// # Errors
    /// When a document cannot be read or is not acceptable; those before it are in force.
    pub fn apply(&self, text: &str) -> Result<()> {
        for manifest in manifest::parse(text)? {
            let manifest::Manifest {
                resource,
                namespace,
                object,
            } = manifest;
            self.state.cluster().apply(resource, &namespace, object)?;
        }
        Ok(())
    }

    /// [`Server::apply`] of a file.
    ///
    /// # Errors
    /// As there, and when the file cannot be read.
    pub fn apply_file(&self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        self.apply(&text)
            .with_context(|| format!("applying {}", path.display()))
    }

    /// Applies a JSON merge patch to an object; `namespace` is empty for cluster-scoped ones.
    ///
    /// # Errors
    /// When there is no such object, or the patched one is not acceptable.
    pub fn patch(
        &self,
        resource: Resource,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<(), Box<Status>> {
        let part = write::Part::Whole;
        let merged = self.state.cluster().merge(resource, namespace, name, patch, part);
        merged.map(drop).map_err(Box::new)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn delete(&self, resource: Resource, namespace: &str, name: &str) -> Result<(), Box<Status>> {
        let deleted = self.state.cluster().delete(resource, namespace, name);
        deleted.map(drop).map_err(Box::new)
    }

    /// Deletes whatever there is of a text's objects.
    ///
    /// # Errors
    /// When a document cannot be read.
    pub fn delete_all(&self, text: &str) -> Result<()> {
        for manifest in manifest::parse(text)? {
            let name = manifest.object["metadata"]["name"].as_str().unwrap_or_default();
            // That it is not there is as good.
            let _ = self.delete(manifest.resource, &manifest.namespace, name);
        }
        Ok(())
    }

    /// An object as JSON, without `kind` and `apiVersion`.
    pub fn get(&self, resource: Resource, namespace: &str, name: &str) -> Option<Value> {
        let object = self.state.cluster().get(resource, namespace, name);
        object.ok().map(|object| object.value())
    }

    /// The resource version of the latest write.
    pub fn version(&self) -> u64 {
        self.state.cluster().store.version()
    }

    // History.

    /// Forgets history: watches from an earlier version, and further pages of a list, are answered with 410.
    pub fn compact(&self) {
        self.state.cluster().store.compact();
    }

    /// Remembers all objects and the version.
    pub fn backup(&self) -> Backup {
        self.state.cluster().store.backup()
    }

    /// Goes back to a backup: resource versions go back as well, and all connections break off, as when a
    /// cluster's etcd is restored.
    pub fn restore(&self, backup: &Backup) {
        self.state.cluster().store.restore(backup);
        self.disconnect();
    }

    /// Counts the version up without a write to anything served, as writes of other kinds do.
    pub fn advance_version(&self) -> u64 {
        self.state.cluster().store.advance()
    }

    /// Sends every watch of a resource that takes bookmarks one now.
    pub fn send_bookmarks(&self, resource: Resource) {
        let store = &mut self.state.cluster().store;
        let signal = Signal::Bookmark(store.version());
        store.signal(resource, &signal);
    }

    // Faults.

    /// Puts a fault in force for the lists and watches that begin from now on.
    pub fn inject(&self, rule: Rule) {
        self.state.faults().add(rule);
    }

    /// Ends all faults of [`Server::inject`].
    pub fn clear_faults(&self) {
        self.state.faults().clear();
    }

    /// Spoils the watches of a resource that are open now.
    pub fn spoil_watches(&self, resource: Resource, fault: StreamFault) {
        self.state.cluster().store.signal(resource, &Signal::Fault(fault));
    }

    /// Breaks off all connections.
    pub fn disconnect(&self) {
        self.listener.order(|orders| orders.generation += 1);
    }

    /// Refuses connections (and breaks off those that are open), or takes them again.
    pub fn refuse_connections(&self, refuse: bool) {
        self.listener.order(|orders| {
            orders.accept = !refuse;
            if refuse {
                orders.generation += 1;
            }
        });
    }

    /// Whether protobuf is spoken; a client that accepts nothing else is answered with 406.
    pub fn set_protobuf(&self, spoken: bool) {
        self.state.settings().protobuf = spoken;
    }

    /// Whether streaming lists are served; otherwise asking for one is answered with 422.
    pub fn set_streaming_lists(&self, served: bool) {
        self.state.settings().streaming_lists = served;
    }

    /// Lets in this token only, and rewrites the token file. Open watches go on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_token(&self, token: &str) -> Result<()> {
        self.state.settings().tokens = vec![token.to_owned()];
        self.files.set_token(token)
    }

    // What was asked.

    /// The requests so far, in the order in which they came.
    pub fn requests(&self) -> Vec<Request> {
        self.state.requests().clone()
    }

    /// The requests for a resource so far.
    pub fn requests_for(&self, resource: Resource) -> Vec<Request> {
        let requests = self.state.requests();
        let wanted = requests
            .iter()
            .filter(|request| request.resource == Some(resource));
        wanted.cloned().collect()
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        self.state.requests().clear();
    }

    /// How many watches of a resource are open.
    pub fn watchers(&self, resource: Resource) -> usize {
        self.state.cluster().store.watchers(resource)
    }
}
