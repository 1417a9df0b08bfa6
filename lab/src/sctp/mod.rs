//! SCTP as servers and probes of the lab speak it: by real associations where the kernel has SCTP sockets, else by the
//! INIT and INIT ACK that begin one ([`packet`]). Any netfilter with CONFIG_NF_CT_PROTO_SCTP tracks and rewrites both.

mod packet;

use std::sync::LazyLock;

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

pub(crate) use packet::Packet;

/// Whether this kernel has SCTP sockets. Asking makes it load the module, if there is one.
pub fn has_sockets() -> bool {
    static HAS: LazyLock<bool> = LazyLock::new(|| {
        let flags = SockFlag::SOCK_CLOEXEC;
        socket(AddressFamily::Inet, SockType::Stream, flags, SockProtocol::Sctp).is_ok()
    });
    *HAS
}
