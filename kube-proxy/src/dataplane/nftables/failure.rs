//! The kernel's refusals in an operator's words.

use nix::errno::Errno;

use super::socket::Failure;
use super::transaction::Sealed;
use crate::dataplane::CommitError;

const NF_TABLES: &str = "nf_tables (CONFIG_NF_TABLES)";

/// The kernel could not even be asked.
pub(super) fn unreachable(tried: &str, errno: Errno) -> CommitError {
    let tried = tried.to_owned();
    match errno {
        Errno::EPERM | Errno::EACCES => CommitError::Permission { tried },
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
        Errno::EPERM => return CommitError::Permission { tried },
        // What the kernel says to the whole batch when nobody listens to nf_tables' messages.
        Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT if failure.sequence == 0 => Some(NF_TABLES.to_owned()),
        Errno::EAFNOSUPPORT => Some(format!("{NF_TABLES} of this family")),
        Errno::ENOENT | Errno::EOPNOTSUPP => missing_expression(sealed, failure),
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

/// The expression that a refused rule needs, by the option of the kernel's configuration.
fn missing_expression(sealed: &Sealed, failure: &Failure) -> Option<String> {
    let names = sealed.expressions(failure.sequence, failure.offset);
    let features: Vec<String> = names.iter().filter_map(|name| feature(name)).collect();
    (!features.is_empty()).then(|| features.join(" or "))
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
