//! The cluster of a scenario: its objects, where kube-proxy sees them.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::file::{EndpointEntry, Reachability, SourceKind};
use super::object::{self, Object, ObjectKey};
use crate::api::{Credential, Server};
use crate::net::{Family, Lab, address};
use crate::proxy::{Source, write};

/// Objects where kube-proxies see them.
pub(super) struct Cluster {
    store: Store,
    objects: BTreeMap<ObjectKey, Object>,
}

enum Store {
    /// A folder of manifests, one file an object.
    Manifests(PathBuf),
    /// The in-process API, at the fabric's address.
    Api(Box<Server>),
}

impl Cluster {
    /// An empty cluster; manifests go into the given folder.
    pub(super) fn new(kind: SourceKind, folder: &Path, lab: &Lab) -> Result<Self> {
        let store = match kind {
            SourceKind::Manifests => {
                let folder = folder.join("manifests");
                fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
                Store::Manifests(folder)
            }
            SourceKind::Api => Store::Api(Box::new(api(lab)?)),
        };
        Ok(Self {
            store,
            objects: BTreeMap::new(),
        })
    }

    /// How a kube-proxy is told of it.
    pub(super) fn source(&self) -> Result<Source> {
        Ok(match &self.store {
            Store::Manifests(folder) => Source::Manifests(folder.clone()),
            Store::Api(server) => Source::Api(server.kubeconfig(Credential::Token)?),
        })
    }

    /// Creates or changes an object.
    pub(super) fn apply(&mut self, object: &Object) -> Result<()> {
        self.objects.insert(object.key.clone(), object.clone());
        match &self.store {
            Store::Manifests(folder) => write(&folder.join(object.key.file()), object.text.as_bytes()),
            Store::Api(server) => server.apply(&object.text),
        }
    }

    /// Deletes an object.
    pub(super) fn delete(&mut self, key: &ObjectKey) -> Result<()> {
        let object = self.objects.remove(key);
        let object = object.with_context(|| format!("delete {key}: there is no such object"))?;
        match &self.store {
            Store::Manifests(folder) => {
                fs::remove_file(folder.join(key.file())).with_context(|| format!("delete {key}"))
            }
            Store::Api(server) => server.delete_all(&object.text),
        }
    }

    /// Cuts the API off, or lets kube-proxies reach it again.
    pub(super) fn reach(&self, reachability: Reachability) -> Result<()> {
        let Store::Api(server) = &self.store else {
            bail!("api: this scenario has none; say source: api");
        };
        let cut = reachability == Reachability::Unreachable;
        server.refuse_connections(cut);
        if cut {
            server.disconnect();
        }
        Ok(())
    }

    /// Writes a manifest file as it is; an empty one is removed.
    pub(super) fn file(&self, name: &str, text: &str) -> Result<()> {
        let Store::Manifests(folder) = &self.store else {
            bail!("{name}: an API has no manifest files");
        };
        let path = folder.join(name);
        if text.is_empty() {
            return fs::remove_file(&path).with_context(|| format!("remove {}", path.display()));
        }
        write(&path, text.as_bytes())
    }

    /// Creates or changes the EndpointSlice of a Service.
    pub(super) fn endpoints(
        &mut self,
        service: &str,
        family: Family,
        endpoints: &[EndpointEntry],
        lab: &Lab,
    ) -> Result<()> {
        let key = format!("Service/{service}").parse()?;
        let service: Option<&Object> = self.objects.get(&key);
        let service = service.with_context(|| format!("endpoints of {key}: there is no such Service"))?;
        let slice = object::slice(&service.value, family, endpoints, lab)?;
        self.apply(&slice)
    }
}

/// An API server where the nodes reach it, as they reach a control plane.
fn api(lab: &Lab) -> Result<Server> {
    let listen = || TcpListener::bind((address::fabric(Family::V4), 6443));
    let listener = lab.fabric().enter(listen)?.context("listen in the fabric")?;
    Server::builder().listener(listener).start()
}
