//! The metrics that kube-proxy exposes, by upstream's names where upstream has them.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
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
    /// Failed syncs of the nftables mode, by `ip_family`.
    pub nftables_sync_failures: IntCounterVec,
    /// Failed syncs of the iptables mode, by `ip_family`.
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
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// When two metrics have one name (a defect).
    #[rustfmt::skip] // A table: one metric, one line.
    pub fn new() -> Result<Self, prometheus::Error> {
        let new = Register(Registry::new());
        Ok(Self {
            api_failures: new.counters("api_failures_total", "Failed requests to the Kubernetes API server", &["resource", "reason"])?,
            api_watching: new.keep(IntGaugeVec::new(opts("api_watching", "Whether the watch of a resource delivers"), &["resource"])?)?,
            sync_duration: new.seconds("sync_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds")?,
            sync_full_duration: new.seconds("sync_full_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds for full resyncs")?,
            sync_partial_duration: new.seconds("sync_partial_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds for partial resyncs")?,
            sync_last: new.gauges("sync_proxy_rules_last_timestamp_seconds", "The last time proxy rules were successfully synced")?,
            sync_queued: new.gauges("sync_proxy_rules_last_queued_timestamp_seconds", "The last time a sync of proxy rules was queued")?,
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
            registry: new.0,
        })
    }

    /// Registers a counter that is read whenever somebody asks for the text, on that thread. It has no series while
    /// `read` has no number.
    ///
    /// # Errors
    /// When there is a metric of that name.
    pub fn read_at_scrape(
        &self,
        name: &str,
        help: &str,
        read: impl Fn() -> Option<u64> + Send + Sync + 'static,
    ) -> Result<(), prometheus::Error> {
        let opts = opts(name, help);
        let described = IntCounter::with_opts(opts.clone())?;
        self.registry.register(Box::new(ReadAtScrape {
            opts,
            described,
            read,
        }))
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    /// When a metric has no series that can be written (a defect).
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// A counter that something else keeps.
struct ReadAtScrape<R> {
    opts: Opts,
    /// Never counts; it knows how the counter is described.
    described: IntCounter,
    read: R,
}

impl<R: Fn() -> Option<u64> + Send + Sync> Collector for ReadAtScrape<R> {
    fn desc(&self) -> Vec<&Desc> {
        self.described.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let read = (self.read)().and_then(|number| {
            let counter = IntCounter::with_opts(self.opts.clone()).ok()?;
            counter.inc_by(number);
            Some(counter.collect())
        });
        read.unwrap_or_default()
    }
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
        let opts = HistogramOpts::new(format!("kubeproxy_{name}"), help);
        let opts = opts.buckets(exponential_buckets(0.001, 2.0, 15)?);
        self.keep(HistogramVec::new(opts, &["ip_family"])?)
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("kubeproxy_{name}"), help)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

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
}
