//! The servers, over real connections on loopback addresses.

use std::net::Ipv4Addr;
use std::sync::Mutex;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::cli::{self, Command};
use crate::events::recorder;
use crate::logging::Levels;
use crate::model::object::{Family, Node};
use crate::status::Status;

/// Starts a server on a free port and asks it for a path: head and body of the answer.
async fn ask(pages: Arc<dyn Pages>, path: &str) -> (String, String) {
    ask_so(pages, &format!("GET {path}"), "", "").await
}

/// The same with a method before the path, lines of the head, and a body.
async fn ask_so(pages: Arc<dyn Pages>, asked: &str, head: &str, body: &str) -> (String, String) {
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), false, false).unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(accept(listener, "test", pages, ending().1));
    let mut client = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{asked} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{head}\r\n{body}"
    );
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

/// The pages of a proxy with these flags.
fn metrics_pages(line: &str) -> Arc<MetricsPages> {
    let line = format!("--proxy-mode=nftables {line}");
    let Ok(Command::Run(flags)) = cli::parse(line.split_whitespace().map(str::to_owned)) else {
        panic!("{line}")
    };
    let loaded = crate::config::load(&flags, || panic!("a mode is named")).unwrap();
    let health = Arc::new(Health::new(Duration::from_secs(30), true));
    let status = Arc::new(Status::new(&loaded.config, "node-1", health));
    let levels = Levels::new(&loaded.config.logging);
    let about = About {
        mode: loaded.config.mode,
        features: loaded.config.features,
        configz: Arc::new(Mutex::new(loaded.in_effect().unwrap())),
        flags: flags.values,
        started: "2026-11-22T23:20:03Z".parse().unwrap(),
        levels: loaded.config.profiling.then_some(levels),
        status,
        lists_kernel: loaded.config.conntrack.count_bytes,
    };
    Arc::new(MetricsPages::new(metrics(), about))
}

#[tokio::test]
async fn nobody_waits_while_the_metrics_list_what_the_kernel_holds() {
    let pages = metrics_pages("--conntrack-count-bytes");
    let (listed, waiting) = std::sync::mpsc::channel::<()>();
    let waiting = Mutex::new(waiting);
    let list = move || {
        let patience = Duration::from_secs(60);
        waiting.lock().unwrap().recv_timeout(patience).unwrap();
        Vec::new()
    };
    pages.metrics().read_bytes(Box::new(list)).unwrap();
    let scrape = tokio::spawn(ask(Arc::<MetricsPages>::clone(&pages), "/metrics"));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let (head, _) = ask(pages, "/proxyMode").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    listed.send(()).unwrap();
    let (head, body) = scrape.await.unwrap();
    assert!(
        head.starts_with("http/1.1 200") && body.contains("process_"),
        "{head}"
    );
}

#[tokio::test]
async fn the_configuration_in_effect_is_told_in_upstreams_shape() {
    let pages = metrics_pages("--hostname-override=node-1 --cluster-cidr=10.244.0.0/16,fd00:10:244::/48");
    let (head, body) = ask(pages, "/configz").await;
    assert!(head.contains("content-type: application/json"), "{head}");
    let told: Value = serde_json::from_str(&body).unwrap();
    let told = &told["kubeproxy.config.k8s.io"];
    for (field, value) in [
        ("kind", json!("KubeProxyConfiguration")),
        ("apiVersion", json!("kubeproxy.config.k8s.io/v1alpha1")),
        ("mode", json!("nftables")),
        ("hostnameOverride", json!("node-1")),
        ("nodePortAddresses", json!(["primary"])),
        ("metricsBindAddress", json!("127.0.0.1:10249")),
        ("configSyncPeriod", json!("15m0s")),
        ("clusterCIDR", json!("10.244.0.0/16,fd00:10:244::/48")),
    ] {
        assert_eq!(told[field], value, "{field}");
    }
    assert_eq!(told["nftables"]["syncPeriod"], "30s");
    // As upstream: nothing about a mode that is not in use.
    assert_eq!(told["iptables"]["syncPeriod"], "0s");
}

