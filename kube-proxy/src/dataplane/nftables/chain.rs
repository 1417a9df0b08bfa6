//! The chains that are made as needed. There is one for each distinct number of endpoints and way of
//! masquerading, and one for each way of telling sources apart: far fewer than Services.

use std::fmt;

use crate::model::view::EndpointList;

/// By which key a chain looks things up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Reach {
    /// Address, protocol and port.
    Address,
    /// Protocol and port.
    NodePort,
}

/// Some of the three kinds of source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Sources {
    pub(super) pods: bool,
    pub(super) host: bool,
    pub(super) outside: bool,
}

impl Sources {
    pub(super) const NONE: Self = Self {
        pods: false,
        host: false,
        outside: false,
    };
    pub(super) const ALL: Self = Self {
        pods: true,
        host: true,
        outside: true,
    };
}

/// What a packet is entitled to, once it is known where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Entitlement {
    /// One of the `count` endpoints of a list.
    To {
        list: EndpointList,
        masquerade: bool,
        count: u32,
    },
    /// What IPVS picks.
    Ipvs { masquerade: bool },
    /// None: the packet goes on as it is, and `no-endpoint-…` in the filter chains has the last word.
    Nothing,
}

/// A chain made as needed. Those come first to which others lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Chain {
    /// Picks one of `count` endpoints, and masquerades some sources.
    Endpoints {
        reach: Reach,
        list: EndpointList,
        masquerade: Sources,
        count: u32,
        /// Clients stay with their endpoint until they were silent for so many seconds.
        affinity: Option<u32>,
    },
    /// Masquerades some sources and leaves the packet to IPVS.
    Ipvs { masquerade: Sources },
    /// Tells sources apart, masquerades some of them, and goes to the endpoints that they are entitled to.
    BySource {
        reach: Reach,
        pods: Entitlement,
        host: Entitlement,
        outside: Entitlement,
        affinity: Option<u32>,
    },
}

impl Chain {
    /// The chains that this one goes to.
    pub(super) fn leads_to(self) -> impl Iterator<Item = Self> {
        let by_source = match self {
            Self::Endpoints { .. } | Self::Ipvs { .. } => [None; 3],
            Self::BySource {
                reach,
                pods,
                host,
                outside,
                affinity,
            } => [pods, host, outside].map(|entitlement| entitlement.chain(reach, affinity)),
        };
        by_source.into_iter().flatten()
    }
}

impl Entitlement {
    /// The chain that gives what one is entitled to.
    pub(super) fn chain(self, reach: Reach, affinity: Option<u32>) -> Option<Chain> {
        match self {
            Self::To { list, count, .. } => Some(Chain::Endpoints {
                reach,
                list,
                masquerade: Sources::NONE,
                count,
                affinity,
            }),
            Self::Ipvs { .. } => Some(Chain::Ipvs {
                masquerade: Sources::NONE,
            }),
            Self::Nothing => None,
        }
    }
}

impl fmt::Display for Chain {
    /// The chain's name, e.g. `endpoints-3-masquerade-host-outside`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoints {
                reach,
                list,
                masquerade,
                count,
                affinity,
            } => {
                write!(f, "{}", reach.prefix())?;
                if *list == EndpointList::Local {
                    f.write_str("local-")?;
                }
                write!(f, "endpoints-{count}")?;
                if let Some(seconds) = affinity {
                    write!(f, "-affinity-{seconds}s")?;
                }
                write!(f, "{masquerade}")
            }
            Self::BySource {
                reach,
                pods,
                host,
                outside,
                affinity,
            } => {
                write!(f, "{}by-source/{pods}/{host}/{outside}", reach.prefix())?;
                affinity.map_or(Ok(()), |seconds| write!(f, "/affinity-{seconds}s"))
            }
            Self::Ipvs { masquerade } => write!(f, "ipvs{masquerade}"),
        }
    }
}

impl Reach {
    fn prefix(self) -> &'static str {
        match self {
            Self::Address => "",
            Self::NodePort => "nodeport-",
        }
    }
}

impl fmt::Display for Sources {
    /// As the end of a chain's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return Ok(());
        }
        f.write_str("-masquerade")?;
        if *self == Self::ALL {
            return Ok(());
        }
        for (named, name) in [
            (self.pods, "-pods"),
            (self.host, "-host"),
            (self.outside, "-outside"),
        ] {
            if named {
                f.write_str(name)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Entitlement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let masquerade = match self {
            Self::To {
                list: EndpointList::Cluster,
                masquerade,
                count,
            } => {
                write!(f, "cluster-{count}")?;
                *masquerade
            }
            Self::To {
                list: EndpointList::Local,
                masquerade,
                count,
            } => {
                write!(f, "local-{count}")?;
                *masquerade
            }
            Self::Ipvs { masquerade } => {
                f.write_str("ipvs")?;
                *masquerade
            }
            Self::Nothing => return f.write_str("none"),
        };
        if masquerade {
            f.write_str("-masquerade")?;
        }
        Ok(())
    }
}
