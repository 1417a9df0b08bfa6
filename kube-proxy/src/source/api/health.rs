//! Says when the watch of a resource is lost and when it is back: one log line each, and the metrics. Retries
//! in between are not worth a line, unless the reason changes or it goes on for long. A resource that the server
//! does not have and that can be done without is no loss: it is said once, and has no `api_watching` meanwhile.

use std::sync::Arc;

use tokio::time::{Duration, Instant};
use tracing::{debug, info, warn};

use super::failure::Failure;
use super::resource::Resource;
use crate::metrics::Metrics;

/// A loss that lasts is repeated this often.
const REMINDER: Duration = Duration::from_secs(300);

/// Whether the watch of one resource delivers.
#[derive(Debug)]
pub(super) struct Health {
    metrics: Arc<Metrics>,
    loss: Option<Loss>,
    /// It has delivered before.
    delivered: bool,
}

#[derive(Debug)]
struct Loss {
    since: Instant,
    logged: Instant,
    failure: Failure,
    tries: u32,
}

impl Health {
    pub(super) fn new(metrics: Arc<Metrics>, resource: &Resource) -> Self {
        metrics.api_watching.with_label_values(&[resource.plural]).set(0);
        Self {
            metrics,
            loss: None,
            delivered: false,
        }
    }

    /// A request failed or a stream broke.
    pub(super) fn failed(&mut self, resource: &Resource, verb: &str, server: &str, failure: &Failure) {
        let plural = resource.plural;
        self.count(plural, failure);
        self.metrics.api_watching.with_label_values(&[plural]).set(0);
        if !self.is_news(failure, REMINDER) {
            debug!(resource = plural, verb, server, error = %failure, "The API server fails again");
            return;
        }
        let (consequence, advice) = (self.consequence(resource), failure.advice(resource));
        warn!(
            resource = plural, verb, server, error = %failure, consequence, advice,
            "The API server fails; retrying"
        );
    }

    /// The server does not have a resource, or not for us, and it can be done without.
    pub(super) fn missing(&mut self, resource: &Resource, server: &str, failure: &Failure) {
        let plural = resource.plural;
        self.count(plural, failure);
        // Fails when it is gone already.
        let _ = self.metrics.api_watching.remove_label_values(&[plural]);
        if !self.is_news(failure, Duration::MAX) {
            debug!(resource = plural, server, error = %failure, "The resource is still missing");
            return;
        }
        let (consequence, advice) = (self.consequence(resource), failure.advice(resource));
        warn!(
            resource = plural, server, error = %failure, consequence, advice,
            "Doing without a resource that the API server does not give; trying again every few minutes"
        );
    }

    fn consequence(&self, resource: &Resource) -> &'static str {
        match resource.without {
            _ if self.delivered => "what is programmed stays in force",
            Some(without) => without,
            None => "nothing is programmed before the first list",
        }
    }

    fn count(&self, plural: &str, failure: &Failure) {
        let labels = [plural, failure.reason()];
        self.metrics.api_failures.with_label_values(&labels).inc();
    }

    /// Notes a failure. It is worth a line if it is unlike the one before, or that one's line is so old.
    fn is_news(&mut self, failure: &Failure, reminder: Duration) -> bool {
        let now = Instant::now();
        let Some(loss) = &mut self.loss else {
            self.loss = Some(Loss {
                since: now,
                logged: now,
                failure: failure.clone(),
                tries: 1,
            });
            return true;
        };
        loss.tries += 1;
        if loss.failure.is_like(failure) && now.duration_since(loss.logged) < reminder {
            return false;
        }
        loss.logged = now;
        loss.failure = failure.clone();
        true
    }

    /// A request failed in a way that another one will make good: the history was too short, or the server
    /// does not stream lists.
    pub(super) fn goes_on(&mut self, resource: &Resource, failure: &Failure, next: &str) {
        let plural = resource.plural;
        self.count(plural, failure);
        self.metrics.api_watching.with_label_values(&[plural]).set(0);
        info!(resource = plural, reason = %failure, "Going on with {next}");
    }

    /// The watch delivers.
    pub(super) fn delivers(&mut self, resource: &Resource, server: &str) {
        let plural = resource.plural;
        self.delivered = true;
        self.metrics.api_watching.with_label_values(&[plural]).set(1);
        if let Some(Loss { since, tries, .. }) = self.loss.take() {
            let seconds = since.elapsed().as_secs_f32();
            info!(
                resource = plural,
                server,
                lost_for = format!("{seconds:.1}s"),
                tries,
                "The API server is back"
            );
        }
    }
}
