//! The netlink socket: sends requests, tells what the kernel thought of them.
//!
//! The kernel handles a request inside the call that sends it, so every reply is waiting when the call returns
//! and nothing here blocks. Of a dump one part is waiting, and the next is made while that one is received.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sockopt,
};

use super::{attributes, complaint, messages};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSG_HEADER: usize = 16;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;
/// Room for the errors of some thousand refused messages.
const RECEIVE_BUFFER: usize = 4 << 20;
/// The kernel makes the parts of a dump as long as what it is given to fill, but never longer than this.
const DUMP_PART: usize = 1 << 15;

/// One complaint of the kernel about a message. Of a transaction that got one nothing has an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Sequence number of the message; 0 when no single message is to blame.
    pub(crate) sequence: u32,
    /// The reason.
    pub(crate) errno: Errno,
    /// Offset, in the message, of the attribute to blame. Old kernels do not tell.
    pub(crate) offset: Option<u32>,
    /// The kernel's own words, when it has some.
    pub(crate) text: Option<String>,
}

impl Failure {
    /// The reason, readable.
    pub(crate) fn reason(&self) -> String {
        match &self.text {
            Some(text) => format!("{} ({:?}): {text}", self.errno.desc(), self.errno),
            None => format!("{} ({:?})", self.errno.desc(), self.errno),
        }
    }
}

/// A netlink socket, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    /// The longest transaction that fits in the send buffer.
    room: usize,
}

impl Socket {
    /// For netfilter's subsystems.
    pub(crate) fn open() -> Result<Self, Errno> {
        Self::open_to(SockProtocol::NetlinkNetFilter)
    }

