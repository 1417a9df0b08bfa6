//! What is counted for each ServicePort: connections and bytes, read from who counts them whenever somebody asks for
//! the text.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Error, IntCounterVec};

use super::{Metrics, opts};
use crate::conntrack::{Bytes, ReadBytes};
use crate::dataplane::ReadConnections;
use crate::model::books::PortTotal;

/// What tells a ServicePort in one family from all others.
const PORT: [&str; 5] = ["namespace", "service", "port", "protocol", "ip_family"];

impl Metrics {
    /// Registers the connections of each ServicePort, which are read whenever somebody asks for the text.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn read_connections(&self, read: ReadConnections) -> Result<(), Error> {
        let collector = Counted {
            described: connections()?,
            make: connections,
            add: add_connections,
            read,
        };
        self.registry.register(Box::new(collector))
    }

    /// Registers the bytes of each ServicePort, which are read whenever somebody asks for the text.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn read_bytes(&self, read: ReadBytes) -> Result<(), Error> {
        let collector = Counted {
            described: bytes()?,
            make: bytes,
            add: add_bytes,
            read,
        };
        self.registry.register(Box::new(collector))
    }
}

fn connections() -> Result<IntCounterVec, Error> {
    let opts = opts("service_connections_total", "Connections to each ServicePort");
    IntCounterVec::new(opts, &PORT)
}

fn add_connections(counters: &IntCounterVec, of: &PortTotal<u64>) {
    counters.with_label_values(&labels(of)).inc_by(of.total);
}

fn bytes() -> Result<IntCounterVec, Error> {
    let opts = opts(
        "service_bytes_total",
        "Bytes of the connections to each ServicePort, IP headers included, by direction",
    );
    let labels: Vec<&str> = PORT.into_iter().chain(["direction"]).collect();
    IntCounterVec::new(opts, &labels)
}

fn add_bytes(counters: &IntCounterVec, of: &PortTotal<Bytes>) {
    for (direction, bytes) in [
        ("to_endpoint", of.total.to_endpoint),
        ("from_endpoint", of.total.from_endpoint),
    ] {
        let mut labels = labels(of).to_vec();
        labels.push(direction.to_owned());
        counters.with_label_values(&labels).inc_by(bytes);
    }
}

/// The values of [`PORT`].
fn labels<T>(of: &PortTotal<T>) -> [String; 5] {
    [
        of.service.namespace.to_string(),
        of.service.name.to_string(),
        of.port_name.to_string(),
        of.protocol.to_string(),
        of.family.to_string(),
    ]
}

/// Counters that are made anew for each text.
struct Counted<T> {
    /// Never counts; it knows how they are described.
    described: IntCounterVec,
    make: fn() -> Result<IntCounterVec, Error>,
    add: fn(&IntCounterVec, &PortTotal<T>),
    read: Box<dyn Fn() -> Vec<PortTotal<T>> + Send + Sync>,
}

impl<T> Collector for Counted<T> {
    fn desc(&self) -> Vec<&Desc> {
        self.described.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(counters) = (self.make)() else {
            return Vec::new();
        };
        for of in (self.read)() {
            (self.add)(&counters, &of);
        }
        counters.collect()
    }
}
