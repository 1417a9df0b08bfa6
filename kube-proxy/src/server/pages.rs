//! What servers answer: the shape of questions and answers, and the paths of the health server. Those of the metrics
//! server are in `about`.

use std::sync::Arc;
use std::time::Instant;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use jiff::Timestamp;
use serde::Serialize;

use crate::health::{Health, Report};
use crate::metrics::Metrics;

const PLAIN: &str = "text/plain; charset=utf-8";
pub(super) const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");
/// Nobody has more to say than a number.
const LONGEST_BODY: usize = 1024;
/// How Go writes a time that was never set.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The paths of one server.
pub(super) trait Pages: Send + Sync {
    /// The answer to a request, whatever its method unless that matters.
    fn page(&self, asked: &Asked<'_>) -> Page;

    /// Whether the answer at this path takes so long that nothing else may wait for it.
    fn takes_time(&self, _path: &str) -> bool {
        false
    }
}

/// A request.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    /// The header `Accept`.
    pub(super) accept: &'a str,
    /// What is to be put there; empty for other methods than PUT.
    pub(super) body: &'a [u8],
}

/// Answers a request.
pub(super) async fn answer(pages: Arc<dyn Pages>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = match head.method {
        Method::PUT => Limited::new(body, LONGEST_BODY)
            .collect()
            .await
            .map(|body| body.to_bytes()),
        _ => Ok(Bytes::new()),
    };
    let takes_time = pages.takes_time(head.uri.path());
    let make = move || match &body {
        Ok(body) => pages.page(&Asked {
            method: &head.method,
            path: head.uri.path(),
            query: head.uri.query().unwrap_or_default(),
            accept: head
                .headers
                .get(ACCEPT)
                .and_then(|accept| accept.to_str().ok())
                .unwrap_or_default(),
            body,
        }),
        Err(error) => Page::plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let page = if takes_time {
        let made = tokio::task::spawn_blocking(make).await;
        made.unwrap_or_else(|error| Page::plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")))
    } else {
        make()
    };
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
    pub(super) fn new(status: StatusCode, content_type: &'static str, body: String) -> Self {
        Self {
            status,
            content_type,
            body,
            weight: None,
        }
    }

    pub(super) fn plain(status: StatusCode, body: impl Into<String>) -> Self {
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

    pub(super) fn not_found() -> Self {
        Self::plain(StatusCode::NOT_FOUND, "404 page not found\n")
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

/// Those that are programmed.
#[derive(Serialize)]
struct Families {
    #[serde(rename = "IPv4", skip_serializing_if = "Option::is_none")]
    v4: Option<FamilyBody>,
    #[serde(rename = "IPv6", skip_serializing_if = "Option::is_none")]
    v6: Option<FamilyBody>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyBody {
    last_updated: String,
    healthy: bool,
}

impl Pages for HealthPages {
    fn page(&self, asked: &Asked<'_>) -> Page {
        let report = self.health.report(Instant::now());
        let (ok, eligible, counter) = match asked.path {
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
    let time = |synced: Option<Timestamp>| synced.map_or(NEVER.to_owned(), |synced| synced.to_string());
    let [v4, v6] = report.families.map(|family| {
        family.map(|family| FamilyBody {
            last_updated: time(family.synced),
            healthy: family.healthy,
        })
    });
    HealthBody {
        // Clients of old take this for a sign of life, so a healthy proxy says now.
        last_updated: if ok { now.to_string() } else { time(report.synced) },
        current_time: now.to_string(),
        node_eligible,
        healthy: report.healthy,
        status: Families { v4, v6 },
    }
}
