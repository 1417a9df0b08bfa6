//! In which points a mode does otherwise than the others, and why. What a test expects of one mode alone is told
//! from the rest by a name of this file.

use crate::config::Mode;

/// All modes whose rules can be walked.
pub(in crate::dataplane) const MODES: [Mode; 2] = [Mode::Nftables, Mode::Iptables];

/// A point in which modes differ. iptables mode does in all of them what upstream does in this mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    UndefinedPort,
    UnallocatedClusterIp,
    HostToRefusedAddress,
    RefusedNodePort,
    SourceRangesWithoutEndpoints,
    HolderOfAnAddress,
    LoopbackNodePorts,
    MemoryOfAnEndpoint,
    EndpointToItself,
    InvalidPackets,
    NodePortBehindAddress,
}

impl Difference {
    /// What the mode that differs does, and why.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::UndefinedPort => {
                "rules match an address and a port, so what no port of a ClusterIP wants is nobody's, and routed on"
            }
            Self::UnallocatedClusterIp => {
                "rules match the addresses that Services have; of networks of ClusterIPs they know nothing"
            }
            Self::HostToRefusedAddress => {
                "external addresses without endpoints are refused in INPUT and FORWARD, which a packet of the host \
                 does not pass on its way out"
            }
            Self::RefusedNodePort => {
                "node ports without endpoints are refused by type of address, at all of the node's, whichever of them \
                 accept node ports"
            }
            Self::SourceRangesWithoutEndpoints => {
                "a port without endpoints has no chain that asks for the source, so all are refused alike"
            }
            Self::HolderOfAnAddress => {
                "a port has one chain that asks for the source, for all its load-balancer addresses: the node may use \
                 any of them with any of them as its source"
            }
            Self::LoopbackNodePorts => {
                "served by route_localnet, so in IPv4, at the whole network or (where addresses are chosen) at \
                 127.0.0.1, for all protocols, and refused where there are no endpoints"
            }
            Self::MemoryOfAnEndpoint => {
                "each endpoint has a list of its clients, whichever list of endpoints led them to it"
            }
            Self::EndpointToItself => {
                "an endpoint that reaches itself is told by its address alone, on whichever node it runs"
            }
            Self::InvalidPackets => {
                "what conntrack calls invalid is dropped in FORWARD, since it would leave with an address that the \
                 client does not know"
            }
            Self::NodePortBehindAddress => {
                "what an address does not deliver comes back to the rules, and may be a node port of the same address"
            }
        }
    }

    /// The mode does so.
    pub(super) fn is_in(self, mode: Mode) -> bool {
        mode == Mode::Iptables
    }
}

/// By how much the share of an endpoint may differ from that of the others.
pub(super) fn rounding(mode: Mode) -> f64 {
    match mode {
        // But for the walker's own arithmetic they are equal.
        Mode::Nftables => 1e-9,
        // Ten decimals are written, and the kernel knows 2^31 chances.
        Mode::Iptables => 1e-8,
        Mode::Ipvs => unreachable!("no rule says what IPVS does"),
    }
}
