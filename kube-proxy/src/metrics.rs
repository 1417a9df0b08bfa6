//! The metrics that kube-proxy exposes, by upstream's names where upstream has them. Those of its process are in
//! `process`, those by Service in `services`; `read` has those that are read when somebody asks for the text.

mod process;
mod read;
mod services;

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, exponential_buckets,
};

/// All metrics, registered once; handles are cheap to use from any thread.
#[derive(Debug)]
pub struct Metrics {
    /// What `/metrics` prints.
    pub registry: Registry,
    /// Failed or broken requests to the API server, by `resource` (services, endpointslices, nodes,
    /// servicecidrs) and `reason` (connect, status, decode, stalled, expired).
    pub api_failures: IntCounterVec,
    /// 1 while the watch of a `resource` delivers, 0 while it is down. None for a resource that is done without.
    pub api_watching: IntGaugeVec,
    /// Seconds of each sync, by `ip_family`. One sync carries both families.
    pub sync_duration: HistogramVec,
    /// The same, of those that wrote everything.
    pub sync_full_duration: HistogramVec,
    /// The same, of those that wrote what had changed.
    pub sync_partial_duration: HistogramVec,
    /// When rules were last put in force, by `ip_family`.
    pub sync_last: GaugeVec,
    /// When a sync was last wanted, by `ip_family`.
    pub sync_queued: GaugeVec,
    /// Seconds from what made an EndpointSlice change until that was in force, by `ip_family`.
    pub network_programming: HistogramVec,
    /// ServicePorts whose policy is Local and whose endpoints are all on other nodes, by `traffic_policy` and
    /// `ip_family`.
    pub no_local_endpoints: IntGaugeVec,
    /// Failed syncs of the nftables mode, by `ip_family`.
    pub nftables_sync_failures: IntCounterVec,
    /// Chains without use that could not be deleted for now, by `ip_family`.
    pub nftables_cleanup_failures: IntCounterVec,
    /// How often what is in force was found changed by another hand.
    pub drift: IntCounter,
    /// Failed syncs of the iptables mode and of the IPVS mode, by `ip_family`.
    pub iptables_restore_failures: IntCounterVec,
    /// Those of them that were to write only what had changed, by `ip_family`; everything is written then.
    pub iptables_partial_restore_failures: IntCounterVec,
    /// Rules of the iptables mode, by `table` and `ip_family`.
    pub iptables_rules: IntGaugeVec,
    /// Those that the last sync wrote, by `table` and `ip_family`.
    pub iptables_rules_last: IntGaugeVec,
    /// Seconds of each look for stale conntrack entries, by `ip_family`.
    pub conntrack_duration: HistogramVec,
    /// Conntrack entries deleted for being stale, by `ip_family`.
    pub conntrack_deleted: IntCounterVec,
    /// EndpointSlices changed.
    pub endpoint_changes: IntCounter,
    /// EndpointSlices changed and not yet in force.
    pub endpoint_changes_pending: IntGauge,
    /// Services changed, once a family.
    pub service_changes: IntCounter,
    /// Services changed and not yet in force, once a family.
    pub service_changes_pending: IntGauge,
    /// Elements that the kernel refused.
    pub refusals: IntCounter,
    /// Elements that are left out at present because the kernel refused them.
    pub refused_now: IntGauge,
    /// Addresses that a Service asks for and an older one holds, at present.
    pub conflicts: IntGauge,
    /// Manifest documents that cannot be used at present.
    pub manifests_broken: IntGauge,
    /// Answers of `/healthz` by `code`.
    pub healthz: IntCounterVec,
    /// Answers of `/livez` by `code`.
    pub livez: IntCounterVec,
    /// Requests to the API server, by `code` (or `<error>`), `host` and `method`.
    pub client_requests: IntCounterVec,
    /// Seconds until the answers began, by `host` and `verb`.
    pub client_duration: HistogramVec,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// When two metrics have one name (a defect).
    #[rustfmt::skip] // A table: one metric, one line.
    pub fn new() -> Result<Self, prometheus::Error> {
        let new = Register(Registry::new());
        let metrics = Self {
            api_failures: new.counters("api_failures_total", "Failed requests to the Kubernetes API server", &["resource", "reason"])?,
            api_watching: new.keep(IntGaugeVec::new(opts("api_watching", "Whether the watch of a resource delivers"), &["resource"])?)?,
            sync_duration: new.seconds("sync_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds")?,
            sync_full_duration: new.seconds("sync_full_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds for full resyncs")?,
            sync_partial_duration: new.seconds("sync_partial_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds for partial resyncs")?,
            sync_last: new.gauges("sync_proxy_rules_last_timestamp_seconds", "The last time proxy rules were successfully synced")?,
            sync_queued: new.gauges("sync_proxy_rules_last_queued_timestamp_seconds", "The last time a sync of proxy rules was queued")?,
            network_programming: new.histogram("kubeproxy_network_programming_duration_seconds", "In Cluster Network Programming Latency in seconds", &network_programming_buckets(), &["ip_family"])?,
            no_local_endpoints: new.keep(IntGaugeVec::new(opts("sync_proxy_rules_no_local_endpoints_total", "Number of services with a Local traffic policy and no endpoints"), &["traffic_policy", "ip_family"])?)?,
            nftables_cleanup_failures: new.counters("sync_proxy_rules_nftables_cleanup_failures_total", "Cumulative proxy nftables cleanup failures", &["ip_family"])?,
            drift: new.counter("drift_total", "How often another hand had changed what is in force")?,
            nftables_sync_failures: new.counters("sync_proxy_rules_nftables_sync_failures_total", "Cumulative proxy nftables sync failures", &["ip_family"])?,
            iptables_restore_failures: new.counters("sync_proxy_rules_iptables_restore_failures_total", "Cumulative proxy iptables restore failures", &["ip_family"])?,
            iptables_partial_restore_failures: new.counters("sync_proxy_rules_iptables_partial_restore_failures_total", "Cumulative proxy iptables partial restore failures", &["ip_family"])?,
            iptables_rules: new.keep(IntGaugeVec::new(opts("sync_proxy_rules_iptables_total", "Total number of iptables rules owned by kube-proxy"), &["table", "ip_family"])?)?,
            iptables_rules_last: new.keep(IntGaugeVec::new(opts("sync_proxy_rules_iptables_last", "Number of iptables rules written by kube-proxy in last sync"), &["table", "ip_family"])?)?,
            conntrack_duration: new.seconds("conntrack_reconciler_sync_duration_seconds", "Duration of each look for stale conntrack entries in seconds")?,
            conntrack_deleted: new.counters("conntrack_reconciler_deleted_entries_total", "Cumulative stale conntrack entries deleted", &["ip_family"])?,
            endpoint_changes: new.counter("sync_proxy_rules_endpoint_changes_total", "Cumulative proxy rules Endpoint changes")?,
            endpoint_changes_pending: new.gauge("sync_proxy_rules_endpoint_changes_pending", "Pending proxy rules Endpoint changes")?,
            service_changes: new.counter("sync_proxy_rules_service_changes_total", "Cumulative proxy rules Service changes")?,
            service_changes_pending: new.gauge("sync_proxy_rules_service_changes_pending", "Pending proxy rules Service changes")?,
            refusals: new.counter("refused_elements_total", "Elements that the kernel refused")?,
            refused_now: new.gauge("refused_elements", "Elements that are left out because the kernel refuses them")?,
            conflicts: new.gauge("conflicting_addresses", "Addresses that a Service asks for and an older Service holds")?,
            manifests_broken: new.gauge("manifests_broken", "Documents of the manifests that cannot be used")?,
            healthz: new.counters("proxy_healthz_total", "Cumulative proxy healthz HTTP status", &["code"])?,
            livez: new.counters("proxy_livez_total", "Cumulative proxy livez HTTP status", &["code"])?,
            client_requests: new.keep(IntCounterVec::new(Opts::new("rest_client_requests_total", "Requests to the API server"), &["code", "host", "method"])?)?,
            client_duration: new.histogram("rest_client_request_duration_seconds", "Request latency in seconds", &REQUEST_BUCKETS, &["host", "verb"])?,
            registry: new.0,
        };
        metrics.read_process()?;
        metrics.set_build_info()?;
        Ok(metrics)
    }

