//! The chains and rules that do not depend on Services, and the jumps to them from the kernel's own chains.

use std::net::Ipv4Addr;

use super::counters::{Counted, Counter};
use super::entry::{Shared, Table};
use crate::dataplane::NodePortAddresses;
/// By which a flush from outside is noticed: nobody else makes it.
pub(super) use crate::dataplane::leftovers::chains::CANARY;
use crate::model::object::Family;

const FIREWALL: &str = "KUBE-FIREWALL";
const FORWARD: &str = "KUBE-FORWARD";
const MARK_MASQ: &str = "KUBE-MARK-MASQ";
const POSTROUTING: &str = "KUBE-POSTROUTING";

/// What the fixed rules depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fixed {
    pub(super) family: Family,
    /// The one bit of the packet mark by which packets to masquerade are known.
    pub(super) mark: u32,
    /// Node ports are served at 127.0.0.0/8, so `route_localnet` is on and others have to be kept out.
    pub(super) localhost: bool,
    /// Packets that conntrack finds invalid are dropped: it is not liberal about TCP windows.
    pub(super) drops_invalid: bool,
    /// The counters that rules may name.
    pub(super) counted: Counted,
    /// MASQUERADE takes `--random-fully`.
    pub(super) random_fully: bool,
}

/// A jump from a chain of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Jump {
    pub(super) table: Table,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    /// Only first packets of connections.
    new: bool,
    comment: &'static str,
}

const fn jump(table: Table, from: &'static str, to: &'static str, new: bool, comment: &'static str) -> Jump {
    Jump {
        table,
        from,
        to,
        new,
        comment,
    }
}

const LOAD_BALANCER_FIREWALL: &str = "kubernetes load balancer firewall";
const EXTERNAL_PORTALS: &str = "kubernetes externally-visible service portals";
const PORTALS: &str = "kubernetes service portals";

/// All jumps but those of the shared firewall, in the order in which they are to stand.
const JUMPS: [Jump; 12] = [
    jump(
        Table::Filter,
        "INPUT",
        "KUBE-PROXY-FIREWALL",
        true,
        LOAD_BALANCER_FIREWALL,
    ),
    jump(
        Table::Filter,
        "INPUT",
        "KUBE-NODEPORTS",
        false,
        "kubernetes health check service ports",
    ),
    jump(
        Table::Filter,
        "INPUT",
        "KUBE-EXTERNAL-SERVICES",
        true,
        EXTERNAL_PORTALS,
    ),
    jump(
        Table::Filter,
        "FORWARD",
        "KUBE-PROXY-FIREWALL",
        true,
        LOAD_BALANCER_FIREWALL,
    ),
    jump(
        Table::Filter,
        "FORWARD",
        FORWARD,
        false,
        "kubernetes forwarding rules",
    ),
    jump(Table::Filter, "FORWARD", "KUBE-SERVICES", true, PORTALS),
    jump(
        Table::Filter,
        "FORWARD",
        "KUBE-EXTERNAL-SERVICES",
        true,
        EXTERNAL_PORTALS,
    ),
    jump(
        Table::Filter,
        "OUTPUT",
        "KUBE-PROXY-FIREWALL",
        true,
        LOAD_BALANCER_FIREWALL,
    ),
    jump(Table::Filter, "OUTPUT", "KUBE-SERVICES", true, PORTALS),
    jump(Table::Nat, "PREROUTING", "KUBE-SERVICES", false, PORTALS),
    jump(Table::Nat, "OUTPUT", "KUBE-SERVICES", false, PORTALS),
    jump(
        Table::Nat,
        "POSTROUTING",
        POSTROUTING,
        false,
        "kubernetes postrouting rules",
    ),
];

/// Kubelet has these, too; whoever comes first makes them, and nobody removes them.
const FIREWALL_JUMPS: [Jump; 2] = [
    jump(Table::Filter, "INPUT", FIREWALL, false, ""),
    jump(Table::Filter, "OUTPUT", FIREWALL, false, ""),
];

