//! What `iptables-restore --noflush` is told: whole tables, or the chains that changed. Pure.
//!
//! Each line is known by the Service that it is for, so that one which is refused names the guilty.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::changed::{Changed, Rules};
use super::counters::Counter;
use super::entry::{Key, Shared, Table, Value};
use super::failure::is_target;
use super::fixed::{CANARY, Fixed};
use super::saved::Saved;
use crate::dataplane::NodePortAddresses;
use crate::model::ledger::{Ledger, Standing};
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
    pub(super) written: BTreeMap<Table, usize>,
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

impl Restore {
    pub(super) fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        self.lines += 1;
    }

    pub(super) fn blame(&mut self, service: Option<&ObjectName>) {
        let last = self.blame.last().map(|(_, last)| last.as_ref());
        if last != Some(service) {
            self.blame.push((self.lines + 1, service.cloned()));
        }
    }

    /// Rules behind those that a chain has.
    pub(super) fn rules<'a>(&mut self, table: Table, chain: &str, rules: impl IntoIterator<Item = &'a str>) {
        let before = self.lines;
        for rule in rules {
            self.rule("-A", chain, rule);
        }
        *self.written.entry(table).or_default() += self.lines - before;
    }

    fn rule(&mut self, command: &str, chain: &str, rule: &str) {
        for part in [command, " ", chain, " "] {
            self.text.push_str(part);
        }
        self.line(rule);
    }

    /// Makes a chain, or empties it.
    pub(super) fn chain(&mut self, name: &str) {
        self.text.push(':');
        self.text.push_str(name);
        self.line(" - [0:0]");
    }

    /// Removes an empty chain.
    pub(super) fn delete_chain(&mut self, name: &str) {
        self.text.push_str("-X ");
        self.line(name);
    }

    pub(super) fn table(&mut self, table: Table) {
        self.blame(None);
        self.line(&format!("*{}", table.name()));
    }

    pub(super) fn commit(&mut self) {
        self.blame(None);
        self.line("COMMIT");
    }

    fn keep(&mut self, table: Table, rules: usize) {
        *self.kept.entry(table).or_default() += rules;
    }

    /// What this one leaves as it is was written just before.
    pub(super) fn follows(&mut self, before: &BTreeMap<Table, usize>) {
        for (table, rules) in before {
            *self.written.entry(*table).or_default() += rules;
            let kept = self.kept.entry(*table).or_default();
            *kept = kept.saturating_sub(*rules);
        }
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

impl<'a> Desired<'a> {
    /// Everything that is not there yet, in place of what there is of it.
    pub(super) fn full(&self, saved: &Saved) -> Restore {
        let mut restore = Restore::default();
        for table in [Table::Mangle, Table::Filter, Table::Nat] {
            restore.table(table);
            let fixed = self.fixed.chains(table);
            for (chain, _) in &fixed {
                restore.chain(chain);
            }
            let of_table = Shared::ALL.into_iter().filter(|chain| chain.table() == table);
            let shared: Vec<_> = of_table
                .map(|chain| (chain, self.difference(chain, saved, &mut restore)))
                .collect();
            let chains = match table {
                Table::Nat => self.unwritten(saved, &mut restore),
                _ => BTreeMap::new(),
            };
            self.empty(&shared, &mut restore);
            for chain in chains.keys() {
                restore.chain(chain);
            }
            self.guard(table, saved, &mut restore);
            for (chain, rules) in &fixed {
                restore.rules(table, chain, rules.iter().map(String::as_str));
            }
            for (chain, rules) in &shared {
                self.shared_rules(*chain, rules.as_ref(), &mut restore);
            }
            for (chain, entry) in &chains {
                restore.blame(Some(entry.holder));
                restore.rules(table, chain, entry.value.lines());
            }
            restore.blame(None);
            self.jumps(table, saved, &mut restore);
            restore.commit();
        }
        restore
    }

    /// What changed.
    pub(super) fn partial(&self, changed: &Changed) -> Restore {
        let mut restore = Restore::default();
        for table in [Table::Filter, Table::Nat] {
            let shared = changed.shared.iter().filter(|(chain, _)| chain.table() == table);
            let shared: Vec<_> = shared
                .map(|(chain, rules)| (*chain, Some(rules.clone())))
                .collect();
            let chains = match table {
                Table::Nat => changed.chains.iter().collect(),
                _ => Vec::new(),
            };
            if shared.is_empty() && chains.is_empty() {
                continue;
            }
            restore.table(table);
            self.empty(&shared, &mut restore);
            for chain in &chains {
                restore.chain(chain);
            }
            for (chain, rules) in &shared {
                self.shared_rules(*chain, rules.as_ref(), &mut restore);
            }
            let (wanted, gone): (Vec<_>, Vec<_>) =
                chains.into_iter().partition(|chain| self.is_wanted(chain));
            for chain in wanted {
                self.chain_rules(chain, &mut restore);
            }
            restore.blame(None);
            for chain in gone {
                restore.delete_chain(chain);
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
        let users = self.entries().filter(|entry| match entry.key {
            Key::Chain(..) => uses(entry.value),
            Key::Rules(_, _, rules) => uses(rules),
        });
        users.map(|entry| entry.holder.clone()).collect()
    }

    fn holder(&self, key: &Key) -> Option<&'a ObjectName> {
        let holder = self.ledger.get(key)?.holder;
        (!self.left_out.contains(holder)).then_some(holder)
    }

    fn is_wanted(&self, chain: &Arc<str>) -> bool {
        self.holder(&Key::Chain(self.family, Arc::clone(chain))).is_some()
    }

    /// What is wanted in this family.
    pub(super) fn entries(&self) -> impl Iterator<Item = Standing<'a, Key, Value>> + use<'a> {
        let Self { family, left_out, .. } = *self;
        self.ledger
            .iter()
            .filter(move |entry| entry.key.family() == family && !left_out.contains(entry.holder))
    }

    /// The chains of Services that are not there as they are wanted. The others are counted.
    fn unwritten(&self, saved: &Saved, restore: &mut Restore) -> BTreeMap<&'a str, Standing<'a, Key, Value>> {
        let mut unwritten = BTreeMap::new();
        let mut kept = 0;
        for entry in self.entries() {
            if let Key::Chain(_, name) = entry.key {
                if saved.is_as_wanted(name) {
                    kept += entry.value.lines().count();
                } else {
                    unwritten.insert(&**name, entry);
                }
            }
        }
        restore.keep(Table::Nat, kept);
        unwritten
    }

    fn chain_rules(&self, chain: &Arc<str>, restore: &mut Restore) {
        let key = Key::Chain(self.family, Arc::clone(chain));
        if let Some(entry) = self.ledger.get(&key) {
            restore.blame(Some(entry.holder));
            restore.rules(Table::Nat, chain, entry.value.lines());
        }
    }

    /// The rules of ServicePorts in a shared chain, and whose they are.
    pub(super) fn rules_in(
        &self,
        chain: Shared,
    ) -> impl Iterator<Item = (&'a ObjectName, &'a Arc<str>)> + use<'a> {
        let desired = *self;
        let all = desired.shared.range((chain, Arc::from(""))..);
        let all = all.take_while(move |(of, _)| *of == chain);
        all.filter_map(move |(_, rules)| {
            let holder = desired.holder(&Key::Rules(desired.family, chain, Arc::clone(rules)))?;
            Some((holder, rules))
        })
    }

    /// How a shared chain in the kernel differs. Rules that stay are counted.
    fn difference(&self, chain: Shared, saved: &Saved, restore: &mut Restore) -> Option<Rules> {
        let wanted = self
            .rules_in(chain)
            .flat_map(|(_, rules)| self.fixed.counted.rules(rules));
        let wanted: Vec<&str> = wanted.collect();
        let last = self.fixed.last_rules(chain, self.node_ports);
        let difference = saved.difference(chain, &wanted, &last);
        let all = wanted.len() + last.len();
        let kept = match &difference {
            None => all,
            Some(Rules::Some { added, .. }) => all - added.len(),
            Some(Rules::All) => 0,
        };
        restore.keep(chain.table(), kept);
        difference
    }

    fn empty(&self, shared: &[(Shared, Option<Rules>)], restore: &mut Restore) {
        for (chain, rules) in shared {
            if *rules == Some(Rules::All) {
                restore.chain(chain.name());
            }
        }
    }

    /// Writes what changed in a shared chain. New rules go to its front: the last rule has to stay the last one.
    fn shared_rules(&self, chain: Shared, changed: Option<&Rules>, restore: &mut Restore) {
        let (table, name) = (chain.table(), chain.name());
        match changed {
            Some(Rules::All) => {
                for (holder, rules) in self.rules_in(chain) {
                    restore.blame(Some(holder));
                    restore.rules(table, name, self.fixed.counted.rules(rules));
                }
                restore.blame(None);
                let last = self.fixed.last_rules(chain, self.node_ports);
                restore.rules(table, name, last.iter().map(String::as_str));
            }
            Some(Rules::Some { removed, added }) => {
                restore.blame(None);
                for rule in removed.iter().flat_map(|rules| self.fixed.counted.rules(rules)) {
                    restore.rule("-D", name, rule);
                }
                for rules in added.iter().rev() {
                    restore.blame(self.holder(&Key::Rules(self.family, chain, Arc::clone(rules))));
                    let rules: Vec<_> = self.fixed.counted.rules(rules).collect();
                    for rule in rules.iter().rev() {
                        restore.rule("-I", name, rule);
                    }
                    *restore.written.entry(table).or_default() += rules.len();
                }
                restore.blame(None);
            }
            None => {}
        }
    }

    /// The rule in the chain that is kubelet's as well.
    fn guard(&self, table: Table, saved: &Saved, restore: &mut Restore) {
        if let Some((chain, rule)) = self.fixed.guard()
            && table == Table::Filter
        {
            if !saved.has_chain(table, chain) {
                restore.chain(chain);
            }
            let missing = rule.filter(|rule| !saved.has_rule(table, chain, rule));
            restore.rules(table, chain, missing);
            if rule.is_some() && missing.is_none() {
                restore.keep(table, 1);
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
