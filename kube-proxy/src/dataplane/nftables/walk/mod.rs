//! Where a packet would go: follows a virtual packet through what is planned, without a kernel.
//!
//! Nothing here knows what the rules mean. They are carried out one expression after the other, as the kernel
//! would: registers, look-ups of encoded keys in sets that were filled with encoded elements, hooks in the
//! order of their priorities. So what comes out is what the planned bytes do and not what they were meant to
//! do. A random number is every number that it can be: the answer is a list of ways, with their shares.
//! What the walker does not know ends in an error, never in a guess.
//!
//! Left out: time (what was remembered is never forgotten), other tables, checks that the kernel makes apart
//! from any rule (reverse path, martians), and whether anybody answers.
//!
//! Made for tests so far; it becomes part of the program with `explain`, and loses its `cfg(test)` then.
//!
//! | file | what it owns |
//! |---|---|
//! | `packet` | what rules can ask about a packet |
//! | `table`, `set` | what is planned, as the kernel would hold it |
//! | `hooks` | the hooks that a packet passes, and every way that it can go |
//! | `machine` | chains, rules and registers |
//! | `step` | what each expression does; a new one is an arm here |
//! | `trail` | what became of a packet, and by which rules |

mod hooks;
mod machine;
mod packet;
mod set;
mod step;
mod table;
#[cfg(test)]
mod tests;
mod trail;

pub(super) use self::hooks::Surroundings;
pub(super) use self::packet::{Connection, Origin, Packet, Transport};
pub(super) use self::set::Memory;
pub(super) use self::table::Table;
pub(super) use self::trail::{Outcome, Path};
