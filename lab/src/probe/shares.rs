//! Many requests, counted by what became of them.

use std::collections::BTreeMap;

use super::Outcome;

/// How often each server answered, and how often what else happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Answers by server.
    pub by_server: BTreeMap<String, usize>,
    /// Everything that is not an answer, by its text.
    pub failures: BTreeMap<String, usize>,
}

impl Shares {
    /// Counts one more.
    pub fn count(&mut self, outcome: &Outcome) {
        let counter = match outcome.answer() {
            Some(answer) => self.by_server.entry(answer.server.clone()),
            None => self.failures.entry(outcome.to_string()),
        };
        *counter.or_default() += 1;
    }

    /// Number of answers.
    pub fn answered(&self) -> usize {
        self.by_server.values().sum()
    }

    /// Number of requests that were not answered.
    pub fn failed(&self) -> usize {
        self.failures.values().sum()
    }
}

impl std::fmt::Display for Shares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut separator = "";
        for (what, count) in self.by_server.iter().chain(&self.failures) {
            write!(f, "{separator}{what}: {count}")?;
            separator = ", ";
        }
        Ok(())
    }
}
