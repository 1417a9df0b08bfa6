//! Entry points for the targets of `fuzz/`: whatever reads bytes from outside, with what must hold whatever the bytes
//! are. Each takes bytes and panics if something does not hold.
//!
//! `make fuzz` gives them ever new bytes; a test here gives them those that were kept, in `fuzz/corpus`. No program that
//! is shipped contains this module.

use std::collections::BTreeSet;

use crate::model::change::Change;
use crate::model::cluster::{Cluster, TrafficConfig};
use crate::model::object::ObjectName;
use crate::netlink::messages;
use crate::{config as configuration, conntrack, dataplane, netlink as sockets, node, source};

/// Bytes of an API server. The first says what they are, the second where the stream is cut.
pub fn objects(bytes: &[u8]) {
    follow(source::api::fuzzing::read(bytes));
}

/// A configuration file.
pub fn config(bytes: &[u8]) {
    configuration::fuzzing::read(bytes);
}

/// A file of manifests: YAML or JSON by the first byte.
pub fn manifests(bytes: &[u8]) {
    follow(source::manifests::fuzzing::read(bytes));
}

/// Bytes of the kernel. The first says whose they are.
pub fn netlink(bytes: &[u8]) {
    let Some((head, bytes)) = bytes.split_first() else {
        return;
    };
    let each = |read: fn(&[u8])| messages(bytes).for_each(|message| read(message.body()));
    match head % 8 {
        0 => dataplane::fuzzing::nf_tables(bytes),
        1 => each(conntrack::fuzzing::read),
        2 => each(dataplane::fuzzing::ipvs),
        3 => node::addresses::fuzzing::read(bytes),
        4 => each(dataplane::fuzzing::ipset),
        _ => sockets::fuzzing::read(bytes),
    }
}

/// What objects come to: the model decides about their Services, and the dataplanes plan them. All of it goes again
/// with them.
fn follow(changes: Vec<Change>) {
    if changes.is_empty() {
        return;
    }
    let mut cluster = Cluster::new(TrafficConfig {
        node_name: "node-1".into(),
        ..TrafficConfig::default()
    });
    let mut dataplanes = dataplane::fuzzing::all();
    let gone: Vec<Change> = changes.iter().filter_map(removal).collect();
    let mut touched = BTreeSet::new();
    for change in changes.into_iter().chain(gone) {
        cluster.apply(change);
        for name in cluster.take_dirty() {
            let view = cluster.resolve(&name);
            assert_eq!(view, cluster.resolve(&name), "{name}, resolved again");
            for dataplane in &mut dataplanes {
                dataplane.update(&name, view.as_ref());
            }
            touched.insert(name);
        }
    }
    assert_eq!(cluster.counts(), (0, 0), "what is left of {touched:?}");
    for (left, empty) in dataplanes.iter().zip(dataplane::fuzzing::all()) {
        assert_eq!(left.planned(), empty.planned(), "what is left of {touched:?}");
    }
}

/// What takes back that an object came.
fn removal(change: &Change) -> Option<Change> {
    use crate::model::change::Kind;
    let gone = |kind, name: &ObjectName| Some(Change::Deleted(kind, name.clone()));
    match change {
        Change::Service(service) => gone(Kind::Service, &service.name),
        Change::EndpointSlice(slice) => gone(Kind::EndpointSlice, &slice.name),
        Change::ServiceCidr(cidr) => gone(Kind::ServiceCidr, &cidr.name),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
