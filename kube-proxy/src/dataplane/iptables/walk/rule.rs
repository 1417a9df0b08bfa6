//! A rule of iptables: what it looks at and what it does, read from its words. What is not known is an error that
//! names it, and so is what the program or the kernel would refuse.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use ipnet::IpNet;

use super::words::{Named, Part, parts};
use crate::model::object::{Family, Protocol};

/// What the matches of `conntrack` tell apart, as bits.
pub(super) mod state {
    pub(in super::super) const NEW: u32 = 1 << 0;
    pub(in super::super) const ESTABLISHED: u32 = 1 << 1;
    pub(in super::super) const RELATED: u32 = 1 << 2;
    pub(in super::super) const INVALID: u32 = 1 << 3;
    pub(in super::super) const DNAT: u32 = 1 << 4;
}

/// `IFNAMSIZ`, without the zero at the end.
const LONGEST_INTERFACE: usize = 15;
/// The longest name of a list of the `recent` match, of a comment, of a counter.
const LONGEST_LIST: usize = 199;
const LONGEST_COMMENT: usize = 255;
const LONGEST_COUNTER: usize = 31;
/// Of so many random numbers of the `statistic` match a part is below the given probability.
const RANDOM_NUMBERS: f64 = 2_147_483_648.0;
/// `RTN_LOCAL`.
pub(super) const LOCAL: u32 = 2;

/// A rule as the kernel would hold it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rule {
    /// As it was written, without its chain.
    pub(super) text: String,
    pub(super) comment: String,
    /// All have to hold; they are looked at in this order.
    pub(super) matches: Vec<Match>,
    pub(super) target: Option<Target>,
}

/// What a packet has to be, or, with `not`, must not be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Match {
    pub(super) not: bool,
    pub(super) what: What,
}

/// What a rule looks at.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    Source(IpNet),
    Destination(IpNet),
    Protocol(Protocol),
    /// With a `+` at the end of the name: any interface whose name starts so.
    InputInterface(String),
    DestinationPort(u16),
    /// Any of these bits.
    State(u32),
    Mark {
        value: u32,
        mask: u32,
    },
    /// The type of the route to the source or to the destination.
    SourceType(u32),
    DestinationType(u32),
    /// A chance, of 1.
    Chance(f64),
    /// The source is in the list, and was not put there longer ago.
    Recent(String, Option<Duration>),
    /// Always; puts the source into the list.
    Note(String),
    /// Always; counts.
    Count(String),
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Accept,
    Drop,
    Return,
    Reject,
    Dnat(SocketAddr),
    Masquerade,
    /// The mark without the bits of the mask, and with those of the value turned.
    Mark {
        value: u32,
        mask: u32,
    },
    /// Another chain.
    Jump(String),
}

impl Rule {
    /// Reads what follows `-A CHAIN` in a table.
    pub(super) fn read(family: Family, table: &str, text: &str) -> anyhow::Result<Self> {
        let mut rule = Self {
            text: text.to_owned(),
            comment: String::new(),
            matches: Vec::new(),
            target: None,
        };
        for part in parts(text)? {
            ensure!(rule.target.is_none(), "something follows the target");
            match part {
                Part::Plain { not, option, value } => {
                    let what = plain(family, &option, &value).with_context(|| format!("{option} {value}"))?;
                    rule.matches.push(Match { not, what });
                }
                Part::Match(named) => rule.add(named)?,
                Part::Target(named) => {
                    let target = rule.read_target(family, table, named)?;
                    rule.target = Some(target);
                }
            }
        }
        Ok(rule)
    }

    fn protocol(&self) -> Option<Protocol> {
        self.matches.iter().find_map(|is| match is {
            Match {
                not: false,
                what: What::Protocol(protocol),
            } => Some(*protocol),
            _ => None,
        })
    }

    /// Reads a match.
    fn add(&mut self, mut named: Named) -> anyhow::Result<()> {
        let (not, what) = match &*named.name {
            "comment" => {
                self.comment = named.required("--comment")?;
                ensure!(self.comment.len() <= LONGEST_COMMENT, "a comment is too long");
                return named.end();
            }
            "conntrack" => {
                let (not, states) = named
                    .signed("--ctstate")?
                    .context("conntrack without --ctstate")?;
                (
                    not,
                    What::State(states.split(',').map(state_bit).sum::<anyhow::Result<_>>()?),
                )
            }
            "mark" => {
                let (not, mark) = named.signed("--mark")?.context("mark without --mark")?;
                let (value, mask) = with_mask(&mark)?;
                (not, What::Mark { value, mask })
            }
            "addrtype" => route_type(&mut named)?,
            "statistic" => (false, statistic(&mut named)?),
            "recent" => (false, recent(&mut named)?),
            "nfacct" => {
                let name = named.required("--nfacct-name")?;
                ensure!(name.len() <= LONGEST_COUNTER, "the name of a counter is too long");
                (false, What::Count(name))
            }
            "tcp" | "udp" | "sctp" => {
                let given = self.protocol();
                ensure!(
                    given == Some(protocol(&named.name)?),
                    "-m {} without -p",
                    named.name
                );
                match named.signed("--dport")? {
                    Some((not, port)) => (not, What::DestinationPort(port.parse()?)),
                    None => return named.end(),
                }
            }
            other => bail!("the walker does not know the match {other}"),
        };
        self.matches.push(Match { not, what });
        named.end()
    }

