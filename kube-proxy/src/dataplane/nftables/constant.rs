//! The chains and rules that are always there.

use super::affinity::FIRST_NUMBER;
use super::config::NodePortRules;
use super::expr::{Comparison, Conntrack, Expr, Find, Meta, RouteOf, Verdict};
use super::localhost::LOCALHOST_NODE_PORTS;
use super::object::Object;
use super::rules::{ChainRules, FIRST, Hook, Rule, Rules, any_of, end, new_connection, route_local, rule};

/// Where verdict maps send a packet to be refused: a map cannot hold that verdict itself.
pub(super) const REJECT_CHAIN: &str = "reject-chain";
const SERVICES: &str = "services";
const NODE_PORTS: &str = "nodeports";
const MASQUERADING: &str = "masquerading";
const SERVICE_ENDPOINTS_CHECK: &str = "service-endpoints-check";
const NODE_PORT_ENDPOINTS_CHECK: &str = "nodeport-endpoints-check";
const CLUSTER_IPS_CHECK: &str = "cluster-ips-check";
const FIREWALL_CHECK: &str = "firewall-check";
/// Numbers of the kernel's hooks.
const PREROUTING: u32 = 0;
pub(super) const INPUT: u32 = 1;
const FORWARD: u32 = 2;
pub(super) const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
/// IPVS takes what goes out at -98, and what comes in at 99.
const BEFORE_IPVS: i32 = -99;
const BEHIND_IPVS: i32 = 110;
/// `IPS_DST_NAT`.
pub(super) const STATUS_DNAT: u32 = 1 << 5;

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

impl Rules<'_> {
    /// The chains that the kernel calls. They come last: nothing before them has an effect.
    pub(super) fn base_chains(&self, node_ports: NodePortRules) -> Vec<ChainRules> {
        let mut chains = service_chains();
        if self.beside_ipvs {
            chains.extend(around_ipvs());
        }
        if self.localhost_node_ports {
            chains.extend(self.localhost_base_chains(node_ports.localhost));
        }
        chains
    }
}

fn service_chains() -> Vec<ChainRules> {
    let checks = [SERVICE_ENDPOINTS_CHECK, CLUSTER_IPS_CHECK];
    let from_host = [LOCALHOST_NODE_PORTS, SERVICES];
    let input_checks = [NODE_PORT_ENDPOINTS_CHECK, SERVICE_ENDPOINTS_CHECK];
    vec![
        base(
            "filter-prerouting-pre-dnat",
            "filter",
            PREROUTING,
            -110,
            &[FIREWALL_CHECK],
        ),
        base(
            "filter-output-pre-dnat",
            "filter",
            OUTPUT,
            -110,
            &[FIREWALL_CHECK],
        ),
        base("filter-input", "filter", INPUT, 0, &input_checks),
        base("filter-forward", "filter", FORWARD, 0, &checks),
        base("filter-output", "filter", OUTPUT, 0, &checks),
        base("nat-prerouting", "nat", PREROUTING, -100, &[SERVICES]),
        base("nat-output", "nat", OUTPUT, -100, &from_host),
        base("nat-postrouting", "nat", POSTROUTING, 100, &[MASQUERADING]),
    ]
}

/// On the way out, what finds no endpoint must not get to IPVS, which may still have some whose connections have yet
/// to end, and rejects where a policy drops. On the way in, ClusterIPs are addresses of this node where IPVS works:
/// what it did not take is for a port that no Service has, and must not reach a process of the host.
fn around_ipvs() -> [ChainRules; 2] {
    [
        base(
            "filter-output-before-ipvs",
            "filter",
            OUTPUT,
            BEFORE_IPVS,
            &[SERVICE_ENDPOINTS_CHECK],
        ),
        base(
            "filter-input-behind-ipvs",
            "filter",
            INPUT,
            BEHIND_IPVS,
            &[CLUSTER_IPS_CHECK],
        ),
    ]
}

