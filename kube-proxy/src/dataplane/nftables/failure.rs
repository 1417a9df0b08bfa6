//! The kernel's refusals in an operator's words.

use nix::errno::Errno;

use super::encode::{MessageType, attributes, nfproto};
use super::socket::Failure;
use super::transaction::{NFTA_CHAIN_TYPE, NFTA_RULE_EXPRESSIONS, NFTA_SET_NAME, Sealed};
use crate::dataplane::CommitError;
use crate::model::object::Family;

/// `nlmsghdr` and `nfgenmsg`, and in it the family.
const HEADERS: usize = 20;
const FAMILY: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
const NFTA_EXPR_NAME: u16 = 1;
const NF_TABLES: &str = "nf_tables (CONFIG_NF_TABLES)";

/// The kernel could not even be asked.
pub(super) fn unreachable(tried: &str, errno: Errno) -> CommitError {
    let tried = tried.to_owned();
    match errno {
        Errno::EPERM | Errno::EACCES => CommitError::Permission {
            tried,
            capabilities: "CAP_NET_ADMIN",
        },
        Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT => CommitError::Unsupported {
            tried,
            feature: NF_TABLES.to_owned(),
        },
        errno => CommitError::Refused {
            tried,
            reason: format!("{} ({errno:?})", errno.desc()),
        },
    }
}

/// A table, set, chain or rule was refused, so nothing can be put in force.
pub(super) fn explain(table: &str, sealed: &Sealed, failure: &Failure) -> CommitError {
    let tried = format!("program table {table}");
    let feature = match failure.errno {
        Errno::EPERM => {
            return CommitError::Permission {
                tried,
                capabilities: "CAP_NET_ADMIN",
            };
        }
        // What the kernel says to the whole batch when nobody listens to nf_tables' messages.
        Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT if failure.sequence == 0 => Some(NF_TABLES.to_owned()),
        Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT => lacking(sealed, failure),
        _ => None,
    };
    match feature {
        Some(feature) => CommitError::Unsupported { tried, feature },
        None => CommitError::Refused {
            tried,
            reason: failure.reason(),
        },
    }
}

/// What the kernel does not have, by what the refused message asks for.
fn lacking(sealed: &Sealed, failure: &Failure) -> Option<String> {
    let message = sealed.message(failure.sequence)?;
    let kind = u16::from(*message.get(4)?);
    let attribute = |wanted| {
        let mut all = attributes(message.get(HEADERS..).unwrap_or_default());
        all.find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
    };
    if kind == MessageType::NewTable as u16 {
        let family = if *message.get(FAMILY)? == nfproto(Family::V4) {
            Family::V4
        } else {
            Family::V6
        };
        let option = family.to_string().to_uppercase();
        Some(format!("nf_tables for {family} (CONFIG_NF_TABLES_{option})"))
    } else if kind == MessageType::NewChain as u16 {
        let hooked = text(attribute(NFTA_CHAIN_TYPE)?);
        Some(format!("chains of type {hooked} (CONFIG_NFT_NAT)")).filter(|_| hooked == "nat")
    } else if kind == MessageType::NewSet as u16 {
        let set = text(attribute(NFTA_SET_NAME)?);
        Some(format!("what the set {set} needs (Linux 5.13)"))
    } else if kind == MessageType::NewRule as u16 {
        let list = attribute(NFTA_RULE_EXPRESSIONS)?;
        let start = list.as_ptr().addr() - message.as_ptr().addr();
        let features = expressions(list, start, failure.offset);
        (!features.is_empty()).then(|| features.join(" or "))
    } else {
        None
    }
}

/// What the expressions of a rule need: of the one to blame, if the kernel says which, else of all. The list
/// begins at `start` in the message.
fn expressions(list: &[u8], start: usize, blamed: Option<u32>) -> Vec<String> {
    let mut at = start;
    let mut features = Vec::new();
    for (_, expr) in attributes(list) {
        let end = at + ATTRIBUTE_HEADER + expr.len().next_multiple_of(4);
        let guilty = blamed.is_none_or(|offset| (at..end).contains(&(offset as usize)));
        at = end;
        let name = attributes(expr).find(|(kind, _)| *kind == NFTA_EXPR_NAME);
        features.extend(name.filter(|_| guilty).and_then(|(_, name)| feature(&text(name))));
    }
    features
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

/// The option that brings an expression; none for those that are nf_tables itself.
fn feature(expression: &str) -> Option<String> {
    let option = match expression {
        "ct" => "CONFIG_NFT_CT",
        "fib" => "CONFIG_NFT_FIB_INET, CONFIG_NFT_FIB_IPV4, CONFIG_NFT_FIB_IPV6",
        "masq" => "CONFIG_NFT_MASQ",
        "nat" => "CONFIG_NFT_NAT",
        "numgen" => "CONFIG_NFT_NUMGEN",
        "reject" => "CONFIG_NFT_REJECT",
        _ => return None,
    };
    Some(format!("{expression} ({option})"))
}
