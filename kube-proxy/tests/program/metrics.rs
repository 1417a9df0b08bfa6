//! The whole of `/metrics`, compared with what upstream's documentation and its own answers say: names, types, labels
//! and buckets, in each mode.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use lab::net::Namespace;

use super::exposition::{Family, read};
use super::machine::{Manifests, service};
use super::running::Proxy;

/// When a metric has series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Once all that the test does is done.
    Always,
    /// The same in this mode, and never in another.
    In(&'static str),
    /// When something fails, or there is what it is about. Then it is as the table says.
    Sometimes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    /// 1 ms, doubled 14 times.
    Syncs,
    /// From 0 to 5 minutes.
    Programming,
    /// Those of requests to an API server.
    Requests,
}

use Kind::{Counter, Gauge, Programming, Requests, Syncs};
use When::{Always, In, Sometimes};

const FAMILY: &[&str] = &["ip_family"];

/// What there is, upstream's first.
#[rustfmt::skip] // A table: one metric, one line.
const TABLE: &[(&str, Kind, &[&str], When)] = &[
    ("kubeproxy_sync_proxy_rules_duration_seconds", Syncs, FAMILY, Always),
    ("kubeproxy_sync_full_proxy_rules_duration_seconds", Syncs, FAMILY, Always),
    ("kubeproxy_sync_partial_proxy_rules_duration_seconds", Syncs, FAMILY, Always),
    ("kubeproxy_sync_proxy_rules_last_timestamp_seconds", Gauge, FAMILY, Always),
    ("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", Gauge, FAMILY, Always),
    ("kubeproxy_network_programming_duration_seconds", Programming, FAMILY, Always),
    ("kubeproxy_sync_proxy_rules_endpoint_changes_pending", Gauge, &[], Always),
    ("kubeproxy_sync_proxy_rules_endpoint_changes_total", Counter, &[], Always),
    ("kubeproxy_sync_proxy_rules_service_changes_pending", Gauge, &[], Always),
    ("kubeproxy_sync_proxy_rules_service_changes_total", Counter, &[], Always),
    ("kubeproxy_sync_proxy_rules_no_local_endpoints_total", Gauge, &["ip_family", "traffic_policy"], Always),
    ("kubeproxy_proxy_healthz_total", Counter, &["code"], Always),
    ("kubeproxy_proxy_livez_total", Counter, &["code"], Always),
    ("kubeproxy_sync_proxy_rules_iptables_restore_failures_total", Counter, FAMILY, Sometimes),
    ("kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total", Counter, FAMILY, Sometimes),
    ("kubeproxy_sync_proxy_rules_iptables_total", Gauge, &["ip_family", "table"], In("iptables")),
    ("kubeproxy_sync_proxy_rules_iptables_last", Gauge, &["ip_family", "table"], In("iptables")),
    ("kubeproxy_iptables_ct_state_invalid_dropped_packets_total", Counter, &[], In("iptables")),
    ("kubeproxy_iptables_localhost_nodeports_accepted_packets_total", Counter, &[], In("iptables")),
    ("kubeproxy_sync_proxy_rules_nftables_sync_failures_total", Counter, FAMILY, Sometimes),
    ("kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total", Counter, FAMILY, Sometimes),
    ("kubeproxy_conntrack_reconciler_sync_duration_seconds", Syncs, FAMILY, Always),
    ("kubeproxy_conntrack_reconciler_deleted_entries_total", Counter, FAMILY, Sometimes),
    ("kubernetes_build_info", Gauge, &["build_date", "compiler", "git_commit", "git_tree_state", "git_version", "go_version", "major", "minor", "platform"], Always),
    ("kubernetes_feature_enabled", Gauge, &["name", "stage"], Always),
    ("rest_client_requests_total", Counter, &["code", "host", "method"], Sometimes),
    ("rest_client_request_duration_seconds", Requests, &["host", "verb"], Sometimes),
    ("process_cpu_seconds_total", Counter, &[], Always),
    ("process_open_fds", Gauge, &[], Always),
    ("process_max_fds", Gauge, &[], Always),
    ("process_virtual_memory_bytes", Gauge, &[], Always),
    ("process_virtual_memory_max_bytes", Gauge, &[], Always),
    ("process_resident_memory_bytes", Gauge, &[], Always),
    ("process_start_time_seconds", Gauge, &[], Always),
    // Ours.
    ("process_threads", Gauge, &[], Always),
    ("kubeproxy_api_failures_total", Counter, &["reason", "resource"], Sometimes),
    ("kubeproxy_api_watching", Gauge, &["resource"], Sometimes),
    ("kubeproxy_refused_elements_total", Counter, &[], Always),
    ("kubeproxy_refused_elements", Gauge, &[], Always),
    ("kubeproxy_conflicting_addresses", Gauge, &[], Always),
    ("kubeproxy_manifests_broken", Gauge, &[], Always),
    ("kubeproxy_drift_total", Counter, &[], Always),
    ("kubeproxy_service_connections_total", Counter, &["ip_family", "namespace", "port", "protocol", "service"], Sometimes),
    ("kubeproxy_service_bytes_total", Counter, &["direction", "ip_family", "namespace", "port", "protocol", "service"], Always),
];

fn bounds(kind: Kind) -> BTreeSet<String> {
    let texts = |numbers: Vec<f64>| numbers.into_iter().map(|number| number.to_string()).collect();
    match kind {
        Counter | Gauge => BTreeSet::new(),
        Syncs => texts((0..15).map(|power| 0.001 * f64::from(1 << power)).collect()),
        Programming => {
            let seconds = (1..=59)
                .chain((60..=115).step_by(5))
                .chain((120..=300).step_by(30));
            texts(
                [0.0, 0.25, 0.5]
                    .into_iter()
                    .chain(seconds.map(f64::from))
                    .collect(),
            )
        }
        Requests => texts(vec![
            0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0,
        ]),
    }
}

