//! The tables of one family, and what `iptables-restore --noflush` makes of them.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};

use super::rule::{Rule, Target};
use crate::dataplane::iptables::restore::Desired;
use crate::dataplane::iptables::saved::{Comparison, Saved};
use crate::model::object::Family;

/// `XT_EXTENSION_MAXNAMELEN`, without the zero at the end.
const LONGEST_CHAIN: usize = 28;
/// The tables, and the chains that the kernel calls.
const TABLES: [(&str, &[&str]); 3] = [
    (
        "mangle",
        &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
    ),
    ("filter", &["INPUT", "FORWARD", "OUTPUT"]),
    ("nat", &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]),
];

type Chains = BTreeMap<String, Vec<Rule>>;

/// See the module's text.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::dataplane) struct Tables {
    pub(super) family: Family,
    tables: BTreeMap<&'static str, Chains>,
}

impl Tables {
    /// Those of a machine that has no rules.
    pub(in crate::dataplane::iptables) fn new(family: Family) -> Self {
        let chains = |names: &[&str]| -> Chains {
            names
                .iter()
                .map(|name| ((*name).to_owned(), Vec::new()))
                .collect()
        };
        Self {
            family,
            tables: TABLES.map(|(table, names)| (table, chains(names))).into(),
        }
    }

    /// The rules of a chain.
    pub(super) fn chain(&self, table: &str, name: &str) -> anyhow::Result<&[Rule]> {
        let chain = self.tables.get(table).and_then(|chains| chains.get(name));
        Ok(chain.with_context(|| format!("no chain {name} in {table}"))?)
    }

    /// As `iptables-save` lists them, but for the ways in which it writes some options otherwise.
    pub(in crate::dataplane::iptables) fn save(&self) -> String {
        let mut text = String::new();
        for (table, chains) in &self.tables {
            text += &format!("*{table}\n");
            for name in chains.keys() {
                text += &format!(":{name} - [0:0]\n");
            }
            for (name, rules) in chains {
                for rule in rules {
                    text += &format!("-A {name} {}\n", rule.text);
                }
            }
            text += "COMMIT\n";
        }
        text
    }

    /// How they differ from what is wanted.
    pub(in crate::dataplane::iptables) fn compared(&self, desired: &Desired<'_>) -> Saved {
        let mut comparison = Comparison::with(desired);
        self.save().lines().for_each(|line| comparison.line(line));
        comparison.end()
    }

    /// Carries a text out. Each table is changed as a whole or not at all.
    ///
    /// # Errors
    /// When the program or the kernel would refuse a line, or the walker does not know what it means.
    pub(in crate::dataplane::iptables) fn restore(&mut self, text: &str) -> anyhow::Result<()> {
        let mut open: Option<(&'static str, Chains)> = None;
        for (number, line) in (1..).zip(text.lines()) {
            let done = match (&mut open, line) {
                (None, line) => self.begin(line).map(|begun| open = Some(begun)),
                (Some((table, chains)), "COMMIT") => {
                    check(table, chains).map(|()| self.tables.extend(open.take()))
                }
                (Some((table, chains)), line) => change(self.family, table, chains, line),
            };
            done.with_context(|| format!("line {number}: {line}"))?;
        }
        ensure!(open.is_none(), "a table without COMMIT");
        Ok(())
    }

    fn begin(&self, line: &str) -> anyhow::Result<(&'static str, Chains)> {
        let name = line.strip_prefix('*').context("no table")?;
        let table = self.tables.get_key_value(name);
        let (name, chains) = table.context("the walker does not know this table")?;
        Ok((name, chains.clone()))
    }
}

fn is_built_in(table: &str, chain: &str) -> bool {
    let built_in = TABLES.iter().find(|(name, _)| *name == table);
    built_in.is_some_and(|(_, chains)| chains.contains(&chain))
}

/// Carries out a line of a table.
fn change(family: Family, table: &str, chains: &mut Chains, line: &str) -> anyhow::Result<()> {
    if let Some(declared) = line.strip_prefix(':') {
        let name = declared
            .strip_suffix(" - [0:0]")
            .context("no chain is declared so")?;
        ensure!(
            !is_built_in(table, name),
            "the walker does not know policies of chains"
        );
        ensure!(
            name.len() <= LONGEST_CHAIN && !name.is_empty(),
            "the name of the chain is too long"
        );
        chains.insert(name.to_owned(), Vec::new());
        return Ok(());
    }
    let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
    let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
    match command {
        "-A" | "-I" => {
            let rule = Rule::read(family, table, text)?;
            let chain = chains.get_mut(name).context("there is no such chain")?;
            let at = if command == "-A" { chain.len() } else { 0 };
            chain.insert(at, rule);
        }
        "-D" => {
            let chain = chains.get_mut(name).context("there is no such chain")?;
            let at = chain.iter().position(|rule| rule.text == text);
            chain.remove(at.context("there is no such rule")?);
        }
        "-X" => {
            ensure!(
                text.is_empty() && !is_built_in(table, name),
                "no chain that can be removed"
            );
            let chain = chains.remove(name).context("there is no such chain")?;
            ensure!(chain.is_empty(), "the chain has rules");
            ensure!(
                !leads_to(chains).any(|(_, to)| to == name),
                "something leads to the chain"
            );
        }
        other => bail!("the walker does not know {other}"),
    }
    Ok(())
}

/// From which chain to which chain rules lead.
fn leads_to(chains: &Chains) -> impl Iterator<Item = (&str, &str)> {
    let rules = chains
        .iter()
        .flat_map(|(name, rules)| rules.iter().map(move |rule| (name, rule)));
    rules.filter_map(|(name, rule)| match &rule.target {
        Some(Target::Jump(to)) => Some((name.as_str(), to.as_str())),
        _ => None,
    })
}

/// All that rules lead to is there.
fn check(table: &str, chains: &Chains) -> anyhow::Result<()> {
    for (from, to) in leads_to(chains) {
        ensure!(
            chains.contains_key(to) && !is_built_in(table, to),
            "{from} leads to {to}, and there is no such chain or target"
        );
    }
    Ok(())
}