    fn read_target(&self, family: Family, table: &str, mut named: Named) -> anyhow::Result<Target> {
        let only_in = |wanted| {
            ensure!(
                table == wanted,
                "a target in {table} that {wanted} alone can have"
            );
            Ok(())
        };
        let target = match &*named.name {
            "ACCEPT" => Target::Accept,
            "DROP" => Target::Drop,
            "RETURN" => Target::Return,
            "REJECT" => {
                only_in("filter")?;
                let with = named.required("--reject-with")?;
                let expected = match family {
                    Family::V4 => "icmp-port-unreachable",
                    Family::V6 => "icmp6-port-unreachable",
                };
                ensure!(with == expected, "the walker does not know to reject with {with}");
                Target::Reject
            }
            "DNAT" => {
                only_in("nat")?;
                ensure!(self.protocol().is_some(), "DNAT to a port without -p");
                let to: SocketAddr = named.required("--to-destination")?.parse()?;
                ensure!(Family::of(to.ip()) == family, "DNAT to {to} in {family}");
                Target::Dnat(to)
            }
            "MASQUERADE" => {
                only_in("nat")?;
                named.flag("--random-fully")?;
                Target::Masquerade
            }
            "MARK" => mark(&mut named)?,
            chain => Target::Jump(chain.to_owned()),
        };
        named.end()?;
        Ok(target)
    }
}

fn plain(family: Family, option: &str, value: &str) -> anyhow::Result<What> {
    Ok(match option {
        "-s" => What::Source(network(family, value)?),
        "-d" => What::Destination(network(family, value)?),
        "-p" => What::Protocol(protocol(value)?),
        _ => {
            ensure!(
                value.len() <= LONGEST_INTERFACE,
                "the name of an interface is too long"
            );
            What::InputInterface(value.to_owned())
        }
    })
}

fn network(family: Family, text: &str) -> anyhow::Result<IpNet> {
    let network = match text.contains('/') {
        true => text.parse::<IpNet>()?.trunc(),
        false => IpNet::from(text.parse::<std::net::IpAddr>()?),
    };
    ensure!(Family::of(network.addr()) == family, "not of {family}");
    Ok(network)
}

fn protocol(name: &str) -> anyhow::Result<Protocol> {
    match name {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        other => bail!("the walker does not know the protocol {other}"),
    }
}

fn state_bit(name: &str) -> anyhow::Result<u32> {
    match name {
        "NEW" => Ok(state::NEW),
        "ESTABLISHED" => Ok(state::ESTABLISHED),
        "RELATED" => Ok(state::RELATED),
        "INVALID" => Ok(state::INVALID),
        "DNAT" => Ok(state::DNAT),
        other => bail!("the walker does not know the state {other}"),
    }
}

fn number(text: &str) -> anyhow::Result<u32> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.with_context(|| format!("{text} is no number"))
}

/// `VALUE/MASK`, or a value of which all bits count.
fn with_mask(text: &str) -> anyhow::Result<(u32, u32)> {
    match text.split_once('/') {
        Some((value, mask)) => Ok((number(value)?, number(mask)?)),
        None => Ok((number(text)?, u32::MAX)),
    }
}

fn route_type(named: &mut Named) -> anyhow::Result<(bool, What)> {
    let local = |name: &str| match name {
        "LOCAL" => Ok(LOCAL),
        other => bail!("the walker does not know the type {other}"),
    };
    if let Some((not, name)) = named.signed("--src-type")? {
        return Ok((not, What::SourceType(local(&name)?)));
    }
    let (not, name) = named
        .signed("--dst-type")?
        .context("addrtype without --src-type and --dst-type")?;
    Ok((not, What::DestinationType(local(&name)?)))
}

fn statistic(named: &mut Named) -> anyhow::Result<What> {
    let mode = named.required("--mode")?;
    ensure!(mode == "random", "the walker does not know the mode {mode}");
    let probability: f64 = named.required("--probability")?.parse()?;
    ensure!(
        (0.0..=1.0).contains(&probability),
        "no probability: {probability}"
    );
    Ok(What::Chance(
        (probability * RANDOM_NUMBERS).round() / RANDOM_NUMBERS,
    ))
}

fn recent(named: &mut Named) -> anyhow::Result<What> {
    let list = named.required("--name")?;
    ensure!(
        list.len() <= LONGEST_LIST && !list.contains('/'),
        "the kernel takes no list {list}"
    );
    // These are what it does anyway: the whole of the source address.
    named.flag("--rsource")?;
    if let Some(mask) = named.optional("--mask")? {
        ensure!(
            mask.split(['.', ':']).all(|part| part == "255" || part == "ffff"),
            "the walker does not know --mask {mask}"
        );
    }
    let seconds = named.optional("--seconds")?;
    let reap = named.flag("--reap")?;
    ensure!(!reap || seconds.is_some(), "--reap without --seconds");
    match (named.flag("--set")?, named.flag("--rcheck")?) {
        (true, false) => {
            ensure!(seconds.is_none(), "--set with --seconds");
            Ok(What::Note(list))
        }
        (false, true) => {
            let seconds = seconds.map(|seconds| seconds.parse()).transpose()?;
            Ok(What::Recent(list, seconds.map(Duration::from_secs)))
        }
        _ => bail!("recent has to have one of --set and --rcheck"),
    }
}

fn mark(named: &mut Named) -> anyhow::Result<Target> {
    if let Some(bits) = named.optional("--or-mark")? {
        let bits = number(&bits)?;
        return Ok(Target::Mark {
            value: bits,
            mask: bits,
        });
    }
    if let Some(bits) = named.optional("--xor-mark")? {
        return Ok(Target::Mark {
            value: number(&bits)?,
            mask: 0,
        });
    }
    let (value, mask) = with_mask(&named.required("--set-xmark")?)?;
    Ok(Target::Mark { value, mask })
}
