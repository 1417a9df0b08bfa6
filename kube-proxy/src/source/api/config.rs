//! How to reach the API server and as whom: kubeconfig, service account of a pod, or a bare URL. Building the
//! connection is [`connection`](super::connection)'s; TLS and exec plugins are `kube`'s.

use std::error::Error;
use std::path::{Path, PathBuf};

use http::Uri;
use kube::config::{AuthInfo, Cluster, ExecAuthCluster, InClusterError, Kubeconfig, KubeconfigError};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{Error as PemError, PemObject};

/// The connection settings of the command line and of `clientConnection`. Its `qps` and `burst` have no
/// counterpart here: three watches send a handful of requests an hour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientOptions {
    /// Path of the kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// URL of the API server; beats the kubeconfig's. Without both this is a pod of the cluster.
    pub master: Option<String>,
    /// `acceptContentTypes`: the `Accept` header; empty for what `content_type` implies.
    pub accept_content_types: String,
    /// `contentType`; empty means protobuf.
    pub content_type: String,
}

impl ClientOptions {
    /// The `Accept` header.
    pub(super) fn accept(&self) -> String {
        const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
        match (self.accept_content_types.trim(), self.content_type.trim()) {
            ("", "" | PROTOBUF) => format!("{PROTOBUF},application/json"),
            ("", content_type) => content_type.to_owned(),
            (accept, _) => accept.to_owned(),
        }
    }
}

