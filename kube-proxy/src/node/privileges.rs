//! The capabilities of this process, and how it gives up all that a proxy does not need once it is initialised. The
//! kernel keeps them for each thread, so a thread that is to have less must give up before it starts others.
//!
//! Programs that it starts (those of iptables, credential plugins) have what the thread has that starts them, and
//! cannot gain anything: `no_new_privs` is set, and where the kernel lets us the bounding set is as small.

use std::{fmt, io};

use tracing::debug;

use crate::config::{Config, Mode};

/// A set of capabilities, a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(u64);

const NET_BIND_SERVICE: u32 = 10;
const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;
/// The kernel has at most so many.
const MOST: u32 = 64;
/// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 bits in each set.
const VERSION: u32 = 0x2008_0522;
/// Ports below need a capability to be listened on.
const FIRST_FREE_PORT: u16 = 1024;

impl Capabilities {
    /// What a proxy with this configuration needs for as long as it runs: to program the network, for the programs of
    /// iptables to read the legacy tables by a raw socket, and to listen on a low port if one is configured.
    pub fn of_proxy(config: &Config) -> Self {
        let mut needed = 1 << NET_ADMIN;
        if config.mode == Mode::Iptables {
            needed |= 1 << NET_RAW;
        }
        let servers = [config.healthz_address, Some(config.metrics_address)];
        if servers
            .iter()
            .flatten()
            .any(|server| server.port() < FIRST_FREE_PORT)
        {
            needed |= 1 << NET_BIND_SERVICE;
        }
        Self(needed)
    }

    /// What it takes to remove what any mode left.
    pub fn of_cleanup() -> Self {
        Self(1 << NET_ADMIN | 1 << NET_RAW)
    }

    fn each(self) -> impl Iterator<Item = u32> {
        (0..MOST).filter(move |number| self.0 & (1 << number) != 0)
    }
}

impl fmt::Display for Capabilities {
    /// `CAP_NET_ADMIN,CAP_NET_RAW`, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.each().map(|number| match number {
            NET_BIND_SERVICE => "CAP_NET_BIND_SERVICE".to_owned(),
            NET_ADMIN => "CAP_NET_ADMIN".to_owned(),
            NET_RAW => "CAP_NET_RAW".to_owned(),
            other => other.to_string(),
        });
        let names: Vec<String> = names.collect();
        f.write_str(
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(",")
            }
            .as_str(),
        )
    }
}

/// Makes use of all that this thread is permitted: a program may have them from its file without their being in effect.
pub fn use_permitted() {
    let raised = get().and_then(|sets| {
        set(Sets {
            effective: sets.permitted,
            ..sets
        })
    });
    if let Err(err) = raised {
        debug!(%err, "Cannot use the permitted capabilities");
    }
}

/// Gives up everything but `keep`, for this thread, the threads that it starts from now on, and the programs. What it
/// has then: of what is not permitted nothing can be kept.
///
/// # Errors
/// When the kernel refuses to take something back.
pub fn give_up_all_but(keep: Capabilities) -> io::Result<Capabilities> {
    let permitted = get()?.permitted;
    let kept = Capabilities(permitted & keep.0);
    // As long as it may: without CAP_SETPCAP the bounding set stays, and no_new_privs alone bounds the programs.
    for number in (0..MOST).filter(|number| keep.0 & (1 << number) == 0) {
        if prctl(libc::PR_CAPBSET_DROP, number, 0).is_err() {
            break;
        }
    }
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_CLEAR_ALL.cast_unsigned(),
        0,
    )?;
    set(Sets {
        effective: kept.0,
        permitted: kept.0,
        inheritable: kept.0,
    })?;
    for number in kept.each() {
        // Refused where ambient capabilities are forbidden; programs that another user than root starts have none then.
        if let Err(err) = prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_RAISE.cast_unsigned(),
            number,
        ) {
            debug!(%err, capability = number, "A capability cannot be passed on to programs");
        }
    }
    Ok(kept)
}

/// The sets of a thread.
#[derive(Clone, Copy, Debug)]
struct Sets {
    effective: u64,
    permitted: u64,
    inheritable: u64,
}

/// `__user_cap_header_struct`, for this thread.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

const THIS_THREAD: Header = Header {
    version: VERSION,
    pid: 0,
};

/// `__user_cap_data_struct`: half of each set.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn get() -> io::Result<Sets> {
    let mut header = THIS_THREAD;
    let mut halves = [Half::default(); 2];
    #[expect(unsafe_code, reason = "neither libc nor nix has capget")]
    // SAFETY: both point to structures of the kernel's layout that outlive the call; version 3 fills two halves.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let [low, high] = halves;
    let join = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    Ok(Sets {
        effective: join(low.effective, high.effective),
        permitted: join(low.permitted, high.permitted),
        inheritable: join(low.inheritable, high.inheritable),
    })
}

fn set(sets: Sets) -> io::Result<()> {
    let mut header = THIS_THREAD;
    #[expect(clippy::cast_possible_truncation, reason = "each is a half")]
    let half = |shift: u32| Half {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let halves = [half(0), half(32)];
    #[expect(unsafe_code, reason = "neither libc nor nix has capset")]
    // SAFETY: both point to structures of the kernel's layout that outlive the call; version 3 reads two halves.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_ptr()) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn prctl(option: libc::c_int, second: u32, third: u32) -> io::Result<()> {
    let [second, third, zero] = [second, third, 0].map(libc::c_ulong::from);
    #[expect(unsafe_code, reason = "nix has no prctl for capabilities")]
    // SAFETY: numbers alone; none of the options reads or writes memory.
    let result = unsafe { libc::prctl(option, second, third, zero, zero) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
