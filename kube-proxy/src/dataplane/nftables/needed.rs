//! The rules of the chains that are made as needed.

use std::time::Duration;

use super::affinity::FIRST_NUMBER;
use super::chain::{Chain, Entitlement, Reach, Sources};
use super::entry::FIRST_LOCAL_SLOT;
use super::expr::{Comparison, Expr, Find, Meta, Register, Remember, RouteOf, Verdict};
use super::layout::Field;
use super::object::Object;
use super::rules::{ChainRules, FIRST, Rule, Rules, end, route_local, rule};
use crate::model::view::EndpointList;

impl Rules<'_> {
    /// The rules of a chain made as needed.
    pub(super) fn chain(&self, chain: Chain) -> ChainRules {
        let (comment, rules) = match chain {
            Chain::Endpoints {
                reach,
                list,
                masquerade,
                count,
                affinity,
            } => {
                let mut rules = self.masquerade_rules(masquerade);
                let slot = Field::Slot {
                    count,
                    first: first_slot(list),
                };
                match affinity {
                    None => rules.push(self.random_endpoint(reach, slot)),
                    Some(seconds) => rules.extend(self.remembered_endpoint(reach, slot, seconds)),
                }
                rules.push(rule(
                    "slot just removed: dropped, to be sent again",
                    [end(Verdict::Drop)],
                ));
                ("", rules)
            }
            Chain::BySource {
                pods,
                host,
                outside,
                reach,
                affinity,
            } => {
                let by_source = [pods, host, outside].map(|to| (to, to.chain(reach, affinity)));
                (
                    "what pods, this host and others are entitled to",
                    self.by_source(by_source),
                )
            }
            Chain::Ipvs { masquerade } => {
                let mut rules = self.masquerade_rules(masquerade);
                rules.push(self.leave_to_ipvs());
                ("IPVS picks the endpoint", rules)
            }
        };
        ChainRules {
            name: chain.to_string(),
            hook: None,
            comment,
            rules,
        }
    }

    /// `masquerading` cannot see by conntrack's status that IPVS rewrote a packet, and is told so here, in the
    /// same place where session affinity keeps its numbers.
    fn leave_to_ipvs(&self) -> Rule {
        let known = vec![
            Expr::Constant(FIRST, FIRST_NUMBER.to_ne_bytes().to_vec()),
            Expr::SetMeta(Meta::Priority, FIRST),
        ];
        rule("", [known])
    }

    fn random_endpoint(&self, reach: Reach, slot: Field) -> Rule {
        let map = match reach {
            Reach::Address => Object::ServiceEndpoints,
            Reach::NodePort => Object::NodePortEndpoints,
        };
        rule("", [self.in_slot(slot, map), vec![self.dnat()]])
    }

    /// Session affinity: a client gets the endpoint that it had before, and a random one if it had none or
    /// that one is gone. A number stands for the endpoint; between rules it is in the packet's priority,
    /// the one place where it is in nobody's way (only the way out looks at it, and `masquerading` clears
    /// it before). A number that went from one map to the next within a rule would make nft abort.
    ///
    /// Clients are looked up before anything is written about them: a transaction is in force before the kernel
    /// has seen to each of its elements, and so long a rule finds those that were carried over, but adds another
    /// element of the same key, in front of them, where it would renew them. That one has to say the same.
    fn remembered_endpoint(&self, reach: Reach, slot: Field, seconds: u32) -> Vec<Rule> {
        let (slots, endpoints) = match reach {
            Reach::Address => (Object::AffinitySlots, Object::AffinityEndpoints),
            Reach::NodePort => (Object::NodePortAffinitySlots, Object::NodePortAffinityEndpoints),
        };
        let store = || vec![Expr::SetMeta(Meta::Priority, FIRST)];
        let choose = |comment| rule(comment, [self.in_slot(slot, slots), store()]);
        let recall = || [self.find(Object::Affinity, Find::Load(FIRST)), store()].concat();
        let remember = |how| self.remember(Object::Affinity, how);
        let for_so_long = Remember::For(Duration::from_secs(seconds.into()));
        let go = || [self.find(endpoints, Find::Load(FIRST)), vec![self.dnat()]].concat();
        vec![
            choose("a random endpoint"),
            rule(
                "the endpoint of this client, whose pause counts anew",
                [recall(), remember(for_so_long), go()],
            ),
            rule("for a client without one", [remember(for_so_long)]),
            rule("what another packet of it got first", [recall()]),
            rule("", [go()]),
            rule("it is gone: another one", [remember(Remember::NoLonger)]),
            choose(""),
            rule("", [remember(for_so_long)]),
            rule("", [go()]),
        ]
    }

    /// Loads what a map holds for the packet in a slot.
    fn in_slot(&self, slot: Field, map: Object) -> Vec<Expr> {
        let mut key = map.key().to_vec();
        key.pop();
        key.push(slot);
        self.find_by(&key, map, Find::Load(FIRST))
    }

    fn remember(&self, map: Object, how: Remember) -> Vec<Expr> {
        let mut exprs = self.layout.load(map.key());
        let registers = map.key().iter().map(|field| field.registers(self.layout));
        // Values begin where a register of 128 bits does.
        let value = Register(registers.sum::<u32>().next_multiple_of(4));
        exprs.push(Expr::LoadMeta(Meta::Priority, value));
        exprs.push(Expr::Remember {
            map: map.name(),
            key: FIRST,
            value,
            how,
        });
        exprs
    }

    fn dnat(&self) -> Expr {
        Expr::Dnat {
            family: self.layout.family,
            address: FIRST,
            port: Register(self.layout.address_registers()),
        }
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

    fn by_source(&self, [pods, host, outside]: [(Entitlement, Option<Chain>); 3]) -> Vec<Rule> {
        let mut rules = Vec::new();
        if let Some(from_pods) = self.pods(Comparison::Equal) {
            rules.extend(self.entitled("short-circuit pod traffic", &from_pods, pods));
        }
        let from_host = route_local(RouteOf::Source, Comparison::Equal);
        rules.extend(self.entitled("short-circuit local traffic", &from_host, host));
        rules.extend(self.entitled("", &[], outside));
        rules
    }

    fn entitled(&self, comment: &'static str, from: &[Expr], to: (Entitlement, Option<Chain>)) -> Vec<Rule> {
        let mut rules = Vec::new();
        if let Entitlement::To { masquerade: true, .. } | Entitlement::Ipvs { masquerade: true } = to.0 {
            rules.push(rule("masquerade", [from.to_vec(), self.set_mark()]));
        }
        let verdict =
            to.1.map_or(Verdict::Return, |chain| Verdict::Goto(chain.to_string()));
        rules.push(rule(comment, [from.to_vec(), end(verdict)]));
        rules
    }
}

fn first_slot(list: EndpointList) -> u32 {
    match list {
        EndpointList::Cluster => 0,
        EndpointList::Local => FIRST_LOCAL_SLOT,
    }
}
