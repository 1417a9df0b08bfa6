//! Where Services, EndpointSlices, ServiceCIDRs and this Node come from. The only folder that knows the Kubernetes API.
//!
//! A source sends [`Change`](crate::model::change::Change)s into a channel, in order, and says nothing else to
//! the model. [`wire`] holds the API's objects as they travel (protobuf and JSON), [`convert`] turns them into
//! the model's.

pub mod api;
pub mod convert;
pub mod manifests;
pub mod wire;

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::mpsc::{Receiver, Sender};

use self::manifests::Manifests;
use crate::config;
use crate::events::Event;
use crate::metrics::Metrics;
use crate::model::change::Change;

/// The source that the configuration names, ready to run.
#[derive(Debug)]
pub enum Source {
    /// The API server.
    Api {
        /// How to reach it.
        api: api::Source,
        /// This node's name.
        node_name: Arc<str>,
    },
    /// Files.
    Manifests {
        /// Which.
        manifests: Manifests,
        /// Where to count.
        metrics: Arc<Metrics>,
    },
}

impl Source {
    /// Checks the settings. Whether the server answers, or the files are there, shows later.
    ///
    /// # Errors
    /// When kubeconfig or URL cannot be used.
    pub fn new(
        configured: &config::Source,
        node_name: &Arc<str>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, api::ClientConfigError> {
        Ok(match configured {
            config::Source::Api(options) => Self::Api {
                api: api::Source::new(options.clone(), api::Timing::default(), metrics)?,
                node_name: Arc::clone(node_name),
            },
            config::Source::Manifests {
                path,
                service_cluster_ip_range,
            } => Self::Manifests {
                manifests: Manifests {
                    path: path.clone(),
                    service_cluster_ip_range: service_cluster_ip_range.clone(),
                    node_name: Arc::clone(node_name),
                },
                metrics,
            },
        })
    }

    /// Tells what there is and what changes. When nobody listens any more it only waits: the listener's end
    /// is the one to be told of. Events are written where there is an API server.
    pub async fn run(self, changes: Sender<Change>, events: Receiver<Event>) -> Infallible {
        match self {
            Self::Api { api, node_name } => api.run(&node_name, changes, events).await,
            Self::Manifests { manifests, metrics } => manifests::run(manifests, metrics, changes).await,
        }
        std::future::pending().await
    }
}
