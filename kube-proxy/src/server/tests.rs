//! The servers, over real connections on loopback addresses.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::config::Mode;
use crate::events::recorder;
use crate::model::object::Node;

/// Starts a server on a free port and asks it for a path: head and body of the answer.
async fn ask(pages: Arc<dyn Pages>, path: &str) -> (String, String) {
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(accept(listener, "test", pages));
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    server.abort();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new().unwrap())
}

#[tokio::test]
async fn the_metrics_server_answers_upstreams_paths() {
    let pages = Arc::new(MetricsPages {
        metrics: metrics(),
        mode: Mode::Nftables,
    });
    let table = [
        ("/healthz", "200", "ok"),
        ("/healthz?verbose", "200", "[+]ping ok\nhealthz check passed\n"),
        ("/proxyMode", "200", "nftables"),
        ("/nothing", "404", "404 page not found\n"),
    ];
    for (path, status, expected) in table {
        let (head, body) = ask(pages.clone(), path).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{path}: {head}");
        assert!(head.contains("content-type: text/plain"), "{path}: {head}");
        assert_eq!(body, expected, "{path}");
    }
    let (head, body) = ask(pages, "/metrics").await;
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(
        body.contains("kubeproxy_sync_proxy_rules_service_changes_total 0"),
        "{body}"
    );
}

#[tokio::test]
async fn the_health_server_tells_load_balancers_and_keepers_what_each_needs() {
    let health = Arc::new(Health::new(Duration::from_secs(30), true));
    let counters = metrics();
    let pages = Arc::new(HealthPages {
        health: Arc::clone(&health),
        metrics: Arc::clone(&counters),
    });
    let (head, body) = ask(pages.clone(), "/healthz").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["lastUpdated"], body["currentTime"]);
    assert_eq!(body["nodeEligible"], true);
    assert_eq!(body["status"]["IPv6"]["lastUpdated"], "0001-01-01T00:00:00Z");

    health.synced("2026-11-22T23:20:04.592955645Z".parse().unwrap());
    health.node(&Node {
        deleting: true,
        ..Node::default()
    });
    let (head, body) = ask(pages.clone(), "/healthz").await;
    assert!(head.starts_with("http/1.1 503"), "{head}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["lastUpdated"], "2026-11-22T23:20:04.592955645Z");
    assert_eq!(body["nodeEligible"], false);
    assert_eq!(body["healthy"], true);

    let (head, body) = ask(pages.clone(), "/livez").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert!(body.get("nodeEligible").is_none());
    assert_eq!(counters.healthz.with_label_values(&["503"]).get(), 1);
    assert_eq!(counters.livez.with_label_values(&["200"]).get(), 1);
    assert!(ask(pages, "/").await.0.starts_with("http/1.1 404"));
}

/// In a namespace of its own: nothing of the host's should be reachable from outside, not even for a test.
#[test]
fn an_unspecified_address_listens_on_both_families() {
    let namespace = lab::net::Namespace::create(&format!("kp-server-{}", std::process::id())).unwrap();
    namespace.run("ip", &["link", "set", "lo", "up"]).unwrap();
    let listen = async {
        let listener = bind("0.0.0.0:0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        if std::path::Path::new("/proc/net/if_inet6").exists() {
            TcpStream::connect(("::1", port)).await.unwrap();
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    namespace.enter(|| runtime.unwrap().block_on(listen)).unwrap();
}

#[tokio::test]
async fn a_taken_port_ends_the_program_only_when_it_is_told_to() {
    let taken = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let listen = Listen {
        name: "healthz",
        address: taken.local_addr().unwrap(),
        failed: "FailedToStartProxierHealthcheck",
        hard_fail: true,
    };
    let pages = || {
        Arc::new(MetricsPages {
            metrics: metrics(),
            mode: Mode::Nftables,
        })
    };
    let (recorder, mut events) = recorder();
    let error = serve(listen, pages(), &recorder).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot start healthz on 127.0.0.1:"),
        "{error}"
    );
    let patient = Listen {
        hard_fail: false,
        ..listen
    };
    let waiting = tokio::time::timeout(Duration::from_millis(50), serve(patient, pages(), &recorder)).await;
    assert!(waiting.is_err(), "still trying");
    for _ in 0..2 {
        let event = events.try_recv().unwrap();
        assert_eq!(event.reason, "FailedToStartProxierHealthcheck");
    }
    assert!(events.try_recv().is_err(), "each is told once");
}
