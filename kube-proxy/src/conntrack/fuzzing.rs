//! Tracked flows as fuzzing makes them.

use std::hash::RandomState;

use super::adopt::Tracked;
use super::bytes::Counted;
use super::netlink::Entry;
use crate::model::object::Family;
use crate::netlink::{attributes, messages};

/// `CTA_TUPLE_ORIG`, without which a deletion would empty the whole table.
const ORIGINAL: u16 = 1;

/// Reads an entry, the body of a message.
///
/// # Panics
/// When the request that deletes it would not name its tuple, or when it is another one as soon as it is read again.
pub(crate) fn read(body: &[u8]) {
    Tracked::read(body);
    let keys = RandomState::new();
    assert_eq!(
        Counted::read(body, &keys),
        Counted::read(body, &keys),
        "the same entry, read again"
    );
    let Some(entry) = Entry::read(body) else {
        return;
    };
    assert_eq!(
        Entry::read(body).as_ref(),
        Some(&entry),
        "the same entry, read again"
    );
    let mut request = Vec::new();
    entry.write_deletion(&mut request, 1, Family::of(entry.flow.asked.ip()));
    let sent: Vec<_> = messages(&request).collect();
    assert_eq!(sent.len(), 1);
    let mut all = attributes(sent[0].body().get(4..).unwrap_or_default());
    let original = all.find(|(kind, _)| *kind == ORIGINAL);
    let before = attributes(body.get(4..).unwrap_or_default()).filter(|(kind, _)| *kind == ORIGINAL);
    assert_eq!(original, before.last(), "the tuple of the entry to delete");
    assert!(original.is_some_and(|(_, tuple)| !tuple.is_empty()));
}