#[tokio::test]
async fn what_the_program_is_and_was_told_is_text_or_an_object_by_what_is_accepted() {
    let pages = metrics_pages("--masquerade-all");
    let (head, body) = ask(pages.clone(), "/statusz").await;
    assert!(head.contains("content-type: text/plain"), "{head}");
    assert!(body.starts_with("\nkube-proxy statusz\nWarning: "), "{body}");
    for line in [
        "Started= Sun Nov 22 23:20:03 UTC 2026",
        "Emulation version= 1.36",
        "Paths= /configz /flagz /healthz /metrics /metrics/slis /proxyMode /status",
    ] {
        assert!(
            body.lines().any(|found| found == line),
            "{line} is not in\n{body}"
        );
    }
    let (_, body) = ask(pages.clone(), "/flagz").await;
    assert!(body.starts_with("\nkube-proxy flagz\nWarning: "), "{body}");
    for line in [
        "masquerade-all=true",
        "proxy-mode=nftables",
        "conntrack-min=131072",
    ] {
        assert!(
            body.lines().any(|found| found == line),
            "{line} is not in\n{body}"
        );
    }
    let accept = |media: &str, version: &str, kind: &str| {
        format!("Accept: application/{media};v={version};g=config.k8s.io;as={kind}\r\n")
    };
    let json = ask_so(
        pages.clone(),
        "GET /statusz",
        &accept("json", "v1beta1", "Statusz"),
        "",
    )
    .await;
    let object: Value = serde_json::from_str(&json.1).unwrap();
    assert_eq!(
        (&object["kind"], &object["apiVersion"]),
        (&json!("Statusz"), &json!("config.k8s.io/v1beta1"))
    );
    assert_eq!(object["startTime"], "2026-11-22T23:20:03Z");
    let yaml = ask_so(
        pages.clone(),
        "GET /flagz",
        &accept("yaml", "v1alpha1", "Flagz"),
        "",
    )
    .await;
    assert!(yaml.0.contains("content-type: application/yaml"), "{}", yaml.0);
    assert!(
        yaml.1.contains("apiVersion: config.k8s.io/v1alpha1\nflags:\n"),
        "{}",
        yaml.1
    );
    for head in [
        "Accept: application/json\r\n",
        "Accept: text/html\r\n",
        &accept("json", "v1beta1", "Flagz"),
        &accept("json", "v9", "Statusz"),
    ] {
        let (answer, _) = ask_so(pages.clone(), "GET /statusz", head, "").await;
        assert!(answer.starts_with("http/1.1 406"), "{head}: {answer}");
    }
    let off = metrics_pages("--feature-gates=ComponentStatusz=false,ComponentFlagz=false");
    for path in ["/statusz", "/flagz"] {
        assert!(
            ask(off.clone(), path).await.0.starts_with("http/1.1 404"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn with_profiling_the_verbosity_can_be_put() {
    let pages = metrics_pages("--profiling");
    let (head, body) = ask_so(pages.clone(), "PUT /debug/flags/v", "", "4").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert_eq!(body, "successfully set klog.logging.verbosity to 4");
    for (asked, body, status) in [
        ("GET /debug/flags/v", "", "406"),
        ("PUT /debug/flags/v", "much", "400"),
        ("PUT /debug/flags/v", &"9".repeat(5000), "400"),
        ("GET /debug/pprof/", "", "404"),
    ] {
        let (head, _) = ask_so(pages.clone(), asked, "", body).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{asked}: {head}");
    }
}

#[tokio::test]
async fn health_checks_are_counted_for_the_service_level_until_that_is_reset() {
    let pages = metrics_pages("");
    assert_eq!(ask(pages.clone(), "/metrics/slis").await.1, "");
    for _ in 0..2 {
        ask(pages.clone(), "/healthz").await;
    }
    let line = "kubernetes_healthchecks_total{name=\"ping\",status=\"success\",type=\"healthz\"} 2\n";
    let (_, body) = ask(pages.clone(), "/metrics/slis").await;
    assert!(body.ends_with(line), "{body}");
    let (_, body) = ask_so(pages.clone(), "DELETE /metrics/slis", "", "").await;
    assert_eq!(body, "metrics reset\n");
    assert_eq!(ask(pages, "/metrics/slis").await.1, "");
}

#[tokio::test]
async fn the_metrics_server_answers_upstreams_paths() {
    let pages = metrics_pages("");
    let table = [
        ("/healthz", "200", "ok"),
        ("/healthz?verbose", "200", "[+]ping ok\nhealthz check passed\n"),
        ("/proxyMode", "200", "nftables"),
        // Without profiling there are no such pages.
        ("/debug/pprof/", "404", "404 page not found\n"),
        ("/debug/pprof/profile", "404", "404 page not found\n"),
        ("/debug/flags/v", "404", "404 page not found\n"),
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
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["lastUpdated"], body["currentTime"]);
    assert_eq!(body["nodeEligible"], true);
    assert_eq!(body["status"]["IPv6"]["lastUpdated"], "0001-01-01T00:00:00Z");

    health.synced(Family::V4, "2026-11-22T23:20:04.592955645Z".parse().unwrap());
    health.programmed([true, false]);
    health.node(&Node {
        deleting: true,
        ..Node::default()
    });
    let (head, body) = ask(pages.clone(), "/healthz").await;
    assert!(head.starts_with("http/1.1 503"), "{head}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["lastUpdated"], "2026-11-22T23:20:04.592955645Z");
    assert_eq!(
        body["status"]["IPv4"]["lastUpdated"],
        "2026-11-22T23:20:04.592955645Z"
    );
    assert_eq!(body["status"].get("IPv6"), None, "it is not programmed");
    assert_eq!(body["nodeEligible"], false);
    assert_eq!(body["healthy"], true);

    let (head, body) = ask(pages.clone(), "/livez").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert!(body.get("nodeEligible").is_none());
    assert_eq!(counters.healthz.with_label_values(&["503"]).get(), 1);
    assert_eq!(counters.livez.with_label_values(&["200"]).get(), 1);
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let (head, _) = ask_so(pages.clone(), &format!("{method} /livez"), "", "").await;
        assert!(head.starts_with("http/1.1 200"), "{method}: {head}");
    }
    for path in ["/", "/healthz/", "/metrics"] {
        let (head, _) = ask(pages.clone(), path).await;
        assert!(head.starts_with("http/1.1 404"), "{path}: {head}");
    }
}

/// In a namespace of its own: nothing of the host's should be reachable from outside, not even for a test.
#[test]
fn an_unspecified_address_listens_on_both_families() {
    let namespace = lab::net::Namespace::create(&format!("kp-server-{}", std::process::id())).unwrap();
    namespace.run("ip", &["link", "set", "lo", "up"]).unwrap();
    let listen = async {
        let listener = bind("0.0.0.0:0".parse().unwrap(), false, false).unwrap();
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
    let taken = bind("127.0.0.1:0".parse().unwrap(), false, false).unwrap();
    let listen = Listen {
        name: "healthz",
        address: taken.local_addr().unwrap(),
        failed: "FailedToStartProxierHealthcheck",
        hard_fail: true,
        beside: None,
    };
    let pages = || metrics_pages("");
    let (recorder, mut events) = recorder();
    let error = serve(listen, pages(), &recorder, ending().1).await.unwrap_err();
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
    let waiting = tokio::time::timeout(
        Duration::from_millis(50),
        serve(patient, pages(), &recorder, ending().1),
    )
    .await;
    assert!(waiting.is_err(), "still trying");
    for _ in 0..2 {
        let event = events.try_recv().unwrap();
        assert_eq!(event.reason, "FailedToStartProxierHealthcheck");
    }
    assert!(events.try_recv().is_err(), "each is told once");
}
