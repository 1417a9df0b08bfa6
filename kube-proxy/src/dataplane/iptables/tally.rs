//! How many rules there are in each table, without counting them all at each change.

use std::collections::BTreeMap;

use super::entry::Table;
use super::restore::Restore;
use crate::dataplane::TableRules;

/// The tables whose rules are counted, as upstream does.
const TABLES: [Table; 2] = [Table::Filter, Table::Nat];

/// The rules of one family. Jumps from the kernel's own chains do not count.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// In the kernel.
    in_force: BTreeMap<Table, usize>,
    /// What changes that are not in force yet will add, and take away.
    added: BTreeMap<Table, usize>,
    removed: BTreeMap<Table, usize>,
}

impl Tally {
    /// So many rules of a table become so many.
    pub(super) fn note(&mut self, table: Table, from: usize, to: usize) {
        *self.added.entry(table).or_default() += to;
        *self.removed.entry(table).or_default() += from;
    }

    /// This is all there is.
    pub(super) fn all_written(&mut self, restore: &Restore) -> Vec<TableRules> {
        *self = Self::default();
        for table in TABLES {
            self.in_force
                .insert(table, restore.written(table) + restore.kept(table));
        }
        self.report(restore)
    }

    /// What changed is in force.
    pub(super) fn changes_written(&mut self, restore: &Restore) -> Vec<TableRules> {
        for table in TABLES {
            let added = self.added.remove(&table).unwrap_or_default();
            let removed = self.removed.remove(&table).unwrap_or_default();
            let in_force = self.in_force.entry(table).or_default();
            *in_force = (*in_force + added).saturating_sub(removed);
        }
        self.report(restore)
    }

    fn report(&self, restore: &Restore) -> Vec<TableRules> {
        let rules = TABLES.map(|table| TableRules {
            table: table.name(),
            total: self.in_force.get(&table).copied().unwrap_or_default(),
            written: restore.written(table),
        });
        rules.into()
    }
}
