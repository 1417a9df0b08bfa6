//! A plain client of a Kubernetes API, the in-process one or a real one: requests over one HTTPS connection, and
//! nothing kept. It loads a cluster, and shows what the API alone costs.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio_rustls::TlsConnector;

use crate::net::Namespace;

/// `Accept` of clients that prefer protobuf.
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// `Accept` of clients that read JSON.
pub const JSON: &str = "application/json";

/// Where an API is and how to get in.
#[derive(Clone, Debug)]
pub struct Access {
    namespace: Namespace,
    address: SocketAddr,
    token: Arc<str>,
    tls: Arc<ClientConfig>,
}

impl Access {
    /// An API that is reached from a namespace, with the certificate of its authority (PEM) and a bearer token.
    ///
    /// # Errors
    /// When the certificate cannot be read.
    pub fn new(namespace: &Namespace, address: SocketAddr, authority: &[u8], token: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority) {
            roots.add(certificate.context("read the certificate of the API's authority")?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            namespace: namespace.clone(),
            address,
            token: token.into(),
            tls: Arc::new(tls),
        })
    }

    /// The URL, without a path.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Opens a connection. Must be called within a tokio runtime, which then also drives the connection.
    ///
    /// # Errors
    /// When the API cannot be reached or its certificate is not of the authority.
    pub async fn connect(&self) -> Result<Connection> {
        let tried = || format!("connect to {}", self.url());
        let stream = self.namespace.enter(|| TcpStream::connect(self.address))?;
        let stream = stream.with_context(tried)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let name = ServerName::from(self.address.ip());
        let tls = TlsConnector::from(Arc::clone(&self.tls));
        let stream = tls.connect(name, stream).await.with_context(tried)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.with_context(tried)?;
        // How it ends is seen by the request under way.
        tokio::spawn(connection);
        Ok(Connection {
            sender,
            authorization: format!("Bearer {}", self.token),
            host: self.address.to_string(),
        })
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    authorization: String,
    host: String,
}

impl Connection {
    /// Reads a resource to its end.
    ///
    /// # Errors
    /// When the connection breaks or the API says no.
    pub async fn get(&mut self, path: &str, accept: &str) -> Result<Bytes> {
        let response = self.send(Method::GET, path, accept, Bytes::new()).await?;
        Ok(response.collect().await?.to_bytes())
    }

    /// Creates an object in a collection. That it exists already is as good.
    ///
    /// # Errors
    /// As [`Connection::get`].
    pub async fn create(&mut self, collection: &str, object: &Value) -> Result<()> {
        let body = Bytes::from(object.to_string());
        let (status, body) = self.ask(Method::POST, collection, JSON, body).await?;
        if status != StatusCode::CONFLICT {
            accepted(status, &Method::POST, collection, body)
                .await?
                .collect()
                .await?;
        } else {
            body.collect().await?;
        }
        Ok(())
    }

    /// Replaces an object.
    ///
    /// # Errors
    /// As [`Connection::get`].
    pub async fn replace(&mut self, path: &str, object: &Value) -> Result<()> {
        let body = Bytes::from(object.to_string());
        self.send(Method::PUT, path, JSON, body).await?.collect().await?;
        Ok(())
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// As [`Connection::get`].
    pub async fn delete(&mut self, path: &str) -> Result<()> {
        let answer = self.send(Method::DELETE, path, JSON, Bytes::new()).await?;
        answer.collect().await?;
        Ok(())
    }

    /// Watches a collection from now on, as protobuf. The connection is used up.
    ///
    /// # Errors
    /// As [`Connection::get`].
    pub async fn watch(self, collection: &str) -> Result<Watch> {
        self.events(format!("{collection}?watch=true")).await
    }

    /// Reads a whole collection as a streaming list, as protobuf, and returns its size in bytes. The connection is
    /// used up.
    ///
    /// # Errors
    /// As [`Connection::get`].
    pub async fn stream(self, collection: &str) -> Result<usize> {
        let query =
            "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        let mut events = self.events(format!("{collection}?{query}")).await?;
        let mut size = 0;
        loop {
            let event = events.next().await?;
            size += event.len();
            // The event's type comes first; the bookmark that ends the list has this annotation.
            let is_bookmark = event.get(2..).is_some_and(|event| event.starts_with(b"BOOKMARK"));
            let end = b"k8s.io/initial-events-end";
            if is_bookmark && event.windows(end.len()).any(|window| window == end) {
                return Ok(size);
            }
        }
    }

    async fn events(mut self, path: String) -> Result<Watch> {
        let body = self.send(Method::GET, &path, PROTOBUF, Bytes::new()).await?;
        Ok(Watch {
            _connection: self,
            body,
            received: BytesMut::new(),
        })
    }

    async fn send(&mut self, method: Method, path: &str, accept: &str, body: Bytes) -> Result<Incoming> {
        let (status, answer) = self.ask(method.clone(), path, accept, body).await?;
        accepted(status, &method, path, answer).await
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        accept: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Incoming)> {
        let tried = format!("{method} https://{}{path}", self.host);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("authorization", &self.authorization)
            .header("accept", accept)
            .header("content-type", JSON)
            .body(Full::new(body))?;
        self.sender.ready().await.with_context(|| tried.clone())?;
        let response = self.sender.send_request(request).await.context(tried)?;
        Ok((response.status(), response.into_body()))
    }
}

async fn accepted(status: StatusCode, method: &Method, path: &str, body: Incoming) -> Result<Incoming> {
    if status.is_success() {
        return Ok(body);
    }
    let said = body.collect().await?.to_bytes();
    let said = String::from_utf8_lossy(&said);
    anyhow::bail!(
        "{method} {path}: {status}: {}",
        said.chars().take(500).collect::<String>()
    )
}

/// An open watch.
#[derive(Debug)]
pub struct Watch {
    _connection: Connection,
    body: Incoming,
    received: BytesMut,
}

impl Watch {
    /// Waits for the next event and returns its frame, still encoded.
    ///
    /// # Errors
    /// When the watch ended.
    pub async fn next(&mut self) -> Result<Bytes> {
        loop {
            if let Some(mut head) = self.received.get(..4) {
                let length = head.get_u32() as usize;
                if self.received.len() >= 4 + length {
                    self.received.advance(4);
                    return Ok(self.received.split_to(length).freeze());
                }
            }
            let frame = self.body.frame().await.context("the watch ended")??;
            if let Ok(data) = frame.into_data() {
                ensure!(self.received.len() < 64 << 20, "an event of over 64 MiB");
                self.received.extend_from_slice(&data);
            }
        }
    }
}
