//! The rules: those that are always there, and those of the chains made as needed.

use ipnet::IpNet;

use super::chain::{Chain, Entitlement, Reach, Sources};
use super::entry::FIRST_LOCAL_SLOT;
use super::expr::{Comparison, Conntrack, Expr, Find, Meta, Register, RouteOf, Verdict};
use super::layout::{Field, Layout};
use super::object::Object;
use crate::dataplane::LocalTraffic;
use crate::model::object::Family;
use crate::model::view::EndpointList;

/// Where verdict maps send a packet to be refused: a map cannot hold that verdict itself.
pub(super) const REJECT_CHAIN: &str = "reject-chain";
const SERVICES: &str = "services";
const NODE_PORTS: &str = "nodeports";
const MASQUERADING: &str = "masquerading";
const SERVICE_ENDPOINTS_CHECK: &str = "service-endpoints-check";
const NODE_PORT_ENDPOINTS_CHECK: &str = "nodeport-endpoints-check";
const CLUSTER_IPS_CHECK: &str = "cluster-ips-check";
const FIREWALL_CHECK: &str = "firewall-check";
/// `IPS_DST_NAT`.
const STATUS_DNAT: u32 = 1 << 5;
/// The first packet of a connection, as `ct state` has it.
const STATE_NEW: u32 = 1 << 3;
/// `RTN_LOCAL`.
const ROUTE_LOCAL: u32 = 2;
/// `IFNAMSIZ`.
const INTERFACE_NAME: usize = 16;
const FIRST: Register = Register(0);

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
}

fn rule(comment: &'static str, parts: impl IntoIterator<Item = Vec<Expr>>) -> Rule {
    Rule {
        comment,
        exprs: parts.into_iter().flatten().collect(),
    }
}

fn end(verdict: Verdict) -> Vec<Expr> {
    vec![Expr::Verdict(verdict)]
}

/// Some bits of what was loaded are set.
fn any_of(load: Expr, bits: u32) -> Vec<Expr> {
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

fn new_connection() -> Vec<Expr> {
    any_of(Expr::LoadConntrack(Conntrack::State, FIRST), STATE_NEW)
}

fn route_local(of: RouteOf, comparison: Comparison) -> Vec<Expr> {
    let local = ROUTE_LOCAL.to_ne_bytes().to_vec();
    vec![
        Expr::RouteType(of, FIRST),
        Expr::Compare(FIRST, comparison, local),
    ]
}

fn base(name: &str, kind: &'static str, number: u32, priority: i32, jumps: &[&'static str]) -> ChainRules {
    let condition = if kind == "nat" {
        Vec::new()
    } else {
        new_connection()
    };
    ChainRules {
        name: name.to_owned(),
        hook: Some(Hook {
            kind,
            number,
            priority,
        }),
        comment: "",
        rules: jumps
            .iter()
            .map(|to| rule("", [condition.clone(), end(Verdict::Jump(to))]))
            .collect(),
    }
}

/// The chains that the kernel calls. They come last: nothing before them has an effect.
pub(super) fn base_chains() -> Vec<ChainRules> {
    let (prerouting, input, forward, output, postrouting) = (0, 1, 2, 3, 4);
    let checks = [SERVICE_ENDPOINTS_CHECK, CLUSTER_IPS_CHECK];
    let input_checks = [NODE_PORT_ENDPOINTS_CHECK, SERVICE_ENDPOINTS_CHECK];
    vec![
        base(
            "filter-prerouting-pre-dnat",
            "filter",
            prerouting,
            -110,
            &[FIREWALL_CHECK],
        ),
        base(
            "filter-output-pre-dnat",
            "filter",
            output,
            -110,
            &[FIREWALL_CHECK],
        ),
        base("filter-input", "filter", input, 0, &input_checks),
        base("filter-forward", "filter", forward, 0, &checks),
        base("filter-output", "filter", output, 0, &checks),
        base("nat-prerouting", "nat", prerouting, -100, &[SERVICES]),
        base("nat-output", "nat", output, -100, &[SERVICES]),
        base("nat-postrouting", "nat", postrouting, 100, &[MASQUERADING]),
    ]
}

