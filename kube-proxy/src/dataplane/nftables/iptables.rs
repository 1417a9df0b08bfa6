//! What the nf_tables variant of iptables keeps in nf_tables: lists its chains, removes those of kube-proxy, and tells
//! what messages are about them. No program of iptables is needed for it.
//!
//! First the rules go by which the kernel's own chains lead to kube-proxy's, all of a family in one transaction. From
//! then on no packet meets any of it, and the chains follow in transactions short enough for a sync to come between.

use std::collections::BTreeSet;

use nix::errno::Errno;

use super::encode::{Batch, MessageType, attributes, flag, request};
use super::failure::unreachable;
use super::others::{Guarded, SUBSYSTEM, Touch};
use super::socket::{Failure, Socket};
use crate::dataplane::CommitError;
use crate::dataplane::leftovers::Removed;
use crate::dataplane::leftovers::chains::{CANARY, MARK_MASQ, TABLES, Which};
use crate::model::object::Family;
use crate::netlink::{Message, nfproto};

/// `nfgenmsg`, which begins the body of nf_tables' messages.
const NFGENMSG: usize = 4;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CHAIN: u16 = 2;
/// Chains in one transaction.
const CHUNK: usize = 2_000;
/// How often to begin anew because another hand changed something meanwhile.
const ATTEMPTS: usize = 8;

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    table: String,
    name: String,
    /// One of the kernel's own, which packets come to by themselves.
    is_base: bool,
}

/// Whether kube-proxy may have chains in the tables that iptables uses in a family.
pub(in crate::dataplane) fn has_chains(family: Family) -> bool {
    let which = Which::All;
    let chains = Socket::open().and_then(|socket| {
        let mut removal = Removal {
            socket,
            family,
            which,
        };
        removal.chains()
    });
    let is_ours = |chain: &Chain| which.includes(&chain.table, &chain.name);
    chains.is_ok_and(|chains| chains.iter().any(is_ours))
}

/// Removes the chains of kube-proxy from the tables that iptables uses in a family.
///
/// # Errors
/// When the kernel refuses, or nobody here may ask it.
pub(in crate::dataplane) fn remove_chains(family: Family, which: Which) -> Result<Removed, CommitError> {
    let mut removal = Removal {
        socket: Socket::open().map_err(|errno| unreachable("open a netlink socket", errno))?,
        family,
        which,
    };
    let all = match removal.chains() {
        // A kernel without this family, or without nf_tables.
        Err(Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP | Errno::EINVAL) => return Ok(Removed::default()),
        all => all.map_err(|errno| unreachable("list the chains of iptables", errno))?,
    };
    let (ours, others): (Vec<Chain>, Vec<Chain>) = all
        .into_iter()
        .partition(|chain| which.includes(&chain.table, &chain.name));
    if ours.is_empty() {
        return Ok(Removed::default());
    }
    let of_the_kernel: Vec<Chain> = others.into_iter().filter(|chain| chain.is_base).collect();
    removal.unhook(&of_the_kernel)?;
    removal.remove(&ours)
}

/// The chains of the iptables mode, where its programs keep them in nf_tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct Chains {
    /// The families in which that is so.
    pub(in crate::dataplane) families: Vec<Family>,
}