impl Rules<'_> {
    /// The chains that are always there, in an order in which each finds those that it jumps to.
    pub(super) fn constant_chains(&self, node_ports: NodePortRules) -> Vec<ChainRules> {
        let chain = |name: &str, comment, rules| ChainRules {
            name: name.to_owned(),
            hook: None,
            comment,
            rules,
        };
        let family = self.layout.family;
        let jump = |to| end(Verdict::Jump(to));
        let [at_node, check, at_localhost] = self.node_port_chains(node_ports);
        vec![
            chain(
                REJECT_CHAIN,
                "no endpoint anywhere",
                vec![rule("", [vec![Expr::Reject(family)]])],
            ),
            chain(FIREWALL_CHECK, "loadBalancerSourceRanges", vec![self.firewall()]),
            chain(
                CLUSTER_IPS_CHECK,
                "",
                vec![self.undefined_port(), self.unallocated_ip()],
            ),
            chain(
                SERVICE_ENDPOINTS_CHECK,
                "",
                vec![rule("", [self.find(Object::NoEndpointServices, Find::Verdict)])],
            ),
            check,
            at_node,
            at_localhost,
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

    /// The chains that depend on which addresses accept node ports, apart from those that the kernel calls.
    pub(super) fn node_port_chains(&self, node_ports: NodePortRules) -> [ChainRules; 3] {
        let accepted = || match node_ports.on_all {
            true => [
                route_local(RouteOf::Destination, Comparison::Equal),
                self.layout.destination_not_loopback(),
            ]
            .concat(),
            false => self.find(Object::NodePortIps, Find::Member),
        };
        let chain = |name: &str, map| ChainRules {
            name: name.to_owned(),
            hook: None,
            comment: "",
            rules: vec![rule("", [accepted(), self.find(map, Find::Verdict)])],
        };
        [
            chain(NODE_PORTS, Object::ServiceNodePorts),
            chain(NODE_PORT_ENDPOINTS_CHECK, Object::NoEndpointNodePorts),
            self.localhost_chain(node_ports.localhost),
        ]
    }

    fn clear_mark(&self) -> Vec<Expr> {
        self.change_mark(u32::MAX)
    }

    fn masquerading(&self) -> Vec<Rule> {
        let marked = any_of(Expr::LoadMeta(Meta::Mark, FIRST), self.masquerade_mark);
        let dnat = any_of(Expr::LoadConntrack(Conntrack::Status, FIRST), STATUS_DNAT);
        let itself = self.find(Object::HairpinConnections, Find::Member);
        let numbered = any_of(Expr::LoadMeta(Meta::Priority, FIRST), FIRST_NUMBER);
        let clear = vec![
            Expr::Constant(FIRST, vec![0; 4]),
            Expr::SetMeta(Meta::Priority, FIRST),
        ];
        if self.beside_ipvs {
            let hairpin = [numbered.clone(), itself, self.set_mark()];
            return vec![
                rule("", hairpin),
                rule("session affinity, or IPVS, used it", [numbered, clear]),
                rule("", [marked, self.clear_mark(), vec![Expr::Masquerade]]),
                rule(
                    "",
                    [
                        dnat,
                        self.find(Object::HairpinConnections, Find::Member),
                        vec![Expr::Masquerade],
                    ],
                ),
            ];
        }
        vec![
            rule("session affinity used it", [dnat.clone(), numbered, clear]),
            rule("", [marked, self.clear_mark(), vec![Expr::Masquerade]]),
            rule("", [dnat, itself, vec![Expr::Masquerade]]),
        ]
    }

    fn firewall(&self) -> Rule {
        let restricted = self.find(Object::RestrictedIps, Find::Member);
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

    fn unallocated_ip(&self) -> Rule {
        let in_range = self.find(Object::ServiceCidrs, Find::Member);
        rule(
            "Drop traffic to unallocated ClusterIPs",
            [in_range, end(Verdict::Drop)],
        )
    }
}
