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
mod answer;
mod discovery;
mod fault;
mod handle;
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
mod verbs;
mod write;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

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
            list_cache: true,
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
}

#[cfg(test)]
mod tests;
