//! What the metrics server answers: what this proxy is, how it is configured, what it does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, StatusCode};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit};
use serde_json::{Value, json};

use super::pages::{Asked, PROMETHEUS, Page, Pages};
use crate::cli::Flags;
use crate::config::{Config, Features, Mode, yaml};
use crate::logging::Levels;
use crate::metrics::Metrics;
use crate::status::Status;

/// The release of Kubernetes whose kube-proxy this one behaves as.
const EMULATED: &str = "1.36";
const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility \
    guarantees and is for debugging purposes only.";
const YAML: &str = "application/yaml";

/// What is told about this proxy.
#[derive(Debug)]
pub struct About {
    /// For `/proxyMode`.
    pub(super) mode: Mode,
    /// Which pages there are.
    pub(super) features: Features,
    /// For `/configz`; it may change.
    pub(super) configz: Arc<Mutex<Value>>,
    /// For `/flagz`.
    pub(super) flags: BTreeMap<&'static str, String>,
    /// When this program began.
    pub(super) started: Timestamp,
    /// For `/debug/flags/v`, where profiling is on.
    pub(super) levels: Option<Levels>,
    /// For `/status`.
    pub(super) status: Arc<Status>,
    /// Some metrics are long lists of the kernel's.
    pub(super) lists_kernel: bool,
}

impl About {
    /// All of it; `levels` where they may be changed by a request.
    pub fn new(
        config: &Config,
        flags: &Flags,
        configz: Arc<Mutex<Value>>,
        levels: Option<Levels>,
        status: Arc<Status>,
    ) -> Self {
        Self {
            mode: config.mode,
            features: config.features,
            configz,
            flags: flags.values.clone(),
            started: Timestamp::now(),
            levels,
            status,
            lists_kernel: config.count_connections || config.conntrack.count_bytes,
        }
    }
}

/// The pages of the metrics server.
#[derive(Debug)]
pub(super) struct MetricsPages {
    metrics: Arc<Metrics>,
    about: About,
    /// How often somebody asked whether this server answers.
    pings: AtomicU64,
}

impl MetricsPages {
    #[cfg(test)]
    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn new(metrics: Arc<Metrics>, about: About) -> Self {
        Self {
            metrics,
            about,
            pings: AtomicU64::new(0),
        }
    }

    fn healthz(&self, query: &str) -> Page {
        self.pings.fetch_add(1, Ordering::Relaxed);
        let verbose = query.split('&').any(|word| word.starts_with("verbose"));
        Page::plain(
            StatusCode::OK,
            if verbose {
                "[+]ping ok\nhealthz check passed\n"
            } else {
                "ok"
            },
        )
    }

    /// Indicators of the service level: whether `/healthz` was answered, how often.
    fn slis(&self, method: &Method) -> Page {
        if method == Method::DELETE {
            self.pings.store(0, Ordering::Relaxed);
            return Page::plain(StatusCode::OK, "metrics reset\n");
        }
        let text = match self.pings.load(Ordering::Relaxed) {
            0 => String::new(),
            pings => format!(
                "# HELP kubernetes_healthcheck The result of a health check\n\
                 # TYPE kubernetes_healthcheck gauge\n\
                 kubernetes_healthcheck{{name=\"ping\",type=\"healthz\"}} 1\n\
                 # HELP kubernetes_healthchecks_total The results of all health checks\n\
                 # TYPE kubernetes_healthchecks_total counter\n\
                 kubernetes_healthchecks_total{{name=\"ping\",status=\"success\",type=\"healthz\"}} {pings}\n"
            ),
        };
        Page::new(StatusCode::OK, PROMETHEUS, text)
    }

    fn configz(&self) -> Page {
        let config = self.about.configz.lock().unwrap_or_else(PoisonError::into_inner);
        Page::json(
            StatusCode::OK,
            json!({"kubeproxy.config.k8s.io": *config}).to_string(),
        )
    }

    fn statusz(&self, accept: &str) -> Page {
        let up = Timestamp::now().duration_since(self.about.started).as_secs();
        let paths = self.paths();
        let text = || {
            let started = self
                .about
                .started
                .to_zoned(TimeZone::UTC)
                .strftime("%a %b %e %H:%M:%S UTC %Y")
                .to_string();
            let (hours, minutes, seconds) = (up / 3600, up / 60 % 60, up % 60);
            format!(
                "Started= {started}\nUp= {hours} hr {minutes:02} min {seconds:02} sec\n\
                 Binary version= {}\nEmulation version= {EMULATED}\nPaths= {}\n",
                env!("CARGO_PKG_VERSION"),
                paths.join(" "),
            )
        };
        let fields = || {
            let started = self
                .about
                .started
                .round(Unit::Second)
                .unwrap_or(self.about.started);
            json!({
                "startTime": started.to_string(), "uptimeSeconds": up, "goVersion": "", "paths": paths,
                "binaryVersion": env!("CARGO_PKG_VERSION"), "emulationVersion": EMULATED,
            })
        };
        structured("Statusz", accept, text, fields)
    }

