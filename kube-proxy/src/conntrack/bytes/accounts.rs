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

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use crate::conntrack::flows::Frontend;
use crate::model::books::Books;
use crate::model::object::{Family, Protocol};

/// An entry of the table: its original tuple, zone and number, as one number that this process makes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(pub(super) u64);

/// What went either way, with the headers of IP and above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// From clients to endpoints.
    pub to_endpoint: u64,
    /// From endpoints to clients.
    pub from_endpoint: u64,
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

/// Adds what an entry carried; `local`: its client asked at this machine.
pub(super) fn add(books: &mut Books<Frontend, Bytes>, entry: &Counted, local: bool, bytes: Bytes) {
    let Counted { protocol, asked, .. } = *entry;
    let address = Frontend::Address(protocol, asked);
    let node_port = Frontend::NodePort(protocol, Family::of(asked.ip()), asked.port());
    let frontend = if local && !books.knows(&address) {
        node_port
    } else {
        address
    };
    if let Some(total) = books.total(&frontend) {
        total.to_endpoint += bytes.to_endpoint;
        total.from_endpoint += bytes.from_endpoint;
    }
}
