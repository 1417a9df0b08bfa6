//! Messages: `nlmsghdr`, then the head of those who are spoken to (netfilter's subsystems have `nfgenmsg`), then
//! attributes.

use nix::errno::Errno;

use crate::model::object::Family;

const HEADER: usize = 16;

/// Request flags of a message.
pub(crate) mod flag {
    pub(crate) const REQUEST: u16 = 0x1;
    pub(crate) const ACK: u16 = 0x4;
    pub(crate) const DUMP: u16 = 0x300;
    pub(crate) const REPLACE: u16 = 0x100;
    pub(crate) const EXCL: u16 = 0x200;
    pub(crate) const CREATE: u16 = 0x400;
    pub(crate) const APPEND: u16 = 0x800;
}

/// The number of a family in `nfgenmsg`.
pub(crate) fn nfproto(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// Writes the head of a request to one of netfilter's subsystems, up to its attributes, and returns where it starts,
/// which [`end`] wants.
pub(crate) fn begin(
    bytes: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    (family, resource): (u8, u16),
) -> usize {
    let [high, low] = resource.to_be_bytes();
    begin_with(bytes, kind, flags, sequence, &[family, 0, high, low])
}

/// Writes the head of a request, `own` being the part of those who are spoken to.
pub(crate) fn begin_with(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, own: &[u8]) -> usize {
    let start = bytes.len();
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&(flags | flag::REQUEST).to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.extend_from_slice(own);
    start
}

/// Ends the message that starts there: writes its length.
pub(crate) fn end(bytes: &mut [u8], start: usize) {
    #[expect(clippy::cast_possible_truncation, reason = "a batch stays far below 4 GiB")]
    let length = (bytes.len() - start) as u32;
    bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

/// A message as it was received or is to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// All of it, its head included.
    pub(crate) whole: &'a [u8],
}

impl<'a> Message<'a> {
    /// What follows the `nlmsghdr`.
    pub(crate) fn body(&self) -> &'a [u8] {
        self.whole.get(HEADER..).unwrap_or_default()
    }
}

/// The reason of an error, by the body of the message that tells it or of a dump's last one; `None` for an
/// acknowledgement and for an end as it should be. Of numbers that are some subsystem's own nothing more is known.
pub(crate) fn complaint(body: &[u8]) -> Option<Errno> {
    let number = i32::from_ne_bytes(*body.first_chunk()?);
    (number != 0).then(|| Errno::from_raw(number.wrapping_neg()))
}

/// Walks the messages in a buffer. Stops at the first malformed one.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<HEADER>()?;
        let word =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let length = (word(0) as usize).max(HEADER);
        let message = Message {
            kind: half(4),
            flags: half(6),
            sequence: word(8),
            whole: bytes.get(..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}
