//! The HTTP client: built from the settings with `kube`'s TLS and authentication, over sockets that notice a
//! dead peer. Rebuilt from the files when it fails to connect or to authenticate, so that a rotated CA,
//! client certificate or exec credential is picked up.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use hyper::rt::{Read, Write};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connection as Connected, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::Client;
use kube::client::{Body, ClientBuilder, ConfigExt};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};
use tower::{BoxError, Service, ServiceExt as _};

use super::config::{ClientConfig, ClientConfigError, ClientOptions, load, with_causes};
use super::failure::Failure;
use super::proxy;
use crate::metrics::Metrics;

/// A dead peer is noticed after about 45 s: this long silent, then three probes.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// The same for data that is not acknowledged.
const USER_TIMEOUT: Duration = Duration::from_secs(45);
/// Bytes read at once. hyper's own limit of 400 KB would be kept for the life of each connection.
const READ_BUFFER: usize = 64 << 10;
const JSON: &str = "application/json";
/// A client younger than this is not rebuilt: exec plugins are not to run at every retry.
const REBUILD_AFTER: Duration = Duration::from_secs(10);

/// One client for all watches.
#[derive(Debug)]
pub(super) struct Connection {
    options: ClientOptions,
    connect_timeout: Duration,
    server: String,
    /// Host and port of it, as metrics name it.
    host: String,
    metrics: Arc<Metrics>,
    slot: Mutex<Slot>,
}

/// The client, once there is one.
#[derive(Debug, Default)]
struct Slot {
    current: Option<Current>,
    /// It is being built. Kept here so that an exec plugin that hangs is waited for, not started again.
    building: Option<JoinHandle<Result<Current, String>>>,
}

struct Current {
    client: Client,
    token: Option<TokenFile>,
    built: Instant,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current")
            .field("built", &self.built)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Checks the settings; connects to nothing yet.
    pub(super) fn new(
        options: ClientOptions,
        connect_timeout: Duration,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ClientConfigError> {
        let url = load(&options)?.kube.cluster_url;
        Ok(Self {
            options,
            connect_timeout,
            server: url.to_string(),
            host: url.authority().map(|host| host.to_string()).unwrap_or_default(),
            metrics,
            slot: Mutex::default(),
        })
    }

    /// URL of the API server, as it was at start.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// The settings.
    pub(super) fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// Sends a GET. `url` is path and query.
    pub(super) async fn get(&self, url: &str, accept: &str) -> Result<Response<Body>, Failure> {
        let request = Request::get(url).header(ACCEPT, accept).body(Body::empty());
        self.send(request).await
    }

    /// Sends an object to be created, as JSON; the status of the answer.
    pub(super) async fn post(&self, path: &str, object: Bytes) -> Result<StatusCode, Failure> {
        let request = Request::post(path)
            .header(ACCEPT, JSON)
            .header(CONTENT_TYPE, JSON)
            .body(Body::from(object.to_vec()));
        Ok(self.send(request).await?.status())
    }

    async fn send(&self, request: http::Result<Request<Body>>) -> Result<Response<Body>, Failure> {
        let (client, authorization) = self.client().await?;
        let mut request = request.map_err(|error| Failure::Client(error.to_string()))?;
        request.headers_mut().insert(USER_AGENT, user_agent());
        if let Some(authorization) = authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization);
        }
        let (method, begun) = (request.method().clone(), Instant::now());
        let answer = client.send(request).await;
        let status = answer.as_ref().map(|answer| answer.status());
        let code = status.as_ref().map_or("<error>", StatusCode::as_str);
        let requests = &self.metrics.client_requests;
        requests
            .with_label_values(&[code, &self.host, method.as_str()])
            .inc();
        let duration = self
            .metrics
            .client_duration
            .with_label_values(&[&self.host, method.as_str()]);
        duration.observe(begun.elapsed().as_secs_f64());
        answer.map_err(|error| Failure::Connect(in_words(&error)))
    }

    /// The client is of no use: the next request builds one from the files as they are then.
    pub(super) async fn rebuild(&self) {
        let mut slot = self.slot.lock().await;
        let is_old = |current: &Current| current.built.elapsed() >= REBUILD_AFTER;
        if slot.current.as_ref().is_some_and(is_old) {
            slot.current = None;
        }
    }

    async fn client(&self) -> Result<(Client, Option<HeaderValue>), Failure> {
        let mut slot = self.slot.lock().await;
        let Slot { current, building } = &mut *slot;
        let current = match current {
            Some(current) => current,
            None => {
                let build = || {
                    let options = self.options.clone();
                    let connect_timeout = self.connect_timeout;
                    // Exec plugins run while the client is built, and may take their time.
                    tokio::task::spawn_blocking(move || Current::build(&options, connect_timeout))
                };
                let built = building.get_or_insert_with(build).await;
                *building = None;
                let built = built.unwrap_or_else(|error| Err(error.to_string()));
                current.insert(built.map_err(Failure::Client)?)
            }
        };
        let authorization = current.token.as_mut().map(TokenFile::authorization);
        let authorization = authorization.transpose().map_err(Failure::Client)?;
        Ok((current.client.clone(), authorization))
    }
}

