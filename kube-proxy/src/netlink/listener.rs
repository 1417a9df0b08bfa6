//! A socket that hears what others ask of the kernel: multicast groups of netlink.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sockopt,
};

use super::message::{Message, messages};

/// Room for what a burst of others' changes says before anybody listens; used only while it waits.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Longer than any message of the kernel.
const LONGEST: usize = 1 << 16;
/// Where `nlmsghdr` has the port of the socket that asked.
const SENDER: u32 = 12;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Listener {
    fd: Arc<OwnedFd>,
    buffer: Vec<u8>,
    /// Somebody waits for what it hears.
    awaited: bool,
}

impl Listener {
    /// Hears groups of those who speak this protocol, in the network namespace of this thread. What the socket with the
    /// port `own` does is left out by the kernel, so that it takes no room and wakes nobody; not all who speak netlink
    /// say whose doing something was, though.
    pub(crate) fn open(protocol: SockProtocol, groups: &[u32], own: u32) -> Result<Self, Errno> {
        let fd = socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            protocol,
        )?;
        // Without the right to force it the default has to do.
        let _ = socket::setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        leave_out(&fd, own)?;
        let groups = groups.iter().fold(0, |all, group| all | 1 << (group - 1));
        socket::bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Self {
            fd: Arc::new(fd),
            buffer: vec![0; LONGEST],
            awaited: false,
        })
    }

    /// Another descriptor of the socket, to wait for what it hears.
    pub(crate) fn descriptor(&self) -> std::io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// The same, for the first who asks.
    pub(crate) fn first_descriptor(&mut self) -> Option<std::io::Result<OwnedFd>> {
        let is_first = !std::mem::replace(&mut self.awaited, true);
        is_first.then(|| self.descriptor())
    }

    /// Lets others say whose messages are left out.
    pub(crate) fn filter(&self) -> Filter {
        Filter(Arc::clone(&self.fd))
    }

    /// Passes on all that was heard. Whether some of it was lost.
    pub(crate) fn hear(&mut self, mut each: impl FnMut(Message<'_>)) -> Result<bool, Errno> {
        let mut lost = false;
        loop {
            match socket::recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => messages(&self.buffer[..length]).for_each(&mut each),
                Err(Errno::EAGAIN) => return Ok(lost),
                Err(Errno::ENOBUFS) => lost = true,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Nobody's port but the kernel's, which asks itself for nothing.
pub(crate) const NOBODY: u32 = 0;
/// No socket's port, and not the kernel's either: what happens by itself is heard as well.
pub(crate) const NOT_EVEN_THE_KERNEL: u32 = u32::MAX;

/// Whose messages a [`Listener`] does not hear.
#[derive(Clone, Debug)]
pub(crate) struct Filter(Arc<OwnedFd>);

impl Filter {
    /// From now on those of the socket with this port, which for most programs is their process id, and nobody else's.
    pub(crate) fn leave_out(&self, port: u32) -> Result<(), Errno> {
        leave_out(&self.0, port)
    }
}

/// All messages that the kernel sends together are of one transaction, so the first tells whose they are.
#[expect(unsafe_code, reason = "nix knows no classic filters for sockets")]
fn leave_out(fd: &OwnedFd, port: u32) -> Result<(), Errno> {
    let step = |code: u32, otherwise: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt: 0,
        jf: otherwise,
        k,
    };
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, SENDER),
        // The load takes the bytes as a number of the network's order.
        step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            1,
            u32::from_be_bytes(port.to_ne_bytes()),
        ),
        step(libc::BPF_RET | libc::BPF_K, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: steps.as_mut_ptr(),
    };
    #[expect(clippy::cast_possible_truncation, reason = "the size of a small struct")]
    let size = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the program and its four steps live through the call, which copies them.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size,
        )
    };
    Errno::result(result).map(drop)
}
