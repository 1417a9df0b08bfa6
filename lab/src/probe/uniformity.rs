//! Whether counts look like draws among equally likely choices: Pearson's chi-squared test.

/// The standard normal deviate that chance exceeds once in a million times.
const ONE_IN_A_MILLION: f64 = 4.753;

/// How far counts are from equal, and how far chance alone may bring them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Uniformity {
    /// The chi-squared statistic.
    pub distance: f64,
    /// What it exceeds at most once in a million times when the choices are equally likely.
    pub limit: f64,
}

impl Uniformity {
    /// Of the counts of all choices, also of those that never came. The test wants at least five draws a choice.
    ///
    /// With 2000 draws it notices, 99 times in 100, when half of the choices are more likely and the other
    /// half less by: 17 % where there are two choices (58 draws to 42), 21 % where there are seven, 27 % where
    /// there are a hundred. Fewer draws or more choices make it blinder.
    pub fn of(counts: &[usize]) -> Self {
        let total: usize = counts.iter().sum();
        let expected = total as f64 / counts.len() as f64;
        let distance = counts
            .iter()
            .map(|&count| (count as f64 - expected).powi(2) / expected);
        Self {
            distance: distance.sum(),
            limit: limit(counts.len().saturating_sub(1)),
        }
    }

    /// Whether chance alone explains the counts.
    pub fn is_plausible(&self) -> bool {
        // Nothing to choose from is evenly chosen; otherwise no draws at all (not a number) are not.
        self.limit == 0.0 || self.distance <= self.limit
    }
}

impl std::fmt::Display for Uniformity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "chi-squared is {:.0}, the limit {:.0}",
            self.distance, self.limit
        )
    }
}

/// The limit for so many degrees of freedom, by Wilson's and Hilferty's approximation. Where these are few it is
/// a little high, so the test is then a little stricter about false alarms.
fn limit(degrees: usize) -> f64 {
    let degrees = degrees as f64;
    if degrees == 0.0 {
        return 0.0;
    }
    let spread = 2.0 / (9.0 * degrees);
    degrees * (1.0 - spread + ONE_IN_A_MILLION * spread.sqrt()).powi(3)
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    const DRAWS: usize = 2000;

    /// How many of 300 samples pass when every second choice is that much more likely, and the others less.
    fn passed(choices: usize, imbalance: f64) -> usize {
        let mut random = Rng::with_seed(7);
        let mut sample = || {
            let mut counts = vec![0; choices];
            for _ in 0..DRAWS {
                let choice = random.usize(..choices);
                // A choice that is less likely hands over to its neighbour as often as it takes.
                let handed_over = choice % 2 == 1 && random.f64() < imbalance;
                counts[choice - usize::from(handed_over)] += 1;
            }
            Uniformity::of(&counts).is_plausible()
        };
        (0..300).filter(|_| sample()).count()
    }

    #[test]
    fn equal_chances_pass_and_imbalances_of_the_stated_size_do_not() {
        for (choices, noticed) in [(2, 0.17), (3, 0.21), (7, 0.21), (100, 0.27)] {
            assert_eq!(passed(choices, 0.0), 300, "{choices} equal choices");
            let passed = passed(choices, noticed);
            assert!(
                passed <= 20,
                "{choices} choices: {passed} of 1000 unequal ones passed"
            );
        }
    }

    #[test]
    fn the_limit_is_near_the_true_quantile_and_not_below() {
        // The true ones: of one degree the square of a normal deviate, of two -2 ln(1/1,000,000).
        for (degrees, quantile) in [(1, 23.93), (2, 27.63)] {
            let limit = limit(degrees);
            assert!((quantile..1.2 * quantile).contains(&limit), "{degrees}: {limit}");
        }
    }

    #[test]
    fn one_choice_is_uniform_and_no_draws_among_several_are_not() {
        assert!(Uniformity::of(&[10]).is_plausible());
        assert!(!Uniformity::of(&[0, 0]).is_plausible());
        assert!(!Uniformity::of(&[2000, 0]).is_plausible());
    }
}