impl Current {
    fn build(options: &ClientOptions, connect_timeout: Duration) -> Result<Self, String> {
        let config = load(options).map_err(|error| with_causes(&error))?;
        Ok(Self {
            token: config.token_file.clone().map(TokenFile::new),
            client: build(config, connect_timeout)?,
            built: Instant::now(),
        })
    }
}

/// An error of the client or of a body, without the name of `kube`'s wrapper.
pub(super) fn in_words(error: &kube::Error) -> String {
    match error {
        kube::Error::Service(inner) => with_causes(&**inner),
        other => with_causes(other),
    }
}

fn user_agent() -> HeaderValue {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    let text = format!("kube-proxy/v{VERSION} (linux/{})", std::env::consts::ARCH);
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("kube-proxy"))
}

fn build(config: ClientConfig, connect_timeout: Duration) -> Result<Client, String> {
    let ClientConfig { kube, proxy_url, .. } = config;
    let environment = |name: &str| std::env::var(name).ok();
    let proxy = proxy::choose(&kube.cluster_url, proxy_url.as_deref(), environment);
    let Some(proxy) = proxy.map_err(|error| error.to_string())? else {
        return build_over(&kube, tcp(connect_timeout), connect_timeout);
    };
    let url = proxy.uri().clone();
    match url.scheme_str() {
        Some("socks5" | "socks5h") => {
            let mut socks = SocksV5::new(url, tcp(connect_timeout));
            if let Some((user, password)) = proxy.raw_auth() {
                socks = socks.with_auth(user.into(), password.into());
            }
            build_over(&kube, socks, connect_timeout)
        }
        Some("https") => {
            let tls = kube.rustls_https_connector_with_connector(tcp(connect_timeout));
            let tunnel = Tunnel::new(url, tls.map_err(|error| with_causes(&error))?);
            build_over(
                &kube,
                with_basic_auth(tunnel, proxy.basic_auth()),
                connect_timeout,
            )
        }
        _ => {
            let tunnel = with_basic_auth(Tunnel::new(url, tcp(connect_timeout)), proxy.basic_auth());
            build_over(&kube, tunnel, connect_timeout)
        }
    }
}

fn with_basic_auth<C>(tunnel: Tunnel<C>, authorization: Option<&HeaderValue>) -> Tunnel<C> {
    match authorization {
        Some(authorization) => tunnel.with_auth(authorization.clone()),
        None => tunnel,
    }
}

fn tcp(connect_timeout: Duration) -> HttpConnector {
    let mut tcp = HttpConnector::new();
    // Divided among the addresses of a name, so that one that does not answer leaves time for the next.
    tcp.set_connect_timeout(Some(connect_timeout));
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    tcp.set_tcp_user_timeout(Some(USER_TIMEOUT));
    tcp
}

/// `kube`'s own stack would log each failure as an error of its own and leave the sockets at their defaults.
fn build_over<C>(config: &kube::Config, connector: C, connect_timeout: Duration) -> Result<Client, String>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Connected + Read + Write + Send + Unpin + 'static,
    C::Future: Send + 'static,
    C::Error: std::error::Error + Send + Sync + 'static,
{
    let in_words = |error: kube::Error| in_words(&error);
    let tls = config
        .rustls_https_connector_with_connector(connector)
        .map_err(in_words)?;
    let mut connector = TimeoutConnector::new(tls);
    connector.set_connect_timeout(Some(connect_timeout));
    let http: HyperClient<_, Body> = HyperClient::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .http1_max_buf_size(READ_BUFFER)
        .build(connector);
    let headers = config.extra_headers_layer().map_err(in_words)?;
    let stack = ClientBuilder::new(http.map_err(BoxError::from), config.default_namespace.clone())
        .with_layer(&headers);
    Ok(match config.auth_layer().map_err(in_words)? {
        Some(auth) => stack
            .with_layer(&auth)
            .with_layer(&config.base_uri_layer())
            .build(),
        None => stack.with_layer(&config.base_uri_layer()).build(),
    })
}

/// A bearer token in a file. Requests are so few that it is read for each of them.
#[derive(Debug)]
struct TokenFile {
    path: PathBuf,
    last: Option<HeaderValue>,
}

impl TokenFile {
    fn new(path: PathBuf) -> Self {
        let last = None;
        Self { path, last }
    }

    /// The header. When the file is gone or empty, the last token goes on being used.
    fn authorization(&mut self) -> Result<HeaderValue, String> {
        let path = self.path.display();
        let read = match std::fs::read_to_string(&self.path) {
            Ok(text) if text.trim().is_empty() => Err(format!("token file {path} is empty")),
            Ok(text) => HeaderValue::from_str(&format!("Bearer {}", text.trim()))
                .map_err(|_| format!("token file {path} holds no valid token")),
            Err(error) => Err(format!("cannot read token file {path}: {error}")),
        };
        match (read, &self.last) {
            (Ok(mut header), _) => {
                header.set_sensitive(true);
                Ok(self.last.insert(header).clone())
            }
            (Err(_), Some(last)) => Ok(last.clone()),
            (Err(error), None) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