impl Guarded for Chains {
    fn name(&self) -> &'static str {
        "iptables"
    }

    /// A chain of the mode, a rule in one, and a rule that leads to one from a chain of the kernel's own are ours. What
    /// kubelet keeps, and jumps of others to the chain that marks packets, are not.
    fn touch(&self, message: &Message<'_>) -> Touch {
        let Some((head, body)) = message.body().split_at_checked(NFGENMSG) else {
            return Touch::Nothing;
        };
        if !self.families.iter().any(|&family| nfproto(family) == head[0]) {
            return Touch::Nothing;
        }
        let is = |kind: MessageType| message.kind == SUBSYSTEM << 8 | kind as u16;
        let (is_chain, is_rule) = (
            is(MessageType::NewChain) || is(MessageType::DelChain),
            is(MessageType::NewRule) || is(MessageType::DelRule),
        );
        let name = match (is_chain, is_rule) {
            (true, _) => find(body, NFTA_CHAIN_NAME),
            (_, true) => find(body, NFTA_RULE_CHAIN),
            _ => None,
        };
        // Chains and rules have it in the same place.
        let (Some(table), Some(name)) = (find(body, NFTA_CHAIN_TABLE), name) else {
            return Touch::Nothing;
        };
        let (table, name) = (text(table), text(name));
        let is_ours =
            |chain: &str| Which::All.includes(&table, chain) && !Which::OfIpvsOnly.includes(&table, chain);
        let leads_to_ours = || {
            let mut targets = find(body, NFTA_RULE_EXPRESSIONS).into_iter().flat_map(targets);
            let is_kernels = name.bytes().all(|letter| letter.is_ascii_uppercase());
            is_rule && is_kernels && targets.any(|to| to != MARK_MASQ && is_ours(&to))
        };
        if is(MessageType::DelChain) && name == CANARY {
            Touch::Flushed
        } else if is_ours(&name) || leads_to_ours() {
            Touch::Changed
        } else {
            Touch::Nothing
        }
    }

    /// By its own name a kube-proxy would not write chains, but by such a program's, which the kernel cuts to 15 letters.
    fn is_rival(&self, program: &str) -> bool {
        ["iptables-", "ip6tables-"].iter().any(|start| {
            let rest = program.strip_prefix(start).unwrap_or_default();
            ["re", "nft-r"].iter().any(|restore| rest.starts_with(restore))
        })
    }
}

struct Removal {
    socket: Socket,
    family: Family,
    which: Which,
}

impl Removal {
    /// The chains of the tables that iptables uses.
    fn chains(&mut self) -> Result<Vec<Chain>, Errno> {
        let list = request((MessageType::GetChain, flag::DUMP), self.family, 1, |_| {});
        self.listed(&list, chain)
    }

    /// The handles of a chain's rules that lead to kube-proxy's chains.
    fn jumps(&mut self, from: &Chain) -> Result<Vec<Vec<u8>>, Errno> {
        let (kind, which) = ((MessageType::GetRule, flag::DUMP), self.which);
        let list = request(kind, self.family, 1, |message| {
            message.string(NFTA_RULE_TABLE, &from.table);
            message.string(NFTA_RULE_CHAIN, &from.name);
        });
        self.listed(&list, |body| {
            // An old kernel lists the rules of other chains, too.
            let of = |kind, name: &str| find(body, kind).is_some_and(|value| text(value) == name);
            let here = of(NFTA_RULE_TABLE, &from.table) && of(NFTA_RULE_CHAIN, &from.name);
            let ours = targets(find(body, NFTA_RULE_EXPRESSIONS)?)
                .any(|target| which.is_entered(&from.table, &target));
            let handle = find(body, NFTA_RULE_HANDLE)?;
            (here && ours).then(|| handle.to_vec())
        })
    }