impl Rules<'_> {
    /// The chains that are always there, in an order in which each finds those that it jumps to.
    pub(super) fn constant_chains(&self, node_ports_on_all: bool) -> Vec<ChainRules> {
        let chain = |name: &str, comment, rules| ChainRules {
            name: name.to_owned(),
            hook: None,
            comment,
            rules,
        };
        let family = self.layout.family;
        let jump = |to| end(Verdict::Jump(to));
        let [node_ports, node_port_check] = self.node_port_chains(node_ports_on_all);
        vec![
            chain(
                REJECT_CHAIN,
                "no endpoint anywhere",
                vec![rule("", [vec![Expr::Reject(family)]])],
            ),
            chain(FIREWALL_CHECK, "loadBalancerSourceRanges", vec![self.firewall()]),
            chain(CLUSTER_IPS_CHECK, "", vec![self.undefined_port()]),
            chain(
                SERVICE_ENDPOINTS_CHECK,
                "",
                vec![rule("", [self.find(Object::NoEndpointServices, Find::Verdict)])],
            ),
            node_port_check,
            node_ports,
            chain(
                SERVICES,
                "",
                vec![
                    rule("", [self.find(Object::ServiceIps, Find::Verdict)]),
                    rule("", [jump(NODE_PORTS)]),
                ],
            ),
            chain(MASQUERADING, "", self.masquerading()),
        ]
    }

    /// The two chains that depend on which addresses accept node ports.
    pub(super) fn node_port_chains(&self, on_all: bool) -> [ChainRules; 2] {
        let accepted = || match on_all {
            true => [
                route_local(RouteOf::Destination, Comparison::Equal),
                self.layout.destination_not_loopback(),
            ]
            .concat(),
            false => self.find(Object::NodePortIps, Find::Member),
        };
        [
            (NODE_PORTS, Object::ServiceNodePorts),
            (NODE_PORT_ENDPOINTS_CHECK, Object::NoEndpointNodePorts),
        ]
        .map(|(name, map)| ChainRules {
            name: name.to_owned(),
            hook: None,
            comment: "",
            rules: vec![rule("", [accepted(), self.find(map, Find::Verdict)])],
        })
    }

    /// The rules of a chain made as needed.
    pub(super) fn chain(&self, chain: Chain) -> ChainRules {
        let (comment, rules) = match chain {
            Chain::Endpoints {
                reach,
                list,
                masquerade,
                count,
            } => ("", self.endpoints(reach, list, masquerade, count)),
            Chain::BySource {
                reach,
                pods,
                host,
                outside,
            } => (
                "the source decides among pods/host/outside",
                self.by_source(reach, pods, host, outside),
            ),
        };
        ChainRules {
            name: chain.to_string(),
            hook: None,
            comment,
            rules,
        }
    }

    fn endpoints(&self, reach: Reach, list: EndpointList, masquerade: Sources, count: u32) -> Vec<Rule> {
        let mut rules = self.masquerade_rules(masquerade);
        let first = match list {
            EndpointList::Cluster => 0,
            EndpointList::Local => FIRST_LOCAL_SLOT,
        };
        let map = match reach {
            Reach::Address => Object::ServiceEndpoints,
            Reach::NodePort => Object::NodePortEndpoints,
        };
        let mut key = map.key().to_vec();
        key.pop();
        key.push(Field::Slot { count, first });
        let dnat = Expr::Dnat {
            family: self.layout.family,
            address: FIRST,
            port: Register(self.layout.address_registers()),
        };
        let find = self.find_by(&key, map, Find::Load(FIRST));
        rules.push(rule("", [find, vec![dnat]]));
        rules.push(rule(
            "slot just removed: dropped, to be sent again",
            [end(Verdict::Drop)],
        ));
        rules
    }

    /// Marks packets of these sources, each kind told from the others as briefly as it can be.
    fn masquerade_rules(&self, sources: Sources) -> Vec<Rule> {
        let (yes, no) = (Comparison::Equal, Comparison::NotEqual);
        let pods = |comparison| self.pods(comparison).unwrap_or_default();
        let host = |comparison| route_local(RouteOf::Source, comparison);
        let conditions = match (sources.pods, sources.host, sources.outside) {
            (false, false, false) => vec![],
            (true, true, true) => vec![vec![]],
            (false, true, true) => vec![pods(no)],
            (true, false, false) => vec![pods(yes)],
            (false, true, false) => vec![[pods(no), host(yes)].concat()],
            (false, false, true) => vec![[pods(no), host(no)].concat()],
            (true, true, false) => vec![pods(yes), host(yes)],
            (true, false, true) if self.knows_pods() => vec![pods(yes), host(no)],
            (true, false, true) => vec![host(no)],
        };
        let mark = |condition| rule("masquerade", [condition, self.set_mark()]);
        conditions.into_iter().map(mark).collect()
    }

    fn by_source(
        &self,
        reach: Reach,
        pods: Entitlement,
        host: Entitlement,
        outside: Entitlement,
    ) -> Vec<Rule> {
        let mut rules = Vec::new();
        if let Some(from_pods) = self.pods(Comparison::Equal) {
            rules.extend(self.entitled("short-circuit pod traffic", reach, &from_pods, pods));
        }
        let from_host = route_local(RouteOf::Source, Comparison::Equal);
        rules.extend(self.entitled("short-circuit local traffic", reach, &from_host, host));
        rules.extend(self.entitled("", reach, &[], outside));
        rules
    }

    fn entitled(&self, comment: &'static str, reach: Reach, from: &[Expr], to: Entitlement) -> Vec<Rule> {
        let Entitlement::To { list, masquerade } = to else {
            return vec![rule(comment, [from.to_vec(), end(Verdict::Return)])];
        };
        let map = match (reach, list) {
            (Reach::Address, EndpointList::Cluster) => Object::ClusterLists,
            (Reach::Address, EndpointList::Local) => Object::LocalLists,
            (Reach::NodePort, EndpointList::Cluster) => Object::NodePortClusterLists,
            (Reach::NodePort, EndpointList::Local) => Object::NodePortLocalLists,
        };
        let mut rules = Vec::new();
        if masquerade {
            rules.push(rule("masquerade", [from.to_vec(), self.set_mark()]));
        }
        rules.push(rule(comment, [from.to_vec(), self.find(map, Find::Verdict)]));
        rules
    }

    /// The packet comes, or does not come, from a pod; `None` when nobody is known to be one.
    fn pods(&self, comparison: Comparison) -> Option<Vec<Expr>> {
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

    fn set_mark(&self) -> Vec<Expr> {
        self.change_mark(!self.masquerade_mark)
    }

    fn clear_mark(&self) -> Vec<Expr> {
        self.change_mark(u32::MAX)
    }

    /// Keeps some bits of the packet's mark and flips the masquerade bit.
    fn change_mark(&self, keep: u32) -> Vec<Expr> {
        vec![
            Expr::LoadMeta(Meta::Mark, FIRST),
            Expr::Bits {
                register: FIRST,
                mask: keep.to_ne_bytes().to_vec(),
                flip: self.masquerade_mark.to_ne_bytes().to_vec(),
            },
            Expr::SetMark(FIRST),
        ]
    }

    fn masquerading(&self) -> Vec<Rule> {
        let marked = any_of(Expr::LoadMeta(Meta::Mark, FIRST), self.masquerade_mark);
        let dnat = any_of(Expr::LoadConntrack(Conntrack::Status, FIRST), STATUS_DNAT);
        let itself = self.find(Object::HairpinConnections, Find::Member);
        vec![
            rule("", [marked, self.clear_mark(), vec![Expr::Masquerade]]),
            rule("", [dnat, itself, vec![Expr::Masquerade]]),
        ]
    }

    fn firewall(&self) -> Rule {
        let restricted = self.find(Object::FirewallIps, Find::Member);
        let others = self.find(Object::SourceRanges, Find::NotMember);
        rule("", [restricted, others, end(Verdict::Drop)])
    }

    fn undefined_port(&self) -> Rule {
        let cluster_ip = self.find(Object::ClusterIps, Find::Member);
        rule(
            "Reject traffic to invalid ports of ClusterIPs",
            [cluster_ip, vec![Expr::Reject(self.layout.family)]],
        )
    }

    fn find(&self, object: Object, find: Find) -> Vec<Expr> {
        self.find_by(object.key(), object, find)
    }

    fn find_by(&self, key: &[Field], object: Object, find: Find) -> Vec<Expr> {
        let mut exprs = self.layout.load(key);
        exprs.push(Expr::Lookup {
            set: object.name(),
            key: FIRST,
            find,
        });
        exprs
    }
}
