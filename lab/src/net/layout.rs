//! What each namespace of a lab is told: kernel settings, and `ip -batch` scripts.
//!
//! ```text
//!   client-1 … (192.0.2.0/24)     fabric      (192.168.50.0/24, .60.0/24)  node-1 … eth0
//!              eth0 ──────────── br-clients │ br-nodes ──────────────────────┘   │ vethI
//!                                                                            eth0 pod
//! ```
//! The fabric routes: what clients send to ClusterIPs, load-balancer and external IPs goes to the entry node, as
//! a router or a cloud's load balancer would send it. What a node sends out to such an address, because none of
//! its rules takes it, ends at the fabric, which stands for the host behind it: nothing listens there, so
//! the sender gets a TCP reset at once. Pods hang on their node by point-to-point links (the node answers
//! for 169.254.1.1 and fe80::1), so that every packet between pods is routed and tracked by the node. The
//! node's end of such a link has no global address: masqueraded traffic shows the node's own address.
//!
//! Where the topology has a bridge, it stands in the place of those links: the node answers for the same two
//! addresses on it, and the pods' links are its ports, each isolated from the others. So packets between
//! pods are still routed, but all of them come in by one interface, the bridge.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::address::{self, Family, network};
use super::namespace::Namespace;
use super::{Member, Role, Topology};
use crate::sctp::has_sockets;

/// Settings of every namespace. They come before any interface, since interfaces copy the defaults.
const EVERYWHERE: &[(&str, &str)] = &[
    // An IPv6 address works at once, without a second of duplicate detection.
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
    // A node that sends pods' packets back out by the bridge they came from tells the pods of the shorter way,
    // which would be one past its rules.
    ("net/ipv6/conf/all/accept_redirects", "0"),
    ("net/ipv6/conf/default/accept_redirects", "0"),
    // Pings by unprivileged ICMP sockets, whose errors arrive like those of UDP.
    ("net/ipv4/ping_group_range", "0 2147483647"),
];

/// Settings of namespaces that forward.
const FORWARDING: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv6/conf/default/forwarding", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    // Loose reverse-path filter, as systemd's distributions set it.
    ("net/ipv4/conf/all/rp_filter", "2"),
    // A scenario asks more often for refusals than the limits allow, one a second to each destination and 1000 a
    // second to all. (icmp_ratelimit 0 would use up the allowance of the routing code's own "unreachable"
    // messages, and leaves the limit for all.) For IPv6 this names the limited types: one that does not exist.
    ("net/ipv4/icmp_ratemask", "0"),
    ("net/ipv6/icmp/ratemask", "255"),
];

/// The fabric's routes for what comes in from clients.
const CLIENTS_TABLE: &str = "100";

/// Settings of nodes with a bridge: the rules see a packet when it is routed, not when the bridge takes it.
const BRIDGING: &[(&str, &str)] = &[
    ("net/bridge/bridge-nf-call-iptables", "0"),
    ("net/bridge/bridge-nf-call-ip6tables", "0"),
];

/// Settings where the kernel has SCTP sockets: an INIT is repeated soon. The first one's refusal is back before the call
/// that sent it has ended, as all hosts of a lab are one kernel, and then SCTP takes no notice of ICMP messages.
const ASSOCIATING: &[(&str, &str)] = &[("net/sctp/rto_min", "100"), ("net/sctp/rto_initial", "100")];

/// Sets up the whole lab: kernel settings, then links, addresses and routes, the fabric first.
pub(super) fn build(fabric: &Namespace, members: &[Member], topology: &Topology) -> Result<()> {
    for member in members {
        let is_node = matches!(member.role, Role::Node { .. });
        prepare(&member.namespace, is_node)?;
    }
    prepare(fabric, true)?;
    run(fabric, &fabric_script(members, topology.entry)?)?;
    for family in Family::ALL {
        // Not in the script, as ip takes the family of a rule from its command line only.
        let rule = |args: &str| {
            let args: Vec<_> = [family.pick("-4", "-6"), "rule"]
                .into_iter()
                .chain(args.split(' '))
                .collect();
            fabric.run("ip", &args)
        };
        // What clients send is routed on, also to addresses that are the fabric's own for everybody else.
        rule(&format!("add pref 1 iif br-clients table {CLIENTS_TABLE}"))?;
        rule("add pref 2 table local")?;
        rule("del pref 0")?;
    }
    // Nodes make the links of their pods, so pods come last.
    for node in members {
        if let Role::Node { number } = node.role {
            let links = match &topology.bridge {
                None => pod_links(number, members)?,
                Some(bridge) => {
                    unfilter_bridges(&node.namespace)?;
                    bridge_of_pods(bridge, number, members)?
                }
            };
            let script = node_script(number, members)? + &links;
            run(&node.namespace, &script)?;
        }
    }
    for leaf in members {
        if !matches!(leaf.role, Role::Node { .. }) {
            run(&leaf.namespace, &leaf_script(leaf)?)?;
        }
    }
    let namespaces = members.iter().map(|member| &member.namespace);
    namespaces.chain([fabric]).try_for_each(wait_for_links)
}

