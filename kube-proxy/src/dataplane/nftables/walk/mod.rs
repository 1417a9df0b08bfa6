//! Carries out the planned expressions over a virtual packet: registers, look-ups of encoded keys in sets that were
//! filled with encoded elements, chains at the hooks in the order of their priorities. So what comes out is what the
//! planned bytes do.
//!
//! | file | what it owns |
//! |---|---|
//! | `table`, `set` | what is planned, as the kernel would hold it |
//! | `machine` | chains, rules and registers |
//! | `step` | what each expression does; a new one is an arm here |
//! | `header` | the bytes of a packet |

mod header;
mod machine;
mod set;
mod step;
mod table;
#[cfg(test)]
mod tests;

pub(in crate::dataplane) use self::table::Table;
