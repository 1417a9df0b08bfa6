//! Removes what a kube-proxy left in the tables of the legacy variant, which only its own programs can write.

mod kernel;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::tools::Tools;
use crate::dataplane::leftovers::chains::{MARK_MASQ, Which};
use crate::dataplane::leftovers::{LeftoverError, Removed};
use crate::model::object::Family;

/// Whether somebody, and so perhaps a kube-proxy, uses the tables of the legacy variant in a family.
pub(in crate::dataplane) fn uses_legacy_tables(family: Family) -> bool {
    !kernel::tables(family).is_empty()
}

/// Removes the chains of kube-proxy from the tables of the legacy variant in a family.
///
/// # Errors
/// When there are some and no program to remove them with, or when that fails.
pub(in crate::dataplane) fn remove_chains(family: Family, which: Which) -> Result<Removed, LeftoverError> {
    let tables = kernel::tables(family);
    // Nobody used the legacy variant, and a look by its programs could load its modules.
    if tables.is_empty() {
        return Ok(Removed::default());
    }
    let Some(tools) = Tools::legacy(family) else {
        return match kernel::holds_chains_of_kube_proxy(family, &tables) {
            Ok(false) => Ok(Removed::default()),
            Ok(true) => Err(LeftoverError::NoProgram { family, tables }),
            Err(errno) => Err(LeftoverError::Unseen {
                family,
                tables,
                reason: errno.desc(),
            }),
        };
    };
    let mut saved = String::new();
    let listed = tools.save(&mut |line| {
        saved.push_str(line);
        saved.push('\n');
    });
    listed.map_err(|error| error.explain())?;
    let removal = Removal::of(&saved, which);
    if !removal.text.is_empty() {
        tools.restore(&removal.text).map_err(|error| error.explain())?;
    }
    Ok(removal.removed)
}

/// What is to be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Removal {
    /// For `iptables-restore --noflush`; empty when nothing is there.
    text: String,
    removed: Removed,
}

impl Removal {
    /// The chains of kube-proxy, and the rules by which the kernel's own chains lead to them, in what `iptables-save`
    /// printed.
    fn of(saved: &str, which: Which) -> Self {
        let mut removal = Self::default();
        let mut table: Option<Table<'_>> = None;
        for line in saved.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = Some(Table::new(name, which));
            } else if line == "COMMIT" {
                removal.extend(table.take());
            } else if let Some(table) = &mut table {
                table.read(line);
            }
        }
        removal
    }

    fn extend(&mut self, table: Option<Table<'_>>) {
        let Some(table) = table.filter(|table| !table.ours.is_empty()) else {
            return;
        };
        let mut write = |line: [&str; 3]| {
            line.iter().for_each(|part| self.text.push_str(part));
            self.text.push('\n');
        };
        let in_use = |chain: &&str| table.used_by_others.contains(*chain);
        let untouched = |chain: &&str| *chain == MARK_MASQ && in_use(chain);
        let emptied = || table.ours.iter().filter(|chain| !untouched(chain));
        // From the last to the first: the other way round iptables makes the index of its chains anew time and again.
        let deleted = || table.ours.iter().rev().filter(|chain| !in_use(chain));
        write(["*", table.name, ""]);
        // Emptied first, all of them: one may lead to the other.
        emptied().for_each(|chain| write([":", chain, " - [0:0]"]));
        table.jumps.iter().for_each(|rule| write(["-D ", rule, ""]));
        deleted().for_each(|chain| write(["-X ", chain, ""]));
        write(["COMMIT", "", ""]);
        self.removed.chains += deleted().count();
        let left = table.ours.iter().filter(|chain| in_use(chain));
        self.removed.in_use.extend(left.map(|chain| (*chain).to_owned()));
    }
}

/// A table as `iptables-save` prints it, as far as kube-proxy is concerned.
#[derive(Debug)]
struct Table<'a> {
    name: &'a str,
    which: Which,
    of_the_kernel: BTreeSet<&'a str>,
    ours: BTreeSet<&'a str>,
    /// The rules, without `-A`, by which the kernel's own chains lead to kube-proxy's.
    jumps: Vec<&'a str>,
    /// Where rules of others lead to.
    used_by_others: BTreeSet<&'a str>,
}

impl<'a> Table<'a> {
    fn new(name: &'a str, which: Which) -> Self {
        Self {
            name,
            which,
            of_the_kernel: BTreeSet::new(),
            ours: BTreeSet::new(),
            jumps: Vec::new(),
            used_by_others: BTreeSet::new(),
        }
    }

    /// Takes a line in. Chains come before rules.
    fn read(&mut self, line: &'a str) {
        if let Some((chain, policy)) = line.strip_prefix(':').and_then(|line| line.split_once(' ')) {
            if self.which.includes(self.name, chain) {
                self.ours.insert(chain);
            } else if !policy.starts_with('-') {
                self.of_the_kernel.insert(chain);
            }
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let chain = rule.split(' ').next().unwrap_or_default();
            if self.ours.contains(chain) {
                return;
            }
            let Some(target) = target(rule).filter(|target| self.ours.contains(target)) else {
                return;
            };
            if self.of_the_kernel.contains(chain) && self.which.is_entered(self.name, target) {
                self.jumps.push(rule);
            } else {
                self.used_by_others.insert(target);
            }
        }
    }
}

/// Where a rule leads: what follows `-j` or `-g`, outside of quotes.
fn target(rule: &str) -> Option<&str> {
    let (mut quoted, mut escaped) = (false, false);
    let mut words = rule.split(move |letter: char| {
        if std::mem::take(&mut escaped) {
            return false;
        }
        match letter {
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        letter == ' ' && !quoted
    });
    words.find(|word| matches!(*word, "-j" | "-g"))?;
    words.next()
}
