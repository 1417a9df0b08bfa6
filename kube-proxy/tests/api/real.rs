//! A real kube-apiserver with etcd, in a network namespace, and all behaviours against it.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use lab::api::Resource;
use lab::client::Connection;
use lab::control_plane::{ControlPlane, assets};
use lab::net::Namespace;
use lab::skip::{Skipped, skipped};
use serde_json::Value;

use crate::behaviours;
use crate::stage::Stage;

/// A real API server and the way to it.
pub(crate) struct Real {
    control_plane: ControlPlane,
    namespace: Namespace,
    runtime: tokio::runtime::Runtime,
}

impl Real {
    /// Starts one; `None` when there is none on this machine.
    fn start() -> Option<Self> {
        let assets = assets()?;
        let namespace = Namespace::create("api-test").expect("a namespace");
        namespace
            .run("ip", &["link", "set", "lo", "up"])
            .expect("a loopback");
        let ip = IpAddr::from([127, 0, 0, 1]);
        let control_plane = ControlPlane::start(&assets, &namespace, ip).expect("a control plane");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        Some(Self {
            control_plane,
            namespace,
            runtime,
        })
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.control_plane.kubeconfig()
    }

    /// Creates or replaces, then sets the status if there is one.
    pub(crate) fn apply(&self, resource: Resource, name: &str, object: &Value) {
        let (collection, path) = paths(resource, name);
        self.run(async |api| {
            api.create(&collection, object).await.expect("created");
            api.replace(&path, object).await.expect("replaced");
            if !object["status"].is_null() {
                let status = format!("{path}/status");
                api.replace(&status, object).await.expect("status set");
            }
        });
    }

    pub(crate) fn delete(&self, resource: Resource, name: &str) {
        let (_, path) = paths(resource, name);
        self.run(async |api| api.delete(&path).await.expect("deleted"));
    }

    fn run(&self, requests: impl AsyncFnOnce(&mut Connection)) {
        self.runtime.block_on(async {
            let mut connection = self.control_plane.access().connect().await.expect("a connection");
            requests(&mut connection).await;
        });
    }
}

/// The paths of the collection in the namespace `default` and of the object.
fn paths(resource: Resource, name: &str) -> (String, String) {
    let collection = resource.path(resource.namespaced().then_some("default"));
    let path = format!("{collection}/{name}");
    (collection, path)
}

#[test]
fn a_real_api_server_brings_about_the_same_behaviours_as_the_in_process_one() {
    let Some(real) = Real::start() else {
        let why = "KUBEBUILDER_ASSETS names no folder with kube-apiserver and etcd";
        return skipped(
            Skipped::Optional,
            "the API source against a real kube-apiserver",
            why,
        );
    };
    let stage = Stage::real(real);
    let mut failed = Vec::new();
    for (name, behaviour) in behaviours::ALL {
        if catch_unwind(AssertUnwindSafe(|| behaviour(&stage))).is_err() {
            failed.push(name);
        }
        stage.clear();
    }
    assert!(failed.is_empty(), "these failed: {failed:#?}");
}
