//! What rules leave to chance: every way in turn, with its share of all.

/// What was decided on one way. The next way decides the same, but for the last thing that can still go
/// otherwise.
#[derive(Debug, Default)]
pub(in crate::dataplane) struct Choices {
    /// The number that was drawn, and how it could have gone.
    drawn: Vec<(u32, Odds)>,
    next: usize,
}

/// How one thing can go.
#[derive(Clone, Copy, Debug)]
enum Odds {
    /// Any number below this one, each as likely as the other.
    Even(u32),
    /// 0 with this chance, else 1.
    Chance(f64),
}

impl Odds {
    fn count(self) -> u32 {
        match self {
            Self::Even(count) => count,
            Self::Chance(_) => 2,
        }
    }

    fn share(self, number: u32) -> f64 {
        match (self, number) {
            (Self::Even(count), _) => 1.0 / f64::from(count),
            (Self::Chance(chance), 0) => chance,
            (Self::Chance(chance), _) => 1.0 - chance,
        }
    }
}

impl Choices {
    /// A number below `count`, which is not 0.
    pub(in crate::dataplane) fn draw(&mut self, count: u32) -> u32 {
        self.choose(Odds::Even(count))
    }

    /// Whether something happens that has this chance, of 1. What is certain is no choice.
    pub(in crate::dataplane) fn happens(&mut self, chance: f64) -> bool {
        if chance <= 0.0 || chance >= 1.0 {
            return chance >= 1.0;
        }
        self.choose(Odds::Chance(chance)) == 0
    }

    fn choose(&mut self, odds: Odds) -> u32 {
        if self.next == self.drawn.len() {
            self.drawn.push((0, odds));
        }
        let (number, _) = self.drawn[self.next];
        self.next += 1;
        number
    }

    /// How much of the traffic goes this way.
    pub(in crate::dataplane) fn share(&self) -> f64 {
        self.drawn
            .iter()
            .map(|(number, odds)| odds.share(*number))
            .product()
    }

    /// Turns to the next way; `false` when there is none.
    pub(in crate::dataplane) fn turn(&mut self) -> bool {
        self.next = 0;
        while let Some((number, odds)) = self.drawn.pop() {
            if number + 1 < odds.count() {
                self.drawn.push((number + 1, odds));
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_what_can_happen_is_one_way() {
        let mut choices = Choices::default();
        let mut ways = Vec::new();
        loop {
            let first = choices.draw(2);
            let second = choices.draw(if first == 0 { 3 } else { 1 });
            let third = first == 1 && choices.happens(0.25);
            ways.push((first, second, third, choices.share()));
            if !choices.turn() {
                break;
            }
        }
        let sixth = 0.5 * (1.0 / 3.0);
        assert_eq!(
            ways,
            [
                (0, 0, false, sixth),
                (0, 1, false, sixth),
                (0, 2, false, sixth),
                (1, 0, true, 0.125),
                (1, 0, false, 0.375),
            ]
        );
        let mut choices = Choices::default();
        assert!(choices.happens(1.0) && !choices.happens(0.0) && !choices.turn());
    }
}
