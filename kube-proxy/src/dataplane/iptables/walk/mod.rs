//! Carries out what `iptables-restore` is told over a virtual packet: the text is read as the program would, and the
//! rules as the kernel would hold them, table after table at each hook. So what comes out is what the text does.
//!
//! | file | what it owns |
//! |---|---|
//! | `words` | a rule as its words: options, matches and a target with their own options |
//! | `rule` | what the words mean; a new option is an arm here |
//! | `tables` | what `iptables-restore --noflush` makes of a text |
//! | `machine` | chains and rules over a packet |
//! | `written` | a dataplane that writes to such tables instead of the kernel's |
//!
//! Left out: that a list of the `recent` match holds a hundred addresses only, and counters.

mod machine;
mod rule;
mod tables;
#[cfg(test)]
mod tests;
mod words;
mod written;

pub(in crate::dataplane::iptables) use self::tables::Tables;
pub(in crate::dataplane) use self::written::Written;
