//! The ipsets of upstream's IPVS mode: which those are, and how they go. No program of ipset is needed for it.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use tracing::info;

use crate::dataplane::CommitError;
use crate::netlink::{Attributes, Failure, Socket, attributes, begin, end, flag};

/// `NFNL_SUBSYS_IPSET`.
const SUBSYSTEM: u16 = 6;
const DESTROY: u16 = SUBSYSTEM << 8 | 3;
const LIST: u16 = SUBSYSTEM << 8 | 7;
const NFGENMSG: usize = 4;
const ATTR_PROTOCOL: u16 = 1;
const ATTR_SETNAME: u16 = 2;
const ATTR_FLAGS: u16 = 6;
/// The version that every kernel takes.
const PROTOCOL: u8 = 6;
const LIST_SETNAME: u32 = 1 << 1;
/// `AF_INET`, as ipset's own program has it in requests that are about no family.
const UNSPECIFIC: (u8, u16) = (2, 0);

/// There once the kernel has ipset, loaded or built in. Asking it would load it.
const MODULE: &str = "/sys/module/ip_set";
/// A rule that is deleted lets go of its sets a moment later.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// What follows `KUBE-` in IPv4 and `KUBE-6-` in IPv6. By name, since others have sets that begin so, too.
const SETS: [&str; 18] = [
    "CLUSTER-IP",
    "EXTERNAL-IP",
    "EXTERNAL-IP-LOCAL",
    "HEALTH-CHECK-NODE-PORT",
    "IPVS-IPS",
    "LOAD-BALANCER",
    "LOAD-BALANCER-FW",
    "LOAD-BALANCER-LOCAL",
    "LOAD-BALANCER-SOURCE-CIDR",
    "LOAD-BALANCER-SOURCE-IP",
    "LOOP-BACK",
    "NODE-PORT-LOCAL-SCTP-HASH",
    "NODE-PORT-LOCAL-TCP",
    "NODE-PORT-LOCAL-UDP",
    "NODE-PORT-SCTP",
    "NODE-PORT-SCTP-HASH",
    "NODE-PORT-TCP",
    "NODE-PORT-UDP",
];
/// The longest name that ipset takes; longer ones were cut.
const LONGEST: usize = 31;

fn is_of_kube_proxy(name: &str) -> bool {
    SETS.iter().any(|set| {
        ["KUBE-", "KUBE-6-"].into_iter().any(|prefix| {
            let whole = format!("{prefix}{set}");
            name == whole.get(..LONGEST).unwrap_or(&whole)
        })
    })
}

/// Destroys the sets of kube-proxy. The rules that use them have to be gone.
///
/// # Errors
/// When the kernel refuses: a rule still uses one of them, or nobody here may ask.
pub(super) fn remove() -> Result<(), CommitError> {
    if !Path::new(MODULE).exists() {
        return Ok(());
    }
    let refused = |tried: &str, reason: String| CommitError::Refused {
        tried: tried.to_owned(),
        reason,
    };
    let failed = |errno: Errno| match errno {
        Errno::EPERM | Errno::EACCES => CommitError::Permission {
            tried: "remove ipsets".to_owned(),
            capabilities: "CAP_NET_ADMIN",
        },
        errno => refused("remove ipsets", format!("{} ({errno:?})", errno.desc())),
    };
    let mut socket = Socket::open().map_err(failed)?;
    let ours: Vec<String> = names(&mut socket)
        .map_err(failed)?
        .into_iter()
        .filter(|name| is_of_kube_proxy(name))
        .collect();
    for name in &ours {
        if let Some(failure) = destroy(&mut socket, name).map_err(failed)? {
            return Err(match failure.errno {
                Errno::EPERM | Errno::EACCES => failed(failure.errno),
                // ipset's own errors have numbers that nobody else knows.
                Errno::UnknownErrno => {
                    refused(&format!("remove the ipset {name}"), "a rule uses it".to_owned())
                }
                _ => refused(&format!("remove the ipset {name}"), failure.reason()),
            });
        }
    }
    if !ours.is_empty() {
        info!(
            sets = ours.len(),
            "Removed the ipsets that a kube-proxy in IPVS mode left"
        );
    }
    Ok(())
}

/// The names of all sets.
fn names(socket: &mut Socket) -> Result<BTreeSet<String>, Errno> {
    let mut names = BTreeSet::new();
    let request = request(LIST, flag::DUMP, |message| message.be32(ATTR_FLAGS, LIST_SETNAME));
    socket.dump(&request, |body| names.extend(name(body)))?;
    Ok(names)
}

/// The name of a listed set.
pub(in crate::dataplane) fn name(body: &[u8]) -> Option<String> {
    let mut all = attributes(body.get(NFGENMSG..)?);
    let (_, name) = all.find(|(kind, _)| *kind == ATTR_SETNAME)?;
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    Some(String::from_utf8_lossy(name).into_owned())
}

/// Destroys a set; why not, if it is still there.
fn destroy(socket: &mut Socket, name: &str) -> Result<Option<Failure>, Errno> {
    let request = request(DESTROY, flag::ACK, |message| message.string(ATTR_SETNAME, name));
    let mut tries = 1;
    loop {
        let failure = socket.ask(&request)?.into_iter().next();
        match failure.as_ref().map(|failure| failure.errno) {
            None | Some(Errno::ENOENT) => return Ok(None),
            Some(Errno::UnknownErrno) if tries < TRIES => thread::sleep(PAUSE),
            Some(_) => return Ok(failure),
        }
        tries += 1;
    }
}

fn request(kind: u16, flags: u16, body: impl FnOnce(&mut Attributes<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let start = begin(&mut bytes, kind, flags, 1, UNSPECIFIC);
    let mut message = Attributes::at_end(&mut bytes);
    message.bytes(ATTR_PROTOCOL, &[PROTOCOL]);
    body(&mut message);
    end(&mut bytes, start);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_others_are_not_kube_proxys() {
        for name in [
            "KUBE-CLUSTER-IP",
            "KUBE-6-CLUSTER-IP",
            "KUBE-6-LOAD-BALANCER-SOURCE-CID",
            "KUBE-6-NODE-PORT-LOCAL-SCTP-HAS",
            "KUBE-LOAD-BALANCER-SOURCE-CIDR",
        ] {
            assert!(is_of_kube_proxy(name), "{name}");
        }
        for name in [
            "KUBE-SRC-ABCDEFGHIJKLMNOP",
            "KUBE-DST-ABCDEFGHIJKLMNOP",
            "KUBE-CLUSTER-IPS",
            "KUBE-",
            "KUBE-6-",
            "CLUSTER-IP",
            "KUBE-LOAD-BALANCER-SOURCE-CID",
        ] {
            assert!(!is_of_kube_proxy(name), "{name}");
        }
    }
}
