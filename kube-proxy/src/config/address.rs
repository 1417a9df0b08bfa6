//! IP addresses, networks and IP:port as upstream reads them: leading zeros are decimal, an IPv4-mapped IPv6
//! address is an IPv4 address.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// An address; `None` when it is not one.
pub(crate) fn parse_ip(text: &str) -> Option<IpAddr> {
    let ip = match text.parse() {
        Ok(ip) => ip,
        Err(_) => without_leading_zeros(text)?.parse().ok()?,
    };
    Some(IpAddr::to_canonical(&ip))
}

/// A network, its host bits cleared; `None` when it is not one.
pub(crate) fn parse_cidr(text: &str) -> Option<IpNet> {
    let (ip, length) = text.split_once('/')?;
    let length: u8 = length
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| length.parse().ok())??;
    let length = match (ip.contains(':'), parse_ip(ip)?) {
        (true, IpAddr::V4(_)) => length.checked_sub(96)?,
        _ => length,
    };
    IpNet::new(parse_ip(ip)?, length).ok().map(|net| net.trunc())
}

/// An address and a port, `1.2.3.4:80` or `[::1]:80`, the port not zero; `None` when it is neither.
pub(crate) fn parse_socket_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.rsplit_once(':')?;
    let ip = match ip.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None => Some(ip).filter(|ip| !ip.contains(':'))?,
    };
    let port: u16 = port.parse().ok().filter(|&port| port != 0)?;
    Some(SocketAddr::new(parse_ip(ip)?, port))
}

fn without_leading_zeros(text: &str) -> Option<String> {
    let octets: Vec<&str> = text.split('.').collect();
    (octets.len() == 4 && octets.iter().all(|octet| !octet.is_empty())).then(|| {
        let trimmed: Vec<&str> = octets
            .iter()
            .map(|octet| match octet.trim_start_matches('0') {
                "" => "0",
                trimmed => trimmed,
            })
            .collect();
        trimmed.join(".")
    })
}