fn is_as_told(name: &str, family: &Family, kind: Kind, labels: &[&str]) {
    let expected = match kind {
        Counter => "counter",
        Gauge => "gauge",
        Syncs | Programming | Requests => "histogram",
    };
    assert_eq!(family.kind, expected, "{name}");
    assert!(
        family.labels.iter().eq(labels),
        "{name} has the labels {:?}",
        family.labels
    );
    assert_eq!(family.buckets, bounds(kind), "{name}");
}

/// A DNS server's Service, which local endpoints alone may serve, with an endpoint on another node, since `trigger`.
fn elsewhere(endpoint: &str, trigger: &str) -> String {
    ["IPv4", "IPv6"]
        .map(|family| {
            let (ip, endpoint) = match family {
                "IPv4" => ("10.96.0.53".to_owned(), format!("10.244.0.{endpoint}")),
                _ => ("fd00:96::53".to_owned(), format!("fd00:10:244::{endpoint}")),
            };
            let name = format!("dns-{}", &family[2..].to_lowercase());
            format!(
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: '{ip}', \
                 ipFamilies: [{family}], internalTrafficPolicy: Local, ports: [{{port: 53, protocol: UDP}}]}}\n\
                 ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: {family}\n\
                 metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}, annotations: \
                 {{endpoints.kubernetes.io/last-change-trigger-time: '{trigger}'}}}}\n\
                 ports: [{{name: '', port: 53, protocol: UDP}}]\n\
                 endpoints: [{{addresses: ['{endpoint}'], nodeName: node-2}}]\n"
            )
        })
        .concat()
}

#[test]
fn metrics_have_upstreams_names_types_labels_and_buckets_in_each_mode() {
    for mode in ["nftables", "iptables"] {
        are_as_upstreams(mode);
    }
}

/// Compares everything, after a start, a change in both families, and requests to the other pages. In IPVS mode it takes a
/// kernel that has IPVS.
pub(crate) fn are_as_upstreams(mode: &'static str) {
    let namespace = Namespace::create("metrics").unwrap();
    let web = service("web", "10.96.0.10", 30080, &["10.244.0.9"]);
    let manifests = Manifests::new(&[web.clone(), elsewhere("3", "2020-01-01T00:00:00Z")]);
    let proxy = Proxy::start(
        &namespace,
        &[
            &format!("--proxy-mode={mode}"),
            "--conntrack-count-bytes",
            &manifests.argument,
        ],
    );
    proxy.says("SyncProxyRules complete for the first time");
    manifests.write(&[web, elsewhere("4", &Timestamp::now().to_string())]);
    let metrics = "http://127.0.0.1:10249/metrics";
    // The slice that was there before the program says nothing about it.
    for family in ["IPv4", "IPv6"] {
        let measured = format!("network_programming_duration_seconds_count{{ip_family=\"{family}\"}} 1\n");
        let looked = format!("conntrack_reconciler_sync_duration_seconds_count{{ip_family=\"{family}\"}}");
        proxy.answers(metrics, &[&measured, &looked]);
    }
    let healthy = ["HTTP/1.1 200 OK", "\"healthy\":true", "\"IPv4\"", "\"IPv6\""];
    for page in ["healthz", "livez"] {
        proxy.answers(&format!("http://127.0.0.1:10256/{page}"), &healthy);
    }
    let told = proxy.get(10249, "/proxyMode");
    assert!(told.ends_with(&format!("\r\n\r\n{mode}")), "{told}");
    let answer = proxy.get(10249, "/metrics");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    let families = read(body);
    for (name, family) in &families {
        let known = TABLE.iter().find(|(known, ..)| known == name);
        let (_, kind, labels, when) = known.unwrap_or_else(|| panic!("{name} is in no table"));
        is_as_told(name, family, *kind, labels);
        assert!(
            !matches!(when, In(other) if *other != mode),
            "{name} in {mode} mode"
        );
    }
    for (name, _, _, when) in TABLE {
        let wanted = *when == Always || *when == In(mode);
        assert!(
            !wanted || families.contains_key(*name),
            "{name} is missing in\n{body}"
        );
    }
    have_the_values(&families);
}

/// Those that are known in any mode.
fn have_the_values(families: &BTreeMap<String, Family>) {
    let value = |name: &str, series: &str| -> f64 { families[name].series[&format!("{name}{series}")] };
    for (family, policy, count) in [
        ("IPv4", "internal", 1.0),
        ("IPv6", "internal", 1.0),
        ("IPv4", "external", 0.0),
    ] {
        let labels = format!("{{ip_family=\"{family}\",traffic_policy=\"{policy}\"}}");
        assert_eq!(
            value("kubeproxy_sync_proxy_rules_no_local_endpoints_total", &labels),
            count
        );
    }
    let now = Timestamp::now().as_duration().as_secs_f64();
    let age = now - value("process_start_time_seconds", "");
    assert!((-5.0..3600.0).contains(&age), "{age}");
    assert!(value("process_resident_memory_bytes", "") > 1e6);
    assert!(value("process_open_fds", "") > 3.0 && value("process_threads", "") >= 3.0);
    let gate = "{name=\"AllowServiceExternalIPs\",stage=\"\"}";
    assert_eq!(value("kubernetes_feature_enabled", gate), 1.0);
}
