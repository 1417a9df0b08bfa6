//! The Kubernetes API as a source: lists and watches Services, EndpointSlices, ServiceCIDRs and this Node, and
//! keeps doing so over every failure; a relist is compared with what is held (by [`Change`]'s protocol).
//!
//! | file | what it owns |
//! |---|---|
//! | `config`, `proxy` | where the API server is and who we are; pure but for reading files |
//! | `connection` | the HTTP client |
//! | `resource` | the four resources and their selectors |
//! | `reflector` | what to ask next; pure |
//! | `failure`, `backoff` | what went wrong, how long to wait; pure |
//! | `frame`, `list`, `object` | bytes into events, lists and changes; pure |
//! | `watcher` | performs the requests of one resource |
//! | `events` | writes Events |
//! | `health` | log lines and metrics about it |

mod backoff;
mod config;
mod connection;
mod events;
mod failure;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod health;
mod list;
mod object;
mod proxy;
mod reflector;
mod resource;
mod watcher;

use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use tokio::time::Duration;

pub use config::{ClientConfigError, ClientOptions};

use crate::events::Event;
use crate::metrics::Metrics;
use crate::model::change::Change;
use connection::Connection;
use resource::Resource;
use watcher::Watcher;

/// How patient the source is. The defaults suit clusters; tests shorten them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// To connect, TLS and a proxy included.
    pub connect: Duration,
    /// For a list to begin, and between two pieces of it.
    pub list: Duration,
    /// Between two objects of a streaming list, after which a paged list is tried; for small answers, too.
    pub initial_events: Duration,
    /// Between two events of a watch. The API server sends a bookmark about every minute.
    pub idle: Duration,
    /// Before the first retry.
    pub first_retry: Duration,
    /// Between retries at most.
    pub longest_retry: Duration,
    /// The same for a resource that can be done without, while the server does not serve it or does not let us
    /// have it.
    pub longest_retry_of_missing: Duration,
    /// The server is asked to close each watch after this long at least, and twice this at most, so that
    /// watches spread over its replicas.
    pub watch: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            list: Duration::from_secs(60),
            initial_events: Duration::from_secs(30),
            idle: Duration::from_secs(150),
            first_retry: Duration::from_millis(200),
            longest_retry: Duration::from_secs(30),
            longest_retry_of_missing: Duration::from_secs(300),
            watch: Duration::from_secs(300),
        }
    }
}

/// The source, ready to run.
#[derive(Debug)]
pub struct Source {
    connection: Arc<Connection>,
    metrics: Arc<Metrics>,
    timing: Timing,
}

impl Source {
    /// Checks the settings. Whether the server answers shows later, and is retried for ever.
    ///
    /// # Errors
    /// When kubeconfig or URL cannot be used.
    pub fn new(
        options: ClientOptions,
        timing: Timing,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ClientConfigError> {
        Ok(Self {
            connection: Arc::new(Connection::new(options, timing.connect, Arc::clone(&metrics))?),
            metrics,
            timing,
        })
    }

    /// URL of the API server.
    pub fn server(&self) -> &str {
        self.connection.server()
    }

    /// Lists and watches until the receiver of `changes` is gone, and writes Events.
    pub async fn run(self, node_name: &str, changes: mpsc::Sender<Change>, events: mpsc::Receiver<Event>) {
        let interner = Arc::default();
        let watcher = |resource: Resource| {
            let interner: &Arc<Mutex<_>> = &interner;
            Watcher::new(
                resource,
                Arc::clone(&self.connection),
                self.timing,
                changes.clone(),
                Arc::clone(interner),
                Arc::clone(&self.metrics),
            )
            .run()
        };
        let watching = async {
            tokio::join!(
                watcher(Resource::services()),
                watcher(Resource::endpoint_slices()),
                watcher(Resource::node(node_name)),
                watcher(Resource::service_cidrs()),
            )
        };
        let writing = async {
            events::write(Arc::clone(&self.connection), self.timing, node_name, events).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = watching => {}
            () = writing => {}
        }
    }
}
