//! What became of a packet, and which rules brought it there.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::set::Memory;

/// What becomes of a packet on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Outcome {
    /// It goes to this endpoint.
    To {
        endpoint: SocketAddr,
        /// Its source address is replaced by the node's. (What ends on this very node keeps it: it does not
        /// pass the place where that is done.)
        masqueraded: bool,
    },
    /// It goes on to where it was going, with its source address replaced.
    Masqueraded,
    /// It goes on as it came.
    NotOurs,
    /// Refused with an ICMP port-unreachable.
    Rejected,
    /// Dropped silently.
    Dropped,
}

/// One way that a packet can go.
#[derive(Clone, Debug)]
pub(in super::super) struct Path {
    pub(in super::super) outcome: Outcome,
    /// How much of the traffic goes this way; all of it is 1.
    pub(in super::super) share: f64,
    /// The rules that had a say, in order.
    pub(in super::super) trail: Vec<Step>,
    /// What rules remember afterwards.
    pub(in super::super) memory: Memory,
    /// The packet's source address at the end, not yet masqueraded.
    pub(in super::super) source: IpAddr,
    /// The mark that it has then.
    pub(in super::super) mark: u32,
    /// Its priority for queueing then.
    pub(in super::super) priority: u32,
}

/// A rule that had a say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Step {
    pub(in super::super) chain: String,
    /// The rule's comment.
    pub(in super::super) comment: &'static str,
    /// The planned elements that it found.
    pub(in super::super) elements: Vec<String>,
    pub(in super::super) effects: Vec<Effect>,
}

/// What a rule did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Effect {
    /// Drew a random slot.
    Drew {
        slot: u32,
        of: u32,
    },
    /// Found that the packet is in no element of a set.
    NotIn(&'static str),
    /// Found in a map what a rule wrote there.
    Recalled(&'static str),
    /// Wrote to a map, or left what was there.
    Remembered(&'static str),
    /// Took out of a map.
    Forgot(&'static str),
    Marked(u32),
    Goto(String),
    Return,
    /// Wrote an address of the packet.
    Wrote(IpAddr),
    Dnat(SocketAddr),
    Masquerade,
    Reject,
    Drop,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To {
                endpoint,
                masqueraded: false,
            } => write!(f, "{endpoint}"),
            Self::To {
                endpoint,
                masqueraded: true,
            } => write!(f, "{endpoint} masqueraded"),
            Self::Masqueraded => f.write_str("masqueraded"),
            Self::NotOurs => f.write_str("not ours"),
            Self::Rejected => f.write_str("rejected"),
            Self::Dropped => f.write_str("dropped"),
        }
    }
}

impl fmt::Display for Step {
    /// In a line: the chain, the rule's comment, what was found, what was done.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chain)?;
        let comment = (!self.comment.is_empty()).then(|| format!("\"{}\"", self.comment));
        let elements = self.elements.iter().map(|element| format!("in {element}"));
        let effects = self.effects.iter().map(Effect::to_string);
        for (index, part) in comment.into_iter().chain(elements).chain(effects).enumerate() {
            write!(f, "{}{part}", if index == 0 { ": " } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drew { slot, of } => write!(f, "slot {slot}, one of {of}"),
            Self::NotIn(set) => write!(f, "not in {set}"),
            Self::Recalled(map) => write!(f, "remembered in {map}"),
            Self::Remembered(map) => write!(f, "remember in {map}"),
            Self::Forgot(map) => write!(f, "forget in {map}"),
            Self::Marked(mark) => write!(f, "mark {mark:#x}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Return => f.write_str("return"),
            Self::Wrote(ip) => write!(f, "now {ip}"),
            Self::Dnat(to) => write!(f, "dnat to {to}"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::Reject => f.write_str("reject"),
            Self::Drop => f.write_str("drop"),
        }
    }
}
