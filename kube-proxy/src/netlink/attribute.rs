//! Attributes: type, length, value, aligned to four bytes, nested.

use std::net::IpAddr;

const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Writes attributes at the end of a message.
pub(crate) struct Attributes<'a>(pub(super) &'a mut Vec<u8>);

impl<'a> Attributes<'a> {
    /// Writes behind what is there.
    pub(crate) fn at_end(bytes: &'a mut Vec<u8>) -> Self {
        Self(bytes)
    }

    /// An attribute with these bytes.
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.0.extend_from_slice(value);
        self.close(start);
    }

    /// A string, with the zero that the kernel wants at its end.
    pub(crate) fn string(&mut self, kind: u16, value: &str) {
        let start = self.open(kind);
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(0);
        self.close(start);
    }

    /// An address: 4 or 16 bytes.
    pub(crate) fn ip(&mut self, kind: u16, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => self.bytes(kind, &ip.octets()),
            IpAddr::V6(ip) => self.bytes(kind, &ip.octets()),
        }
    }

    /// A 32-bit number in network order.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// An attribute that holds attributes.
    pub(crate) fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.open_nested(kind);
        body(&mut Attributes(self.0));
        self.close(start);
    }

    /// An attribute whose bytes are written in place.
    pub(crate) fn written(&mut self, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.open(kind);
        body(self.0);
        self.close(start);
    }

    /// Attributes as they were received.
    pub(crate) fn copy(&mut self, attributes: &[u8]) {
        self.0.extend_from_slice(attributes);
    }

    /// Begins an attribute that holds attributes, and returns where it starts, which [`Attributes::close`] wants.
    pub(crate) fn open_nested(&mut self, kind: u16) -> usize {
        self.open(kind | NLA_F_NESTED)
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    /// Ends the attribute that starts there.
    pub(crate) fn close(&mut self, start: usize) {
        let length = u16::try_from(self.0.len() - start);
        debug_assert!(length.is_ok(), "an attribute of more than 64 KiB");
        // A length that does not fit is written as 0, which the kernel refuses: never a truncated attribute.
        self.0[start..start + 2].copy_from_slice(&length.unwrap_or(0).to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// The address that is all of these bytes, 4 or 16 of them.
pub(crate) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4().or_else(|_| v6()).ok()
}

/// Walks the attributes in a slice: type without flags, and value. Stops at the first malformed one.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}
