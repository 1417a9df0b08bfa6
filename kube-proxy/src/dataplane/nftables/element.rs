//! Entries as elements of the kernel's sets and maps: what is sent to add and to remove them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;

use super::affinity::GROUP_MASK;
use super::encode::Attributes;
use super::entry::{Destination, Frontend, Key, Value};
use super::memory::Remembered;
use super::object::user_data;

const NFTA_LIST_ELEM: u16 = 1;
pub(super) const NFTA_SET_ELEM_KEY: u16 = 1;
pub(super) const NFTA_SET_ELEM_DATA: u16 = 2;
pub(super) const NFTA_SET_ELEM_FLAGS: u16 = 3;
pub(super) const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
pub(super) const NFTA_SET_ELEM_EXPIRATION: u16 = 5;
pub(super) const NFTA_SET_ELEM_USERDATA: u16 = 6;
pub(super) const NFTA_SET_ELEM_EXPR: u16 = 7;
pub(super) const NFTA_SET_ELEM_KEY_END: u16 = 10;
pub(super) const NFTA_DATA_VALUE: u16 = 1;
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;

impl Key {
    /// Writes the element as it is added.
    pub(super) fn encode(&self, value: &Value, list: &mut Attributes<'_>) {
        list.nested(NFTA_LIST_ELEM, |element| {
            self.encode_key(element);
            match value {
                Value::Present => {}
                Value::Endpoint(backend) => element.nested(NFTA_SET_ELEM_DATA, |data| {
                    data.written(NFTA_DATA_VALUE, |bytes| {
                        address(bytes, backend.ip);
                        port(bytes, backend.port);
                    });
                }),
                Value::EndpointId(id) => element.nested(NFTA_SET_ELEM_DATA, |data| {
                    data.bytes(NFTA_DATA_VALUE, &id.to_ne_bytes());
                }),
                Value::Verdict(action) => {
                    element.nested(NFTA_SET_ELEM_DATA, |data| action.target.verdict().encode(data));
                    element.written(NFTA_SET_ELEM_USERDATA, |data| {
                        let mut comment = action.comment.as_bytes().to_vec();
                        comment.push(0);
                        user_data(data, 0, &comment);
                    });
                }
            }
        });
        self.encode_end(list);
    }

    /// Writes the element as it is removed.
    pub(super) fn encode_removal(&self, list: &mut Attributes<'_>) {
        list.nested(NFTA_LIST_ELEM, |element| self.encode_key(element));
        self.encode_end(list);
    }

    /// An interval of a single field ends where another element says so: with the first address that is not
    /// in it. One that goes up to the last address there is has no end.
    fn encode_end(&self, list: &mut Attributes<'_>) {
        if let Self::ServiceCidr(network) = self
            && let Some(end) = following(network.broadcast())
        {
            list.nested(NFTA_LIST_ELEM, |element| {
                element.nested(NFTA_SET_ELEM_KEY, |key| {
                    key.written(NFTA_DATA_VALUE, |bytes| address(bytes, end));
                });
                element.be32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
            });
        }
    }

    fn encode_key(&self, element: &mut Attributes<'_>) {
        element.nested(NFTA_SET_ELEM_KEY, |key| {
            key.written(NFTA_DATA_VALUE, |bytes| self.fields(bytes, IpNet::network));
        });
        if let Self::SourceRange(..) = self {
            element.nested(NFTA_SET_ELEM_KEY_END, |key| {
                key.written(NFTA_DATA_VALUE, |bytes| self.fields(bytes, IpNet::broadcast));
            });
        }
    }

    /// The fields of the key, each padded to a register. Of a network, the address that `bound` picks.
    fn fields(&self, bytes: &mut Vec<u8>, bound: fn(&IpNet) -> IpAddr) {
        match self {
            Self::Service(at) | Self::NoEndpoint(at) | Self::LocalhostNodePort(at) | Self::Firewall(at) => {
                frontend(bytes, at);
            }
            Self::Endpoint(at, number)
            | Self::AffinitySlot(at, number)
            | Self::AffinityEndpoint(at, number) => {
                frontend(bytes, at);
                bytes.extend_from_slice(&number.to_ne_bytes());
            }
            Self::SourceRange(at, network) => {
                frontend(bytes, at);
                address(bytes, bound(network));
            }
            Self::Hairpin(backend, protocol) => {
                address(bytes, backend.ip);
                address(bytes, backend.ip);
                bytes.extend_from_slice(&[protocol.number(), 0, 0, 0]);
                port(bytes, backend.port);
            }
            Self::ClusterIp(ip) | Self::NodePortIp(ip) => address(bytes, *ip),
            Self::ServiceCidr(network) => address(bytes, bound(network)),
        }
    }
}

/// Writes what is remembered of a client as an element of the map that rules write.
pub(super) fn encode_remembered(remembered: &Remembered, list: &mut Attributes<'_>) {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).to_be_bytes();
    let Remembered {
        number,
        client,
        timeout,
        left,
    } = remembered;
    list.nested(NFTA_LIST_ELEM, |element| {
        element.nested(NFTA_SET_ELEM_KEY, |key| {
            key.written(NFTA_DATA_VALUE, |bytes| {
                bytes.extend_from_slice(&(number & GROUP_MASK).to_ne_bytes());
                address(bytes, *client);
            });
        });
        element.nested(NFTA_SET_ELEM_DATA, |data| {
            data.bytes(NFTA_DATA_VALUE, &number.to_ne_bytes());
        });
        element.bytes(NFTA_SET_ELEM_TIMEOUT, &milliseconds(*timeout));
        element.bytes(NFTA_SET_ELEM_EXPIRATION, &milliseconds(*left));
    });
}

fn frontend(bytes: &mut Vec<u8>, at: &Frontend) {
    if let Destination::Ip(ip) = at.address {
        address(bytes, ip);
    }
    bytes.extend_from_slice(&[at.protocol.number(), 0, 0, 0]);
    port(bytes, at.port);
}

fn address(bytes: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => bytes.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => bytes.extend_from_slice(&ip.octets()),
    }
}

/// The next address; `None` behind the last one.
fn following(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => Some(Ipv4Addr::from_bits(ip.to_bits().checked_add(1)?).into()),
        IpAddr::V6(ip) => Some(Ipv6Addr::from_bits(ip.to_bits().checked_add(1)?).into()),
    }
}

fn port(bytes: &mut Vec<u8>, port: u16) {
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
}
