//! Manifests as fuzzing makes them.

use std::path::Path;

use super::store::Store;
use crate::model::change::Change;

/// The networks out of which Services get their addresses.
const RANGES: [&str; 2] = ["10.96.0.0/20", "fd00:10:96::/112"];

/// Takes in a file, of JSON if the first byte is odd. What it changes.
///
/// # Panics
/// When the same file changes something again, or leaves something behind.
pub(crate) fn read(bytes: &[u8]) -> Vec<Change> {
    let Some((head, text)) = bytes.split_first() else {
        return Vec::new();
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return Vec::new();
    };
    let path = Path::new(if head & 1 == 0 { "a.yaml" } else { "a.json" });
    let ranges = RANGES.iter().filter_map(|range| range.parse().ok()).collect();
    let mut store = Store::new(path.into(), "node-1".into(), ranges);
    let mut load = |text: &str| {
        store.load(path, Ok(text.to_owned()));
        store.changes()
    };
    let changes = load(text);
    assert_eq!(load(text), [], "the same file again");
    let gone = load("");
    let of_kind = |change: &Change| matches!(change, Change::Deleted(..));
    assert!(gone.iter().all(of_kind), "{gone:?} of a file that is empty now");
    changes
}
