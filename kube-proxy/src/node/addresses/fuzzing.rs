//! What route netlink says of addresses, as fuzzing makes it.

/// Reads one part of the list.
///
/// # Panics
/// When it holds more addresses than there is room for.
pub(crate) fn read(part: &[u8]) {
    let mut addresses = Vec::new();
    let _ = super::take_in(part, Some(1), &mut addresses);
    // A message with an address of IPv4 takes no less.
    assert!(addresses.len() <= part.len() / 32, "{addresses:?}");
}
