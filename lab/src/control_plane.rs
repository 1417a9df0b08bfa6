//! A real kube-apiserver and etcd on a network namespace of the lab, from the folder that the environment variable
//! `KUBEBUILDER_ASSETS` names (the convention of envtest).

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::json;

use crate::client::{Access, JSON};
use crate::interrupt;
use crate::net::{Namespace, Process};

/// The API's port.
const PORT: u16 = 6443;
/// How long the API may take until it is ready.
const START: Duration = Duration::from_secs(120);

/// The folder with `kube-apiserver` and `etcd`, if there is one.
pub fn assets() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("KUBEBUILDER_ASSETS")?);
    let complete = ["kube-apiserver", "etcd"]
        .iter()
        .all(|name| folder.join(name).is_file());
    complete.then_some(folder)
}

/// A running kube-apiserver with its etcd; both are killed with this value, and what they kept is gone.
#[derive(Debug)]
pub struct ControlPlane {
    // In this order: the API server goes before what it stands on.
    api_server: Process,
    etcd: Process,
    folder: tempfile::TempDir,
    access: Access,
}

impl ControlPlane {
    /// Starts both in a namespace whose `lo` is up. The API listens on the address, which must be one of the
    /// namespace's, port 6443.
    ///
    /// # Errors
    /// When a program cannot be started or the API does not become ready; the error shows the end of its log.
    pub fn start(assets: &Path, namespace: &Namespace, ip: IpAddr) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("lab-control-plane-").tempdir()?;
        let path = folder.path();
        let token = random_token()?;
        write_credentials(path, ip, &token)?;
        let mut etcd = namespace.command(assets.join("etcd"));
        etcd.args(ETCD_FLAGS);
        let etcd = start(etcd, path, "etcd")?;
        let mut api_server = namespace.command(assets.join("kube-apiserver"));
        api_server.args([
            format!("--bind-address={ip}"),
            format!("--advertise-address={ip}"),
            format!("--secure-port={PORT}"),
        ]);
        api_server.args(FLAGS);
        let api_server = start(api_server, path, "kube-apiserver")?;
        let access = Access::new(
            namespace,
            SocketAddr::new(ip, PORT),
            &fs::read(path.join("ca.crt"))?,
            &token,
        )?;
        let mut control_plane = Self {
            api_server,
            etcd,
            folder,
            access,
        };
        control_plane.wait_until_ready()?;
        Ok(control_plane)
    }

    /// How to get in, with every right.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// A kubeconfig with the rights of kube-proxy, no more.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let begun = Instant::now();
        loop {
            let asked = runtime.block_on(async { self.access.connect().await?.get("/readyz", JSON).await });
            let Err(error) = asked else { return Ok(()) };
            for (process, name) in [(&mut self.api_server, "kube-apiserver"), (&mut self.etcd, "etcd")] {
                ensure!(
                    process.is_running(),
                    "{name} ended: {}",
                    last_lines(self.folder.path(), name)
                );
            }
            if begun.elapsed() > START {
                let log = last_lines(self.folder.path(), "kube-apiserver");
                return Err(error.context(format!("kube-apiserver is not ready after {START:?}: {log}")));
            }
            interrupt::sleep(Duration::from_millis(200), || Ok(()))?;
        }
    }
}

const ETCD_FLAGS: &[&str] = &[
    "--data-dir=etcd",
    "--log-level=warn",
    // What it keeps is thrown away in any case.
    "--unsafe-no-fsync",
    "--listen-client-urls=http://127.0.0.1:2379",
    "--advertise-client-urls=http://127.0.0.1:2379",
    "--listen-peer-urls=http://127.0.0.1:2380",
    "--initial-advertise-peer-urls=http://127.0.0.1:2380",
    "--initial-cluster=default=http://127.0.0.1:2380",
];

const FLAGS: &[&str] = &[
    "--etcd-servers=http://127.0.0.1:2379",
    "--tls-cert-file=server.crt",
    "--tls-private-key-file=server.key",
    "--token-auth-file=tokens.csv",
    "--authorization-mode=RBAC",
    "--service-account-issuer=https://kubernetes.default.svc",
    "--service-account-key-file=account.pub",
    "--service-account-signing-key-file=account.key",
    "--service-cluster-ip-range=10.96.0.0/16",
    // Nothing here runs a controller that would make service accounts.
    "--disable-admission-plugins=ServiceAccount",
    "--endpoint-reconciler-type=none",
];

/// Starts a program of the control plane, with its log beside what it reads.
fn start(mut command: Command, folder: &Path, name: &str) -> Result<Process> {
    let log = File::create(folder.join(name).with_extension("log"))?;
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Process::start(command)
}

fn last_lines(folder: &Path, name: &str) -> String {
    let log = fs::read_to_string(folder.join(name).with_extension("log")).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

/// Writes the authority's and the server's certificate, the key of service accounts, tokens, and a kubeconfig.
fn write_credentials(folder: &Path, ip: IpAddr, token: &str) -> Result<()> {
    let put = |name: &str, content: &str| {
        fs::write(folder.join(name), content).with_context(|| format!("write {name} of the control plane"))
    };
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    put("ca.crt", &params.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::new([ip.to_string(), "localhost".to_owned()])?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    put("server.crt", &params.signed_by(&key, &issuer)?.pem())?;
    put("server.key", &key.serialize_pem())?;
    let accounts = KeyPair::generate()?;
    put("account.key", &accounts.serialize_pem())?;
    put("account.pub", &accounts.public_key_pem())?;

    let proxy_token = random_token()?;
    put(
        "tokens.csv",
        &format!(
            "{token},lab,lab,\"system:masters\"\n{proxy_token},system:kube-proxy,system:kube-proxy,\"system:node-proxier\"\n"
        ),
    )?;
    let cluster = json!({
        "server": format!("https://{}", SocketAddr::new(ip, PORT)),
        "certificate-authority": folder.join("ca.crt"),
    });
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": "lab", "user": {"token": proxy_token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
    });
    put("kubeconfig", &kubeconfig.to_string())
}

/// 128 random bits.
fn random_token() -> Result<String> {
    let mut bytes = [0; 16];
    let mut random = File::open("/dev/urandom")?;
    std::io::Read::read_exact(&mut random, &mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::PROTOBUF;
    use crate::skip::{Skipped, skipped};

    #[test]
    fn a_real_api_server_takes_objects_and_shows_them_in_a_list_and_a_watch() {
        let Some(assets) = assets() else {
            let why = "KUBEBUILDER_ASSETS names no folder with kube-apiserver and etcd";
            return skipped(Skipped::Optional, "a real API server", why);
        };
        let namespace = Namespace::create("control-plane-test").unwrap();
        namespace.run("ip", &["link", "set", "lo", "up"]).unwrap();
        let ip = IpAddr::from([127, 0, 0, 1]);
        let control_plane = ControlPlane::start(&assets, &namespace, ip).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let access = control_plane.access();
            let services = "/api/v1/namespaces/default/services";
            let mut watch = access.connect().await.unwrap().watch(services).await.unwrap();
            let service = json!({"metadata": {"name": "one"}, "spec": {"ports": [{"port": 80}]}});
            let mut connection = access.connect().await.unwrap();
            connection.create(services, &service).await.unwrap();
            for encoding in [PROTOBUF, JSON] {
                let list = connection.get(services, encoding).await.unwrap();
                assert!(String::from_utf8_lossy(&list).contains("one"), "{encoding}");
            }
            while !String::from_utf8_lossy(&watch.next().await.unwrap()).contains("one") {}
        });
    }
}
