//! The line that servers answer with and probes read.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Who answered, and what it saw. As a line: `NAME PORT SOURCE-ADDRESS:PORT`, then whatever was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Name of the server.
    pub server: String,
    /// The port on which the request arrived at the server.
    pub port: u16,
    /// The source that the server saw.
    pub source: SocketAddr,
}

impl Answer {
    /// The source address that the server saw.
    pub fn seen_as(&self) -> IpAddr {
        self.source.ip()
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.server, self.port, self.source)
    }
}

impl FromStr for Answer {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> anyhow::Result<Self> {
        let mut words = line.split_whitespace();
        let mut word = || {
            let next = words.next();
            next.ok_or_else(|| anyhow::anyhow!("not an answer of the lab's servers: {line:?}"))
        };
        Ok(Self {
            server: word()?.to_owned(),
            port: word()?.parse()?,
            source: word()?.parse()?,
        })
    }
}
