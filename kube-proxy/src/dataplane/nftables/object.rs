//! The sets and maps of a table: what each is for, its key, its value.

use super::encode::Attributes;
use super::layout::{Field, Layout};
use super::transaction::NFTA_SET_NAME;

const NFT_SET_INTERVAL: u32 = 0x4;
const NFT_SET_MAP: u32 = 0x8;
const NFT_SET_TIMEOUT: u32 = 0x10;
const NFT_SET_EVAL: u32 = 0x20;
const NFT_SET_CONCAT: u32 = 0x80;
/// `NFT_DATA_VERDICT`.
const VERDICT_TYPE: u32 = 0xffff_ff00;
/// nft's mark for numbers in the host's byte order.
const HOST_ORDER: u32 = 1;
/// How many clients are remembered at most, some 30 MB; further ones get a random endpoint each time.
const MOST_REMEMBERED: u32 = 1 << 18;
/// What a set declares for the slot field: nft knows a number of no particular meaning only by the
/// expression that makes it.
const ANY_SLOT: Field = Field::Slot {
    count: 1 << 16,
    first: 0,
};

/// A set or map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Object {
    ClusterIps,
    ServiceCidrs,
    NodePortIps,
    LocalhostNodePorts,
    HairpinConnections,
    RestrictedIps,
    SourceRanges,
    ServiceEndpoints,
    NodePortEndpoints,
    AffinityEndpoints,
    NodePortAffinityEndpoints,
    AffinitySlots,
    NodePortAffinitySlots,
    Affinity,
    NoEndpointServices,
    NoEndpointNodePorts,
    ServiceIps,
    ServiceNodePorts,
}

/// What the elements of a set carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    /// Nothing: it is a set.
    Nothing,
    /// A verdict.
    Verdict,
    /// The address and port of an endpoint.
    Endpoint,
    /// The number of an endpoint.
    EndpointId,
}

impl Object {
    /// All of them, in the order in which they are made and listed.
    pub(super) const ALL: [Self; 18] = [
        Self::ClusterIps,
        Self::ServiceCidrs,
        Self::NodePortIps,
        Self::LocalhostNodePorts,
        Self::HairpinConnections,
        Self::RestrictedIps,
        Self::SourceRanges,
        Self::ServiceEndpoints,
        Self::NodePortEndpoints,
        Self::AffinityEndpoints,
        Self::NodePortAffinityEndpoints,
        Self::AffinitySlots,
        Self::NodePortAffinitySlots,
        Self::Affinity,
        Self::NoEndpointServices,
        Self::NoEndpointNodePorts,
        Self::ServiceIps,
        Self::ServiceNodePorts,
    ];

