//! The HTTP servers: one for metrics, one for health, and one for each Service that a load balancer asks for.
//! Here are listening and connections; what each path answers is in `pages`.

mod about;
mod ending;
mod health_checks;
mod pages;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tracing::{debug, error, info};

pub use self::about::About;
use self::about::MetricsPages;
use self::ending::Ending;
pub use self::ending::{End, ending};
use self::health_checks::Servers;
pub use self::health_checks::{HealthChecks, Orders, health_checks};
use self::pages::{HealthPages, Pages};
use crate::config::Config;
use crate::events::Recorder;
use crate::health::Health;
use crate::metrics::Metrics;

const RETRY: Duration = Duration::from_secs(5);
/// Between two looks whether the first sync is done.
const LOOK: Duration = Duration::from_millis(20);
/// As many connections as the kernel keeps for a server that is slow to accept them.
const BACKLOG: u32 = 1024;
/// A client that takes longer to send its request is cut off.
const REQUEST_PATIENCE: Duration = Duration::from_secs(30);
/// More connections at once wait to be accepted.
const CONNECTIONS: usize = 64;

/// Where to listen and what to do when that fails.
#[derive(Clone, Copy, Debug)]
struct Listen<'a> {
    /// What to call the server in the log.
    name: &'static str,
    /// Address and port. An unspecified address means both families.
    address: SocketAddr,
    /// What an Event calls it when it cannot listen.
    failed: &'static str,
    /// Give up at the first failure instead of trying again every 5 s.
    hard_fail: bool,
    /// Listen beside a predecessor, once there is something good to tell: `None` where that would mix two accounts.
    beside: Option<&'a Health>,
}

/// Runs all servers until the program ends.
///
/// # Errors
/// When a port cannot be bound and the configuration says that this is fatal.
pub async fn run(
    config: &Config,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    about: About,
    checks: Orders,
    events: Recorder,
    ending: Ending,
) -> anyhow::Result<Infallible> {
    let listen = |name, address, failed, beside| Listen {
        name,
        address,
        failed,
        hard_fail: config.bind_address_hard_fail,
        beside,
    };
    let servers = Servers::new(Arc::clone(&health), events.clone(), ending.clone());
    let ending_health = ending.clone();
    let health_pages = HealthPages {
        health: Arc::clone(&health),
        metrics: Arc::clone(&metrics),
    };
    let metrics_pages = MetricsPages::new(metrics, about);
    let metrics = listen(
        "metrics",
        config.metrics_address,
        "FailedToStartMetricServer",
        None,
    );
    let healthz = async {
        match config.healthz_address {
            Some(address) => {
                let healthz = listen(
                    "healthz",
                    address,
                    "FailedToStartProxierHealthcheck",
                    Some(&*health),
                );
                serve(healthz, Arc::new(health_pages), &events, ending_health).await
            }
            None => {
                drop(ending_health);
                std::future::pending().await
            }
        }
    };
    tokio::select! {
        ended = healthz => ended,
        ended = serve(metrics, Arc::new(metrics_pages), &events, ending) => ended,
        never = servers.run(checks) => match never {},
    }
}

/// Serves until the program ends.
async fn serve(
    listen: Listen<'_>,
    pages: Arc<dyn Pages>,
    events: &Recorder,
    mut ending: Ending,
) -> anyhow::Result<Infallible> {
    let listener = tokio::select! {
        listener = listen.insist(events) => listener?,
        () = ending.begins() => {
            drop(ending);
            return std::future::pending().await;
        }
    };
    info!(server = listen.name, address = %listen.address, "Starting server");
    Ok(accept(listener, listen.name, pages, ending).await)
}

