//! The embedded source: Services, EndpointSlices, Endpoints, Pods, ServiceCIDRs and this Node from YAML and JSON
//! files, watched for changes. It needs no cluster, and does the little that a cluster would do for what people paste:
//! it gives Services their clusterIP and node ports (`allocate`) and makes slices of Pods and Endpoints
//! (`derive`).
//!
//! `--service-cluster-ip-range` is no ServiceCIDR: it only says where addresses that manifests leave out come from,
//! and has a default that nobody chose. Packets to the rest of a network are dropped where a manifest says that the
//! network belongs to Services, and not before.
//!
//! `files` finds and reads files, `documents` cuts them up, `decode` reads one document, `store` remembers
//! what each file last gave, `world` puts all of it together and says what changed.

mod allocate;
mod decode;
mod derive;
mod documents;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod object;
mod store;
#[cfg(test)]
mod tests;
mod world;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use tokio::sync::mpsc::Sender;
use tracing::info;

use self::store::Store;
use crate::metrics::Metrics;
use crate::model::change::{Change, Kind};
use crate::path_watch::PathWatch;

const KINDS: [Kind; 4] = [Kind::Node, Kind::ServiceCidr, Kind::Service, Kind::EndpointSlice];

/// Where manifests are and what they are for.
#[derive(Clone, Debug)]
pub struct Manifests {
    /// A file or a folder.
    pub path: PathBuf,
    /// Networks from which Services without a clusterIP get one, at most one of each family.
    pub service_cluster_ip_range: Vec<IpNet>,
    /// This node's name: other Nodes are ignored.
    pub node_name: Arc<str>,
}

/// Reads the manifests, tells what they hold, and goes on to tell what changes, until nobody listens any more.
pub async fn run(manifests: Manifests, metrics: Arc<Metrics>, changes: Sender<Change>) {
    // Watched before the first look, so that no change falls between the two.
    let mut watch = PathWatch::new(&manifests.path);
    let mut store = Store::new(
        manifests.path,
        manifests.node_name,
        manifests.service_cluster_ip_range,
    );
    let mut first = true;
    loop {
        let again = store.look(&mut watch);
        metrics
            .manifests_broken
            .set(i64::try_from(store.broken()).unwrap_or(i64::MAX));
        if store.has_begun() {
            let told = store.changes();
            if first {
                info!(objects = told.len(), "Read the manifests");
                first = false;
                let lists = KINDS.map(Change::ListStart).into_iter();
                let ends = KINDS.map(Change::ListDone);
                send(&changes, lists.chain(told).chain(ends)).await;
            } else {
                send(&changes, told).await;
            }
        }
        tokio::select! {
            () = watch.changed() => {}
            () = wait_until(again) => {}
            () = changes.closed() => return,
        }
    }
}

/// Tells changes; when nobody listens any more, that shows later.
async fn send(changes: &Sender<Change>, told: impl IntoIterator<Item = Change>) {
    for change in told {
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

async fn wait_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
