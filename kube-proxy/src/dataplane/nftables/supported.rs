//! Whether this kernel has all that this mode needs, found out without putting anything in force.
//!
//! The kernel is given everything that the mode can ask of it in one transaction, in a table of its own, which ends with
//! something that cannot be: so it judges each message, and then forgets them all.

use super::chain::{Chain, Entitlement, Reach, Sources};
use super::config::{Config, NodePortRules};
use super::failure::explain;
use super::kernel::Kernel;
use super::socket::Failure;
use super::transaction::{Sealed, Transaction};
use crate::dataplane::{CommitError, CommitReport};
use crate::model::view::EndpointList;

/// The name of the table that never comes to be.
const TABLE: &str = "kube-proxy-support";
/// A chain that this table does not have.
const NO_CHAIN: &str = "no-such-chain";

impl Config {
    /// Asks the kernel.
    ///
    /// # Errors
    /// What it lacks, or why it cannot be asked.
    pub fn supported(&self) -> Result<(), CommitError> {
        let sealed = self.everything();
        let failures = Kernel::default().send(&sealed, &mut CommitReport::default())?;
        verdict(&sealed, &failures)
    }

    /// All kinds of sets, chains and rules, and at the end the impossible.
    fn everything(&self) -> Sealed {
        let mut transaction = Transaction::new(TABLE);
        for &family in &self.families {
            transaction.table(family);
            transaction.sets(family, self.count_connections);
            let rules = self.rules(family);
            let node_ports = NodePortRules {
                on_all: true,
                localhost: None,
            };
            for chain in rules.constant_chains(node_ports) {
                transaction.chain(family, &chain);
            }
            for chain in one_of_each_kind() {
                transaction.chain(family, &rules.chain(chain));
            }
            for chain in rules.base_chains(node_ports) {
                transaction.chain(family, &chain);
            }
        }
        if let Some(&family) = self.families.first() {
            transaction.delete_chain(family, NO_CHAIN);
        }
        transaction.seal()
    }
}

/// What the kernel's complaints come to: the one about the impossible is as it should be.
fn verdict(sealed: &Sealed, failures: &[Failure]) -> Result<(), CommitError> {
    let lacking = failures
        .iter()
        .find(|failure| failure.sequence != sealed.messages);
    lacking.map_or(Ok(()), |failure| Err(explain(TABLE, sealed, failure)))
}

/// Chains that are made as needed, those first to which others lead.
fn one_of_each_kind() -> Vec<Chain> {
    let mut chains = Vec::new();
    for reach in [Reach::Address, Reach::NodePort] {
        for affinity in [None, Some(1)] {
            let endpoints = |masquerade| Chain::Endpoints {
                reach,
                list: EndpointList::Cluster,
                masquerade,
                count: 1,
                affinity,
            };
            let to = Entitlement::To {
                list: EndpointList::Cluster,
                masquerade: true,
                count: 1,
            };
            chains.extend([Sources::NONE, Sources::ALL].map(endpoints));
            chains.push(Chain::BySource {
                reach,
                pods: to,
                host: to,
                outside: to,
                affinity,
            });
        }
    }
    chains
}

#[cfg(test)]
mod tests {
    use lab::net::Namespace;
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn this_kernel_has_all_that_is_needed_and_nothing_is_left_of_the_question() {
        let namespace = Namespace::create("supported").unwrap();
        namespace
            .run("nft", &["add", "table", "ip", "kube-proxy"])
            .unwrap();
        let before = namespace.run("nft", &["list", "ruleset"]).unwrap();
        let answer = namespace.enter(|| Config::default().supported()).unwrap();
        assert!(answer.is_ok(), "{answer:?}");
        assert_eq!(namespace.run("nft", &["list", "ruleset"]).unwrap(), before);
    }

    #[test]
    fn what_a_kernel_lacks_is_told_apart_from_the_impossible_at_the_end() {
        let sealed = Config::default().everything();
        let failure = |sequence, errno| Failure {
            sequence,
            errno,
            offset: None,
            text: None,
        };
        let impossible = failure(sealed.messages, Errno::ENOENT);
        assert!(verdict(&sealed, std::slice::from_ref(&impossible)).is_ok());
        for (failures, words) in [
            // A kernel without nf_tables refuses the batch as a whole.
            (
                vec![failure(0, Errno::EOPNOTSUPP)],
                "lacks nf_tables (CONFIG_NF_TABLES)",
            ),
            // One that has no NAT refuses the chains that need it, among others.
            (
                vec![failure(1, Errno::EOPNOTSUPP), impossible],
                "lacks nf_tables for IPv4 (CONFIG_NF_TABLES_IPV4)",
            ),
            (
                vec![failure(sealed.messages - 1, Errno::EINVAL)],
                "program table kube-proxy-support",
            ),
            (vec![failure(1, Errno::EPERM)], "permission denied"),
        ] {
            let error = verdict(&sealed, &failures).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
