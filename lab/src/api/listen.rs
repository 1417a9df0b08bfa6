//! The listener and its connections, on a thread of their own.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use anyhow::{Context, Result};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nix::errno::Errno;
use nix::sys::socket::{Backlog, Shutdown, SockaddrStorage, bind, listen, shutdown};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::http;
use super::state::State;

/// What the listener shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Orders {
    /// Take connections; otherwise they are refused.
    pub(crate) accept: bool,
    /// Connections of an older generation are broken off.
    pub(crate) generation: u64,
    /// End everything.
    pub(crate) stop: bool,
}

/// A running listener.
#[derive(Debug)]
pub(crate) struct Listener {
    orders: watch::Sender<Orders>,
    /// What the thread has done, so that an order is in force when its call returns.
    done: std::sync::mpsc::Receiver<Orders>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Listener {
    /// Serves a bound socket, over TLS if given an acceptor.
    pub(crate) fn start(socket: StdListener, tls: Option<TlsAcceptor>, state: Arc<State>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("building the API's runtime")?;
        let socket = Socket::new(socket).context("preparing the API's listener")?;
        let (orders, received) = watch::channel(Orders {
            accept: true,
            generation: 0,
            stop: false,
        });
        let (report, done) = std::sync::mpsc::channel();
        let connection = Connection { tls, state };
        let serve = move || runtime.block_on(accept(socket, connection, received, report));
        let thread = std::thread::Builder::new()
            .name("lab-api".to_owned())
            .spawn(serve)
            .context("starting the API's thread")?;
        Ok(Self {
            orders,
            done,
            thread: Some(thread),
        })
    }

    /// Gives an order and waits until it is followed.
    pub(crate) fn order(&self, change: impl FnOnce(&mut Orders)) {
        self.orders.send_modify(change);
        let wanted = *self.orders.borrow();
        // The thread being gone is the only way for this to end otherwise.
        while self.done.recv().is_ok_and(|done| done != wanted) {}
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.order(|orders| orders.stop = true);
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was printed already.
            let _ = thread.join();
        }
    }
}

/// The bound socket, listening or not.
struct Socket {
    socket: StdListener,
    address: SocketAddr,
}

impl Socket {
    fn new(socket: StdListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Refuses connections. Linux has a listener stop when it is shut down, and take up again.
    fn refuse(&self) -> io::Result<()> {
        Ok(shutdown(self.socket.as_raw_fd(), Shutdown::Both)?)
    }

    /// Takes connections. The runtime has to look at the socket afresh: of the old one it remembers that it
    /// was shut down.
    fn listen(&self) -> io::Result<TcpListener> {
        // A port that was not chosen but given is lost when the socket is shut down.
        match bind(self.socket.as_raw_fd(), &SockaddrStorage::from(self.address)) {
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(error) => return Err(error.into()),
        }
        listen(&self.socket, Backlog::MAXALLOWABLE)?;
        TcpListener::from_std(self.socket.try_clone()?)
    }
}

/// Follows orders and takes connections.
async fn accept(
    socket: Socket,
    connection: Connection,
    mut orders: watch::Receiver<Orders>,
    report: std::sync::mpsc::Sender<Orders>,
) {
    let mut listener = complain(socket.listen());
    let mut connections = JoinSet::new();
    let mut generation = 0;
    loop {
        let wanted = *orders.borrow_and_update();
        if !wanted.accept && listener.take().is_some() {
            complain(socket.refuse());
        } else if wanted.accept && listener.is_none() {
            listener = complain(socket.listen());
        }
        if wanted.generation != generation {
            generation = wanted.generation;
            connections.shutdown().await;
        }
        // Nobody may be waiting for the report any more.
        let _ = report.send(wanted);
        if wanted.stop {
            return;
        }
        let take = async {
            loop {
                let Some(listener) = &listener else {
                    std::future::pending().await
                };
                if let Some((stream, _)) = complain(listener.accept().await) {
                    connections.spawn(connection.clone().run(stream));
                }
                // Those that have ended need not be remembered.
                while connections.try_join_next().is_some() {}
            }
        };
        tokio::select! {
            biased;
            changed = orders.changed() => if changed.is_err() {
                return;
            },
            () = take => {}
        }
    }
}

/// Reports an error of the listener, for which there is nobody else to tell.
fn complain<T>(result: io::Result<T>) -> Option<T> {
    result
        .inspect_err(|error| tracing::error!("the API's listener: {error}"))
        .ok()
}

#[derive(Clone)]
struct Connection {
    tls: Option<TlsAcceptor>,
    state: Arc<State>,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        // A frame is written at once, however small.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return self.speak(stream, false).await;
        };
        // A handshake that fails is the client's to report.
        if let Ok(stream) = tls.accept(stream).await {
            let by_certificate = stream.get_ref().1.peer_certificates().is_some();
            self.speak(stream, by_certificate).await;
        }
    }

    async fn speak(&self, stream: impl AsyncRead + AsyncWrite + Unpin, by_certificate: bool) {
        let state = &self.state;
        let service = service_fn(|request: ::http::Request<Incoming>| {
            let request = request.map(|body| body.map_err(io::Error::other).boxed_unsync());
            http::answer(state.clone(), by_certificate, request)
        });
        // An error here is a connection that the client closed or a fault cut.
        let _ = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }
}