/// Why the connection settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientConfigError {
    /// Neither kubeconfig nor URL, and no service account either.
    #[error("no kubeconfig and no --master is given, and there is no service account to use instead")]
    InCluster(#[source] InClusterError),
    /// The kubeconfig cannot be read.
    #[error("cannot read kubeconfig {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        source: Box<KubeconfigError>,
    },
    /// The kubeconfig lacks something.
    #[error("kubeconfig {}: {missing}", path.display())]
    Incomplete {
        /// Its path.
        path: PathBuf,
        /// What it lacks.
        missing: String,
    },
    /// The kubeconfig's certificate authority holds no usable certificate.
    #[error("kubeconfig {}: the certificate authority is not a PEM certificate{}", path.display(),
        .source.as_ref().map(|error| format!(": {error}")).unwrap_or_default())]
    CertificateAuthority {
        /// Path of the kubeconfig.
        path: PathBuf,
        /// What is wrong; `None` when it is empty.
        source: Option<PemError>,
    },
    /// The API server's URL is not one.
    #[error("{url:?} is not the URL of an API server: {reason}")]
    Url {
        /// The text.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

/// Settings that are complete and checked.
#[derive(Clone, Debug)]
pub(super) struct ClientConfig {
    /// For `kube`: URL, TLS, client certificate, static token, exec plugin.
    pub(super) kube: kube::Config,
    /// The token's file; we read it ourselves, so that a rotated token counts at once.
    pub(super) token_file: Option<PathBuf>,
    /// `proxy-url` of the kubeconfig's cluster.
    pub(super) proxy_url: Option<String>,
}

/// Reads the settings, with upstream's precedence.
pub(super) fn load(options: &ClientOptions) -> Result<ClientConfig, ClientConfigError> {
    let master = options.master.as_deref().filter(|master| !master.is_empty());
    let mut config = match (&options.kubeconfig, master) {
        (Some(path), master) => from_kubeconfig(path, master)?,
        (None, Some(master)) => ClientConfig::new(kube::Config::new(parse_url(master, false)?)),
        (None, None) => {
            ClientConfig::new(kube::Config::incluster_env().map_err(ClientConfigError::InCluster)?)
        }
    };
    let kube = &mut config.kube;
    let is_plain = kube.cluster_url.scheme_str() == Some("http");
    if kube.root_cert.is_none() && (is_plain || kube.accept_invalid_certs) {
        // Nothing is verified, so the system's trust store (which may be missing) need not be loaded.
        kube.root_cert = Some(Vec::new());
    }
    // client-go lets the file win over the inline token, and trims it; kube does neither.
    if let Some(file) = kube.auth_info.token_file.take().filter(|file| !file.is_empty()) {
        config.token_file = Some(file.into());
        kube.auth_info.token = None;
    }
    Ok(config)
}

impl ClientConfig {
    fn new(kube: kube::Config) -> Self {
        Self {
            kube,
            token_file: None,
            proxy_url: None,
        }
    }
}

/// The current context of a kubeconfig. `kube`'s own loader is not used for it because it fails on values of
/// `NO_PROXY` that other tools accept.
fn from_kubeconfig(path: &Path, master: Option<&str>) -> Result<ClientConfig, ClientConfigError> {
    let read_error = |source| ClientConfigError::Read {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let incomplete = |missing: String| ClientConfigError::Incomplete {
        path: path.to_owned(),
        missing,
    };
    let file = Kubeconfig::read_from(path).map_err(read_error)?;
    let (cluster, mut user) = match current_context(&file) {
        Ok(found) => found,
        Err(_) if master.is_some() => (Cluster::default(), AuthInfo::default()),
        Err(missing) => return Err(incomplete(missing)),
    };
    let for_exec = ExecAuthCluster::try_from(&cluster).map_err(read_error)?;
    let authority = for_exec.certificate_authority_data.clone();
    let insecure = cluster.insecure_skip_tls_verify.unwrap_or_default();
    let server = master
        .or(cluster.server.as_deref())
        .filter(|server| !server.is_empty());
    let server =
        server.ok_or_else(|| incomplete("the cluster of the current context has no server".into()))?;
    if let Some(exec) = user.exec.as_mut().filter(|exec| exec.provide_cluster_info) {
        exec.cluster = Some(for_exec);
    }

    let mut kube = kube::Config::new(parse_url(server, authority.is_some() || insecure)?);
    if let Some(pem) = authority {
        kube.root_cert = Some(certificates(path, &pem)?);
        // Read again when it rotates; inline data, which wins over the file, cannot.
        let file = cluster.certificate_authority.filter(|file| !file.is_empty());
        let inline = cluster.certificate_authority_data.filter(|data| !data.is_empty());
        kube.root_cert_file = file.filter(|_| inline.is_none()).map(PathBuf::from);
    }
    kube.accept_invalid_certs = insecure;
    kube.tls_server_name = cluster.tls_server_name.filter(|name| !name.is_empty());
    kube.auth_info = user;
    let mut config = ClientConfig::new(kube);
    config.proxy_url = cluster.proxy_url.filter(|url| !url.is_empty());
    Ok(config)
}

fn current_context(file: &Kubeconfig) -> Result<(Cluster, AuthInfo), String> {
    let current = file.current_context.as_deref().unwrap_or_default();
    if current.is_empty() {
        return Err("it has no current-context".into());
    }
    let context = file.contexts.iter().find(|context| context.name == current);
    let context = context
        .and_then(|context| context.context.as_ref())
        .ok_or_else(|| format!("its current-context {current:?} is not among its contexts"))?;
    let cluster = file
        .clusters
        .iter()
        .find(|cluster| cluster.name == context.cluster);
    let cluster = cluster
        .and_then(|cluster| cluster.cluster.clone())
        .ok_or_else(|| format!("cluster {:?} of context {current:?} is missing", context.cluster))?;
    // A user that is missing is nobody, as for client-go.
    let user = file
        .auth_infos
        .iter()
        .find(|user| Some(&user.name) == context.user.as_ref());
    let user = user.and_then(|user| user.auth_info.clone()).unwrap_or_default();
    Ok((cluster, user))
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<Vec<u8>>, ClientConfigError> {
    let error = |source| ClientConfigError::CertificateAuthority {
        path: path.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        found.push(certificate.map_err(|source| error(Some(source)))?.to_vec());
    }
    if found.is_empty() {
        return Err(error(None));
    }
    Ok(found)
}

/// A server without a scheme means HTTPS when anything is said about TLS, else HTTP, as for client-go.
fn parse_url(text: &str, tls: bool) -> Result<Uri, ClientConfigError> {
    let error = |reason: String| ClientConfigError::Url {
        url: text.to_owned(),
        reason,
    };
    let scheme = if tls { "https" } else { "http" };
    let full = if text.contains("://") {
        text.to_owned()
    } else {
        format!("{scheme}://{text}")
    };
    let uri: Uri = full
        .parse()
        .map_err(|reason: http::uri::InvalidUri| error(reason.to_string()))?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(uri),
        _ => Err(error(
            "http://HOST[:PORT] or https://HOST[:PORT] is expected".into(),
        )),
    }
}

/// An error with its causes, each said once.
pub(super) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