    /// Its name in the kernel. What upstream's kube-proxy has under the same name, it has with the same types: its start
    /// would fail on a table where they differ.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ClusterIps => "cluster-ips",
            Self::ServiceCidrs => "service-cidrs",
            Self::NodePortIps => "nodeport-ips",
            Self::LocalhostNodePorts => "localhost-nodeports",
            Self::HairpinConnections => "hairpin-connections",
            Self::RestrictedIps => "restricted-ips",
            Self::SourceRanges => "source-ranges",
            Self::ServiceEndpoints => "service-endpoints",
            Self::NodePortEndpoints => "nodeport-endpoints",
            Self::AffinityEndpoints => "affinity-endpoints",
            Self::NodePortAffinityEndpoints => "nodeport-affinity-endpoints",
            Self::AffinitySlots => "affinity-slots",
            Self::NodePortAffinitySlots => "nodeport-affinity-slots",
            Self::Affinity => "affinity",
            Self::NoEndpointServices => "no-endpoint-services",
            Self::NoEndpointNodePorts => "no-endpoint-nodeports",
            Self::ServiceIps => "service-ips",
            Self::ServiceNodePorts => "service-nodeports",
        }
    }

    /// What `nft list` shows beside it. With the key's description it has to fit in 256 bytes.
    fn comment(self) -> &'static str {
        match self {
            Self::ClusterIps => "ClusterIPs in use: other ports of theirs are rejected",
            Self::ServiceCidrs => "where ClusterIPs come from: packets to one that is not in use are dropped",
            Self::NodePortIps => "node addresses that accept node ports",
            Self::LocalhostNodePorts => "node ports with an endpoint for processes of this host",
            Self::HairpinConnections => "a pod that reaches itself through a Service is masqueraded",
            Self::RestrictedIps => "destinations that only source-ranges may use",
            Self::SourceRanges => "who may use restricted-ips",
            Self::ServiceEndpoints => "endpoint by slot; from 1000000 on: of this node",
            Self::NodePortEndpoints => "endpoint by slot; from 1000000 on: of this node",
            Self::AffinityEndpoints | Self::NodePortAffinityEndpoints => "endpoint by number",
            Self::AffinitySlots | Self::NodePortAffinitySlots => "number of the endpoint by slot",
            Self::Affinity => "number of the endpoint that a client stays with, by ServicePort",
            Self::NoEndpointServices => "Services without an endpoint for this packet",
            Self::NoEndpointNodePorts => "node ports without an endpoint for this packet",
            Self::ServiceIps => "ClusterIPs, external IPs and load-balancer IPs",
            Self::ServiceNodePorts => "node ports",
        }
    }

    /// The fields of its key.
    pub(super) fn key(self) -> &'static [Field] {
        use Field::{AffinityGroup, Destination, EndpointId, Port, Protocol, ProtocolOfInterval, Source};
        match self {
            Self::ClusterIps | Self::ServiceCidrs | Self::NodePortIps => &[Destination],
            Self::HairpinConnections => &[Source, Destination, Protocol, Port],
            Self::Affinity => &[AffinityGroup, Source],
            Self::AffinityEndpoints => &[Destination, Protocol, Port, EndpointId],
            Self::NodePortAffinityEndpoints => &[Protocol, Port, EndpointId],
            Self::SourceRanges => &[Destination, ProtocolOfInterval, Port, Source],
            Self::ServiceEndpoints | Self::AffinitySlots => &[Destination, Protocol, Port, ANY_SLOT],
            Self::NodePortEndpoints | Self::NodePortAffinitySlots => &[Protocol, Port, ANY_SLOT],
            Self::RestrictedIps | Self::NoEndpointServices | Self::ServiceIps => {
                &[Destination, Protocol, Port]
            }
            Self::LocalhostNodePorts | Self::NoEndpointNodePorts | Self::ServiceNodePorts => {
                &[Protocol, Port]
            }
        }
    }

    /// What its elements carry.
    pub(super) fn carries(self) -> Carries {
        match self {
            Self::ClusterIps
            | Self::ServiceCidrs
            | Self::NodePortIps
            | Self::LocalhostNodePorts
            | Self::HairpinConnections
            | Self::RestrictedIps
            | Self::SourceRanges => Carries::Nothing,
            Self::ServiceEndpoints
            | Self::NodePortEndpoints
            | Self::AffinityEndpoints
            | Self::NodePortAffinityEndpoints => Carries::Endpoint,
            Self::AffinitySlots | Self::NodePortAffinitySlots | Self::Affinity => Carries::EndpointId,
            _ => Carries::Verdict,
        }
    }

    /// Its elements have a beginning and an end.
    pub(super) fn is_interval(self) -> bool {
        matches!(self, Self::ServiceCidrs | Self::SourceRanges)
    }

    /// Its keys end with a slot.
    pub(super) fn has_slots(self) -> bool {
        self.key().contains(&ANY_SLOT)
    }

    /// Its intervals are of several fields, each with a beginning and an end of its own.
    pub(super) fn is_concatenation_of_intervals(self) -> bool {
        self.is_interval() && self.key().len() > 1
    }

    /// Rules add its elements and time takes them away; this program does neither.
    pub(super) fn is_written_by_rules(self) -> bool {
        self == Self::Affinity
    }

    /// The fields of its elements' values.
    pub(super) fn value(self) -> &'static [Field] {
        match self.carries() {
            Carries::Nothing | Carries::Verdict => &[],
            Carries::Endpoint => &[Field::Destination, Field::Port],
            Carries::EndpointId => &[Field::EndpointId],
        }
    }

    /// Every first packet of a connection to a Service is looked up in it once.
    fn is_asked_once(self) -> bool {
        matches!(self, Self::ServiceIps | Self::ServiceNodePorts)
    }

    /// Writes the declaration, all but the table. `counted`: elements count connections, in the maps that can tell.
    pub(super) fn declare(self, layout: &Layout, counted: bool, message: &mut Attributes<'_>) {
        message.string(NFTA_SET_NAME, self.name());
        let mut flags = 0;
        if self.carries() != Carries::Nothing {
            flags |= NFT_SET_MAP;
        }
        if self.is_interval() {
            flags |= NFT_SET_INTERVAL;
        }
        if self.is_concatenation_of_intervals() {
            flags |= NFT_SET_CONCAT;
        }
        if self.is_written_by_rules() {
            flags |= NFT_SET_TIMEOUT | NFT_SET_EVAL;
        }
        message.be32(3, flags);
        message.be32(4, type_of(self.key(), layout));
        message.be32(5, length_of(self.key(), layout));
        if self.carries() == Carries::Verdict {
            message.be32(6, VERDICT_TYPE);
            message.be32(7, 0);
        } else if self.carries() != Carries::Nothing {
            message.be32(6, type_of(self.value(), layout));
            message.be32(7, length_of(self.value(), layout));
        }
        if self.is_concatenation_of_intervals() {
            message.nested(9, |description| {
                description.nested(2, |fields| {
                    for field in self.key() {
                        fields.nested(1, |entry| entry.be32(1, byte_length(*field, layout)));
                    }
                });
            });
        }
        if self.is_written_by_rules() {
            message.nested(9, |description| description.be32(1, MOST_REMEMBERED));
        }
        message.be32(10, self as u32 + 1);
        if counted && self.is_asked_once() {
            message.nested(17, |expression| expression.string(1, "counter"));
        }
        message.written(13, |data| self.describe(layout, data));
    }

    /// What nft keeps with a set for itself: how to print its key, and the comment.
    fn describe(self, layout: &Layout, data: &mut Vec<u8>) {
        if self.carries() == Carries::EndpointId {
            user_data(data, 1, &HOST_ORDER.to_ne_bytes());
        }
        if self.has_slots() {
            user_data(data, 3, &typeof_concatenation(self.key(), layout));
            user_data(data, 4, &typeof_concatenation(self.value(), layout));
        }
        let mut comment = self.comment().as_bytes().to_vec();
        comment.push(0);
        user_data(data, 7, &comment);
    }
}

