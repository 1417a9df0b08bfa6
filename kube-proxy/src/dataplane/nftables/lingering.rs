//! A table of its own for addresses of kube-ipvs0 that stay for the sake of old connections after another mode took over:
//! while they do, programs that listen on every address of this host would be reached there.

use std::net::IpAddr;

use super::constant::INPUT;
use super::expr::Expr;
use super::kernel::Kernel;
use super::layout::Layout;
use super::rules::{ChainRules, Hook, new_connection, rule};
use super::transaction::Transaction;
use crate::dataplane::{CommitError, CommitReport};
use crate::model::object::Family;

const TABLE: &str = "kube-proxy-lingering";
/// `NF_IP_PRI_FILTER`.
const PRIORITY: i32 = 0;

/// Refuses new connections to these addresses that no Service takes, and to no others: without any, the table goes. What a
/// Service takes is on its way to an endpoint by then.
///
/// # Errors
/// When the kernel refuses, has no nf_tables, or nobody here may ask it.
pub(in crate::dataplane) fn refuse_at(addresses: &[IpAddr]) -> Result<(), CommitError> {
    let (mut kernel, mut report) = (Kernel::default(), CommitReport::default());
    let mut transaction = Transaction::new(TABLE);
    for family in Family::ALL {
        match kernel.table_exists(family, TABLE) {
            Ok(true) => transaction.delete_table(family),
            Ok(false) => {}
            Err(CommitError::Unsupported { .. }) if addresses.is_empty() => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut of_family = addresses
            .iter()
            .filter(|ip| Family::of(**ip) == family)
            .peekable();
        if of_family.peek().is_some() {
            transaction.table(family);
            transaction.chain(family, &chain(family, of_family));
        }
    }
    if transaction.is_empty() {
        return Ok(());
    }
    kernel.apply(transaction, &mut report)
}

fn chain<'a>(family: Family, addresses: impl Iterator<Item = &'a IpAddr>) -> ChainRules {
    let layout = Layout::of(family);
    let refusal = |ip: &IpAddr| {
        let refuse = vec![Expr::Reject(family)];
        rule("", [layout.destination_is(*ip), new_connection(), refuse])
    };
    ChainRules {
        name: "input".to_owned(),
        hook: Some(Hook {
            kind: "filter",
            number: INPUT,
            priority: PRIORITY,
        }),
        comment: "addresses of kube-ipvs0, kept for connections that began there",
        rules: addresses.map(refusal).collect(),
    }
}
