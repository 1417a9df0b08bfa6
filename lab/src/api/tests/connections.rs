//! Who is let in, faults of answers, and connections.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use super::*;
use crate::api::{Credential, Fault, Rule, Verb};

#[tokio::test]
async fn only_known_clients_are_let_in() {
    let server = server();
    server.set_token("next").expect("a new token");
    let with = |token: Option<&str>| {
        let mut request = request("GET", "/api/v1/services", &[], "");
        let headers = request.headers_mut();
        headers.remove("authorization");
        if let Some(token) = token {
            headers.insert("authorization", format!("Bearer {token}").parse().expect("text"));
        }
        request
    };
    let anonymous = ask(&server, with(None)).await;
    assert_eq!(
        (anonymous.code, &anonymous.json()["reason"]),
        (403, &"Forbidden".into())
    );
    assert_eq!(
        anonymous.json()["message"],
        "services is forbidden: User \"system:anonymous\" cannot list resource \"services\" in API group \"\" \
         at the cluster scope"
    );
    let wrong = ask(&server, with(Some("lab-token"))).await;
    assert_eq!(
        (wrong.code, &wrong.json()["reason"]),
        (401, &"Unauthorized".into())
    );
    assert_eq!(ask(&server, with(Some("next"))).await.code, 200);
    let by_certificate = answer(server.state.clone(), true, with(None)).await;
    assert_eq!(by_certificate.expect("an answer").status(), 200);
}

#[tokio::test]
async fn faults_befall_what_their_rule_names_as_often_as_it_says() {
    let server = server();
    let fault = Fault::Status {
        code: 429,
        retry_after: Some(7),
    };
    server.inject(Rule::new(fault).on(Resource::Services).when(Verb::List).times(1));
    assert_eq!(get(&server, "/api/v1/nodes").await.code, 200);
    assert_eq!(
        get(&server, "/api/v1/services?watch=1&timeoutSeconds=0")
            .await
            .code,
        200
    );
    let refused = get(&server, "/api/v1/services").await;
    assert_eq!((refused.code, refused.header("retry-after")), (429, "7"));
    assert_eq!(refused.json()["reason"], "TooManyRequests");
    assert_eq!(get(&server, "/api/v1/services").await.code, 200);

    server.inject(Rule::new(Fault::HangUp));
    let hung_up = answer(
        server.state.clone(),
        false,
        request("GET", "/api/v1/nodes", &[], ""),
    );
    assert!(hung_up.await.is_err());
    server.clear_faults();
    assert_eq!(get(&server, "/api/v1/nodes").await.code, 200);
}

#[tokio::test]
async fn a_body_is_spoiled_as_asked() {
    let server = server();
    let whole = get(&server, "/api/v1/nodes").await.body;
    let spoiled = async |fault: Fault| {
        server.clear_faults();
        server.inject(Rule::new(fault));
        let response = answer(
            server.state.clone(),
            false,
            request("GET", "/api/v1/nodes", &[], ""),
        );
        response.await.expect("an answer")
    };
    let body = async |fault: Fault| {
        let collected = spoiled(fault).await.into_body().collect();
        tokio::time::timeout(Duration::from_millis(50), collected).await
    };
    assert!(body(Fault::StallAfter(5)).await.is_err());
    assert!(body(Fault::CutAfter(5)).await.expect("an end").is_err());
    let slow = body(Fault::Slow(20, Duration::from_millis(1)))
        .await
        .expect("an end");
    assert_eq!(slow.expect("whole").to_bytes(), whole);
    let garbage = body(Fault::Garbage).await.expect("an end").expect("whole");
    assert_ne!(garbage.to_bytes(), whole);
    let other = spoiled(Fault::ContentType("text/html")).await;
    assert_eq!(other.headers()["content-type"], "text/html");
}

#[test]
fn connections_are_refused_taken_again_and_broken_off() {
    let server = server();
    let connect = || TcpStream::connect(server.address());
    let ask = |stream: &mut TcpStream| {
        let request = "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("written");
        let mut answer = [0; 4096];
        let length = stream.read(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    let mut before = connect().expect("taken");
    assert!(ask(&mut before).starts_with("HTTP/1.1 200"));
    for _ in 0..3 {
        server.refuse_connections(true);
        let refused = connect().expect_err("refused");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let ended = before.read(&mut [0; 16]);
        assert!(ended.is_err() || ended.is_ok_and(|length| length == 0));
        server.refuse_connections(false);
        before = connect().expect("taken again");
        assert!(ask(&mut before).ends_with("ok"));
    }
    server.disconnect();
    let ended = before.read(&mut [0; 16]);
    assert!(ended.is_err() || ended.is_ok_and(|length| length == 0));
    assert!(ask(&mut connect().expect("taken")).ends_with("ok"));
}

#[test]
fn requests_are_remembered_with_what_was_asked() {
    let server = server();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let path = "/api/v1/services?labelSelector=%21a&limit=5";
    runtime.expect("a runtime").block_on(get(&server, path));
    let requests = server.requests_for(Resource::Services);
    assert_eq!(requests.len(), 1);
    let request = &requests[0];
    assert_eq!(request.parameter("labelSelector"), Some("!a"));
    assert_eq!((request.parameter("watch"), request.is_watch()), (None, false));
    assert_eq!(
        (request.authorization.as_str(), request.status),
        ("Bearer lab-token", 200)
    );
}

#[test]
fn kubeconfigs_name_the_server_and_the_credential() {
    let server = Server::start().expect("a server");
    let read = |credential| {
        let path = server.kubeconfig(credential).expect("written");
        let text = std::fs::read_to_string(path).expect("readable");
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    let config = read(Credential::Token);
    assert_eq!(config["clusters"][0]["cluster"]["server"], server.url());
    assert_eq!(config["users"][0]["user"]["token"], "lab-token");
    let user = &read(Credential::TokenFile)["users"][0]["user"];
    let file = user["tokenFile"].as_str().expect("a path").to_owned();
    assert_eq!(std::fs::read_to_string(&file).expect("readable"), "lab-token");
    server.set_token("next").expect("a new token");
    assert_eq!(std::fs::read_to_string(&file).expect("readable"), "next");
    let user = &read(Credential::ClientCertificate)["users"][0]["user"];
    assert!(user["client-certificate"].is_string());
}
