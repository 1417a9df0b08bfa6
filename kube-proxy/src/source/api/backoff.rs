//! How long to wait before the next try: doubling, with jitter so that a cluster's nodes do not knock at the
//! same moment.

use std::time::Duration;

/// Delays between tries, reset by a success.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    tries: u32,
    other_ways: u32,
}

impl Backoff {
    /// After this many other ways in a row the next one waits like a retry.
    const FREE: u32 = 3;

    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            tries: 0,
            other_ways: 0,
        }
    }

    /// Things work again.
    pub(super) fn reset(&mut self) {
        self.tries = 0;
        self.other_ways = 0;
    }

    /// Before trying the same again. `jitter` is within 0–1.
    pub(super) fn delay(&mut self, jitter: f32) -> Duration {
        self.delay_up_to(self.longest, jitter)
    }

    /// The same, for something that may take longer than usual.
    pub(super) fn delay_up_to(&mut self, longest: Duration, jitter: f32) -> Duration {
        let doubled = self
            .first
            .saturating_mul(1_u32.checked_shl(self.tries).unwrap_or(u32::MAX));
        self.tries = (self.tries + 1).min(31);
        let whole = doubled.min(longest);
        whole.mul_f32(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
    }

    /// Before trying something else, which may well work: no delay, unless that goes on and on.
    pub(super) fn delay_before_another_way(&mut self, jitter: f32) -> Duration {
        if self.other_ways < Self::FREE {
            self.other_ways += 1;
            return Duration::ZERO;
        }
        self.delay(jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_start_anew_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        let delays: Vec<u128> = (0..10).map(|_| backoff.delay(1.0).as_millis()).collect();
        assert_eq!(
            delays,
            [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]
        );
        for _ in 0..100 {
            assert_eq!(backoff.delay(0.0).as_secs(), 15);
        }
        assert_eq!(backoff.delay_up_to(Duration::from_secs(300), 1.0).as_secs(), 300);
        backoff.reset();
        assert_eq!(backoff.delay(0.0).as_millis(), 100);
    }

    #[test]
    fn another_way_is_tried_at_once_but_not_for_ever() {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        for _ in 0..5 {
            backoff.delay(1.0);
        }
        let delays: Vec<u128> = (0..5)
            .map(|_| backoff.delay_before_another_way(1.0).as_millis())
            .collect();
        assert_eq!(delays, [0, 0, 0, 6400, 12800]);
        backoff.reset();
        assert_eq!(backoff.delay_before_another_way(1.0), Duration::ZERO);
    }
}
