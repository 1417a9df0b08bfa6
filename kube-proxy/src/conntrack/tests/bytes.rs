//! What the kernel lists where bytes are counted.

use std::hash::RandomState;

use lab::net::Namespace;

use super::table::{inject, tracked};
use crate::conntrack::bytes::Counted;
use crate::conntrack::bytes::wire::request;
use crate::netlink::Socket;

#[test]
fn the_kernel_lists_what_rules_redirected_and_all_where_ipvs_redirects_with_counters_once_it_counts() {
    let table = Namespace::create("bytes").unwrap();
    let entries = |port: u16| {
        [
            tracked(&format!("10.2.0.1:{port}"), "UDP 10.0.0.10:53 > 10.1.0.1:53"),
            tracked(
                &format!("[fd00::2:1]:{port}"),
                "SCTP [fd00::10]:53 > [fd00::1]:53",
            ),
            tracked(&format!("10.2.0.2:{port}"), "UDP 10.0.0.10:53"),
        ]
    };
    // How many are listed, and how many are read.
    let listed = |by_ipvs: bool| {
        let list = || {
            let (mut listed, mut read) = (0, 0);
            let keys = RandomState::new();
            let mut socket = Socket::open().unwrap();
            let each = |message: &[u8]| {
                listed += 1;
                read += usize::from(Counted::read(message, &keys).is_some());
            };
            socket.dump(&request(by_ipvs), each).unwrap();
            (listed, read)
        };
        table.enter(list).unwrap()
    };
    table
        .sysctls(&[("net/netfilter/nf_conntrack_acct", "0")])
        .unwrap();
    inject(&table, entries(1000));
    assert_eq!(listed(true), (3, 0), "without counters");
    table
        .sysctls(&[("net/netfilter/nf_conntrack_acct", "1")])
        .unwrap();
    inject(&table, entries(1001));
    assert_eq!(listed(true), (6, 2));
    // Whoever wrote them did it without rules.
    assert_eq!(listed(false), (0, 0));
}
