//! Netlink messages that are not what the kernel would send.

use proptest::prelude::*;

use super::*;
use crate::dataplane::nftables::Chains;
use crate::dataplane::nftables::listed::Element;
use crate::dataplane::nftables::transaction::Transaction;
use crate::garbage::spoilt;
use crate::netlink::{attributes, messages};

/// Messages as nf_tables tells them: tables, sets, elements.
fn recorded() -> Vec<u8> {
    let mut transaction = Transaction::new("kube-proxy");
    transaction.table(Family::V4);
    transaction.sets(Family::V4, true);
    transaction.seal().bytes
}

/// Reads attributes as deep as they go.
fn depth(bytes: &[u8]) -> usize {
    let deeper = attributes(bytes).map(|(_, value)| {
        let _ = Element::read(value);
        depth(value)
    });
    deeper.max().map_or(0, |deepest| deepest + 1)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_netlink_message_makes_its_reader_panic(bytes in spoilt(recorded())) {
        let mut others = Others::default();
        let read: usize = messages(&bytes).map(|message| {
            others.read(message, &config());
            others.read(message, &Chains { families: Family::ALL.to_vec() });
            depth(message.body().get(4..).unwrap_or_default())
        }).sum();
        prop_assert!(read <= bytes.len());
    }
}
