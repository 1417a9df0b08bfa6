//! What `iptables-restore --noflush` is told: whole tables, or the chains that changed. Pure.
//!
//! Each line is known by the Service that it is for, so that one which is refused names the guilty.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::counters::Counter;
use super::entry::{Key, Shared, Table, Value};
use super::failure::is_target;
use super::fixed::{CANARY, Fixed};
use super::name::belongs_to_a_service;
use crate::dataplane::NodePortAddresses;
use crate::model::ledger::Ledger;
use crate::model::object::{Family, ObjectName};

/// The input of one `iptables-restore`.
#[derive(Debug, Default)]
pub(super) struct Restore {
    pub(super) text: String,
    /// How many lines it has.
    lines: usize,
    /// From which line on, counted from 1, a Service is to blame; `None` for nobody.
    blame: Vec<(usize, Option<ObjectName>)>,
    /// How many rules of each table it has, without jumps from the kernel's own chains.
    written: BTreeMap<Table, usize>,
    /// How many rules of each table it leaves as they are.
    kept: BTreeMap<Table, usize>,
}

/// Everything that a restore is made from, in one family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Desired<'a> {
    pub(super) family: Family,
    pub(super) fixed: &'a Fixed,
    pub(super) ledger: &'a Ledger<Key, Value>,
    /// The rules in shared chains.
    pub(super) shared: &'a BTreeSet<(Shared, Arc<str>)>,
    pub(super) node_ports: &'a NodePortAddresses,
    /// Services that are left out because they were refused.
    pub(super) left_out: &'a BTreeSet<ObjectName>,
}

/// What has to be written of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Changed {
    /// Chains of Services that are new, other, or gone.
    pub(super) chains: BTreeSet<Arc<str>>,
    pub(super) shared: BTreeSet<Shared>,
}

impl Changed {
    pub(super) fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.shared.is_empty()
    }
}

/// What is in the kernel, as `iptables-save` lists it.
#[derive(Clone, Debug, Default)]
pub(super) struct Saved {
    /// The lines of each table.
    tables: BTreeMap<&'static str, Vec<String>>,
}

impl Saved {
    /// Reads what `iptables-save` printed.
    pub(super) fn parse(text: &str) -> Self {
        let mut saved = Self::default();
        let mut table = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                let known = [Table::Mangle, Table::Filter, Table::Nat].map(Table::name);
                table = known.into_iter().find(|known| *known == name);
            } else if let Some(table) = table {
                saved.tables.entry(table).or_default().push(line.to_owned());
            }
        }
        saved
    }

    fn lines(&self, table: Table) -> impl Iterator<Item = &str> {
        self.tables
            .get(table.name())
            .into_iter()
            .flatten()
            .map(String::as_str)
    }

    /// The names of a table's chains.
    pub(super) fn chains(&self, table: Table) -> impl Iterator<Item = &str> {
        self.lines(table)
            .filter_map(|line| line.strip_prefix(':')?.split(' ').next())
    }

    fn has_rule(&self, table: Table, chain: &str, rule: &str) -> bool {
        let appended = format!("-A {chain} ");
        self.lines(table)
            .any(|line| line.strip_prefix(&appended).is_some_and(|rest| rest == rule))
    }
}

impl Restore {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        self.lines += 1;
    }

    fn blame(&mut self, service: Option<&ObjectName>) {
        self.blame.push((self.lines + 1, service.cloned()));
    }

    fn rules<'a>(&mut self, table: Table, chain: &str, rules: impl IntoIterator<Item = &'a str>) {
        for rule in rules {
            self.text.push_str("-A ");
            self.text.push_str(chain);
            self.text.push(' ');
            self.line(rule);
            *self.written.entry(table).or_default() += 1;
        }
    }

    fn chain(&mut self, name: &str) {
        self.line(&format!(":{name} - [0:0]"));
    }

    fn table(&mut self, table: Table) {
        self.blame(None);
        self.line(&format!("*{}", table.name()));
    }

    fn commit(&mut self) {
        self.blame(None);
        self.line("COMMIT");
    }

    /// How many rules it writes.
    pub(super) fn written(&self, table: Table) -> usize {
        self.written.get(&table).copied().unwrap_or_default()
    }

    /// How many rules it finds and leaves.
    pub(super) fn kept(&self, table: Table) -> usize {
        self.kept.get(&table).copied().unwrap_or_default()
    }

    /// The Service that a line, counted from 1, is for.
    pub(super) fn to_blame(&self, line: usize) -> Option<&ObjectName> {
        let after = self.blame.partition_point(|(first, _)| *first <= line);
        self.blame.get(after.checked_sub(1)?)?.1.as_ref()
    }
}