    fn paths(&self) -> Vec<&'static str> {
        let features = &self.about.features;
        let mut paths = vec![
            "/configz",
            "/healthz",
            "/metrics",
            "/metrics/slis",
            "/proxyMode",
            "/status",
        ];
        paths.extend(features.flagz.then_some("/flagz"));
        paths.sort_unstable();
        paths
    }

    fn flagz(&self, accept: &str) -> Page {
        let flags = &self.about.flags;
        let lines = || {
            flags
                .iter()
                .map(|(name, value)| format!("{name}={value}\n"))
                .collect()
        };
        structured("Flagz", accept, lines, || json!({"flags": flags}))
    }

    /// The verbosity, which may be put.
    fn verbosity(&self, levels: &Levels, asked: &Asked<'_>) -> Page {
        if asked.method != Method::PUT {
            let problem = format!("unsupported http method {}\n", asked.method);
            return Page::plain(StatusCode::NOT_ACCEPTABLE, problem);
        }
        let text = String::from_utf8_lossy(asked.body);
        match text.trim().parse() {
            Ok(verbosity) => {
                levels.set_verbosity(verbosity);
                Page::plain(
                    StatusCode::OK,
                    format!("successfully set klog.logging.verbosity to {verbosity}"),
                )
            }
            Err(_) => Page::plain(
                StatusCode::BAD_REQUEST,
                format!("{text:?} is no verbosity: must be a number\n"),
            ),
        }
    }
}

impl Pages for MetricsPages {
    fn takes_time(&self, path: &str) -> bool {
        path == "/metrics" && self.about.lists_kernel
    }

    fn page(&self, asked: &Asked<'_>) -> Page {
        match (asked.path, &self.about.levels) {
            ("/metrics", _) => match self.metrics.text() {
                Ok(body) => Page::new(StatusCode::OK, PROMETHEUS, body),
                Err(error) => Page::plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            ("/metrics/slis", _) => self.slis(asked.method),
            ("/healthz", _) => self.healthz(asked.query),
            ("/proxyMode", _) => Page::plain(StatusCode::OK, self.about.mode.to_string()),
            ("/configz", _) => self.configz(),
            ("/statusz", _) if self.about.features.statusz => self.statusz(asked.accept),
            ("/flagz", _) if self.about.features.flagz => self.flagz(asked.accept),
            ("/status", _) => Page::json(StatusCode::OK, self.about.status.json()),
            ("/debug/flags/v", Some(levels)) => self.verbosity(levels, asked),
            _ => Page::not_found(),
        }
    }
}

/// A page that is text unless the request asks for an object of `config.k8s.io`.
fn structured(kind: &str, accept: &str, text: impl Fn() -> String, fields: impl Fn() -> Value) -> Page {
    let object = |version: &str| {
        let mut object = fields();
        object["kind"] = kind.into();
        object["apiVersion"] = format!("config.k8s.io/{version}").into();
        object["metadata"] = json!({"name": "kube-proxy"});
        object
    };
    for wanted in accept.split(',').map(str::trim) {
        let (media, parameters) = wanted.split_once(';').unwrap_or((wanted, ""));
        let of = |name: &str| {
            let parameters = parameters
                .split(';')
                .filter_map(|parameter| parameter.trim().split_once('='));
            parameters
                .filter(|(key, _)| *key == name)
                .map(|(_, value)| value)
                .next()
        };
        let version = of("v").filter(|version| ["v1alpha1", "v1beta1"].contains(version));
        let version = version.filter(|_| of("as") == Some(kind) && of("g") == Some("config.k8s.io"));
        match (media.trim(), version) {
            ("" | "*/*" | "text/*" | "text/plain", _) => {
                let head = format!("\nkube-proxy {}\n{WARNING}\n\n", kind.to_lowercase());
                return Page::plain(StatusCode::OK, head + &text());
            }
            ("application/json", Some(version)) => {
                return Page::json(StatusCode::OK, object(version).to_string());
            }
            ("application/yaml", Some(version)) => {
                return Page::new(StatusCode::OK, YAML, yaml::text(&object(version)));
            }
            _ => {}
        }
    }
    let served = format!(
        "served are text/plain, and application/json and application/yaml with g=config.k8s.io;v=v1beta1;as={kind}\n"
    );
    Page::plain(StatusCode::NOT_ACCEPTABLE, served)
}
