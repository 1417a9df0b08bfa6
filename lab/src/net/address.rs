//! The address plan. Every lab has the same addresses, since no lab can see another.
//!
//! | what | IPv4 | IPv6 |
//! |---|---|---|
//! | node N (second address) | 192.168.50.(10+N) (192.168.60.(10+N)) | fd00:50::(10+N) (fd00:60::(10+N)) |
//! | pod I of node N | 10.244.N.(10+I) | fd00:10:244:N::(10+I) |
//! | outside client C | 192.0.2.(10+C) | 2001:db8:c::(10+C) |
//! | ClusterIPs | 10.96.0.0/16 | fd00:10:96::/112 |
//! | load-balancer IPs | 203.0.113.0/24 | 2001:db8:1b::/64 |
//! | external IPs | 198.51.100.0/24 | 2001:db8:e::/64 |
//!
//! The last group of an IPv6 address shows the same digits as the last byte of the IPv4 address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Picks the value for this family.
    pub fn pick<T>(self, v4: T, v6: T) -> T {
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }
}

impl std::fmt::Display for Family {
    /// As the Kubernetes API writes it: `IPv4`, `IPv6`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.pick("IPv4", "IPv6"))
    }
}

/// Networks of the plan, by family; also the values of kube-proxy's settings.
pub mod network {
    use super::Family;

    /// All pods (`clusterCIDR`).
    pub fn pods(family: Family) -> &'static str {
        family.pick("10.244.0.0/16", "fd00:10:244::/48")
    }

    /// The pods of one node (`spec.podCIDR`).
    pub fn pods_of_node(node: u8, family: Family) -> String {
        family.pick(format!("10.244.{node}.0/24"), format!("fd00:10:244:{node}::/64"))
    }

    /// ClusterIPs.
    pub fn cluster_ips(family: Family) -> &'static str {
        family.pick("10.96.0.0/16", "fd00:10:96::/112")
    }

    /// Load-balancer addresses.
    pub fn load_balancer_ips(family: Family) -> &'static str {
        family.pick("203.0.113.0/24", "2001:db8:1b::/64")
    }

    /// External addresses.
    pub fn external_ips(family: Family) -> &'static str {
        family.pick("198.51.100.0/24", "2001:db8:e::/64")
    }

    /// Clients outside the cluster.
    pub fn clients(family: Family) -> &'static str {
        family.pick("192.0.2.0/24", "2001:db8:c::/64")
    }

    /// The nodes' first addresses.
    pub fn nodes(family: Family) -> &'static str {
        family.pick("192.168.50.0/24", "fd00:50::/64")
    }
}

/// The first address of node `node` (from 1).
pub fn node(node: u8, family: Family) -> IpAddr {
    family.pick(v4([192, 168, 50], 10 + node), v6([0xfd00, 0x50, 0, 0], 10 + node))
}

/// The second address of node `node` (from 1), which kube-proxy does not learn from the Node object.
pub fn node_second(node: u8, family: Family) -> IpAddr {
    family.pick(v4([192, 168, 60], 10 + node), v6([0xfd00, 0x60, 0, 0], 10 + node))
}

/// The address of pod `pod` (from 1) on node `node` (from 1).
pub fn pod(node: u8, pod: u8, family: Family) -> IpAddr {
    let prefix = [0xfd00, 0x10, 0x244, digits(node)];
    family.pick(v4([10, 244, node], 10 + pod), v6(prefix, 10 + pod))
}

/// The address of outside client `client` (from 1).
pub fn client(client: u8, family: Family) -> IpAddr {
    family.pick(
        v4([192, 0, 2], 10 + client),
        v6([0x2001, 0xdb8, 0xc, 0], 10 + client),
    )
}

/// ClusterIP `number`.
pub fn cluster_ip(number: u8, family: Family) -> IpAddr {
    family.pick(v4([10, 96, 0], number), v6([0xfd00, 0x10, 0x96, 0], number))
}

/// Load-balancer address `number`.
pub fn load_balancer_ip(number: u8, family: Family) -> IpAddr {
    family.pick(v4([203, 0, 113], number), v6([0x2001, 0xdb8, 0x1b, 0], number))
}

/// External address `number`.
pub fn external_ip(number: u8, family: Family) -> IpAddr {
    family.pick(v4([198, 51, 100], number), v6([0x2001, 0xdb8, 0xe, 0], number))
}

/// The fabric's address on the nodes' network: their default gateway, and a place for the Kubernetes API.
pub fn fabric(family: Family) -> IpAddr {
    family.pick(v4([192, 168, 50], 1), v6([0xfd00, 0x50, 0, 0], 1))
}

/// The fabric's address on the nodes' second network.
pub(super) fn fabric_second(family: Family) -> IpAddr {
    family.pick(v4([192, 168, 60], 1), v6([0xfd00, 0x60, 0, 0], 1))
}

/// The fabric's address on the clients' network.
pub(super) fn fabric_for_clients(family: Family) -> IpAddr {
    family.pick(v4([192, 0, 2], 1), v6([0x2001, 0xdb8, 0xc, 0], 1))
}

fn v4(prefix: [u8; 3], last: u8) -> IpAddr {
    Ipv4Addr::new(prefix[0], prefix[1], prefix[2], last).into()
}

fn v6(prefix: [u16; 4], last: u8) -> IpAddr {
    let [a, b, c, d] = prefix;
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, digits(last)).into()
}

/// A number whose hexadecimal digits are this one's decimal digits.
fn digits(number: u8) -> u16 {
    let number = u16::from(number);
    (number / 100) * 0x100 + (number / 10 % 10) * 0x10 + number % 10
}
