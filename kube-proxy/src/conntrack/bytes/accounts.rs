//! The accounts: how much of what the kernel counted in each entry is counted here already, and whose it is. Pure: views,
//! ends and dumps come in, totals go out.
//!
//! Each entry's counters only grow while it lives, so what is added is always the difference to what it had at the last
//! look. No total goes down, and nothing counts twice:
//!
//! - An entry of a dump whose end was told before is left out (it is dying), and so is one whose end was told while the dump
//!   was made: its end has told more, and if it is another one in its place, the next look counts that.
//! - One that has less than before is another one, whose predecessor's end was lost.
//! - One that two dumps in a row do not have is forgotten: its end was lost, and what it carried since the last look.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::ByteCount;
use crate::conntrack::flows::Frontend;
use crate::model::object::{Family, ObjectName, Protocol};
use crate::model::view::ServiceView;

/// So many ServicePorts at most have series, in the order of their names.
const MOST: usize = 10_000;

/// An entry of the table: its original tuple, zone and number, as one number that this process makes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(pub(super) u64);

/// What went either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bytes {
    pub(super) to_endpoint: u64,
    pub(super) from_endpoint: u64,
}

impl Bytes {
    fn since(self, before: Self) -> Self {
        Self {
            to_endpoint: self.to_endpoint.saturating_sub(before.to_endpoint),
            from_endpoint: self.from_endpoint.saturating_sub(before.from_endpoint),
        }
    }

    fn is_less_than(self, before: Self) -> bool {
        self.to_endpoint < before.to_endpoint || self.from_endpoint < before.from_endpoint
    }
}

/// An entry that somebody redirected, and what it carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::conntrack) struct Counted {
    pub(super) key: Key,
    pub(super) protocol: Protocol,
    /// Whom the client asked.
    pub(super) asked: SocketAddr,
    /// Its end was told, or is being told.
    pub(super) dying: bool,
    pub(super) bytes: Bytes,
}

/// What living entries had at the last look.
#[derive(Debug, Default)]
pub(super) struct Seen {
    entries: HashMap<Key, (Bytes, u32)>,
    /// The number of the last look.
    look: u32,
}

impl Seen {
    /// It ended: what it carried since it was looked at.
    pub(super) fn ended(&mut self, entry: &Counted) -> Bytes {
        let before = self.entries.remove(&entry.key).unwrap_or_default().0;
        entry.bytes.since(before)
    }

    /// A look saw these entries, and after it began the end of some was told. Passes on what each carried since the last
    /// look, or since its begin. `whole`: it saw all that live.
    pub(super) fn listed(
        &mut self,
        living: &[Counted],
        ended: &HashSet<Key>,
        whole: bool,
        mut each: impl FnMut(&Counted, Bytes),
    ) {
        for entry in living {
            if !entry.dying && !ended.contains(&entry.key) {
                each(entry, self.lives(entry));
            }
        }
        if whole {
            let last = self.look;
            self.entries.retain(|_, (_, look)| last.wrapping_sub(*look) < 2);
            self.look = last.wrapping_add(1);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn lives(&mut self, entry: &Counted) -> Bytes {
        let (before, look) = self.entries.entry(entry.key).or_default();
        *look = self.look;
        let before = std::mem::replace(before, entry.bytes);
        if entry.bytes.is_less_than(before) {
            entry.bytes
        } else {
            entry.bytes.since(before)
        }
    }
}

/// A ServicePort in one family.
type Port = (ObjectName, Arc<str>, Protocol, Family);

/// Whose bytes they are, and how many each has.
#[derive(Debug, Default)]
pub(super) struct Books {
    owners: HashMap<Frontend, Port>,
    frontends: HashMap<ObjectName, Vec<Frontend>>,
    totals: BTreeMap<Port, Bytes>,
}

impl Books {
    /// A Service has these frontends now.
    pub(super) fn update(&mut self, service: &ObjectName, view: Option<&ServiceView>) {
        for frontend in self.frontends.remove(service).unwrap_or_default() {
            // Another Service may have got it meanwhile.
            if self
                .owners
                .get(&frontend)
                .is_some_and(|(owner, ..)| owner == service)
            {
                self.owners.remove(&frontend);
            }
        }
        let (mut frontends, mut ports) = (Vec::new(), Vec::new());
        for port in view.iter().flat_map(|view| &view.ports) {
            let (protocol, family) = (port.protocol, port.family);
            let of = (service.clone(), Arc::clone(&port.port_name), protocol, family);
            for address in &port.addresses {
                let frontend = Frontend::of(port, address);
                self.owners.insert(frontend, of.clone());
                frontends.push(frontend);
            }
            ports.push(of);
        }
        let first = (service.clone(), "".into(), Protocol::Tcp, Family::V4);
        let of_service = self.totals.range(first..).map(|(port, _)| port);
        let gone: Vec<Port> = of_service
            .take_while(|port| port.0 == *service)
            .filter(|port| !ports.contains(port))
            .cloned()
            .collect();
        for port in gone {
            self.totals.remove(&port);
        }
        for port in ports {
            self.totals.entry(port).or_default();
        }
        if !frontends.is_empty() {
            self.frontends.insert(service.clone(), frontends);
        }
    }

    /// Adds what an entry carried; `local`: its client asked at this machine.
    pub(super) fn add(&mut self, entry: &Counted, local: bool, bytes: Bytes) {
        let Counted { protocol, asked, .. } = *entry;
        let node_port = || Frontend::NodePort(protocol, Family::of(asked.ip()), asked.port());
        let owner = self.owners.get(&Frontend::Address(protocol, asked));
        let owner = owner.or_else(|| local.then(node_port).and_then(|port| self.owners.get(&port)));
        if let Some(total) = owner.and_then(|port| self.totals.get_mut(port)) {
            total.to_endpoint += bytes.to_endpoint;
            total.from_endpoint += bytes.from_endpoint;
        }
    }

    pub(super) fn told(&self) -> Vec<ByteCount> {
        let counts = self
            .totals
            .iter()
            .map(|((service, port_name, protocol, family), total)| ByteCount {
                service: service.clone(),
                port_name: Arc::clone(port_name),
                protocol: *protocol,
                family: *family,
                to_endpoint: total.to_endpoint,
                from_endpoint: total.from_endpoint,
            });
        counts.take(MOST).collect()
    }
}
