//! The chains and rules that are always there.

use super::entry::FIRST_ENDPOINT_ID;
use super::expr::{Comparison, Conntrack, Expr, Find, Meta, RouteOf, Verdict};
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
/// `IPS_DST_NAT`.
const STATUS_DNAT: u32 = 1 << 5;

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

    fn clear_mark(&self) -> Vec<Expr> {
        self.change_mark(u32::MAX)
    }

    fn masquerading(&self) -> Vec<Rule> {
        let marked = any_of(Expr::LoadMeta(Meta::Mark, FIRST), self.masquerade_mark);
        let dnat = any_of(Expr::LoadConntrack(Conntrack::Status, FIRST), STATUS_DNAT);
        let itself = self.find(Object::HairpinConnections, Find::Member);
        let numbered = any_of(Expr::LoadMeta(Meta::Priority, FIRST), FIRST_ENDPOINT_ID);
        let clear = vec![
            Expr::Constant(FIRST, vec![0; 4]),
            Expr::SetMeta(Meta::Priority, FIRST),
        ];
        vec![
            rule("session affinity used it", [dnat.clone(), numbered, clear]),
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
}