impl Jump {
    /// The rule behind `-A FROM`, as `iptables-save` prints it.
    pub(super) fn rule(&self) -> String {
        let new = if self.new {
            "-m conntrack --ctstate NEW "
        } else {
            ""
        };
        let comment = match self.comment {
            "" => String::new(),
            comment => format!("-m comment --comment \"{comment}\" "),
        };
        format!("{new}{comment}-j {}", self.to)
    }
}

impl Fixed {
    /// The jumps of a table, in the order in which they are to stand.
    pub(super) fn jumps(&self, table: Table) -> impl Iterator<Item = Jump> + use<> {
        let localhost = self.localhost;
        let firewall = FIREWALL_JUMPS.into_iter().filter(move |_| localhost);
        firewall.chain(JUMPS).filter(move |jump| jump.table == table)
    }

    pub(super) fn guards_localhost(&self) -> bool {
        self.localhost && self.family == Family::V4
    }

    /// The chain shared with kubelet, which is made but never emptied, and the rule that it has to hold in IPv4.
    pub(super) fn guard(&self) -> Option<(&'static str, Option<&'static str>)> {
        let rule = "! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \"block incoming localnet connections\" \
                    -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP";
        self.localhost
            .then_some((FIREWALL, Some(rule).filter(|_| self.guards_localhost())))
    }

    /// The chains of a table and their rules (without `-A CHAIN`) that are the same whatever the Services are.
    pub(super) fn chains(&self, table: Table) -> Vec<(&'static str, Vec<String>)> {
        let mark = self.mark;
        match table {
            Table::Mangle => vec![(CANARY, Vec::new())],
            Table::Filter => {
                vec![(CANARY, Vec::new()), (FORWARD, self.forward())]
            }
            Table::Nat => vec![
                (CANARY, Vec::new()),
                (MARK_MASQ, vec![format!("-j MARK --or-mark {mark:#010x}")]),
                (
                    POSTROUTING,
                    vec![
                        format!("-m mark ! --mark {mark:#010x}/{mark:#010x} -j RETURN"),
                        format!("-j MARK --xor-mark {mark:#010x}"),
                        format!(
                            "-m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE{}",
                            if self.random_fully { " --random-fully" } else { "" }
                        ),
                    ],
                ),
            ],
        }
    }

    fn forward(&self) -> Vec<String> {
        let mark = self.mark;
        let mut rules = Vec::new();
        if self.drops_invalid {
            let counter = match self.counted.has(Counter::InvalidDropped) {
                true => format!("{} ", Counter::InvalidDropped.rule_match()),
                false => String::new(),
            };
            rules.push(format!("-m conntrack --ctstate INVALID {counter}-j DROP"));
        }
        rules.push(format!(
            "-m comment --comment \"kubernetes forwarding rules\" -m mark --mark {mark:#010x}/{mark:#010x} -j ACCEPT"
        ));
        rules.push(
            "-m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate \
             RELATED,ESTABLISHED -j ACCEPT"
                .to_owned(),
        );
        rules
    }

    /// The rules that end a shared chain, given which local addresses accept node ports. Where they are chosen and
    /// node ports are served at 127.0.0.0/8 all the same, its first address was chosen as well.
    pub(super) fn last_rules(&self, chain: Shared, node_ports: &NodePortAddresses) -> Vec<String> {
        if chain != Shared::Services {
            return Vec::new();
        }
        let note = "kubernetes service nodeports; NOTE: this must be the last rule in this chain";
        let to = |selects: &str, more: &str| {
            format!("{selects}-m comment --comment \"{note}\" {more}-j KUBE-NODEPORTS")
        };
        if let NodePortAddresses::Only(addresses) = node_ports {
            let localhost = self.guards_localhost().then_some(Ipv4Addr::LOCALHOST.into());
            let addresses = localhost.iter().chain(addresses);
            return addresses.map(|ip| to(&format!("-d {ip} "), "")).collect();
        }
        let loopback = match (self.family, self.localhost) {
            (Family::V4, true) => "",
            (Family::V4, false) => "! -d 127.0.0.0/8 ",
            (Family::V6, _) => "! -d ::1/128 ",
        };
        vec![to(loopback, "-m addrtype --dst-type LOCAL ")]
    }
}