/// Waits until every interface carries packets. The end of a veth pair that was up first learns of the other a
/// moment later, and until then it drops what is sent; a lost ARP request costs a second.
fn wait_for_links(namespace: &Namespace) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let is_waiting = |flags: InterfaceFlags| {
        flags.contains(InterfaceFlags::IFF_UP) && !flags.contains(InterfaceFlags::IFF_RUNNING)
    };
    namespace.enter(|| {
        loop {
            let waiting = getifaddrs()?.find(|interface| is_waiting(interface.flags));
            match waiting {
                None => return Ok(()),
                Some(link) if Instant::now() > deadline => {
                    bail!("{} in {} does not come up", link.interface_name, namespace.name());
                }
                Some(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    })?
}

fn prepare(namespace: &Namespace, forwards: bool) -> Result<()> {
    namespace.sysctls(EVERYWHERE)?;
    if has_sockets() {
        namespace.sysctls(ASSOCIATING)?;
    }
    if forwards {
        namespace.sysctls(FORWARDING)
    } else {
        Ok(())
    }
}

/// Kernels without the bridge's part of netfilter have nothing to switch off.
fn unfilter_bridges(namespace: &Namespace) -> Result<()> {
    let has_filter = namespace.enter(|| Path::new("/proc/sys/net/bridge").exists())?;
    if has_filter {
        namespace.sysctls(BRIDGING)
    } else {
        Ok(())
    }
}

fn run(namespace: &Namespace, script: &str) -> Result<()> {
    namespace
        .run_with_input("ip", &["-batch", "-"], script)
        .with_context(|| format!("the script was:\n{script}"))?;
    Ok(())
}

fn fabric_script(members: &[Member], entry: u8) -> Result<String> {
    let mut s = up("lo");
    for bridge in ["br-nodes", "br-clients"] {
        writeln!(s, "link add {bridge} type bridge mcast_snooping 0")?;
        s += &up(bridge);
    }
    for family in Family::ALL {
        for (ip, bridge) in [
            (address::fabric(family), "br-nodes"),
            (address::fabric_second(family), "br-nodes"),
            (address::fabric_for_clients(family), "br-clients"),
        ] {
            writeln!(
                s,
                "addr add {ip}/{} dev {bridge}{}",
                family.pick(24, 64),
                nodad(family)
            )?;
        }
        let via = address::node(entry, family);
        for network in [
            network::cluster_ips(family),
            network::load_balancer_ips(family),
            network::external_ips(family),
        ] {
            writeln!(s, "route add {network} via {via} table {CLIENTS_TABLE}")?;
            writeln!(s, "route add local {network} dev lo")?;
        }
        let pods = network::pods(family);
        writeln!(s, "route add unreachable {pods} table {CLIENTS_TABLE}")?;
        for member in members {
            if let Role::Node { number } = member.role {
                let (pods, via) = (network::pods_of_node(number, family), member.ip(family));
                writeln!(s, "route add {pods} via {via}")?;
            }
        }
    }
    for member in members {
        let bridge = match member.role {
            Role::Node { .. } => "br-nodes",
            Role::Client { .. } => "br-clients",
            Role::Pod { .. } => continue,
        };
        let (name, peer) = (&member.name, member.namespace.path());
        writeln!(s, "link add {name} type veth peer name eth0 netns {peer}")?;
        writeln!(s, "link set {name} master {bridge} up")?;
    }
    Ok(s)
}

fn node_script(number: u8, members: &[Member]) -> Result<String> {
    let mut s = up("lo") + &up("eth0");
    for family in Family::ALL {
        let (bits, nodad) = (family.pick(24, 64), nodad(family));
        writeln!(
            s,
            "addr add {}/{bits} dev eth0{nodad}",
            address::node(number, family)
        )?;
        // Deprecated in IPv6, so that the node never chooses it for its own traffic or for masquerading.
        let second = address::node_second(number, family);
        let rest = family.pick("", " nodad preferred_lft 0");
        writeln!(s, "addr add {second}/{bits} dev eth0{rest}")?;
        writeln!(
            s,
            "route add {} via {}",
            everywhere(family),
            address::fabric(family)
        )?;
        // A pod that does not exist is unreachable, rather than sent round by the default route.
        writeln!(
            s,
            "route add unreachable {}",
            network::pods_of_node(number, family)
        )?;
    }
    for member in members {
        if let Role::Node { number: other } = member.role
            && other != number
        {
            for family in Family::ALL {
                let pods = network::pods_of_node(other, family);
                writeln!(s, "route add {pods} via {}", member.ip(family))?;
            }
        }
    }
    Ok(s)
}

/// A link for each pod of a node.
fn pod_links(node: u8, members: &[Member]) -> Result<String> {
    let mut s = String::new();
    for (link, pod) in pods_of(node, members) {
        let peer = pod.namespace.path();
        writeln!(s, "link add {link} type veth peer name eth0 netns {peer}")?;
        s += &up(&link);
        s += &gateway(&link)?;
        s += &routes_to(pod, node, &link)?;
    }
    Ok(s)
}

/// A bridge for the pods of a node; none for none, as a bridge without ports carries nothing.
fn bridge_of_pods(bridge: &str, node: u8, members: &[Member]) -> Result<String> {
    let pods: Vec<_> = pods_of(node, members).collect();
    if pods.is_empty() {
        return Ok(String::new());
    }
    let mut s = format!("link add {bridge} type bridge mcast_snooping 0\n{}", up(bridge));
    s += &gateway(bridge)?;
    for (link, pod) in pods {
        let peer = pod.namespace.path();
        writeln!(s, "link add {link} type veth peer name eth0 netns {peer}")?;
        writeln!(s, "link set {link} master {bridge} up")?;
        writeln!(s, "link set {link} type bridge_slave isolated on")?;
        s += &routes_to(pod, node, bridge)?;
    }
    Ok(s)
}

/// The pods of a node, with the names of the node's ends of their links.
fn pods_of(node: u8, members: &[Member]) -> impl Iterator<Item = (String, &Member)> {
    members.iter().filter_map(move |member| match member.role {
        Role::Pod { node: on, number } if on == node => Some((format!("veth{number}"), member)),
        _ => None,
    })
}

/// The addresses that pods route by, on the node's end of their link.
fn gateway(link: &str) -> Result<String> {
    let mut s = String::new();
    writeln!(s, "addr add 169.254.1.1/32 dev {link} scope link")?;
    writeln!(s, "addr add fe80::1/64 dev {link} nodad")?;
    Ok(s)
}

/// The routes to a pod of a node.
fn routes_to(pod: &Member, node: u8, link: &str) -> Result<String> {
    let mut s = String::new();
    for family in Family::ALL {
        let (pod, src) = (pod.ip(family), address::node(node, family));
        writeln!(s, "route add {pod} dev {link} src {src}")?;
    }
    Ok(s)
}

/// A pod or a client: one interface, one default route.
fn leaf_script(member: &Member) -> Result<String> {
    let mut s = up("lo") + &up("eth0");
    let is_pod = matches!(member.role, Role::Pod { .. });
    for family in Family::ALL {
        let bits = if is_pod {
            family.pick(32, 128)
        } else {
            family.pick(24, 64)
        };
        writeln!(
            s,
            "addr add {}/{bits} dev eth0{}",
            member.ip(family),
            nodad(family)
        )?;
        let everywhere = everywhere(family);
        if is_pod {
            let via = family.pick("169.254.1.1", "fe80::1");
            writeln!(s, "route add {everywhere} via {via} dev eth0 onlink")?;
        } else {
            writeln!(
                s,
                "route add {everywhere} via {}",
                address::fabric_for_clients(family)
            )?;
        }
    }
    Ok(s)
}

/// Sets an interface up. An ARP request or neighbour solicitation that is lost on it is repeated soon, instead of
/// after a second.
fn up(link: &str) -> String {
    let caches = ["arp_cache", "ndisc_cache"];
    let patience = caches.map(|cache| format!("ntable change name {cache} dev {link} retrans 20\n"));
    format!("link set {link} up\n{}", patience.concat())
}

fn everywhere(family: Family) -> &'static str {
    family.pick("0.0.0.0/0", "::/0")
}

fn nodad(family: Family) -> &'static str {
    family.pick("", " nodad")
}
