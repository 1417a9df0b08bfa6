//! Just enough SCTP to see where an association would land: the INIT and INIT ACK chunks over raw sockets.
//!
//! Few kernels of test machines have SCTP sockets. So a server answers INIT with an INIT ACK whose state cookie holds its
//! answer, and a probe sends the one and reads the other. A kernel with SCTP sockets would answer too, with an ABORT.

const HEADER: usize = 12;
const CHUNK: usize = 20;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const STATE_COOKIE: [u8; 2] = [0, 7];

/// An INIT or INIT ACK packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Source port.
    pub(crate) from: u16,
    /// Destination port.
    pub(crate) to: u16,
    /// In an INIT the sender's tag; in an INIT ACK the tag of the INIT that it answers.
    pub(crate) tag: u32,
    /// The state cookie: an INIT ACK has one, an INIT none.
    pub(crate) cookie: Option<Vec<u8>>,
}

impl Packet {
    /// As it travels, without the IP header. The cookie must be shorter than a kilobyte.
    pub(crate) fn encode(&self) -> Vec<u8> {
        // An INIT has verification tag 0 and its own tag in the chunk; an INIT ACK the other way round (its
        // own tag is arbitrary, but not 0).
        let (kind, verification, initiate) = match self.cookie {
            None => (INIT, 0, self.tag),
            Some(_) => (INIT_ACK, self.tag, 1),
        };
        let mut packet = Vec::new();
        packet.extend_from_slice(&self.from.to_be_bytes());
        packet.extend_from_slice(&self.to.to_be_bytes());
        packet.extend_from_slice(&u32::to_be_bytes(verification));
        packet.extend_from_slice(&[0; 4]); // checksum, below
        packet.extend_from_slice(&[kind, 0, 0, 0]); // length, below
        packet.extend_from_slice(&u32::to_be_bytes(initiate));
        packet.extend_from_slice(&65535_u32.to_be_bytes()); // window
        packet.extend_from_slice(&[0, 1, 0, 1]); // one stream each way
        packet.extend_from_slice(&1_u32.to_be_bytes()); // first sequence number
        if let Some(cookie) = &self.cookie {
            let length = u16::try_from(4 + cookie.len()).unwrap_or(u16::MAX);
            packet.extend_from_slice(&STATE_COOKIE);
            packet.extend_from_slice(&length.to_be_bytes());
            packet.extend_from_slice(cookie);
        }
        let length = u16::try_from(packet.len() - HEADER).unwrap_or(u16::MAX);
        packet[HEADER + 2..HEADER + 4].copy_from_slice(&length.to_be_bytes());
        packet.resize(packet.len().next_multiple_of(4), 0);
        let checksum = crc32c(&packet).to_le_bytes();
        packet[8..HEADER].copy_from_slice(&checksum);
        packet
    }

    /// Reads a packet that came in on a raw IPv4 (with IP header) or IPv6 (without) socket; `None` when it is
    /// neither INIT nor INIT ACK, or damaged.
    pub(crate) fn decode(received: &[u8], with_ip_header: bool) -> Option<Self> {
        let skip = if with_ip_header {
            usize::from(received.first()? & 0xf) * 4
        } else {
            0
        };
        let packet = received.get(skip..)?;
        let (header, chunk) = packet.split_at_checked(HEADER)?;
        if chunk.len() < CHUNK || !checksum_fits(packet) {
            return None;
        }
        let number = |at: &[u8]| at.iter().fold(0, |sum, &byte| sum << 8 | u32::from(byte));
        let (tag, cookie) = match chunk[0] {
            INIT => (number(&chunk[4..8]), None),
            INIT_ACK => {
                let parameter = &chunk[CHUNK..];
                let length = number(parameter.get(2..4)?);
                let value = parameter.get(4..usize::try_from(length).ok()?)?;
                (parameter[..2] == STATE_COOKIE).then_some(())?;
                (number(&header[4..8]), Some(value.to_vec()))
            }
            _ => return None,
        };
        Some(Self {
            from: u16::from_be_bytes([header[0], header[1]]),
            to: u16::from_be_bytes([header[2], header[3]]),
            tag,
            cookie,
        })
    }
}

fn checksum_fits(packet: &[u8]) -> bool {
    let mut blank = packet.to_vec();
    blank[8..HEADER].fill(0);
    packet[8..HEADER] == crc32c(&blank).to_le_bytes()
}

/// The Castagnoli checksum, bit by bit: the packets are short and few.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_the_standard() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn packets_come_back_as_they_were_sent_and_damage_is_noticed() {
        let packet = |cookie| Packet {
            from: 1,
            to: 8080,
            tag: 0x0102_0304,
            cookie,
        };
        let cookie = b"a 8080 10.0.0.1:1".to_vec();
        for packet in [packet(None), packet(Some(cookie))] {
            let mut bytes = packet.encode();
            assert_eq!(Packet::decode(&bytes, false), Some(packet));
            bytes[0] ^= 1;
            assert_eq!(Packet::decode(&bytes, false), None);
        }
    }
}