impl Listen<'_> {
    /// Listens, and tries until it can.
    async fn insist(&self, events: &Recorder) -> anyhow::Result<TcpListener> {
        let mut told = false;
        loop {
            let error = match self.bind().await {
                Ok(listener) => return Ok(listener),
                Err(error) => error,
            };
            if !std::mem::replace(&mut told, true) {
                let note = format!("failed to listen on {}: {error}", self.address);
                events.warn_of_start(self.failed, note);
            }
            if self.hard_fail {
                return Err(error).with_context(|| format!("cannot start {} on {}", self.name, self.address));
            }
            let message = match self.name {
                "healthz" => "Healthz server failed",
                _ => "starting metrics server failed",
            };
            error!(address = %self.address, err = %error, "{message}; trying again in 5 s");
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Listens at once where nobody does; beside a predecessor only when what it tells is in force, so that a successor
    /// that does not get that far takes nothing away.
    async fn bind(&self) -> std::io::Result<TcpListener> {
        let alone = bind(self.address, self.beside.is_some(), false);
        let Some(health) = self.beside.filter(|_| !self.hard_fail) else {
            return alone;
        };
        if !matches!(&alone, Err(error) if error.kind() == ErrorKind::AddrInUse) {
            return alone;
        }
        while health.report(Instant::now()).synced.is_none() {
            tokio::time::sleep(LOOK).await;
        }
        bind(self.address, true, true)
    }
}

/// Listens; on both families when the address is unspecified and the machine has IPv6. `shared`: a successor may do so
/// as well; `beside`: so did a predecessor.
fn bind(address: SocketAddr, shared: bool, beside: bool) -> std::io::Result<TcpListener> {
    let bind_to = |address: SocketAddr| {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(beside)?;
        socket.bind(address)?;
        // From here on: to be alone was what binding without it asked for.
        socket.set_reuseport(shared)?;
        socket.listen(BACKLOG)
    };
    if address.ip().is_unspecified() {
        let both = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), address.port());
        match bind_to(both) {
            // Without IPv6, only the address itself can tell.
            Err(_) if address.is_ipv4() => {}
            result => return result,
        }
    }
    bind_to(address)
}

/// Accepts connections, which end with it, until the program ends: then those that were made already are answered, too,
/// since a client was told that they are.
async fn accept(
    listener: TcpListener,
    name: &'static str,
    pages: Arc<dyn Pages>,
    mut ending: Ending,
) -> Infallible {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let next = async {
            // The semaphore is never closed, so there is always a slot some time.
            let slot = Arc::clone(&slots).acquire_owned().await.ok();
            (listener.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            next = next => next,
            () = ending.begins() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(answer(stream, name, Arc::clone(&pages), ending.clone(), slot));
            }
            Err(err) => {
                // Out of file descriptors, or the client is gone already: neither ends the server.
                error!(server = name, %err, "Cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    for stream in waiting(listener) {
        connections.spawn(answer(stream, name, Arc::clone(&pages), ending.clone(), None));
    }
    while connections.join_next().await.is_some() {}
    drop(ending);
    std::future::pending().await
}

/// The connections that were made and nobody has accepted yet. From then on there are no others.
fn waiting(listener: TcpListener) -> Vec<TcpStream> {
    // The socket itself is asked: what the runtime knows of it may be older.
    let Ok(listener) = listener.into_std() else {
        return Vec::new();
    };
    let accepted = std::iter::from_fn(|| listener.accept().ok());
    accepted
        .filter_map(|(stream, _)| {
            stream.set_nonblocking(true).ok()?;
            TcpStream::from_std(stream).ok()
        })
        .collect()
}

/// Answers the requests of a connection, the last of them being the one that is under way, or the first, when the program
/// ends.
async fn answer(
    stream: TcpStream,
    name: &'static str,
    pages: Arc<dyn Pages>,
    mut ending: Ending,
    _slot: Option<OwnedSemaphorePermit>,
) {
    // What is told to end before it has read a byte ends without reading any.
    if tokio::time::timeout(REQUEST_PATIENCE, stream.readable())
        .await
        .is_err()
    {
        return;
    }
    let service = service_fn(move |request| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(pages::answer(pages, request).await) }
    });
    let connection = http1::Builder::new()
        .title_case_headers(true)
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = ending.begins() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(err) = ended {
        debug!(server = name, %err, "A connection broke");
    }
}
