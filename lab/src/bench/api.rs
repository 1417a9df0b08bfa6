//! The Kubernetes API of a benchmark, in-process or real, and how a cluster gets into it.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::ground::{API, ApiSite};
use super::objects::Creation;
use crate::api::{Credential, Server};
use crate::client::Access;
use crate::control_plane::{self, ControlPlane};
use crate::interrupt;

/// Connections that load a cluster at the same time.
const LOADERS: usize = 8;
/// The bearer token of the in-process API.
const TOKEN: &str = "lab-token";

/// Which Kubernetes API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApiKind {
    /// The lab's own.
    InProcess,
    /// kube-apiserver and etcd of the folder that KUBEBUILDER_ASSETS names.
    Real,
}

impl std::fmt::Display for ApiKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::InProcess => "in-process API",
            Self::Real => "real kube-apiserver",
        })
    }
}

/// A running API.
#[derive(Debug)]
pub(super) struct Api {
    access: Access,
    kubeconfig: PathBuf,
    _running: Running,
}

/// What ends with the value.
#[derive(Debug)]
#[expect(dead_code, reason = "held only to be dropped")]
enum Running {
    InProcess(Server),
    Real(ControlPlane),
}

impl Api {
    /// Starts one at the site.
    pub(super) fn start(kind: ApiKind, site: &ApiSite) -> Result<Self> {
        match kind {
            ApiKind::InProcess => {
                let listener = site.namespace().enter(|| TcpListener::bind((API, 0)))??;
                let server = Server::builder().listener(listener).token(TOKEN).start()?;
                let authority = fs::read(server.authority_file())?;
                Ok(Self {
                    access: Access::new(site.namespace(), server.address(), &authority, TOKEN)?,
                    kubeconfig: server.kubeconfig(Credential::Token)?,
                    _running: Running::InProcess(server),
                })
            }
            ApiKind::Real => {
                let assets = control_plane::assets();
                let assets =
                    assets.context("KUBEBUILDER_ASSETS names no folder with kube-apiserver and etcd")?;
                let control_plane = ControlPlane::start(&assets, site.namespace(), API)?;
                Ok(Self {
                    access: control_plane.access().clone(),
                    kubeconfig: control_plane.kubeconfig(),
                    _running: Running::Real(control_plane),
                })
            }
        }
    }

    /// How to get in.
    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// A kubeconfig for a kube-proxy.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    /// Creates objects, several at a time, and returns how long that took.
    pub(super) fn load<I>(&self, runtime: &Runtime, objects: I) -> Result<Duration>
    where
        I: Iterator<Item = Creation> + Send + 'static,
    {
        let begun = Instant::now();
        let objects = Arc::new(Mutex::new(objects));
        runtime.block_on(async {
            let mut loaders = JoinSet::new();
            for _ in 0..LOADERS {
                loaders.spawn(load_from(self.access.clone(), Arc::clone(&objects)));
            }
            while let Some(done) = loaders.join_next().await {
                done??;
            }
            Ok(begun.elapsed())
        })
    }
}

/// Creates objects over one connection until there are no more.
async fn load_from<I>(access: Access, objects: Arc<Mutex<I>>) -> Result<()>
where
    I: Iterator<Item = Creation>,
{
    let mut connection = access.connect().await?;
    loop {
        let next = objects.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(Creation { path, object }) = next else {
            return Ok(());
        };
        connection.create(&path, &object).await?;
        interrupt::check()?;
    }
}
