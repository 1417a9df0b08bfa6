//! What is expected of a request, as scenarios write it:
//!
//! | text | meaning |
//! |---|---|
//! | `a b` | a and b answer, each of them at least once, and nobody else |
//! | `a b, seen as node-1` | …and the servers saw the address of node-1 |
//! | `a b, seen as itself` | …and the servers saw the address of whoever asked |
//! | `a b, seen as its node` | …and they saw that of the node whose rules come first: the asker's, or the entry node for a client |
//! | `a b, on 8081` | …at their port 8081 |
//! | `a, seen as its node; b, seen as itself` | different things for different servers |
//! | `evenly a b c` | …and they take equal shares: thousands of requests pass a chi-squared test (the same may follow) |
//! | `always one of a b` | one of them answers everything (then the same `on` and `seen as` may follow) |
//! | `pong` | an echo reply |
//! | `refused` | refused actively: `refused by rule` with an ICMP port-unreachable, `refused by host` with a TCP reset or SCTP ABORT |
//! | | (the latter also the sign that no rule took the packet: it left the node, and the host behind the fabric reset it) |
//! | `routed on` | no rule took the packet: it left the node, and what that host says comes back: a TCP reset, an ICMP |
//! | | port-unreachable to UDP, a pong; an SCTP ABORT, or `unreachable` where the kernel has no SCTP sockets |
//! | `timeout`, `unreachable` | nothing came back; an ICMP message said that there is no way |

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Deserializer};

use super::names::Names;
use crate::probe::{Outcome, Protocol, RefusedBy};
use crate::sctp::has_sockets;
use crate::serve::Answer;

/// What is expected of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Answers, each entry for some servers.
    Answers(Vec<Answers>),
    /// The same, in equal shares.
    Evenly(Vec<Answers>),
    /// Answers by one of several servers, and always by that one.
    AlwaysOneOf(Answers),
    /// An echo reply.
    Pong,
    /// A refusal; of this kind, if given.
    Refused(Option<RefusedBy>),
    /// What comes of a packet that no rule took.
    RoutedOn,
    /// Silence.
    Timeout,
    /// No way there.
    Unreachable,
}

/// Servers that answer, and what they see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    servers: BTreeSet<String>,
    port: Option<u16>,
    seen_as: Option<String>,
}

impl Expectation {
    /// The same of a request by this protocol, for what looks different by each.
    pub(super) fn by(&self, protocol: Protocol) -> Self {
        match (self, protocol) {
            (Self::RoutedOn, Protocol::Sctp) if !has_sockets() => Self::Unreachable,
            (Self::RoutedOn, Protocol::Tcp | Protocol::Sctp) => Self::Refused(Some(RefusedBy::Reset)),
            (Self::RoutedOn, Protocol::Udp) => Self::Refused(Some(RefusedBy::Icmp)),
            (Self::RoutedOn, Protocol::Ping) => Self::Pong,
            _ => self.clone(),
        }
    }

    /// Whether one outcome is among the expected. `resolve` turns the words after "seen as" into an address.
    ///
    /// # Errors
    /// When it is not: why.
    pub(super) fn admits(&self, outcome: &Outcome, resolve: impl Fn(&str) -> Result<IpAddr>) -> Result<()> {
        let fits = match (self, outcome) {
            (Self::Answers(_) | Self::Evenly(_) | Self::AlwaysOneOf(_), Outcome::Ok(answer)) => {
                let entry = self.answers().iter().find(|e| e.servers.contains(&answer.server));
                let entry = entry.with_context(|| format!("{} should not answer", answer.server))?;
                entry.admits(answer, resolve)?;
                true
            }
            (Self::Refused(expected), Outcome::Refused(by)) => expected.is_none_or(|e| e == *by),
            (Self::Pong, Outcome::Pong(_))
            | (Self::Timeout, Outcome::Timeout)
            | (Self::Unreachable, Outcome::Unreachable(_)) => true,
            _ => false,
        };
        ensure!(fits, "it should be: {self}");
        Ok(())
    }

