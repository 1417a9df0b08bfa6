//! What rules are made with: the rule itself, and the conditions and steps that many of them share. The rules
//! are in `constant.rs` and `needed.rs`.

use ipnet::IpNet;

use super::expr::{Comparison, Conntrack, Expr, Find, Meta, Register, RouteOf, Verdict};
use super::layout::{Field, Layout};
use super::object::Object;
use crate::dataplane::LocalTraffic;
use crate::model::object::Family;

/// The first packet of a connection, as `ct state` has it.
const STATE_NEW: u32 = 1 << 3;
/// `RTN_LOCAL`.
const ROUTE_LOCAL: u32 = 2;
/// `IFNAMSIZ`.
const INTERFACE_NAME: usize = 16;
/// Where every condition loads what it judges, and where every key begins.
pub(super) const FIRST: Register = Register(0);

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// What `nft list` shows beside it; none when empty.
    pub(super) comment: &'static str,
    pub(super) exprs: Vec<Expr>,
}

/// What the kernel calls a base chain from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hook {
    pub(super) kind: &'static str,
    pub(super) number: u32,
    pub(super) priority: i32,
}

/// A chain with its rules, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChainRules {
    pub(super) name: String,
    pub(super) hook: Option<Hook>,
    /// What `nft list` shows beside it; none when empty.
    pub(super) comment: &'static str,
    pub(super) rules: Vec<Rule>,
}

/// Makes the rules of one family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    pub(super) layout: &'static Layout,
    pub(super) local_traffic: &'a LocalTraffic,
    pub(super) masquerade_mark: u32,
    /// Node ports may be served at the loopback address.
    pub(super) localhost_node_ports: bool,
    /// IPVS picks the endpoints.
    pub(super) beside_ipvs: bool,
}

pub(super) fn rule(comment: &'static str, parts: impl IntoIterator<Item = Vec<Expr>>) -> Rule {
    Rule {
        comment,
        exprs: parts.into_iter().flatten().collect(),
    }
}

pub(super) fn end(verdict: Verdict) -> Vec<Expr> {
    vec![Expr::Verdict(verdict)]
}

/// Some bits of what was loaded are set.
pub(super) fn any_of(load: Expr, bits: u32) -> Vec<Expr> {
    vec![
        load,
        Expr::Bits {
            register: FIRST,
            mask: bits.to_ne_bytes().to_vec(),
            flip: vec![0; 4],
        },
        Expr::Compare(FIRST, Comparison::NotEqual, vec![0; 4]),
    ]
}

pub(super) fn new_connection() -> Vec<Expr> {
    any_of(Expr::LoadConntrack(Conntrack::State, FIRST), STATE_NEW)
}

pub(super) fn route_local(of: RouteOf, comparison: Comparison) -> Vec<Expr> {
    let local = ROUTE_LOCAL.to_ne_bytes().to_vec();
    vec![
        Expr::RouteType(of, FIRST),
        Expr::Compare(FIRST, comparison, local),
    ]
}

impl Rules<'_> {
    /// The packet comes, or does not come, from a pod; `None` when nobody is known to be one.
    pub(super) fn pods(&self, comparison: Comparison) -> Option<Vec<Expr>> {
        let interface = |mut name: Vec<u8>, whole: bool| {
            if whole {
                name.resize(INTERFACE_NAME, 0);
            }
            let load = Expr::LoadMeta(Meta::InputInterface, FIRST);
            vec![load, Expr::Compare(FIRST, comparison, name)]
        };
        match self.local_traffic {
            LocalTraffic::Cidr(IpNet::V4(net)) if self.layout.family == Family::V4 => Some(
                self.layout
                    .source_in(&net.network().octets(), net.prefix_len(), comparison),
            ),
            LocalTraffic::Cidr(IpNet::V6(net)) if self.layout.family == Family::V6 => Some(
                self.layout
                    .source_in(&net.network().octets(), net.prefix_len(), comparison),
            ),
            LocalTraffic::Interface(name) => Some(interface(name.as_bytes().to_vec(), true)),
            LocalTraffic::InterfacePrefix(prefix) => Some(interface(prefix.as_bytes().to_vec(), false)),
            LocalTraffic::Unknown | LocalTraffic::Cidr(_) => None,
        }
    }

    /// Whether pods are known in this family.
    pub(super) fn knows_pods(&self) -> bool {
        self.pods(Comparison::Equal).is_some()
    }

    /// Marks the packet to be masqueraded.
    pub(super) fn set_mark(&self) -> Vec<Expr> {
        self.change_mark(!self.masquerade_mark)
    }

    /// Keeps some bits of the packet's mark and flips the masquerade bit.
    pub(super) fn change_mark(&self, keep: u32) -> Vec<Expr> {
        vec![
            Expr::LoadMeta(Meta::Mark, FIRST),
            Expr::Bits {
                register: FIRST,
                mask: keep.to_ne_bytes().to_vec(),
                flip: self.masquerade_mark.to_ne_bytes().to_vec(),
            },
            Expr::SetMeta(Meta::Mark, FIRST),
        ]
    }

    /// Looks the packet's key up.
    pub(super) fn find(&self, object: Object, find: Find) -> Vec<Expr> {
        self.find_by(object.key(), object, find)
    }

    /// Looks up a key of these fields.
    pub(super) fn find_by(&self, key: &[Field], object: Object, find: Find) -> Vec<Expr> {
        let mut exprs = self.layout.load(key);
        exprs.push(Expr::Lookup {
            set: object.name(),
            key: FIRST,
            find,
        });
        exprs
    }
}
