//! Values that something else keeps, and that are read whenever somebody asks for the text.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, Opts};

use super::Metrics;

/// What moves a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only grows.
    Counter,
    /// It may go either way.
    Gauge,
}

impl Metrics {
    /// Registers a counter that the kernel keeps; see [`Self::read_value`].
    ///
    /// # Errors
    /// When there is a metric of that name.
    pub fn read_at_scrape(
        &self,
        name: &str,
        help: &str,
        read: impl Fn() -> Option<u64> + Send + Sync + 'static,
    ) -> Result<(), prometheus::Error> {
        let read = move || read().map(|number| number as f64);
        self.read_value(&format!("kubeproxy_{name}"), help, Kind::Counter, read)
    }

    /// Registers a value that is read whenever somebody asks for the text, on that thread. It has no series while
    /// `read` has no number. `name` is the whole name.
    pub(super) fn read_value(
        &self,
        name: &str,
        help: &str,
        kind: Kind,
        read: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) -> Result<(), prometheus::Error> {
        let opts = Opts::new(name, help);
        let described = Gauge::with_opts(opts.clone())?;
        self.registry.register(Box::new(ReadAtScrape {
            opts,
            described,
            kind,
            read,
        }))
    }
}

/// A value that something else keeps.
struct ReadAtScrape<R> {
    opts: Opts,
    /// Never set; it knows how the value is described.
    described: Gauge,
    kind: Kind,
    read: R,
}

impl<R: Fn() -> Option<f64> + Send + Sync> Collector for ReadAtScrape<R> {
    fn desc(&self) -> Vec<&Desc> {
        self.described.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(value) = (self.read)() else {
            return Vec::new();
        };
        let opts = self.opts.clone();
        let families = match self.kind {
            Kind::Counter => Counter::with_opts(opts).map(|counter| {
                counter.inc_by(value);
                counter.collect()
            }),
            Kind::Gauge => Gauge::with_opts(opts).map(|gauge| {
                gauge.set(value);
                gauge.collect()
            }),
        };
        families.unwrap_or_default()
    }
}
