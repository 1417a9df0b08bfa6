//! A kube-proxy on a node of the lab: any program that takes kube-proxy's flags.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::net::{Family, Member, Process, network};

/// Where a kube-proxy gets its objects from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A folder of manifests.
    Manifests(PathBuf),
    /// A Kubernetes API, by a kubeconfig.
    Api(PathBuf),
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The program.
    pub program: PathBuf,
    /// Where the configuration and the log go.
    pub folder: PathBuf,
    /// Where objects come from.
    pub source: Source,
    /// The KubeProxyConfiguration.
    pub config: Value,
}

/// The KubeProxyConfiguration of a lab: a mode, both families' pod networks, and no limits of conntrack, which
/// a network namespace may not set.
pub fn config(mode: &str) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode,
        "clusterCIDR": Family::ALL.map(network::pods).join(","),
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
    })
}

/// Lays some fields over a configuration, map by map.
pub(crate) fn overlay(config: &mut Value, fields: &Value) {
    match (config, fields) {
        (Value::Object(config), Value::Object(fields)) => {
            for (key, value) in fields {
                overlay(config.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (config, fields) => *config = fields.clone(),
    }
}

/// A running kube-proxy. It is killed with this value; its rules stay in the node's kernel.
#[derive(Debug)]
pub struct KubeProxy {
    process: Process,
    log: PathBuf,
}

impl KubeProxy {
    /// Starts one on a node.
    ///
    /// # Errors
    /// When the program or its files cannot be made ready. What the program does then is in its log.
    pub fn start(node: &Member, setup: &Setup) -> Result<Self> {
        let mut config = setup.config.clone();
        if let Source::Api(kubeconfig) = &setup.source {
            // Not by flag, since upstream ignores that one beside --config.
            config["clientConnection"]["kubeconfig"] = json!(kubeconfig);
        }
        let config_file = setup.folder.join(format!("{}.config.json", node.name));
        write(&config_file, config.to_string().as_bytes())?;
        let log = setup.folder.join(format!("{}.log", node.name));
        let output = File::options().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("open {}", log.display()))?;
        let mut command = node.namespace.command(&setup.program);
        command.arg("--config").arg(config_file);
        command.arg("--hostname-override").arg(&node.name);
        if let Source::Manifests(folder) = &setup.source {
            command.arg("--manifests").arg(folder);
        }
        command
            .stdin(std::process::Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let process = Process::start(command)?;
        Ok(Self { process, log })
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Everything that it and its predecessors on this node have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_else(|error| format!("{}: {error}", self.log.display()))
    }
}

/// Writes a file so that a reader sees the old or the new content, never a part.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    let mut hidden = path.to_owned();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    hidden.set_file_name(format!(".{name}"));
    let written = fs::write(&hidden, content).and_then(|()| fs::rename(&hidden, path));
    written.with_context(|| format!("write {}", path.display()))
}
