//! Gives Services what a cluster would have given them and manifests do not have: clusterIPs and node ports.
//!
//! What a Service gets follows from its name: a hash chooses a place in the range, and who finds it taken goes
//! on to the next free one. Services choose in the order of their names, after everything that manifests ask
//! for themselves is taken. So every node, and every start, comes to the same result from the same manifests.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::model::object::{Family, ObjectName};
use crate::source::convert::parse_ip;
use crate::source::wire;

/// The node ports of every cluster that was not told otherwise.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;
/// The lower end of a range is left to clusterIPs that manifests choose, as in a cluster.
const LEFT_FREE: u32 = 256;

/// What a Service gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// clusterIPs, in the order of its families; empty when it has its own.
    pub(super) cluster_ips: Vec<IpAddr>,
    /// Node ports by index of the port; 0 for ports that have their own or need none.
    pub(super) node_ports: Vec<u16>,
    /// A family that it asks for and no range has.
    pub(super) missing: Option<Family>,
}

impl Given {
    fn is_empty(&self) -> bool {
        self.cluster_ips.is_empty() && self.missing.is_none() && self.node_ports.iter().all(|port| *port == 0)
    }

    /// Puts it where the Service would have it.
    pub(super) fn complete(&self, service: &mut wire::Service) {
        let Some(spec) = &mut service.spec else { return };
        if !self.cluster_ips.is_empty() {
            spec.cluster_ips = self.cluster_ips.iter().map(IpAddr::to_string).collect();
            spec.cluster_ip = spec.cluster_ips[0].clone();
            spec.ip_families = self
                .cluster_ips
                .iter()
                .map(|ip| Family::of(*ip).to_string())
                .collect();
        }
        for (port, given) in spec.ports.iter_mut().zip(&self.node_ports) {
            if *given != 0 {
                port.node_port = i32::from(*given);
            }
        }
    }
}

/// What each Service gets; those that need nothing are not named.
pub(super) fn allocate<'a>(
    services: impl Iterator<Item = (&'a ObjectName, &'a wire::Service)> + Clone,
    ranges: &[IpNet],
) -> BTreeMap<ObjectName, Given> {
    let mut taken = Taken::default();
    let mut wanting = BTreeMap::new();
    for (name, service) in services {
        let Some(spec) = &service.spec else { continue };
        taken.take_own(spec);
        if spec.cluster_ip != "None" && spec.service_type != "ExternalName" {
            wanting.insert(name, spec);
        }
    }
    let mut given = BTreeMap::new();
    for (name, spec) in wanting {
        let mut gets = Given::default();
        if spec.cluster_ip.is_empty() && spec.cluster_ips.is_empty() {
            for family in families(spec, ranges) {
                let range = ranges.iter().find(|range| Family::of(range.addr()) == family);
                match range.and_then(|range| taken.free_ip(name, *range)) {
                    Some(ip) => gets.cluster_ips.push(ip),
                    None => gets.missing = Some(family),
                }
            }
        }
        if wants_node_ports(spec) {
            gets.node_ports = spec
                .ports
                .iter()
                .map(|port| taken.node_port(name, port))
                .collect();
        }
        if !gets.is_empty() {
            given.insert(name.clone(), gets);
        }
    }
    given
}

/// The families that a Service asks for, as a cluster reads it.
fn families(spec: &wire::ServiceSpec, ranges: &[IpNet]) -> Vec<Family> {
    let mut families: Vec<Family> = spec
        .ip_families
        .iter()
        .filter_map(|family| match family.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        })
        .collect();
    if families.is_empty() {
        families.extend(ranges.first().map(|range| Family::of(range.addr())));
    }
    let policy = spec.ip_family_policy.as_deref().unwrap_or_default();
    if policy == "RequireDualStack" || policy == "PreferDualStack" {
        let others = ranges.iter().map(|range| Family::of(range.addr()));
        let missing: Vec<Family> = others.filter(|family| !families.contains(family)).collect();
        families.extend(missing);
    }
    families
}

fn wants_node_ports(spec: &wire::ServiceSpec) -> bool {
    spec.service_type == "NodePort"
        || (spec.service_type == "LoadBalancer" && spec.allocate_load_balancer_node_ports != Some(false))
}

/// What is not free any more.
#[derive(Default)]
struct Taken {
    ips: HashSet<IpAddr>,
    node_ports: HashSet<(String, u16)>,
}

impl Taken {
    /// What a Service chose itself.
    fn take_own(&mut self, spec: &wire::ServiceSpec) {
        let ips = spec.cluster_ips.iter().chain([&spec.cluster_ip]);
        self.ips.extend(ips.filter_map(|ip| parse_ip(ip)));
        for port in &spec.ports {
            if let Some(number) = u16::try_from(port.node_port).ok().filter(|number| *number != 0) {
                self.node_ports.insert((protocol(port), number));
            }
        }
    }

    /// A free address of a range for a Service; `None` when the range is full.
    fn free_ip(&mut self, name: &ObjectName, range: IpNet) -> Option<IpAddr> {
        let host_bits = u32::from(range.max_prefix_len() - range.prefix_len()).min(31);
        // Neither the network's own address nor the last one.
        let (first, last) = (1_u32, (1_u32 << host_bits).checked_sub(2)?);
        let low = if last >= 2 * LEFT_FREE { LEFT_FREE } else { first };
        let span = last.checked_sub(low)? + 1;
        let start = u32::try_from(hash(&[&name.namespace, &name.name]) % u64::from(span)).ok()?;
        (0..span)
            .map(|step| at(range, low + (start + step) % span))
            .find(|ip| self.ips.insert(*ip))
    }

