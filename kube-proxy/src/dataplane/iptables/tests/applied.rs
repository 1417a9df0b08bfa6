//! What `iptables-restore --noflush` makes of its input, in a few lines: so that inputs can be compared by what they do.

use std::collections::BTreeMap;

use crate::dataplane::iptables::restore::Desired;
use crate::dataplane::iptables::saved::{Comparison, Saved};

/// Chains with their rules, by table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::dataplane::iptables) struct Applied(BTreeMap<(String, String), Vec<String>>);

impl Applied {
    /// Carries an input out. Everything that a program would refuse is a panic.
    pub(in crate::dataplane::iptables) fn restore(&mut self, text: &str) {
        let mut table = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                assert_eq!(table.replace(name.to_owned()), None, "{line}");
            } else if line == "COMMIT" {
                assert!(table.take().is_some(), "{line}");
            } else {
                self.line(table.as_ref().unwrap(), line);
            }
        }
        assert_eq!(table, None, "it ends with COMMIT");
    }

    fn line(&mut self, table: &str, line: &str) {
        let key = |chain: &str| (table.to_owned(), chain.to_owned());
        if let Some(chain) = line.strip_prefix(':') {
            self.0
                .insert(key(chain.strip_suffix(" - [0:0]").unwrap()), Vec::new());
            return;
        }
        let (command, rest) = line.split_once(' ').unwrap();
        let (chain, rule) = rest.split_once(' ').unwrap_or((rest, ""));
        if let Some((_, target)) = rule.rsplit_once("-j KUBE-") {
            let target = format!("KUBE-{target}");
            assert!(self.0.contains_key(&key(&target)), "no chain {target}: {line}");
        }
        if command == "-X" {
            assert_eq!(self.0.remove(&key(chain)), Some(Vec::new()), "{line}");
            return;
        }
        let of_the_kernel = !chain.starts_with("KUBE-");
        assert!(
            of_the_kernel || self.0.contains_key(&key(chain)),
            "no chain {chain}: {line}"
        );
        let rules = self.0.entry(key(chain)).or_default();
        match command {
            "-A" => rules.push(rule.to_owned()),
            "-I" => rules.insert(0, rule.to_owned()),
            "-D" => {
                let at = rules.iter().position(|there| there == rule);
                rules.remove(at.unwrap_or_else(|| panic!("not there: {line}")));
            }
            _ => panic!("{line}"),
        }
    }

    /// A chain of the kernel's leads to the chain in which addresses are looked up.
    pub(in crate::dataplane::iptables) fn leads_to_services(&self) -> bool {
        let of_the_kernel = self
            .0
            .iter()
            .filter(|((_, chain), _)| !chain.starts_with("KUBE-"));
        let mut rules = of_the_kernel.flat_map(|(_, rules)| rules);
        rules.any(|rule| rule.ends_with("-j KUBE-SERVICES"))
    }

    /// Somebody adds a rule to every second chain whose name begins so.
    pub(in crate::dataplane::iptables) fn add_to_every_second(&mut self, start: &str, rule: &str) {
        let chains = self
            .0
            .iter_mut()
            .filter(|((_, chain), _)| chain.starts_with(start));
        chains
            .step_by(2)
            .for_each(|(_, rules)| rules.push(rule.to_owned()));
    }

    /// As `iptables-save` would print it.
    pub(in crate::dataplane::iptables) fn printed(&self) -> String {
        let mut text = String::new();
        for table in ["mangle", "filter", "nat"] {
            let chains = || self.0.iter().filter(|((of, _), _)| of == table);
            text.push_str(&format!("*{table}\n"));
            chains().for_each(|((_, chain), _)| text.push_str(&format!(":{chain} - [0:0]\n")));
            for ((_, chain), rules) in chains() {
                rules
                    .iter()
                    .for_each(|rule| text.push_str(&format!("-A {chain} {rule}\n")));
            }
            text.push_str("COMMIT\n");
        }
        text
    }

    /// What a comparison with what is wanted makes of it.
    pub(in crate::dataplane::iptables) fn compared(&self, desired: &Desired<'_>) -> Saved {
        let mut comparison = Comparison::with(desired);
        self.printed().lines().for_each(|line| comparison.line(line));
        comparison.end()
    }
}
