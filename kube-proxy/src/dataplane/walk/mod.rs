//! Where a packet would go: follows a virtual packet through what a mode has planned, without a kernel.
//!
//! Nothing here knows what the rules mean. They are carried out one after the other, as the kernel would, at the
//! hooks that a packet passes. So what comes out is what the planned rules do and not what they were meant to do.
//! Where rules leave something to chance every way is gone: the answer is a list of ways, with their shares.
//! What the walker does not know ends in an error, never in a guess.
//!
//! Left out: rules of others, checks that the kernel makes apart from any rule (reverse path, martians), and
//! whether anybody answers.
//!
//! Made for tests so far; it becomes part of the program with `explain`, and loses its `cfg(test)` then. What carries
//! out the rules of a mode is in that mode's folder: `nftables/walk/`, `iptables/walk/`.
//!
//! | file | what it owns |
//! |---|---|
//! | `packet` | what rules can ask about a packet |
//! | `hooks` | the hooks that a packet passes, and every way that it can go |
//! | `traveller` | a packet on its way, and what has become of it so far |
//! | `choices` | what is left to chance |
//! | `trail` | what became of a packet, and by which rules |
//! | `tests` | clusters and packets, and what must become of them, whatever the mode |

mod choices;
mod hooks;
mod packet;
#[cfg(test)]
pub(in crate::dataplane) mod tests;
mod trail;
mod traveller;

pub(in crate::dataplane) use self::choices::Choices;
pub(in crate::dataplane) use self::hooks::{Fate, Hook, Rules, Surroundings, walk};
pub(in crate::dataplane) use self::packet::{Connection, Origin, Packet, Transport};
pub(in crate::dataplane) use self::trail::{Effect, Outcome, Path, Step};
pub(in crate::dataplane) use self::traveller::{Memory, Remembered, Traveller};
