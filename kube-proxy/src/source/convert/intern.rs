//! Strings that repeat over many objects (namespaces, nodes, zones, port names), kept once.

use std::collections::HashSet;
use std::sync::Arc;

/// Hands out one `Arc` per distinct string. Strings that nobody else holds any more are forgotten now and
/// then, so the table stays in proportion to what is in use.
#[derive(Debug)]
pub struct Interner {
    strings: HashSet<Arc<str>>,
    sweep_at: usize,
}

/// No sweep below this many strings.
const SMALL: usize = 1024;

impl Default for Interner {
    fn default() -> Self {
        Self {
            strings: HashSet::new(),
            sweep_at: SMALL,
        }
    }
}

impl Interner {
    /// The shared copy of a string.
    pub fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.strings.get(text) {
            return Arc::clone(known);
        }
        if self.strings.len() >= self.sweep_at {
            self.strings.retain(|string| Arc::strong_count(string) > 1);
            self.sweep_at = SMALL.max(self.strings.len() * 2);
        }
        let new: Arc<str> = text.into();
        self.strings.insert(Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interner_forgets_what_nobody_holds() {
        let mut interner = Interner::default();
        let kept = interner.intern("kept");
        for i in 0..10_000 {
            interner.intern(&i.to_string());
        }
        assert!(interner.strings.len() <= 1024);
        assert!(Arc::ptr_eq(&kept, &interner.intern("kept")));
    }
}
