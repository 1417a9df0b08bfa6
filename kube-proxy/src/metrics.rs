//! The metrics that kube-proxy exposes, by upstream's names where upstream has them.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

/// All metrics, registered once; handles are cheap to use from any thread.
#[derive(Debug)]
pub struct Metrics {
    /// What `/metrics` prints.
    pub registry: Registry,
    /// Failed or broken requests to the API server, by `resource` (services, endpointslices, nodes) and
    /// `reason` (connect, status, decode, stalled, expired).
    pub api_failures: IntCounterVec,
    /// 1 while the watch of a `resource` delivers, 0 while it is down.
    pub api_watching: IntGaugeVec,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// When two metrics have one name (a defect).
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let api_failures = IntCounterVec::new(
            Opts::new(
                "kubeproxy_api_failures_total",
                "Failed requests to the Kubernetes API server",
            ),
            &["resource", "reason"],
        )?;
        registry.register(Box::new(api_failures.clone()))?;
        let api_watching = IntGaugeVec::new(
            Opts::new(
                "kubeproxy_api_watching",
                "Whether the watch of a resource delivers",
            ),
            &["resource"],
        )?;
        registry.register(Box::new(api_watching.clone()))?;
        Ok(Self {
            registry,
            api_failures,
            api_watching,
        })
    }
}
