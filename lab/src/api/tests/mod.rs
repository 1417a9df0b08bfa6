//! The server's behaviour, asked as a client asks. What kube-apiserver does was seen by asking one of 1.36.2
//! the same.

mod connections;
mod lists;
mod watches;
mod writes;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use super::answer::Body;
use super::http::answer;
use super::{Resource, Server};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// An answer, whole.
struct Answer {
    code: u16,
    headers: ::http::HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("text"))
    }

    /// Names of a list's items.
    fn names(&self) -> Vec<String> {
        let list = self.json();
        let items = list["items"].as_array().expect("items").iter();
        items
            .map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned())
            .collect()
    }
}

fn server() -> Server {
    Server::builder().plain_http().start().expect("a server")
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> ::http::Request<Body> {
    let mut request = ::http::Request::builder()
        .method(method)
        .uri(path)
        .header("Authorization", "Bearer lab-token");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Full::new(Bytes::from(body.to_owned())).map_err(io::Error::other);
    request.body(body.boxed_unsync()).expect("a request")
}

async fn ask(server: &Server, request: ::http::Request<Body>) -> Answer {
    let response = answer(server.state.clone(), false, request)
        .await
        .expect("an answer");
    let (parts, body) = response.into_parts();
    Answer {
        code: parts.status.as_u16(),
        headers: parts.headers,
        body: body.collect().await.expect("a whole body").to_bytes(),
    }
}

async fn get(server: &Server, path: &str) -> Answer {
    ask(server, request("GET", path, &[], "")).await
}

/// An open watch in JSON.
struct Watch {
    body: Body,
    rest: Vec<u8>,
}

impl Watch {
    async fn open(server: &Server, path: &str) -> Self {
        let response = answer(server.state.clone(), false, request("GET", path, &[], ""));
        let response = response.await.expect("an answer");
        assert_eq!(response.status(), 200, "{path}");
        Self {
            body: response.into_body(),
            rest: Vec::new(),
        }
    }

    /// The next line; `None` when the watch has ended.
    async fn line(&mut self) -> io::Result<Option<Value>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            match self.body.frame().await {
                Some(frame) => self
                    .rest
                    .extend_from_slice(&frame?.into_data().unwrap_or_default()),
                None => return Ok(None),
            }
        }
    }

    /// The next event's type, name and version.
    async fn event(&mut self) -> (String, String, u64) {
        let line = self.line().await.expect("no error").expect("an event");
        let metadata = &line["object"]["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (
            text(&line["type"]),
            text(&metadata["name"]),
            text(&metadata["resourceVersion"]).parse().unwrap_or_default(),
        )
    }

    /// The next event's type and name.
    async fn told(&mut self) -> (String, String) {
        let (event, name, _) = self.event().await;
        (event, name)
    }

    /// Whether nothing comes.
    async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(30), self.line())
            .await
            .is_err()
    }
}

fn told(event: &str, name: &str) -> (String, String) {
    (event.to_owned(), name.to_owned())
}

fn service(name: &str, more: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}{more}}}, spec: {{ports: [{{port: 80}}]}}}}"
    )
}

fn apply_services(server: &Server, names: &[&str]) {
    for name in names {
        server.apply(&service(name, "")).expect("applied");
    }
}

fn delete(server: &Server, name: &str) {
    server
        .delete(Resource::Services, "default", name)
        .expect("deleted");
}
