//! A rule in the making, its parts in the order in which `iptables-save` prints them.

use crate::dataplane::iptables::name::comment;

/// A line without its chain.
pub(super) struct Line(String);

impl Line {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self(String::new())
    }

    /// One part more, unless it is empty.
    pub(super) fn and(mut self, part: &str) -> Self {
        if !part.is_empty() {
            if !self.0.is_empty() {
                self.0.push(' ');
            }
            self.0.push_str(part);
        }
        self
    }

    /// What people read.
    pub(super) fn comment(self, text: &str) -> Self {
        let text = comment(text);
        self.and(&format!("-m comment --comment \"{text}\""))
    }

    /// The whole, without a target: it only counts.
    pub(super) fn without_target(self) -> String {
        self.0
    }

    /// The whole, with its target.
    pub(super) fn to(self, target: &str) -> String {
        self.and("-j").and(target).0
    }
}
