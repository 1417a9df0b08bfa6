//! Names of chains and rules as upstream makes them, so that runbooks and other tools find what they look for.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use data_encoding::BASE32;
use ring::digest::{SHA256, digest};

use crate::model::object::{ObjectName, Protocol};

/// The longest comment that the `comment` match takes.
const LONGEST_COMMENT: usize = 255;

/// The kinds of chains that Services have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// To the endpoints of the whole cluster.
    Service,
    /// To those of this node.
    Local,
    /// What comes for an external address.
    External,
    /// What comes for an address with source ranges.
    Firewall,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Service => "KUBE-SVC-",
            Self::Local => "KUBE-SVL-",
            Self::External => "KUBE-EXT-",
            Self::Firewall => "KUBE-FW-",
        }
    }
}

/// What the chains of endpoints are called.
const ENDPOINT_PREFIX: &str = "KUBE-SEP-";

/// Whether a chain of the nat table is one that a Service or endpoint had.
pub(super) fn belongs_to_a_service(chain: &str) -> bool {
    let kinds = [Kind::Service, Kind::Local, Kind::External, Kind::Firewall];
    let prefixes = kinds.map(Kind::prefix);
    prefixes
        .iter()
        .chain([&ENDPOINT_PREFIX])
        .any(|prefix| chain.starts_with(prefix))
}

/// Whether a chain is one that an endpoint had.
pub(super) fn is_of_an_endpoint(chain: &str) -> bool {
    chain.starts_with(ENDPOINT_PREFIX)
}

/// The name of a ServicePort, in comments and as what chain names are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortName {
    /// `namespace/name:port`, or `namespace/name` of an unnamed port.
    text: String,
    protocol: Protocol,
}

impl PortName {
    pub(super) fn new(service: &ObjectName, port_name: &str, protocol: Protocol) -> Self {
        let text = match port_name {
            "" => format!("{}/{}", service.namespace, service.name),
            port => format!("{}/{}:{port}", service.namespace, service.name),
        };
        Self { text, protocol }
    }

    /// The name of one of its chains.
    pub(super) fn chain(&self, kind: Kind) -> String {
        format!(
            "{}{}",
            kind.prefix(),
            suffix(&[&self.text, protocol(self.protocol)])
        )
    }

    /// The name of the chain of one of its endpoints.
    pub(super) fn endpoint_chain(&self, ip: IpAddr, port: u16) -> String {
        let at = SocketAddr::new(ip, port).to_string();
        format!(
            "{ENDPOINT_PREFIX}{}",
            suffix(&[&self.text, protocol(self.protocol), &at])
        )
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A protocol as iptables writes it.
pub(super) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// The first sixteen characters of the base32 text of the SHA-256 of the texts one behind the other.
fn suffix(texts: &[&str]) -> String {
    let hash = digest(&SHA256, texts.concat().as_bytes());
    let mut suffix = BASE32.encode(hash.as_ref());
    suffix.truncate(16);
    suffix
}

/// A text as the argument of `--comment`. Names that no API server would let through must not end it, nor the line.
pub(super) fn comment(text: &str) -> String {
    let harmless = |letter: char| match letter {
        '"' | '\\' => '?',
        letter if letter.is_ascii_graphic() || letter == ' ' => letter,
        _ => '?',
    };
    text.chars().map(harmless).take(LONGEST_COMMENT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_upstream() {
        let named = PortName::new(&ObjectName::new("ns1", "svc1"), "p80", Protocol::Tcp);
        assert_eq!(named.chain(Kind::Service), "KUBE-SVC-XPGD46QRK7WJZT7O");
        assert_eq!(named.chain(Kind::Firewall), "KUBE-FW-XPGD46QRK7WJZT7O");
        let endpoint = named.endpoint_chain([10, 180, 0, 1].into(), 80);
        assert_eq!(endpoint, "KUBE-SEP-SXIVWICOYRO3J4NJ");
        let unnamed = PortName::new(&ObjectName::new("ns1", "svc1"), "", Protocol::Tcp);
        assert_eq!(unnamed.chain(Kind::External), "KUBE-EXT-AQI2S6QIMU7PVVRP");
    }

    #[test]
    fn a_comment_ends_neither_itself_nor_its_line() {
        assert_eq!(comment("a\"b\\c\nd\u{e9}"), "a?b?c?d?");
        assert_eq!(comment(&"x".repeat(300)).len(), 255);
    }
}
