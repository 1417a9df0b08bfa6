//! What the handle of a server can do while it runs.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Server;
use super::fault::Rule;
use super::manifest::{self, Manifest};
use super::resource::Resource;
use super::state::Request;
use super::status::Status;
use super::store::{Backup, Signal};
use super::stream::StreamFault;
use super::write::Part;

/// Objects.
impl Server {
    /// Creates or replaces every object of a text: JSON or YAML, several documents, `List` accepted; `status`
    /// included. Objects without a namespace go to `default`.
    ///
    /// # Errors
    /// When a document cannot be read or is not acceptable; those before it are in force.
    pub fn apply(&self, text: &str) -> Result<()> {
        for manifest in manifest::parse(text)? {
            let Manifest {
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
    ) -> Result<(), Status> {
        let part = Part::Whole;
        let merged = self.state.cluster().merge(resource, namespace, name, patch, part);
        merged.map(drop)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn delete(&self, resource: Resource, namespace: &str, name: &str) -> Result<(), Status> {
        let deleted = self.state.cluster().delete(resource, namespace, name);
        deleted.map(drop)
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

    /// All objects of a resource as JSON, by namespace and name.
    pub fn all(&self, resource: Resource) -> Vec<Value> {
        let cluster = self.state.cluster();
        let objects = cluster.store.objects(resource).values();
        objects.map(|object| object.value()).collect()
    }

    /// The resource version of the latest write.
    pub fn version(&self) -> u64 {
        self.state.cluster().store.version()
    }
}

/// History.
impl Server {
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
}

/// Faults.
impl Server {
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

    /// Whether lists for which any version is good enough (`resourceVersion=0`) come from a cache, whole;
    /// otherwise they are paged like any other, as without kube-apiserver's watch cache.
    pub fn set_list_cache(&self, cached: bool) {
        self.state.settings().list_cache = cached;
    }

    /// Lets in this token only, and rewrites the token file. Open watches go on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_token(&self, token: &str) -> Result<()> {
        self.state.settings().tokens = vec![token.to_owned()];
        self.files.set_token(token)
    }
}

/// What was asked.
impl Server {
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
