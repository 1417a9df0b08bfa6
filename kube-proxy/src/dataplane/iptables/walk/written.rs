//! A dataplane that writes to tables which nobody has, instead of the kernel's.

use std::collections::BTreeSet;

use super::tables::Tables;
use crate::dataplane::iptables::apply::write;
use crate::dataplane::iptables::changed::Changed;
use crate::dataplane::iptables::tools::Variant;
use crate::dataplane::iptables::{Config, Iptables};
use crate::model::object::Family;

/// A dataplane, and what it wrote.
#[derive(Debug)]
pub(in crate::dataplane) struct Written {
    pub(in crate::dataplane) dataplane: Iptables,
    pub(super) tables: [Tables; 2],
}

impl Written {
    /// On a machine without rules. Nothing is written yet.
    pub(in crate::dataplane) fn new(config: Config) -> Self {
        Self {
            dataplane: Iptables::new(config),
            tables: Family::ALL.map(Tables::new),
        }
    }

    /// Whatever is written next, to these tables or to the kernel's, is everything.
    pub(in crate::dataplane) fn begin_anew(&mut self) {
        for state in &mut self.dataplane.families {
            state.full = true;
        }
    }

    /// What is written in a family.
    pub(in crate::dataplane) fn tables(&self, family: Family) -> &Tables {
        &self.tables[family as usize]
    }

    /// Writes what a commit would: everything at first, then what changed.
    ///
    /// # Errors
    /// When a line would be refused, or the walker does not know what it means.
    pub(in crate::dataplane) fn write(&mut self) -> anyhow::Result<()> {
        let none = BTreeSet::new();
        let ledger = &self.dataplane.ledger;
        for (state, tables) in self.dataplane.families.iter_mut().zip(&mut self.tables) {
            let desired = state.desired(ledger, &none);
            if state.full {
                let mut saved = tables.compared(&desired);
                write(&desired, &mut saved, Variant::Nft, |text| tables.restore(text)).1?;
            } else {
                tables.restore(&desired.partial(&state.changed).text)?;
            }
            state.full = false;
            state.changed = Changed::default();
        }
        Ok(())
    }
}