    /// For whoever speaks this protocol.
    pub(crate) fn open_to(protocol: SockProtocol) -> Result<Self, Errno> {
        let fd = socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )?;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            switch(&fd, option, true)?;
        }
        // Without the right to force it the default has to do; the first transaction will tell.
        let _ = socket::setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        Ok(Self { fd, room: 0 })
    }

    /// The port by which the kernel knows it, once something was sent.
    pub(crate) fn port(&self) -> Result<u32, Errno> {
        socket::getsockname::<NetlinkAddr>(self.fd.as_raw_fd()).map(|address| address.pid())
    }

    /// Sends one transaction whose last message has the number `last`. An empty answer means that it is in
    /// force; otherwise nothing of it is.
    pub(crate) fn transact(&mut self, batch: &[u8], last: u32) -> Result<Vec<Failure>, Errno> {
        self.make_room(batch.len())?;
        self.send(batch)?;
        let replies = self.drain(|_, _| {})?;
        if replies.failures.is_empty() && !replies.acknowledged.contains(&last) {
            // The acknowledgement is missing: what is in force is unknown.
            return Err(Errno::ENOMSG);
        }
        Ok(replies.failures)
    }

    /// Sends single messages, and returns the kernel's complaints about them, in order.
    pub(crate) fn ask(&mut self, messages: &[u8]) -> Result<Vec<Failure>, Errno> {
        self.ask_for(messages, |_, _| {})
    }

    /// As [`Socket::ask`], and passes on each message that comes as an answer: the number of the request, and
    /// what follows its head.
    pub(crate) fn ask_for(
        &mut self,
        messages: &[u8],
        each: impl FnMut(u32, &[u8]),
    ) -> Result<Vec<Failure>, Errno> {
        self.make_room(messages.len())?;
        self.send(messages)?;
        Ok(self.drain(each)?.failures)
    }

    /// Sends the request for a dump and passes on each message that comes, without its head. Takes one buffer,
    /// however much there is. After an error the rest of the dump may be under way: the socket must not be
    /// used for another. An interrupted dump, which may have left something out, ends with `EINTR`, one that
    /// breaks off with `ENOBUFS`.
    pub(crate) fn dump(&mut self, request: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Errno> {
        self.send(request)?;
        let mut buffer = vec![0; DUMP_PART];
        let mut interrupted = false;
        loop {
            let length = match socket::recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                // The kernel had no memory for the next part, and said so to an earlier call or says so now.
                Err(Errno::EAGAIN) => return Err(Errno::ENOBUFS),
                Err(errno) => return Err(errno),
            };
            if let Some(end) = pass_on(&buffer[..length], &mut interrupted, &mut each) {
                return end;
            }
        }
    }

    /// Makes the kernel as tight-lipped as an old one: no attribute to blame, no words.
    #[cfg(test)]
    pub(crate) fn tell_less(&self) {
        switch(&self.fd, libc::NETLINK_EXT_ACK, false).unwrap();
    }

    /// Lets the socket take a message of this length: the default buffer refuses some hundred Services.
    fn make_room(&mut self, length: usize) -> Result<(), Errno> {
        if length > self.room {
            let room = length.next_power_of_two().max(1 << 17);
            if socket::setsockopt(&self.fd, sockopt::SndBufForce, &room).is_err() {
                // In a user namespace of one's own the limit of the system stands.
                socket::setsockopt(&self.fd, sockopt::SndBuf, &room)?;
            }
            self.room = room;
        }
        Ok(())
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        let kernel = NetlinkAddr::new(0, 0);
        loop {
            match socket::sendto(self.fd.as_raw_fd(), bytes, &kernel, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Every acknowledgement and error that is waiting; passes on what else is.
    fn drain(&self, mut each: impl FnMut(u32, &[u8])) -> Result<Replies, Errno> {
        let mut replies = Replies::default();
        let mut buffer = vec![0; 1 << 14];
        loop {
            match socket::recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => parse_replies(&buffer[..length], &mut replies, &mut each),
                Err(Errno::EAGAIN) => return Ok(replies),
                // More errors than the buffer holds: those that are there suffice to go on.
                Err(Errno::EINTR | Errno::ENOBUFS) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Passes on the messages in one part of a dump. How the dump ended, if this was its last part.
pub(super) fn pass_on(
    bytes: &[u8],
    interrupted: &mut bool,
    each: &mut impl FnMut(&[u8]),
) -> Option<Result<(), Errno>> {
    for message in messages(bytes) {
        *interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
        if !matches!(message.kind, NLMSG_ERROR | NLMSG_DONE) {
            each(message.body());
            continue;
        }
        return Some(match complaint(message.body()) {
            None if *interrupted => Err(Errno::EINTR),
            None => Ok(()),
            Some(errno) => Err(errno),
        });
    }
    None
}

/// What the kernel thought of requests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Replies {
    pub(super) failures: Vec<Failure>,
    /// Sequence numbers of messages that it has no complaint about.
    pub(super) acknowledged: Vec<u32>,
}

/// Collects the acknowledgements and errors in what was received, and passes on the rest.
pub(super) fn parse_replies(bytes: &[u8], replies: &mut Replies, each: &mut impl FnMut(u32, &[u8])) {
    for message in messages(bytes) {
        if message.kind != NLMSG_ERROR {
            each(message.sequence, message.body());
            continue;
        }
        let Some((_, rest)) = message.body().split_first_chunk::<4>() else {
            continue;
        };
        let Some(errno) = complaint(message.body()) else {
            replies.acknowledged.push(message.sequence);
            continue;
        };
        let mut failure = Failure {
            sequence: message.sequence,
            errno,
            offset: None,
            text: None,
        };
        if message.flags & NLM_F_ACK_TLVS != 0 {
            extended(rest, message.flags & NLM_F_CAPPED != 0, &mut failure);
        }
        replies.failures.push(failure);
    }
}

/// The attributes behind the echoed message: what is to blame, and the kernel's words.
fn extended(echo: &[u8], capped: bool, reply: &mut Failure) {
    let echoed = match echo.first_chunk::<4>() {
        Some(length) if !capped => u32::from_ne_bytes(*length) as usize,
        _ => NLMSG_HEADER,
    };
    for (kind, value) in attributes(echo.get(echoed.next_multiple_of(4)..).unwrap_or_default()) {
        match (kind, value) {
            (NLMSGERR_ATTR_OFFS, &[a, b, c, d]) => reply.offset = Some(u32::from_ne_bytes([a, b, c, d])),
            (NLMSGERR_ATTR_MSG, text) => {
                let text = text.strip_suffix(&[0]).unwrap_or(text);
                reply.text = Some(String::from_utf8_lossy(text).into_owned());
            }
            _ => {}
        }
    }
}

#[expect(unsafe_code, reason = "nix knows no netlink options")]
fn switch(fd: &OwnedFd, option: libc::c_int, on: bool) -> Result<(), Errno> {
    let on = libc::c_int::from(on);
    #[expect(clippy::cast_possible_truncation, reason = "the size of an int")]
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the value is an int of the given size that lives through the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size,
        )
    };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{begin, end};

    /// A part of a dump: each message with its type, flags and a number as its body.
    fn part(all: &[(u16, u16, i32)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, flags, body) in all {
            let start = begin(&mut bytes, *kind, *flags, 1, (0, 0));
            bytes.truncate(start + NLMSG_HEADER);
            bytes.extend_from_slice(&body.to_ne_bytes());
            end(&mut bytes, start);
        }
        bytes
    }

    #[test]
    fn only_zero_acknowledges_whatever_the_other_numbers_are() {
        // The second is ipset's own, of a set that is in use.
        let numbers = [0, -4101, i32::MIN, -libc::EPERM];
        let messages = numbers.map(|number| (NLMSG_ERROR, 0, number));
        let mut replies = Replies::default();
        parse_replies(&part(&messages), &mut replies, &mut |_, _| panic!("an answer"));
        let failures: Vec<_> = replies.failures.iter().map(|failure| failure.errno).collect();
        assert_eq!(failures, [Errno::UnknownErrno, Errno::UnknownErrno, Errno::EPERM]);
        assert_eq!(replies.acknowledged, [1]);
    }

    #[test]
    fn a_dump_ends_with_its_last_message_and_says_when_it_is_not_whole() {
        const ENTRY: u16 = 0x100;
        const DENIED: i32 = -libc::EPERM;
        struct Case<'a> {
            parts: &'a [&'a [(u16, u16, i32)]],
            entries: usize,
            ended: Option<Result<(), Errno>>,
        }
        let case = |parts, entries, ended| Case {
            parts,
            entries,
            ended,
        };
        let table = [
            case(&[&[(ENTRY, 0, 7), (ENTRY, 0, 8)]], 2, None),
            case(&[&[(ENTRY, 0, 7)], &[(NLMSG_DONE, 0, 0)]], 1, Some(Ok(()))),
            case(&[&[(NLMSG_DONE, 0, 0), (ENTRY, 0, 7)]], 0, Some(Ok(()))),
            case(&[&[(NLMSG_ERROR, 0, DENIED)]], 0, Some(Err(Errno::EPERM))),
            case(
                &[&[(ENTRY, 0, 7), (NLMSG_DONE, 0, DENIED)]],
                1,
                Some(Err(Errno::EPERM)),
            ),
            case(
                &[
                    &[(ENTRY, NLM_F_DUMP_INTR, 7)],
                    &[(ENTRY, 0, 8), (NLMSG_DONE, 0, 0)],
                ],
                2,
                Some(Err(Errno::EINTR)),
            ),
        ];
        for Case {
            parts,
            entries,
            ended,
        } in table
        {
            let (mut interrupted, mut seen) = (false, 0);
            let last = parts
                .iter()
                .map(|messages| pass_on(&part(messages), &mut interrupted, &mut |_| seen += 1));
            assert_eq!(last.last().flatten(), ended, "{parts:?}");
            assert_eq!(seen, entries, "{parts:?}");
        }
    }
}
