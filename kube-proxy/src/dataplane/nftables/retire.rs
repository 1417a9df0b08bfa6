//! How tables go without a packet noticing.
//!
//! A packet that is in the rules when a transaction comes in force keeps to the rules from before it, but finds maps as
//! they are after it: those of a table that was just deleted are empty. So first the kernel calls the table no more,
//! then whoever is in it gets the time to leave, and only then it goes.

use std::time::Duration;

use nix::errno::Errno;

use super::encode::MessageType;
use super::failure::unreachable;
use super::kernel::Kernel;
use super::listed::{all, find, string};
use super::transaction::{NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, Transaction};
use crate::dataplane::{CommitError, CommitReport};
use crate::model::object::Family;

/// What packets are given to leave where the kernel does not say that they did.
const LEAVE: Duration = Duration::from_millis(100);

/// Whether packets come into tables of this name, in one of these families at least.
pub(super) fn in_force(kernel: &mut Kernel, families: &[Family], table: &str) -> Result<bool, CommitError> {
    for &family in families {
        if kernel.table_exists(family, table)? && !base_chains(kernel, family, table)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes the tables of this name in these families, as the module's text tells. What is to be in force instead has to be
/// already. Returns in which families there was one.
pub(super) fn retire(
    kernel: &mut Kernel,
    families: &[Family],
    table: &str,
    report: &mut CommitReport,
) -> Result<Vec<Family>, CommitError> {
    let mut there = Vec::new();
    for &family in families {
        if kernel.table_exists(family, table)? {
            there.push(family);
        }
    }
    if there.is_empty() {
        return Ok(there);
    }
    // Whoever set out before that was in force.
    wait_for_packets();
    let mut uncalled = Transaction::new(table);
    for &family in &there {
        for chain in base_chains(kernel, family, table)? {
            uncalled.delete_chain(family, &chain);
        }
    }
    if !uncalled.is_empty() {
        kernel.apply(uncalled, report)?;
        wait_for_packets();
    }
    let mut gone = Transaction::new(table);
    for &family in &there {
        gone.delete_table(family);
    }
    kernel.apply(gone, report)?;
    Ok(there)
}

/// The names of the chains from which the kernel calls a table.
fn base_chains(kernel: &mut Kernel, family: Family, table: &str) -> Result<Vec<String>, CommitError> {
    let chains = all(kernel.socket()?, MessageType::GetChain, family, table, |chain| {
        find(chain, NFTA_CHAIN_HOOK)?;
        find(chain, NFTA_CHAIN_NAME).map(string)
    });
    chains.map_err(|errno| unreachable("list the chains", errno))
}

/// Returns when every packet that is in the rules now has left them.
fn wait_for_packets() {
    if let Err(errno) = grace_period() {
        tracing::debug!(%errno, "The kernel does not say when packets have left; waiting for a while");
        std::thread::sleep(LEAVE);
    }
}

/// Waits until every processor has left what it was in the middle of: packets are in the rules under RCU, and
/// `MEMBARRIER_CMD_GLOBAL` is a grace period of that. Not offered where processors are kept free of interruptions
/// (`nohz_full`), and without effect where there is just one.
fn grace_period() -> Result<(), Errno> {
    #[expect(unsafe_code, reason = "neither libc nor nix has membarrier")]
    // SAFETY: Reads and writes no memory.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    Errno::result(result)?;
    match std::fs::read_to_string("/sys/devices/system/cpu/online") {
        Ok(processors) if processors.trim().contains(['-', ',']) => Ok(()),
        _ => Err(Errno::ENOSYS),
    }
}
