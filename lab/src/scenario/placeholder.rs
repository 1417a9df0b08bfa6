//! `$(…)` in scenarios: addresses of the family in play, so that one text serves both.
//!
//! | placeholder | becomes |
//! |---|---|
//! | `$(a)`, `$(node-1)`, `$(client)` | the address of that pod, node or client |
//! | `$(a:8080)` | the same with a port, as the kernel's tools write it: IPv6 in brackets |
//! | `$(a/IPv4)`, `$(a/IPv6)` | the same, in that family whichever is in play |
//! | `$(node-1-second)` | the node's second address, which its Node object does not show |
//! | `$(cluster-ip-7)` | the ClusterIP with number 7 (1–255) |
//! | `$(load-balancer-ip-7)`, `$(external-ip-7)` | a load-balancer or external address |
//! | `$(cluster-ips)`, `$(load-balancer-ips)`, `$(external-ips)`, `$(pods)`, `$(nodes)`, `$(clients)` | networks, as CIDR |
//! | `$(localhost)` | the loopback address |
//! | `$(family)` | `IPv4` or `IPv6` |
//! | `$(nft-family)`, `$(nft-address)` | what nft calls them: `ip` or `ip6`, `ipv4_addr` or `ipv6_addr` |
//!
//! All take `/IPv4` and `/IPv6`.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};

use super::file::Scenario;
use crate::net::{Family, address, network};

/// Fills in every placeholder of a text.
///
/// # Errors
/// A placeholder that has no end or no value.
pub(super) fn fill(text: &str, value: impl Fn(&str) -> Result<String>) -> Result<String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("$(") {
        let (name, after) = after.split_once(')').context("$( without )")?;
        filled.push_str(before);
        filled.push_str(&value(name).with_context(|| format!("$({name})"))?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// The value of a placeholder, by the table above.
pub(super) fn value(name: &str, family: Family, scenario: &Scenario) -> Result<String> {
    if let Some((name, port)) = name.split_once(':') {
        let ip = value(name, family, scenario)?.parse::<IpAddr>()?;
        return Ok(SocketAddr::new(ip, port.parse()?).to_string());
    }
    let (name, family) = match name.split_once('/') {
        None => (name, family),
        Some((name, "IPv4")) => (name, Family::V4),
        Some((name, "IPv6")) => (name, Family::V6),
        Some((_, other)) => bail!("{other} is no family: IPv4 or IPv6"),
    };
    Ok(match name {
        "family" => family.to_string(),
        "nft-family" => family.pick("ip", "ip6").to_owned(),
        "nft-address" => family.pick("ipv4_addr", "ipv6_addr").to_owned(),
        "localhost" => family.pick("127.0.0.1", "::1").to_owned(),
        "cluster-ips" => network::cluster_ips(family).to_owned(),
        "load-balancer-ips" => network::load_balancer_ips(family).to_owned(),
        "external-ips" => network::external_ips(family).to_owned(),
        "pods" => network::pods(family).to_owned(),
        "nodes" => network::nodes(family).to_owned(),
        "clients" => network::clients(family).to_owned(),
        other => address_of(other, family, scenario)?.to_string(),
    })
}

/// The address that a name of the lab, or a numbered one, stands for.
pub(super) fn address_of(name: &str, family: Family, scenario: &Scenario) -> Result<IpAddr> {
    if let Some((node, number)) = scenario.pod(name) {
        return Ok(address::pod(node, number, family));
    }
    if name == "client" {
        return Ok(address::client(1, family));
    }
    if let Some(node) = name
        .strip_prefix("node-")
        .and_then(|rest| rest.strip_suffix("-second"))
    {
        return Ok(address::node_second(node.parse()?, family));
    }
    if let Some((kind, number)) = name.rsplit_once('-') {
        let numbered: fn(u8, Family) -> IpAddr = match kind {
            "node" => address::node,
            "client" => address::client,
            "cluster-ip" => address::cluster_ip,
            "load-balancer-ip" => address::load_balancer_ip,
            "external-ip" => address::external_ip,
            _ => bail!(UNKNOWN),
        };
        return Ok(numbered(number.parse()?, family));
    }
    bail!(UNKNOWN)
}

const UNKNOWN: &str =
    "neither a pod of this scenario nor one of the names that scenario/placeholder.rs lists";
