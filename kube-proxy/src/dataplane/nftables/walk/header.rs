//! The bytes of a virtual packet's headers.

use std::net::IpAddr;

use anyhow::{Context, bail};

use crate::dataplane::nftables::expr::Header;
use crate::dataplane::walk::{Packet, Transport};
use crate::model::object::Family;

/// Bytes of a header.
///
/// # Errors
/// When they are not among those that a virtual packet has.
pub(super) fn bytes(packet: &Packet, header: Header, offset: u32, length: u32) -> anyhow::Result<Vec<u8>> {
    let known = match header {
        Header::Network => network_header(packet)?,
        Header::Transport => transport_header(packet),
    };
    let end = offset.saturating_add(length);
    let found = known.get(offset as usize..end as usize);
    let found = found.and_then(|bytes| bytes.iter().copied().collect::<Option<Vec<u8>>>());
    found.with_context(|| format!("a virtual packet has no bytes {offset} to {end} of its {header:?} header"))
}

fn network_header(packet: &Packet) -> anyhow::Result<Vec<Option<u8>>> {
    let (mut header, protocol_at, source_at) = match packet.family() {
        Family::V4 => (vec![None; 20], 9, 12),
        Family::V6 => (vec![None; 40], 6, 8),
    };
    let addresses = match (packet.source, packet.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
        (IpAddr::V6(from), IpAddr::V6(to)) => [from.octets(), to.octets()].concat(),
        (from, to) => bail!("no packet from {from} to {to}: not of one family"),
    };
    header[protocol_at] = Some(packet.protocol());
    for (byte, value) in header.iter_mut().skip(source_at).zip(addresses) {
        *byte = Some(value);
    }
    Ok(header)
}

fn transport_header(packet: &Packet) -> Vec<Option<u8>> {
    let (Transport::To(_, number) | Transport::Ping { checksum: number }) = packet.transport;
    let [high, low] = number.to_be_bytes();
    vec![None, None, Some(high), Some(low)]
}
