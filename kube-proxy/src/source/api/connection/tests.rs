//! Requests as a server or a proxy gets them.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex as SyncMutex};

use http_body_util::BodyExt as _;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Reads a request's head.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// An HTTP server that answers every request with `{}`, and what comes through a tunnel to anywhere as well.
/// Gives its address and the heads that it got.
async fn server() -> (String, Arc<SyncMutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heads = Arc::new(SyncMutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                loop {
                    let head = head(&mut stream).await;
                    let body = if head.starts_with("CONNECT") { "" } else { "{}" };
                    if head.is_empty() {
                        return;
                    }
                    seen.lock().unwrap().push(head);
                    let length = match body {
                        "" => String::new(),
                        body => format!("Content-Length: {}\r\n", body.len()),
                    };
                    let answer = format!("HTTP/1.1 200 OK\r\n{length}\r\n{body}");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (address, heads)
}

fn connection(folder: &TempDir, cluster: &str, user: &str) -> Connection {
    let path = folder.path().join("kubeconfig");
    let text = format!(
        "current-context: here\ncontexts: [{{name: here, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
    );
    std::fs::write(&path, text).unwrap();
    let options = ClientOptions {
        kubeconfig: Some(path),
        ..ClientOptions::default()
    };
    Connection::new(
        options,
        Duration::from_secs(10),
        Arc::new(Metrics::new().unwrap()),
    )
    .unwrap()
}

async fn get(connection: &Connection) -> Result<(), Failure> {
    let response = connection.get("/api?limit=1", "application/json").await?;
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "{}");
    Ok(())
}

#[tokio::test]
async fn a_request_says_who_asks_for_what() {
    let folder = tempfile::tempdir().unwrap();
    let (address, heads) = server().await;
    let connection = connection(&folder, &format!("server: 'http://{address}/base'"), "token: abc");
    get(&connection).await.unwrap();
    get(&connection).await.unwrap();
    let metrics = connection.metrics.text().unwrap();
    let labels = format!("host=\"{address}\"");
    for line in [
        format!("rest_client_requests_total{{code=\"200\",{labels},method=\"GET\"}} 2\n"),
        format!("rest_client_request_duration_seconds_count{{{labels},verb=\"GET\"}} 2\n"),
    ] {
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
    let heads = heads.lock().unwrap();
    assert!(
        heads[0].starts_with("GET /base/api?limit=1 HTTP/1.1\r\n"),
        "{}",
        heads[0]
    );
    let lower = heads[1].to_lowercase();
    for line in [
        "accept: application/json",
        "authorization: bearer abc",
        "user-agent: kube-proxy/v",
    ] {
        assert!(lower.contains(&format!("\r\n{line}")), "{lower}");
    }
}

#[tokio::test]
async fn a_proxy_is_asked_for_a_tunnel_with_its_password() {
    let folder = tempfile::tempdir().unwrap();
    let (proxy, heads) = server().await;
    let cluster = format!("server: 'http://192.0.2.1:6443', proxy-url: 'http://user:p%40ss@{proxy}'");
    get(&connection(&folder, &cluster, "")).await.unwrap();
    let heads = heads.lock().unwrap();
    assert!(
        heads[0].starts_with("CONNECT 192.0.2.1:6443 HTTP/1.1\r\n"),
        "{}",
        heads[0]
    );
    // user:p@ss
    assert!(heads[0].contains("Basic dXNlcjpwQHNz"), "{}", heads[0]);
    assert!(
        heads[1].starts_with("GET /api?limit=1 HTTP/1.1\r\n"),
        "{}",
        heads[1]
    );
}

#[tokio::test]
async fn an_exec_plugin_gives_the_token_and_its_failure_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let (address, heads) = server().await;
    let plugin = folder.path().join("plugin");
    let cluster = format!("server: 'http://{address}'");
    let user =
        "exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin, interactiveMode: Never}";
    let connection = connection(&folder, &cluster, user);
    let failure = get(&connection).await.unwrap_err();
    assert!(
        matches!(&failure, Failure::Client(why) if why.contains("auth exec")),
        "{failure}"
    );
    assert!(heads.lock().unwrap().is_empty());

    let credential = r#"{"kind":"ExecCredential","status":{"token":"from-plugin"}}"#;
    std::fs::write(&plugin, format!("#!/bin/sh\necho '{credential}'\n")).unwrap();
    std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).unwrap();
    get(&connection).await.unwrap();
    assert!(heads.lock().unwrap()[0].contains("Bearer from-plugin"));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cluster = format!("server: 'http://{}'", listener.local_addr().unwrap());
    drop(listener);
    let failure = get(&connection(&folder, &cluster, "")).await.unwrap_err();
    assert!(failure.to_string().contains("Connection refused"), "{failure}");
}

#[test]
fn a_token_file_is_read_anew_for_each_request_and_trimmed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let mut token = TokenFile::new(path.clone());
    assert!(token.authorization().unwrap_err().contains("token"));
    for (text, expected) in [
        ("one\n", "Bearer one"),
        (" two ", "Bearer two"),
        ("", "Bearer two"),
        ("bad\u{7f}token", "Bearer two"),
    ] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(token.authorization().unwrap(), expected, "{text:?}");
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(token.authorization().unwrap(), "Bearer two");
}
