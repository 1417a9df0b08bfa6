//! Addresses and networks as Kubernetes reads them: leading zeros are decimal (`010.0.0.1` is 10.0.0.1), and
//! an IPv4 address in IPv6 clothes (`::ffff:10.0.0.1`) is an IPv4 address.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Parses an address into its canonical form.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Some(ip.to_canonical()),
        Err(_) => Some(parse_with_leading_zeros(text)?.to_canonical()),
    }
}

/// Parses a CIDR into the network that it is in: host bits are cleared.
pub fn parse_cidr(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let length: u8 = without_leading_zeros(length).parse().ok()?;
    let address = match address.parse::<IpAddr>() {
        Ok(ip) => ip,
        Err(_) => parse_with_leading_zeros(address)?,
    };
    let network = match (address, address.to_canonical()) {
        // A mapped network counts from the 128 bits of the clothes.
        (IpAddr::V6(_), IpAddr::V4(inner)) if length >= 96 => Ipv4Net::new(inner, length - 96).ok()?.into(),
        (IpAddr::V6(outer), _) => IpNet::from(Ipv6Net::new(outer, length).ok()?),
        (IpAddr::V4(address), _) => Ipv4Net::new(address, length).ok()?.into(),
    };
    Some(network.trunc())
}

/// What the standard library refuses: numbers with leading zeros.
fn parse_with_leading_zeros(text: &str) -> Option<IpAddr> {
    if !text.contains(':') {
        return ipv4(text).map(IpAddr::V4);
    }
    let groups: Option<Vec<Cow<'_, str>>> = text
        .split(':')
        .map(|group| {
            if group.contains('.') {
                return ipv4(group).map(|ip| Cow::Owned(ip.to_string()));
            }
            Some(Cow::Borrowed(without_leading_zeros(group)))
        })
        .collect();
    groups?.join(":").parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let numbers: Vec<&str> = text.split('.').map(without_leading_zeros).collect();
    numbers.join(".").parse().ok()
}

/// `007` → `7`, `000` → `0`; the empty string stays empty.
fn without_leading_zeros(number: &str) -> &str {
    match number.trim_start_matches('0') {
        "" if !number.is_empty() => "0",
        rest => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_parse_as_kubernetes_reads_them() {
        for (text, expected) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("010.0.0.001", Some("10.0.0.1")),
            ("010.000.0.08", Some("10.0.0.8")),
            ("2001:DB8::1", Some("2001:db8::1")),
            ("2001:0db8:0000::00001", Some("2001:db8::1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("::ffff:010.0.0.1", Some("10.0.0.1")),
            ("::", Some("::")),
            ("10.0.0.256", None),
            ("10.0.0", None),
            ("10.0.0.", None),
            ("10.0.0.0x1", None),
            (" 10.0.0.1", None),
            ("fe80::1%eth0", None),
            ("1:2", None),
            ("", None),
        ] {
            assert_eq!(
                parse_ip(text),
                expected.map(|text| text.parse().unwrap()),
                "{text:?}"
            );
        }
    }

    #[test]
    fn networks_parse_as_kubernetes_reads_them() {
        for (text, expected) in [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("010.1.2.3/08", Some("10.0.0.0/8")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("2001:db8::1/64", Some("2001:db8::/64")),
            ("::ffff:10.1.2.3/104", Some("10.0.0.0/8")),
            ("10.0.0.0/33", None),
            ("10.0.0.0/-1", None),
            ("10.0.0.0/+8", None),
            ("10.0.0.0/", None),
            ("10.0.0.0", None),
            ("::/129", None),
            ("", None),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(parse_cidr(text), expected, "{text:?}");
        }
    }
}
