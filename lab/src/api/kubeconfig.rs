//! Kubeconfigs for the server, as files beside its certificates.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::tls::Certificates;

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A bearer token in the kubeconfig.
    Token,
    /// A bearer token in a file of its own, which [`Server::set_token`](super::Server::set_token) rewrites.
    TokenFile,
    /// A client certificate.
    ClientCertificate,
    /// Not at all.
    None,
}

/// The files of a server.
#[derive(Debug)]
pub(crate) struct Files {
    folder: tempfile::TempDir,
    has_authority: bool,
}

impl Files {
    /// Writes certificates (none for plain HTTP) and the token.
    pub(crate) fn write(certificates: Option<&Certificates>, token: &str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("lab-api-")
            .tempdir()
            .context("making a folder for kubeconfigs")?;
        let files = Self {
            folder,
            has_authority: certificates.is_some(),
        };
        if let Some(certificates) = certificates {
            files.put("ca.crt", &certificates.authority)?;
            files.put("client.crt", &certificates.client)?;
            files.put("client.key", &certificates.client_key)?;
        }
        files.set_token(token)?;
        Ok(files)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces the token file in one step, as kubelet does it for a pod.
    pub(crate) fn set_token(&self, token: &str) -> Result<()> {
        self.put("token.next", token)?;
        let (from, to) = (self.path("token.next"), self.path("token"));
        std::fs::rename(&from, &to).with_context(|| format!("replacing {}", to.display()))
    }

    /// Writes a kubeconfig.
    pub(crate) fn kubeconfig(&self, url: &str, credential: Credential, token: &str) -> Result<PathBuf> {
        let path_text = |path: PathBuf| path.display().to_string();
        let mut cluster = json!({"server": url});
        if self.has_authority {
            cluster["certificate-authority"] = path_text(self.path("ca.crt")).into();
        }
        let user = match credential {
            Credential::Token => json!({"token": token}),
            Credential::TokenFile => json!({"tokenFile": path_text(self.path("token"))}),
            Credential::ClientCertificate => json!({
                "client-certificate": path_text(self.path("client.crt")),
                "client-key": path_text(self.path("client.key")),
            }),
            Credential::None => json!({}),
        };
        let name = format!("kubeconfig-{credential:?}").to_lowercase();
        self.put(&name, &document(&cluster, &user).to_string())?;
        Ok(self.path(&name))
    }

    fn put(&self, name: &str, content: &str) -> Result<()> {
        put(&self.path(name), content)
    }
}

/// JSON, which is YAML as well.
fn document(cluster: &Value, user: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": "lab", "user": user}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
    })
}

fn put(path: &Path, content: &str) -> Result<()> {
    std::fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}