    /// What a dump lists, as far as `read` makes something of it.
    fn listed<T>(&mut self, list: &[u8], read: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>, Errno> {
        for _ in 0..ATTEMPTS {
            let mut all = Vec::new();
            match self.socket.dump(list, |body| {
                all.extend(read(body.get(NFGENMSG..).unwrap_or_default()));
            }) {
                Ok(()) => return Ok(all),
                // Another transaction came in between.
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::EINTR)
    }

    /// Removes the rules by which the kernel's own chains lead to kube-proxy's.
    fn unhook(&mut self, of_the_kernel: &[Chain]) -> Result<(), CommitError> {
        let mut failure = None;
        for _ in 0..ATTEMPTS {
            let mut batch = Batch::new();
            for chain in of_the_kernel {
                let jumps = self.jumps(chain);
                for handle in jumps.map_err(|errno| unreachable("list the rules of iptables", errno))? {
                    batch.message(MessageType::DelRule, self.family, 0, |message| {
                        message.string(NFTA_RULE_TABLE, &chain.table);
                        message.string(NFTA_RULE_CHAIN, &chain.name);
                        message.bytes(NFTA_RULE_HANDLE, &handle);
                    });
                }
            }
            failure = self.send(batch)?.into_iter().next();
            // A rule that is gone was removed by another hand since it was listed.
            if failure
                .as_ref()
                .is_none_or(|failure| failure.errno != Errno::ENOENT)
            {
                break;
            }
        }
        failure.map_or(Ok(()), |failure| Err(self.refused(&failure)))
    }

    /// Empties all chains, since one leads to the other, and then deletes them. What others may use to mark packets comes
    /// last, when nothing of kube-proxy's leads to it any more, and is not even emptied if something else does.
    fn remove(&mut self, ours: &[Chain]) -> Result<Removed, CommitError> {
        let mut removed = Removed::default();
        let (marking, ours): (Vec<&Chain>, Vec<&Chain>) =
            ours.iter().partition(|chain| chain.name == MARK_MASQ);
        for chunk in ours.chunks(CHUNK) {
            self.each(MessageType::DelRule, chunk)?;
        }
        for chunk in ours.chunks(CHUNK).chain(marking.chunks(1)) {
            let in_use = self.each(MessageType::DelChain, chunk)?;
            removed.chains += chunk.len() - in_use.len();
            removed.in_use.extend(in_use);
        }
        Ok(removed)
    }

    /// Sends a message about each of these chains, in one transaction: all rules of it go, or the chain itself does. Those
    /// that are gone already, by another hand, are left out, and so are those that rules of others lead to, whose names
    /// are returned.
    fn each(&mut self, kind: MessageType, chains: &[&Chain]) -> Result<Vec<String>, CommitError> {
        let (mut chains, mut in_use) = (chains.to_vec(), Vec::new());
        let (table, name) = match kind {
            MessageType::DelRule => (NFTA_RULE_TABLE, NFTA_RULE_CHAIN),
            _ => (NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME),
        };
        loop {
            let mut batch = Batch::new();
            for chain in &chains {
                batch.message(kind, self.family, 0, |message| {
                    message.string(table, &chain.table);
                    message.string(name, &chain.name);
                });
            }
            let failures = self.send(batch)?;
            let mut left_out = BTreeSet::new();
            for failure in &failures {
                let index = (failure.sequence as usize).wrapping_sub(1);
                match (chains.get(index), failure.errno) {
                    (Some(_), Errno::ENOENT) => {}
                    (Some(chain), Errno::EBUSY) => in_use.push(chain.name.clone()),
                    _ => return Err(self.refused(failure)),
                }
                left_out.insert(index);
            }
            if left_out.is_empty() {
                return Ok(in_use);
            }
            let mut index = 0..;
            chains.retain(|_| index.next().is_none_or(|index: usize| !left_out.contains(&index)));
        }
    }

    fn send(&mut self, batch: Batch) -> Result<Vec<Failure>, CommitError> {
        let messages = batch.messages();
        if messages == 0 {
            return Ok(Vec::new());
        }
        let answer = self.socket.transact(&batch.finish(), messages);
        answer.map_err(|errno| unreachable("remove the chains of iptables", errno))
    }

    fn refused(&self, failure: &Failure) -> CommitError {
        CommitError::Refused {
            tried: format!("remove kube-proxy's chains of iptables in {}", self.family),
            reason: failure.reason(),
        }
    }
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut all = attributes(bytes);
    all.find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

/// A chain of a table that iptables uses.
pub(super) fn chain(body: &[u8]) -> Option<Chain> {
    let chain = Chain {
        table: text(find(body, NFTA_CHAIN_TABLE)?),
        name: text(find(body, NFTA_CHAIN_NAME)?),
        is_base: find(body, NFTA_CHAIN_HOOK).is_some(),
    };
    TABLES.contains(&chain.table.as_str()).then_some(chain)
}

/// The chains that a rule's expressions lead to.
pub(super) fn targets(expressions: &[u8]) -> impl Iterator<Item = String> {
    attributes(expressions).filter_map(|(_, expression)| {
        let immediate = text(find(expression, NFTA_EXPR_NAME)?) == "immediate";
        let data = find(find(expression, NFTA_EXPR_DATA)?, NFTA_IMMEDIATE_DATA)?;
        let verdict = find(data, NFTA_DATA_VERDICT).filter(|_| immediate)?;
        Some(text(find(verdict, NFTA_VERDICT_CHAIN)?))
    })
}