    /// The servers that may answer.
    pub(super) fn servers(&self) -> BTreeSet<&str> {
        let answers = self.answers().iter();
        answers.flat_map(|e| &e.servers).map(String::as_str).collect()
    }

    fn answers(&self) -> &[Answers] {
        match self {
            Self::Answers(answers) | Self::Evenly(answers) => answers,
            Self::AlwaysOneOf(answers) => std::slice::from_ref(answers),
            _ => &[],
        }
    }
}

impl Answers {
    fn admits(&self, answer: &Answer, resolve: impl Fn(&str) -> Result<IpAddr>) -> Result<()> {
        if let Some(port) = self.port {
            ensure!(answer.port == port, "the port should be {port}");
        }
        if let Some(name) = &self.seen_as {
            let ip = resolve(name)?;
            ensure!(answer.seen_as() == ip, "it should be seen as {name} ({ip})");
        }
        Ok(())
    }
}

impl std::str::FromStr for Expectation {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text.trim() {
            "pong" => Self::Pong,
            "refused" => Self::Refused(None),
            "refused by rule" => Self::Refused(Some(RefusedBy::Icmp)),
            "refused by host" => Self::Refused(Some(RefusedBy::Reset)),
            "routed on" => Self::RoutedOn,
            "timeout" => Self::Timeout,
            "unreachable" => Self::Unreachable,
            text => {
                if let Some(answers) = text.strip_prefix("always one of ") {
                    Self::AlwaysOneOf(answers.parse()?)
                } else if let Some(answers) = text.strip_prefix("evenly ") {
                    Self::Evenly(several(answers)?)
                } else {
                    Self::Answers(several(text)?)
                }
            }
        })
    }
}

fn several(text: &str) -> Result<Vec<Answers>> {
    text.split(';').map(str::parse).collect()
}

impl std::str::FromStr for Answers {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(',').map(str::trim);
        let servers: Names = parts
            .next()
            .unwrap_or_default()
            .parse()
            .with_context(|| format!("the servers of {text:?}"))?;
        let mut answers = Self {
            servers: servers.iter().map(str::to_owned).collect(),
            port: None,
            seen_as: None,
        };
        for part in parts {
            if let Some(port) = part.strip_prefix("on ") {
                answers.port = Some(port.parse()?);
            } else if let Some(name) = part.strip_prefix("seen as ") {
                answers.seen_as = Some(name.to_owned());
            } else {
                bail!("{part:?} is neither \"on PORT\" nor \"seen as NAME\"");
            }
        }
        Ok(answers)
    }
}

impl std::fmt::Display for Expectation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = |expected: &[Answers]| {
            let texts: Vec<_> = expected.iter().map(Answers::to_string).collect();
            texts.join("; ")
        };
        match self {
            Self::Answers(expected) => f.write_str(&all(expected)),
            Self::Evenly(expected) => write!(f, "evenly {}", all(expected)),
            Self::AlwaysOneOf(expected) => write!(f, "always one of {expected}"),
            Self::Pong => f.write_str("pong"),
            Self::Refused(None) => f.write_str("refused"),
            Self::Refused(Some(RefusedBy::Icmp)) => f.write_str("refused by rule"),
            Self::Refused(Some(RefusedBy::Reset)) => f.write_str("refused by host"),
            Self::RoutedOn => f.write_str("routed on"),
            Self::Timeout => f.write_str("timeout"),
            Self::Unreachable => f.write_str("unreachable"),
        }
    }
}

impl std::fmt::Display for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.servers.iter().map(String::as_str).collect();
        f.write_str(&names.join(" "))?;
        if let Some(port) = self.port {
            write!(f, ", on {port}")?;
        }
        if let Some(name) = &self.seen_as {
            write!(f, ", seen as {name}")?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Expectation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
