//! What the servers answer.

use std::sync::Arc;
use std::time::Instant;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use jiff::Timestamp;
use serde::Serialize;

use crate::config::Mode;
use crate::health::{Health, Report};
use crate::metrics::Metrics;

const PLAIN: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");
/// How Go writes a time that was never set.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The paths of one server.
pub(super) trait Pages: Send + Sync {
    /// The answer to a path with its query.
    fn page(&self, path: &str, query: &str) -> Page;

    /// The answer to a request, whatever its method.
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let uri = request.uri();
        let page = self.page(uri.path(), uri.query().unwrap_or_default());
        let mut response = Response::new(Full::new(Bytes::from(page.body)));
        *response.status_mut() = page.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
        if page.content_type != PROMETHEUS {
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
        if let Some(weight) = page.weight {
            headers.insert(WEIGHT, HeaderValue::from(weight));
        }
        response
    }
}

/// One answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) body: String,
    /// How much traffic a load balancer should send here, beside other nodes.
    weight: Option<usize>,
}

impl Page {
    fn new(status: StatusCode, content_type: &'static str, body: String) -> Self {
        Self {
            status,
            content_type,
            body,
            weight: None,
        }
    }

    fn plain(status: StatusCode, body: impl Into<String>) -> Self {
        Self::new(status, PLAIN, body.into())
    }

    pub(super) fn json(status: StatusCode, body: String) -> Self {
        Self::new(status, JSON, body)
    }

    pub(super) fn with_weight(self, weight: usize) -> Self {
        Self {
            weight: Some(weight),
            ..self
        }
    }

    fn not_found() -> Self {
        Self::plain(StatusCode::NOT_FOUND, "404 page not found\n")
    }
}

/// `/metrics`, `/healthz` and `/proxyMode` of the metrics server.
#[derive(Debug)]
pub(super) struct MetricsPages {
    /// What `/metrics` shows.
    pub(super) metrics: Arc<Metrics>,
    /// What `/proxyMode` shows.
    pub(super) mode: Mode,
}

impl Pages for MetricsPages {
    fn page(&self, path: &str, query: &str) -> Page {
        match path {
            "/metrics" => match self.metrics.text() {
                Ok(body) => Page::new(StatusCode::OK, PROMETHEUS, body),
                Err(error) => Page::plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            "/healthz" if query.split('&').any(|word| word.starts_with("verbose")) => {
                Page::plain(StatusCode::OK, "[+]ping ok\nhealthz check passed\n")
            }
            "/healthz" => Page::plain(StatusCode::OK, "ok"),
            "/proxyMode" => Page::plain(StatusCode::OK, self.mode.to_string()),
            _ => Page::not_found(),
        }
    }
}

/// `/healthz` and `/livez` of the health server: the first is for load balancers, which should leave out a
/// node that is about to go, the second for whoever restarts a proxy that is stuck.
#[derive(Debug)]
pub(super) struct HealthPages {
    /// What to tell.
    pub(super) health: Arc<Health>,
    /// Where to count the answers.
    pub(super) metrics: Arc<Metrics>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HealthBody {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    status: Families,
}

/// One sync carries both families, so both are as healthy.
#[derive(Serialize)]
struct Families {
    #[serde(rename = "IPv4")]
    v4: FamilyBody,
    #[serde(rename = "IPv6")]
    v6: FamilyBody,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyBody {
    last_updated: String,
    healthy: bool,
}

impl Pages for HealthPages {
    fn page(&self, path: &str, _: &str) -> Page {
        let report = self.health.report(Instant::now());
        let (ok, eligible, counter) = match path {
            "/healthz" => (
                report.healthy && report.eligible,
                Some(report.eligible),
                &self.metrics.healthz,
            ),
            "/livez" => (report.healthy, None, &self.metrics.livez),
            _ => return Page::not_found(),
        };
        let status = if ok {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        counter.with_label_values(&[status.as_str()]).inc();
        match serde_json::to_string(&health_body(report, ok, eligible, Timestamp::now())) {
            Ok(body) => Page::json(status, body),
            Err(error) => Page::plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

fn health_body(report: Report, ok: bool, node_eligible: Option<bool>, now: Timestamp) -> HealthBody {
    let synced = report
        .synced
        .map_or(NEVER.to_owned(), |synced| synced.to_string());
    let family = FamilyBody {
        last_updated: synced.clone(),
        healthy: report.healthy,
    };
    HealthBody {
        // Clients of old take this for a sign of life, so a healthy proxy says now.
        last_updated: if ok { now.to_string() } else { synced },
        current_time: now.to_string(),
        node_eligible,
        healthy: report.healthy,
        status: Families {
            v4: family.clone(),
            v6: family,
        },
    }
}
