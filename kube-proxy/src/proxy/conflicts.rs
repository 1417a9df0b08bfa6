//! Remembers which addresses are contested, to tell the operator once when a conflict appears and once when
//! it is over.

use std::collections::HashMap;

use tracing::{info, warn};

use crate::model::object::ObjectName;
use crate::model::view::Conflict;
use crate::status::{Contested, MOST};

#[derive(Debug, Default)]
pub(super) struct Conflicts(HashMap<ObjectName, Vec<Conflict>>);

impl Conflicts {
    /// The conflicts that a Service loses now.
    pub(super) fn note(&mut self, loser: &ObjectName, now: &[Conflict]) {
        if now.is_empty() && !self.0.contains_key(loser) {
            return;
        }
        let before = self.0.remove(loser).unwrap_or_default();
        for conflict in now.iter().filter(|conflict| !before.contains(conflict)) {
            warn!(
                service = %loser, address = address(conflict), winner = %conflict.winner,
                "Two Services ask for one address; the older one has it"
            );
        }
        for conflict in before.iter().filter(|conflict| !now.contains(conflict)) {
            info!(service = %loser, address = address(conflict), "An address is no longer contested");
        }
        if !now.is_empty() {
            self.0.insert(loser.clone(), now.to_vec());
        }
    }

    /// How many addresses are contested.
    pub(super) fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Those, or as many as are worth listing.
    pub(super) fn list(&self) -> Vec<Contested> {
        let all = self.0.iter().flat_map(|(loser, conflicts)| {
            conflicts.iter().map(|conflict| Contested {
                service: loser.to_string(),
                address: address(conflict),
                winner: conflict.winner.to_string(),
            })
        });
        all.take(MOST).collect()
    }
}

fn address(conflict: &Conflict) -> String {
    let Conflict {
        protocol,
        port,
        family,
        ..
    } = conflict;
    match conflict.ip {
        Some(ip) => format!("{protocol} {}", std::net::SocketAddr::new(ip, *port)),
        None => format!("{protocol} node port {port} ({family})"),
    }
}