    /// The constants: what this program is, under the labels by which Kubernetes' components tell it.
    fn set_build_info(&self) -> Result<(), prometheus::Error> {
        let opts = Opts::new(
            "kubernetes_build_info",
            "A constant 1, labelled with what was built",
        );
        let labels = [
            ("build_date", ""),
            ("compiler", "rustc"),
            ("git_commit", ""),
            ("git_tree_state", ""),
            ("git_version", concat!("v", env!("CARGO_PKG_VERSION"))),
            ("go_version", ""),
            ("major", env!("CARGO_PKG_VERSION_MAJOR")),
            ("minor", env!("CARGO_PKG_VERSION_MINOR")),
            ("platform", PLATFORM),
        ];
        let info = labels
            .into_iter()
            .fold(opts, |opts, (name, value)| opts.const_label(name, value));
        let info = IntGauge::with_opts(info)?;
        info.set(1);
        self.registry.register(Box::new(info))
    }

    /// Tells which feature gates are on.
    ///
    /// # Errors
    /// When it was told before (a defect).
    pub fn set_features(&self, features: &[Feature]) -> Result<(), prometheus::Error> {
        let opts = Opts::new("kubernetes_feature_enabled", "Whether a feature gate is on");
        let enabled = IntGaugeVec::new(opts, &["name", "stage"])?;
        for Feature { name, stage, on } in features {
            enabled.with_label_values(&[name, stage]).set((*on).into());
        }
        self.registry.register(Box::new(enabled))
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    /// When a metric has no series that can be written (a defect).
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// A feature gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// `ALPHA`, `BETA`, or empty when it is general.
    pub stage: &'static str,
    /// Whether it is on.
    pub on: bool,
}

/// The operating system and architecture, as Kubernetes names them.
const PLATFORM: &str = if cfg!(target_arch = "x86_64") {
    "linux/amd64"
} else if cfg!(target_arch = "aarch64") {
    "linux/arm64"
} else {
    "linux"
};

/// Bounds of client-go's latencies, in seconds.
const REQUEST_BUCKETS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];

