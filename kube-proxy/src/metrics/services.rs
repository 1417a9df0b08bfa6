//! What is counted for each ServicePort: connections and bytes, read from who counts them whenever somebody asks for
//! the text.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Error, IntCounterVec};

use super::{Metrics, opts};
use crate::conntrack::{ByteCount, ReadBytes};
use crate::dataplane::{ConnectionCount, ReadConnections};
use crate::model::object::ObjectName;

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

fn add_connections(counters: &IntCounterVec, count: &ConnectionCount) {
    let (protocol, family) = (count.protocol.to_string(), count.family.to_string());
    let ObjectName { namespace, name } = &count.service;
    let labels = [&**namespace, &**name, &*count.port_name, &protocol, &family];
    counters.with_label_values(&labels).inc_by(count.count);
}

fn bytes() -> Result<IntCounterVec, Error> {
    let opts = opts(
        "service_bytes_total",
        "Bytes of the connections to each ServicePort, IP headers included, by direction",
    );
    let labels: Vec<&str> = PORT.into_iter().chain(["direction"]).collect();
    IntCounterVec::new(opts, &labels)
}

fn add_bytes(counters: &IntCounterVec, count: &ByteCount) {
    let (protocol, family) = (count.protocol.to_string(), count.family.to_string());
    let ObjectName { namespace, name } = &count.service;
    for (direction, bytes) in [
        ("to_endpoint", count.to_endpoint),
        ("from_endpoint", count.from_endpoint),
    ] {
        let labels = [
            &**namespace,
            &**name,
            &*count.port_name,
            &protocol,
            &family,
            direction,
        ];
        counters.with_label_values(&labels).inc_by(bytes);
    }
}

/// Counters that are made anew for each text.
struct Counted<T> {
    /// Never counts; it knows how they are described.
    described: IntCounterVec,
    make: fn() -> Result<IntCounterVec, Error>,
    add: fn(&IntCounterVec, &T),
    read: Box<dyn Fn() -> Vec<T> + Send + Sync>,
}

impl<T> Collector for Counted<T> {
    fn desc(&self) -> Vec<&Desc> {
        self.described.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(counters) = (self.make)() else {
            return Vec::new();
        };
        for count in (self.read)() {
            (self.add)(&counters, &count);
        }
        counters.collect()
    }
}
