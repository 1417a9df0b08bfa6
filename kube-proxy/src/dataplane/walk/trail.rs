//! What became of a packet, and which rules brought it there.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::traveller::Memory;

/// What becomes of a packet on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::dataplane) enum Outcome {
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
pub(in crate::dataplane) struct Path {
    pub(in crate::dataplane) outcome: Outcome,
    /// How much of the traffic goes this way; all of it is 1.
    pub(in crate::dataplane) share: f64,
    /// The rules that had a say, in order.
    pub(in crate::dataplane) trail: Vec<Step>,
    /// What rules remember afterwards.
    pub(in crate::dataplane) memory: Memory,
    /// The packet's source address at the end, not yet masqueraded.
    pub(in crate::dataplane) source: IpAddr,
    /// The mark that it has then.
    pub(in crate::dataplane) mark: u32,
    /// Its priority for queueing then.
    pub(in crate::dataplane) priority: u32,
}

/// A rule that had a say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::dataplane) struct Step {
    pub(in crate::dataplane) chain: String,
    /// The rule's comment.
    pub(in crate::dataplane) comment: Cow<'static, str>,
    /// The planned elements that it found.
    pub(in crate::dataplane) elements: Vec<String>,
    pub(in crate::dataplane) effects: Vec<Effect>,
}

/// What a rule did.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::dataplane) enum Effect {
    /// Drew a random slot.
    Drew {
        slot: u32,
        of: u32,
    },
    /// Found that the packet is in no element of a set.
    NotIn(Cow<'static, str>),
    /// Found in a map what a rule wrote there.
    Recalled(Cow<'static, str>),
    /// Wrote to a map, or left what was there.
    Remembered(Cow<'static, str>),
    /// Took out of a map.
    Forgot(Cow<'static, str>),
    /// Let chance decide, which went for it.
    Chosen(f64),
    /// Counted the packet by this name.
    Counted(String),
    Marked(u32),
    Jump(String),
    Goto(String),
    Return,
    /// Wrote an address of the packet.
    Wrote(IpAddr),
    Dnat(SocketAddr),
    Masquerade,
    Reject,
    Drop,
    Accept,
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
            Self::Chosen(chance) => write!(f, "by a chance of {chance:.3}"),
            Self::Counted(name) => write!(f, "count in {name}"),
            Self::Marked(mark) => write!(f, "mark {mark:#x}"),
            Self::Jump(chain) => write!(f, "to {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Return => f.write_str("return"),
            Self::Wrote(ip) => write!(f, "now {ip}"),
            Self::Dnat(to) => write!(f, "dnat to {to}"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::Reject => f.write_str("reject"),
            Self::Drop => f.write_str("drop"),
            Self::Accept => f.write_str("accept"),
        }
    }
}