/// Bounds of the time that a change takes on its way through the cluster, in seconds.
fn network_programming_buckets() -> Vec<f64> {
    let seconds = (1..60).chain((60..120).step_by(5)).chain((120..=300).step_by(30));
    [0.0, 0.25, 0.5]
        .into_iter()
        .chain(seconds.map(f64::from))
        .collect()
}

/// Makes a metric and registers it.
struct Register(Registry);

impl Register {
    fn keep<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.keep(IntCounter::with_opts(opts(name, help))?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.keep(IntGauge::with_opts(opts(name, help))?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.keep(IntCounterVec::new(opts(name, help), labels)?)
    }

    fn gauges(&self, name: &str, help: &str) -> Result<GaugeVec, prometheus::Error> {
        self.keep(GaugeVec::new(opts(name, help), &["ip_family"])?)
    }

    /// A histogram of seconds by `ip_family`, 1 ms to 16 s.
    fn seconds(&self, name: &str, help: &str) -> Result<HistogramVec, prometheus::Error> {
        let buckets = exponential_buckets(0.001, 2.0, 15)?;
        self.histogram(&format!("kubeproxy_{name}"), help, &buckets, &["ip_family"])
    }

    /// A histogram with these bounds; `name` is the whole name.
    fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.keep(HistogramVec::new(opts, labels)?)
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("kubeproxy_{name}"), help)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::dataplane::iptables::{self, Iptables};
    use crate::dataplane::{Dataplane as _, KernelCounter, LocalTraffic};
    use crate::model::object::Family;

