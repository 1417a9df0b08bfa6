//! The listener and its connections, on a thread of their own.

use std::net::TcpListener as StdListener;
use std::os::fd::AsFd;
use std::sync::Arc;

use anyhow::{Context, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nix::sys::socket::{Backlog, Shutdown};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
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
        socket
            .set_nonblocking(true)
            .context("making the listener non-blocking")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("building the API's runtime")?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(socket).context("watching the listener")?
        };
        let (orders, received) = watch::channel(Orders {
            accept: true,
            generation: 0,
            stop: false,
        });
        let (report, done) = std::sync::mpsc::channel();
        let serve = move || runtime.block_on(accept(listener, tls, state, received, report));
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

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    state: Arc<State>,
    mut orders: watch::Receiver<Orders>,
    report: std::sync::mpsc::Sender<Orders>,
) {
    let mut listening = true;
    loop {
        let wanted = *orders.borrow_and_update();
        if wanted.accept != listening {
            let socket = listener.as_fd();
            // On Linux shutting a listener down refuses connections, and listening again takes them.
            let changed = if wanted.accept {
                nix::sys::socket::listen(&socket, Backlog::MAXALLOWABLE)
            } else {
                use std::os::fd::AsRawFd;
                nix::sys::socket::shutdown(socket.as_raw_fd(), Shutdown::Both)
            };
            if let Err(error) = changed {
                tracing::error!("switching the API's listener: {error}");
            }
            listening = wanted.accept;
        }
        // Connections see the order themselves; giving way lets them follow it first.
        tokio::task::yield_now().await;
        let _ = report.send(wanted);
        if wanted.stop {
            return;
        }
        loop {
            tokio::select! {
                biased;
                changed = orders.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
                Ok((stream, _)) = listener.accept(), if listening => {
                    let connection = Connection {
                        tls: tls.clone(),
                        state: state.clone(),
                        orders: orders.clone(),
                    };
                    tokio::spawn(connection.run(stream));
                }
            }
        }
    }
}

struct Connection {
    tls: Option<TlsAcceptor>,
    state: Arc<State>,
    orders: watch::Receiver<Orders>,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        let generation = self.orders.borrow().generation;
        // A frame is written at once, however small.
        let _ = stream.set_nodelay(true);
        let mut orders = self.orders.clone();
        let broken_off = orders.wait_for(|orders| orders.generation != generation || orders.stop);
        tokio::select! {
            () = self.serve(stream) => {}
            _ = broken_off => {}
        }
    }

    async fn serve(&self, stream: TcpStream) {
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
        let service = service_fn(|request| http::answer(state.clone(), by_certificate, request));
        // An error here is a connection that the client closed or a fault cut.
        let _ = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }
}