/// nft's number of a concatenated type: six bits a field.
fn type_of(fields: &[Field], layout: &Layout) -> u32 {
    fields.iter().fold(0, |number, field| {
        let field = match field {
            Field::Source | Field::Destination => layout.address_type,
            Field::Protocol | Field::ProtocolOfInterval => 12,
            Field::Port => 13,
            Field::EndpointId | Field::AffinityGroup => 23,
            Field::Slot { .. } => 4,
        };
        number << 6 | field
    })
}

/// Length of a key in bytes: every field padded to a register.
fn length_of(fields: &[Field], layout: &Layout) -> u32 {
    fields.iter().map(|field| field.registers(layout) * 4).sum()
}

/// Length of a field in bytes, not padded.
fn byte_length(field: Field, layout: &Layout) -> u32 {
    match field {
        Field::Source | Field::Destination => layout.address,
        Field::Protocol | Field::ProtocolOfInterval => 1,
        Field::Port => 2,
        Field::EndpointId | Field::AffinityGroup | Field::Slot { .. } => 4,
    }
}

/// One entry of nft's own data: type, length, value.
pub(super) fn user_data(data: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let length = u8::try_from(value.len());
    debug_assert!(length.is_ok(), "user data of more than 255 bytes");
    if let Ok(length) = length {
        data.extend_from_slice(&[kind, length]);
        data.extend_from_slice(value);
    }
}

/// `typeof a . b . c`, as nft stores it: every number in the host's byte order.
fn typeof_concatenation(fields: &[Field], layout: &Layout) -> Vec<u8> {
    const CONCATENATION: u32 = 13;
    let mut list = Vec::new();
    if let [field] = fields {
        return typeof_field(*field, layout);
    }
    for (index, field) in fields.iter().enumerate() {
        let index = u8::try_from(index).unwrap_or(u8::MAX);
        user_data(&mut list, index, &typeof_field(*field, layout));
    }
    typeof_expression(CONCATENATION, &list)
}

fn typeof_field(field: Field, layout: &Layout) -> Vec<u8> {
    const PAYLOAD: u32 = 7;
    const META: u32 = 9;
    const NUMGEN: u32 = 23;
    const TRANSPORT_HEADER: u32 = 11;
    const DESTINATION_PORT: u32 = 2;
    const PRIORITY: u32 = 2;
    const L4PROTO: u32 = 16;
    const RANDOM: u32 = 1;
    match field {
        Field::Source => typeof_expression(PAYLOAD, &numbers(&[layout.header, layout.source_field])),
        Field::Destination => {
            typeof_expression(PAYLOAD, &numbers(&[layout.header, layout.destination_field]))
        }
        Field::Protocol | Field::ProtocolOfInterval => typeof_expression(META, &numbers(&[L4PROTO])),
        Field::Port => typeof_expression(PAYLOAD, &numbers(&[TRANSPORT_HEADER, DESTINATION_PORT])),
        // No map with the group in its key says its type so; nft has a name for it.
        Field::EndpointId | Field::AffinityGroup => typeof_expression(META, &numbers(&[PRIORITY])),
        Field::Slot { count, first } => typeof_expression(NUMGEN, &numbers(&[RANDOM, count, first])),
    }
}

fn typeof_expression(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    user_data(&mut data, 0, &kind.to_ne_bytes());
    user_data(&mut data, 1, body);
    data
}

fn numbers(values: &[u32]) -> Vec<u8> {
    let mut data = Vec::new();
    for (kind, value) in (0..).zip(values) {
        user_data(&mut data, kind, &value.to_ne_bytes());
    }
    data
}
