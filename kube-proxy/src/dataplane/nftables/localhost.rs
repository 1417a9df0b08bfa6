//! Node ports at the loopback address, for processes of this host: the three chains that bring it about.
//!
//! A packet from 127.0.0.1 may not leave the host, and an answer to 127.0.0.1 may not come in, unless
//! `route_localnet` lets all of 127.0.0.0/8 in and out for everybody. So before conntrack sees it, the packet
//! gets an address of the node as its source; conntrack knows the connection as one from there to
//! 127.0.0.1:nodePort, and rewrites its destination as for any other. When an answer has come in and its source
//! is 127.0.0.1 again, its destination becomes 127.0.0.1, too, and the process finds it its own. Nothing of
//! this can be begun from outside: the destination is rewritten on the way out only, and only answers that
//! conntrack knows are given the loopback address. IPv6 and ::1 alike.

use std::net::IpAddr;

use super::constant::{INPUT, OUTPUT, STATUS_DNAT};
use super::expr::{Comparison, Conntrack, Expr, Find};
use super::object::Object;
use super::rules::{ChainRules, FIRST, Hook, Rules, any_of, rule};

/// Where the destination is rewritten.
pub(super) const LOCALHOST_NODE_PORTS: &str = "nodeports-from-localhost";
/// Before conntrack, at -200.
const BEFORE_CONNTRACK: i32 = -350;
/// After the source of an answer has been restored, at 100.
const AFTER_NAT: i32 = 150;
/// `IP_CT_DIR_REPLY`.
const REPLY: u8 = 1;

impl Rules<'_> {
    /// The chain among those that are always there, without effect where there is no `source` to give to packets.
    pub(super) fn localhost_chain(&self, source: Option<IpAddr>) -> ChainRules {
        let rules = source.map(|source| {
            let from = self.layout.source_is(source);
            let to = self.layout.destination_is(self.layout.localhost);
            rule("", [from, to, self.find(Object::ServiceNodePorts, Find::Verdict)])
        });
        ChainRules {
            name: LOCALHOST_NODE_PORTS.to_owned(),
            hook: None,
            comment: "127.0.0.1:nodePort, without route_localnet",
            rules: rules.into_iter().collect(),
        }
    }

    /// The two that the kernel calls. Upstream's kube-proxy, should it take these tables over, removes chains that it does not
    /// know if their names have a slash, and no others.
    pub(super) fn localhost_base_chains(&self, source: Option<IpAddr>) -> [ChainRules; 2] {
        let base = |name: &str, number, priority, rule: Option<_>| ChainRules {
            name: name.to_owned(),
            hook: Some(Hook {
                kind: "filter",
                number,
                priority,
            }),
            comment: "",
            rules: rule.into_iter().collect(),
        };
        let layout = self.layout;
        let leave = source.map(|source| {
            let here = [
                layout.source_is(layout.localhost),
                layout.destination_is(layout.localhost),
            ];
            let served = self.find(Object::LocalhostNodePorts, Find::Member);
            let [from, to] = here;
            rule("", [from, to, served, layout.set_source(source)])
        });
        let come_back = source.map(|source| {
            let reply = vec![
                Expr::LoadConntrack(Conntrack::Direction, FIRST),
                Expr::Compare(FIRST, Comparison::Equal, vec![REPLY]),
            ];
            let rewritten = any_of(Expr::LoadConntrack(Conntrack::Status, FIRST), STATUS_DNAT);
            let from = layout.source_is(layout.localhost);
            let to = layout.destination_is(source);
            let restore = layout.set_destination(layout.localhost);
            rule("", [from, to, reply, rewritten, restore])
        });
        [
            base("localhost/output", OUTPUT, BEFORE_CONNTRACK, leave),
            base("localhost/input", INPUT, AFTER_NAT, come_back),
        ]
    }
}
