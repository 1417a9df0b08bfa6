//! What the kernel says about the tables of the legacy variant without a program of iptables: which there are, and
//! whether kube-proxy's chains are in them. So that an image without those programs can tell what it cannot remove.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::dataplane::iptables::tools::legacy_tables;
use crate::dataplane::leftovers::chains::TABLES;
use crate::model::object::Family;

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`, the same in IPv6.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
/// `XT_TABLE_MAXNAMELEN`: both structures begin with the table's name.
const NAME: usize = 32;
/// The length of `struct ipt_getinfo`, whose last field says how long the entries are.
const INFO: usize = 84;
/// Where the entries begin in `struct ipt_get_entries`, which says behind the name how long they are.
const ENTRIES: usize = 40;
/// A chain that every kube-proxy has in nat, in iptables mode and in IPVS mode.
const CHAIN: &[u8] = b"KUBE-POSTROUTING\0";

/// The tables of the legacy variant that exist in a family and that kube-proxy uses. They exist once somebody used them.
pub(super) fn tables(family: Family) -> Vec<&'static str> {
    let names = legacy_tables(family);
    let mut tables = TABLES.to_vec();
    tables.retain(|table| names.iter().any(|name| name == *table));
    tables
}

/// Whether these tables, which must exist, have a chain of kube-proxy's.
pub(super) fn holds_chains_of_kube_proxy(family: Family, tables: &[&str]) -> Result<bool, Errno> {
    let domain = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    let asked = socket(domain, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    for table in tables {
        let mut info = [0; INFO];
        info[..table.len()].copy_from_slice(table.as_bytes());
        ask(&asked, family, GET_INFO, &mut info)?;
        let length = info.last_chunk().map_or(0, |length| u32::from_ne_bytes(*length));
        let mut entries = vec![0; ENTRIES + length as usize];
        entries[..table.len()].copy_from_slice(table.as_bytes());
        entries[NAME..NAME + 4].copy_from_slice(&length.to_ne_bytes());
        ask(&asked, family, GET_ENTRIES, &mut entries)?;
        if entries.windows(CHAIN.len()).any(|bytes| bytes == CHAIN) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[expect(unsafe_code, reason = "nix knows no options of iptables")]
fn ask(socket: &OwnedFd, family: Family, option: libc::c_int, answer: &mut [u8]) -> Result<(), Errno> {
    let level = match family {
        Family::V4 => libc::SOL_IP,
        Family::V6 => libc::SOL_IPV6,
    };
    let mut length = libc::socklen_t::try_from(answer.len()).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the descriptor is open, and the kernel writes at most the given length, which is that of the slice.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            answer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    Errno::result(result).map(drop)
}
