//! One copy of each value that many objects repeat: namespaces, port names, zone hints.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Hands out one shared copy of equal values, and forgets a value some time after its last user.
#[derive(Debug)]
pub(super) struct Pool<T: ?Sized> {
    values: HashSet<Arc<T>>,
    /// Unused values are looked for when this many are held: twice what was in use the last time.
    sweep_at: usize,
}

/// Below this many values a sweep is not worth the walk.
const FIRST_SWEEP: usize = 256;

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Self {
            values: HashSet::new(),
            sweep_at: FIRST_SWEEP,
        }
    }
}

impl<T: ?Sized + Hash + Eq> Pool<T> {
    /// The shared copy of a value; this very one if there is none yet.
    pub(super) fn share(&mut self, value: Arc<T>) -> Arc<T> {
        if let Some(shared) = self.values.get(&value) {
            return Arc::clone(shared);
        }
        if self.values.len() >= self.sweep_at {
            self.values.retain(|shared| Arc::strong_count(shared) > 1);
            self.sweep_at = FIRST_SWEEP.max(2 * self.values.len());
        }
        self.values.insert(Arc::clone(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_held_once() {
        let mut pool = Pool::<str>::default();
        let first = pool.share(Arc::from("default"));
        let second = pool.share(Arc::from("default"));
        assert!(Arc::ptr_eq(&first, &second));
    }

    #[test]
    fn values_without_users_do_not_pile_up() {
        let mut pool = Pool::<str>::default();
        let kept = pool.share(Arc::from("kept"));
        for number in 0..10 * FIRST_SWEEP {
            pool.share(Arc::from(number.to_string()));
        }
        assert!(pool.values.len() <= FIRST_SWEEP + 1);
        assert!(Arc::ptr_eq(&kept, &pool.share(Arc::from("kept"))));
    }
}