    #[test]
    fn the_text_holds_upstreams_names() {
        let metrics = Metrics::new().unwrap();
        metrics.service_changes.inc_by(2);
        metrics.sync_duration.with_label_values(&["IPv4"]).observe(0.003);
        metrics.conntrack_deleted.with_label_values(&["IPv6"]).inc_by(3);
        metrics
            .conntrack_duration
            .with_label_values(&["IPv6"])
            .observe(0.003);
        metrics.healthz.with_label_values(&["200"]).inc();
        let text = metrics.text().unwrap();
        for line in [
            "# TYPE kubeproxy_sync_proxy_rules_duration_seconds histogram",
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0.002\"} 0",
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family=\"IPv4\",le=\"16.384\"} 1",
            "kubeproxy_sync_proxy_rules_service_changes_total 2",
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0",
            "kubeproxy_conntrack_reconciler_sync_duration_seconds_count{ip_family=\"IPv6\"} 1",
            "kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv6\"} 3",
            "kubeproxy_proxy_healthz_total{code=\"200\"} 1",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
    }

    #[test]
    fn a_counter_of_the_kernel_is_read_at_each_scrape_and_has_no_series_while_it_is_not_there() {
        let metrics = Metrics::new().unwrap();
        let kernel = Arc::new(AtomicU64::new(0));
        let asked = Arc::clone(&kernel);
        let read = move || Some(asked.load(Ordering::Relaxed)).filter(|count| *count != 7);
        metrics.read_at_scrape("of_the_kernel", "Help", read).unwrap();
        for (count, line) in [(0, true), (7, false), (9, true), (3, true)] {
            kernel.store(count, Ordering::Relaxed);
            let text = metrics.text().unwrap();
            let expected = format!("\nkubeproxy_of_the_kernel {count}\n");
            assert_eq!(text.contains(&expected), line, "{text}");
            assert_eq!(text.contains("# TYPE kubeproxy_of_the_kernel counter"), line);
        }
        assert!(metrics.read_at_scrape("of_the_kernel", "Help", || None).is_err());
    }

    fn of_iptables() -> Vec<KernelCounter> {
        let config = iptables::Config {
            masquerade_mark: 0,
            local_traffic: [LocalTraffic::Unknown, LocalTraffic::Unknown],
            localhost_node_ports: true,
            families: Vec::new(),
            primary: Family::V4,
            sync_period: Duration::ZERO,
            drops_invalid: true,
        };
        Iptables::new(config).counters()
    }

    #[test]
    fn the_dashboard_asks_for_metrics_that_there_are() {
        let metrics = Metrics::new().unwrap();
        for counter in of_iptables() {
            metrics
                .read_at_scrape(counter.name, counter.help, counter.read)
                .unwrap();
        }
        metrics.read_connections(Box::new(Vec::new)).unwrap();
        metrics.read_bytes(Box::new(Vec::new)).unwrap();
        let dashboard = include_str!("../../deploy/grafana/kube-proxy.json");
        let words = dashboard.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let asked: BTreeSet<&str> = words.filter_map(|word| word.strip_prefix("kubeproxy_")).collect();
        // Only a name that nobody has can be registered.
        let is_there = |name: &str| metrics.read_at_scrape(name, "Help", || None).is_err();
        let unknown: Vec<_> = asked
            .iter()
            .filter(|name| {
                let histogram = ["_bucket", "_count"]
                    .iter()
                    .find_map(|part| name.strip_suffix(part));
                !is_there(histogram.unwrap_or(name))
            })
            .collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert!(asked.len() > 20, "{asked:?}");
    }
}