    /// A free node port for a port that has none; 0 when it has one, or when none is free.
    fn node_port(&mut self, name: &ObjectName, port: &wire::ServicePort) -> u16 {
        if port.node_port != 0 {
            return 0;
        }
        let (first, last) = (*NODE_PORTS.start(), *NODE_PORTS.end());
        let span = last - first + 1;
        // The same for each protocol of one port, as a cluster gives it.
        let number = port.port.to_string();
        let start =
            u16::try_from(hash(&[&name.namespace, &name.name, &number]) % u64::from(span)).unwrap_or(0);
        let protocol = protocol(port);
        (0..span)
            .map(|step| first + (start + step) % span)
            .find(|number| self.node_ports.insert((protocol.clone(), *number)))
            .unwrap_or(0)
    }
}

fn protocol(port: &wire::ServicePort) -> String {
    match port.protocol.as_str() {
        "" => "TCP".to_owned(),
        protocol => protocol.to_owned(),
    }
}

/// The address so far from the beginning of a range.
fn at(range: IpNet, offset: u32) -> IpAddr {
    match range.network() {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() | offset)),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() | u128::from(offset))),
    }
}

/// FNV-1a, because it must stay the same for ever and on every machine.
fn hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([b'/']));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(body: serde_json::Value) -> wire::Service {
        serde_json::from_value(serde_json::json!({ "spec": body })).unwrap()
    }

    fn run(services: &[(&str, serde_json::Value)], ranges: &str) -> BTreeMap<String, Given> {
        let services: Vec<_> = services
            .iter()
            .map(|(name, body)| (ObjectName::new("default", *name), service(body.clone())))
            .collect();
        let ranges: Vec<IpNet> = ranges.split(',').map(|range| range.parse().unwrap()).collect();
        let given = allocate(services.iter().map(|(name, service)| (name, service)), &ranges);
        given
            .into_iter()
            .map(|(name, given)| (name.name.to_string(), given))
            .collect()
    }

    const BOTH: &str = "10.96.0.0/16,fd00:10:96::/112";

    #[test]
    fn what_a_service_gets_never_changes() {
        let given = run(
            &[(
                "my-app",
                serde_json::json!({"type": "NodePort", "ports": [{"port": 80}]}),
            )],
            BOTH,
        );
        // Written down, so that an upgrade cannot move Services: 10.96.0.0/16 is left free up to .0.255.
        assert_eq!(
            given["my-app"].cluster_ips,
            ["10.96.241.86".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(given["my-app"].node_ports, [30917]);
    }

    #[test]
    fn only_what_is_missing_is_given() {
        use serde_json::json;
        let table = [
            (
                json!({"clusterIP": "10.96.0.10", "ports": [{"port": 80}]}),
                0,
                None,
            ),
            (json!({"clusterIP": "None"}), 0, None),
            (json!({"type": "ExternalName", "externalName": "x"}), 0, None),
            (json!({"ports": [{"port": 80}]}), 1, Some(vec![])),
            (json!({"ipFamilyPolicy": "PreferDualStack"}), 2, Some(vec![])),
            (json!({"ipFamilies": ["IPv6"]}), 1, Some(vec![])),
            (
                json!({"clusterIP": "10.96.0.10", "type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}),
                0,
                None,
            ),
            (
                json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false}),
                1,
                Some(vec![]),
            ),
        ];
        for (body, ips, ports) in table {
            let given = run(&[("a", body.clone())], BOTH);
            let given = given.get("a").cloned();
            assert_eq!(
                given.as_ref().map_or(0, |given| given.cluster_ips.len()),
                ips,
                "{body}"
            );
            assert_eq!(given.map(|given| given.node_ports), ports, "{body}");
        }
        let one = run(&[("a", json!({"ipFamilies": ["IPv6"]}))], "10.96.0.0/16");
        assert_eq!(one["a"].missing, Some(Family::V6));
    }

    #[test]
    fn nobody_gets_what_another_has() {
        use serde_json::json;
        let names: Vec<String> = (0..5).map(|n| format!("s{n}")).collect();
        let mut services: Vec<_> = names
            .iter()
            .map(|name| {
                (
                    name.as_str(),
                    json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81}]}),
                )
            })
            .collect();
        services.push((
            "own",
            json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80, "nodePort": 30000}]}),
        ));
        // Six usable addresses, one of them taken.
        let given = run(&services, "10.0.0.0/29");
        let mut ips: Vec<_> = given
            .values()
            .flat_map(|given| given.cluster_ips.clone())
            .collect();
        let mut ports: Vec<_> = given
            .values()
            .flat_map(|given| given.node_ports.clone())
            .collect();
        ips.push("10.0.0.1".parse().unwrap());
        ips.sort();
        ips.dedup();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!((ips.len(), ports.len()), (6, 10));
        let mut reversed = services.clone();
        reversed.reverse();
        assert_eq!(
            run(&reversed, "10.0.0.0/29"),
            given,
            "the order of reading does not matter"
        );
        services.push(("zzz", json!({})));
        assert_eq!(
            run(&services, "10.0.0.0/29")["zzz"].missing,
            Some(Family::V4),
            "the range is full"
        );
    }

    #[test]
    fn both_protocols_of_a_port_get_one_node_port() {
        let ports = serde_json::json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]);
        let given = run(
            &[("dns", serde_json::json!({"type": "NodePort", "ports": ports}))],
            BOTH,
        );
        let [udp, tcp] = given["dns"].node_ports[..] else {
            panic!("two ports")
        };
        assert_eq!(udp, tcp);
        assert!(NODE_PORTS.contains(&udp));
    }
}