impl Desired<'_> {
    /// Everything, in place of what there is of it.
    pub(super) fn full(&self, saved: &Saved) -> Restore {
        let mut restore = Restore::default();
        for table in [Table::Mangle, Table::Filter, Table::Nat] {
            restore.table(table);
            let fixed = self.fixed.chains(table);
            for (chain, _) in &fixed {
                restore.chain(chain);
            }
            let shared: Vec<Shared> = Shared::ALL
                .into_iter()
                .filter(|chain| chain.table() == table)
                .collect();
            for chain in &shared {
                restore.chain(chain.name());
            }
            let mut chains = BTreeSet::new();
            if table == Table::Nat {
                chains = self.all_chains();
                for chain in &chains {
                    restore.chain(chain);
                }
            }
            self.guard(table, saved, &mut restore);
            for (chain, rules) in &fixed {
                restore.rules(table, chain, rules.iter().map(String::as_str));
            }
            for chain in shared {
                self.shared_rules(chain, &mut restore);
            }
            for chain in &chains {
                self.chain_rules(chain, &mut restore);
            }
            restore.blame(None);
            self.jumps(table, saved, &mut restore);
            if table == Table::Nat {
                let stale = saved
                    .chains(table)
                    .filter(|chain| belongs_to_a_service(chain) && !chains.contains(*chain));
                let stale: Vec<&str> = stale.collect();
                // Emptied first, all of them: one may lead to the other.
                stale.iter().for_each(|chain| restore.chain(chain));
                stale
                    .iter()
                    .for_each(|chain| restore.line(&format!("-X {chain}")));
            }
            restore.commit();
        }
        restore
    }

    /// What changed.
    pub(super) fn partial(&self, changed: &Changed) -> Restore {
        let mut restore = Restore::default();
        for table in [Table::Filter, Table::Nat] {
            let shared: Vec<Shared> = changed
                .shared
                .iter()
                .copied()
                .filter(|chain| chain.table() == table)
                .collect();
            let chains = match table {
                Table::Nat => changed.chains.iter().collect(),
                _ => Vec::new(),
            };
            if shared.is_empty() && chains.is_empty() {
                continue;
            }
            restore.table(table);
            for chain in &shared {
                restore.chain(chain.name());
            }
            for chain in &chains {
                restore.chain(chain);
            }
            for chain in shared {
                self.shared_rules(chain, &mut restore);
            }
            let (wanted, gone): (Vec<_>, Vec<_>) =
                chains.into_iter().partition(|chain| self.is_wanted(chain));
            for chain in wanted {
                self.chain_rules(chain, &mut restore);
            }
            restore.blame(None);
            for chain in gone {
                restore.line(&format!("-X {chain}"));
            }
            restore.commit();
        }
        restore
    }

    /// The chains of these Services alone, and the rules that they have in shared chains, in a chain that nothing leads
    /// to and that is emptied when all is written. What is in force for others is not touched.
    pub(super) fn trial(&self, services: &BTreeSet<&ObjectName>) -> Restore {
        let mut restore = Restore::default();
        for table in [Table::Filter, Table::Nat] {
            restore.table(table);
            restore.chain(CANARY);
            let mut wanted = Vec::new();
            for service in services {
                wanted.extend(
                    self.ledger
                        .wanted_by(service)
                        .filter(|entry| entry.holder == *service),
                );
            }
            wanted.retain(|entry| entry.key.family() == self.family);
            for entry in &wanted {
                if let (Key::Chain(_, name), Table::Nat) = (entry.key, table) {
                    restore.chain(name);
                }
            }
            for entry in &wanted {
                match entry.key {
                    Key::Chain(_, name) if table == Table::Nat => {
                        restore.rules(table, name, entry.value.lines());
                    }
                    Key::Rules(_, chain, rules) if chain.table() == table => {
                        restore.rules(table, CANARY, self.fixed.counted.rules(rules));
                    }
                    _ => {}
                }
            }
            restore.commit();
        }
        restore
    }

    /// One rule for each counter, in a chain that nothing leads to.
    pub(super) fn counters_alone(&self) -> Restore {
        let mut restore = Restore::default();
        restore.table(Table::Filter);
        restore.chain(CANARY);
        let counters = Counter::ALL.into_iter();
        for counter in counters.filter(|counter| self.fixed.counted.has(*counter)) {
            restore.rules(Table::Filter, CANARY, [counter.rule_match().as_str()]);
        }
        restore.line(&format!("-F {CANARY}"));
        restore.commit();
        restore
    }

    /// The Services that a match or target is missing for. None when all rules need it.
    pub(super) fn users_of(&self, extension: &str) -> BTreeSet<ObjectName> {
        let words = format!("-m {extension} ");
        let uses = |rules: &str| rules.contains(&words);
        let chains = [Table::Filter, Table::Nat].map(|table| self.fixed.chains(table));
        let fixed = chains.iter().flatten().flat_map(|(_, rules)| rules);
        let last = self.fixed.last_rules(Shared::Services, self.node_ports);
        if is_target(extension) || fixed.chain(&last).any(|rule| uses(rule)) {
            return BTreeSet::new();
        }
        let wanted = self.ledger.iter().filter(|entry| {
            entry.key.family() == self.family
                && !self.left_out.contains(entry.holder)
                && match entry.key {
                    Key::Chain(..) => uses(entry.value),
                    Key::Rules(_, _, rules) => uses(rules),
                }
        });
        wanted.map(|entry| entry.holder.clone()).collect()
    }

    fn holder(&self, key: &Key) -> Option<&ObjectName> {
        let holder = self.ledger.get(key)?.holder;
        (!self.left_out.contains(holder)).then_some(holder)
    }

    fn is_wanted(&self, chain: &Arc<str>) -> bool {
        self.holder(&Key::Chain(self.family, Arc::clone(chain))).is_some()
    }

    fn all_chains(&self) -> BTreeSet<Arc<str>> {
        let entries = self
            .ledger
            .iter()
            .filter(|entry| !self.left_out.contains(entry.holder));
        entries
            .filter_map(|entry| match entry.key {
                Key::Chain(family, name) if *family == self.family => Some(Arc::clone(name)),
                _ => None,
            })
            .collect()
    }

    fn chain_rules(&self, chain: &Arc<str>, restore: &mut Restore) {
        let key = Key::Chain(self.family, Arc::clone(chain));
        if let Some(entry) = self.ledger.get(&key) {
            restore.blame(Some(entry.holder));
            restore.rules(Table::Nat, chain, entry.value.lines());
        }
    }

    fn shared_rules(&self, chain: Shared, restore: &mut Restore) {
        let all = self.shared.range((chain, Arc::from(""))..);
        for (_, rules) in all.take_while(|(of, _)| *of == chain) {
            if let Some(holder) = self.holder(&Key::Rules(self.family, chain, Arc::clone(rules))) {
                restore.blame(Some(holder));
                restore.rules(chain.table(), chain.name(), self.fixed.counted.rules(rules));
            }
        }
        restore.blame(None);
        let last = self.fixed.last_rules(chain, self.node_ports);
        restore.rules(chain.table(), chain.name(), last.iter().map(String::as_str));
    }

    /// The rule in the chain that is kubelet's as well.
    fn guard(&self, table: Table, saved: &Saved, restore: &mut Restore) {
        if let Some((chain, rule)) = self.fixed.guard()
            && table == Table::Filter
        {
            if !saved.chains(table).any(|there| there == chain) {
                restore.chain(chain);
            }
            let missing = rule.filter(|rule| !saved.has_rule(table, chain, rule));
            restore.rules(table, chain, missing);
            if rule.is_some() && missing.is_none() {
                *restore.kept.entry(table).or_default() += 1;
            }
        }
    }

    /// Those jumps that are missing, before all other rules; inserted from the last to the first.
    fn jumps(&self, table: Table, saved: &Saved, restore: &mut Restore) {
        let jumps: Vec<_> = self.fixed.jumps(table).collect();
        for jump in jumps.into_iter().rev() {
            let rule = jump.rule();
            if !saved.has_rule(table, jump.from, &rule) {
                restore.line(&format!("-I {} {rule}", jump.from));
            }
        }
    }
}
