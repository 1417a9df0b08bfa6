//! Bytes that were good once: what tests give to whatever reads what comes from outside, which may refuse it, but must
//! not panic or hang.

use proptest::prelude::{Strategy, any};

/// These bytes with some replaced, some doubled or left out, and perhaps cut short.
pub(crate) fn spoilt(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let places = proptest::collection::vec((any::<usize>(), any::<u8>(), 0..4_u8), 0..12);
    (places, any::<usize>(), any::<bool>()).prop_map(move |(places, end, cut)| {
        let mut bytes = good.clone();
        for (at, byte, kind) in places {
            let at = at % bytes.len().max(1);
            match kind {
                _ if bytes.is_empty() => {}
                0 => _ = bytes.remove(at),
                1 => bytes.insert(at, bytes[at]),
                2 => bytes[at] = bytes[byte as usize % bytes.len()],
                _ => bytes[at] = byte,
            }
        }
        if cut {
            bytes.truncate(end % (bytes.len() + 1));
        }
        bytes
    })
}
