//! The netlink socket: sends a transaction, tells what the kernel thought of it.
//!
//! The kernel handles a batch inside the call that sends it, so every reply is waiting when the call returns
//! and nothing here blocks.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sockopt,
};

use super::encode::{MessageType, attributes, flag, request};
use super::entry::{NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_EXPIRATION, NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_TIMEOUT};
use crate::model::object::Family;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSG_HEADER: usize = 16;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;
/// `nfgenmsg`, which begins the body of nf_tables' messages.
const NFGENMSG: usize = 4;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_DATA_VALUE: u16 = 1;
/// How often a dump is begun anew because other transactions came in between.
const DUMP_ATTEMPTS: usize = 8;
/// Room for the errors of some thousand refused messages.
const RECEIVE_BUFFER: usize = 4 << 20;

/// One complaint of the kernel about a transaction, which then had no effect at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Sequence number of the message; 0 when no single message is to blame.
    pub(super) sequence: u32,
    /// The reason.
    pub(super) errno: Errno,
    /// Offset, in the message, of the attribute to blame. Old kernels do not tell.
    pub(super) offset: Option<u32>,
    /// The kernel's own words, when it has some.
    pub(super) text: Option<String>,
}

impl Failure {
    /// The reason, readable.
    pub(super) fn reason(&self) -> String {
        match &self.text {
            Some(text) => format!("{} ({:?}): {text}", self.errno.desc(), self.errno),
            None => format!("{} ({:?})", self.errno.desc(), self.errno),
        }
    }
}

/// One element of a set or map, as the kernel lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// The fields of the key, each padded to a register.
    pub(super) key: Vec<u8>,
    /// The same of the value; empty in a set.
    pub(super) value: Vec<u8>,
    /// After how long without use it goes; zero for never.
    pub(super) timeout: Duration,
    /// How much of that is left.
    pub(super) left: Duration,
}

/// A netlink socket for nf_tables, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    /// The longest transaction that fits in the send buffer.
    room: usize,
}

impl Socket {
    pub(super) fn open() -> Result<Self, Errno> {
        let fd = socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            switch(&fd, option, true)?;
        }
        // Without the right to force it the default has to do; the first transaction will tell.
        let _ = socket::setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        Ok(Self { fd, room: 0 })
    }

    /// Sends one transaction whose last message has the number `last`. An empty answer means that it is in
    /// force; otherwise nothing of it is.
    pub(super) fn transact(&mut self, batch: &[u8], last: u32) -> Result<Vec<Failure>, Errno> {
        self.make_room(batch.len())?;
        self.send(batch)?;
        let replies = self.drain()?;
        let failures: Vec<_> = replies
            .iter()
            .filter(|reply| reply.errno != Errno::from_raw(0))
            .cloned()
            .collect();
        let accepted = replies.iter().any(|reply| reply.sequence == last);
        if failures.is_empty() && !accepted {
            // The acknowledgement is missing: what is in force is unknown.
            return Err(Errno::ENOMSG);
        }
        Ok(failures)
    }

    /// Whether a table of this name exists.
    pub(super) fn table_exists(&mut self, family: Family, name: &str) -> Result<bool, Errno> {
        self.send(&request(
            (MessageType::GetTable, flag::ACK),
            family,
            1,
            |message| {
                message.string(NFTA_TABLE_NAME, name);
            },
        ))?;
        match self
            .drain()?
            .into_iter()
            .find(|reply| reply.errno != Errno::from_raw(0))
        {
            None => Ok(true),
            Some(reply) if reply.errno == Errno::ENOENT => Ok(false),
            Some(reply) => Err(reply.errno),
        }
    }

    /// The elements of a set or map; none when it, or the table, is not there.
    pub(super) fn elements(&mut self, family: Family, table: &str, set: &str) -> Result<Vec<Element>, Errno> {
        for _ in 0..DUMP_ATTEMPTS {
            let dump = (MessageType::GetElement, flag::DUMP);
            self.send(&request(dump, family, 1, |message| {
                message.string(NFTA_TABLE_NAME, table);
                message.string(NFTA_SET_NAME, set);
            }))?;
            match self.dumped() {
                // Another transaction came in between.
                Ok(None) => {}
                Ok(Some(elements)) => return Ok(elements),
                Err(Errno::ENOENT) => return Ok(Vec::new()),
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::EINTR)
    }

    /// Receives a dump to its end; `None` when it is not of one moment.
    fn dumped(&self) -> Result<Option<Vec<Element>>, Errno> {
        let mut elements = Vec::new();
        let mut consistent = true;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = match socket::recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                received => received?,
            };
            for message in messages(&buffer[..length]) {
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => return Ok(consistent.then_some(elements)),
                    NLMSG_ERROR => {
                        let errno = message
                            .body
                            .first_chunk::<4>()
                            .map_or(0, |e| -i32::from_ne_bytes(*e));
                        return Err(Errno::from_raw(errno));
                    }
                    _ => read_elements(message.body, &mut elements),
                }
            }
        }
    }

    /// Makes the kernel as tight-lipped as an old one: no attribute to blame, no words.
    #[cfg(test)]
    pub(super) fn tell_less(&self) {
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

    /// Every acknowledgement and error that is waiting.
    fn drain(&self) -> Result<Vec<Failure>, Errno> {
        let mut replies = Vec::new();
        let mut buffer = vec![0; 1 << 14];
        loop {
            match socket::recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => parse_replies(&buffer[..length], &mut replies),
                Err(Errno::EAGAIN) => return Ok(replies),
                // More errors than the buffer holds: those that are there suffice to go on.
                Err(Errno::EINTR | Errno::ENOBUFS) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// One message that was received.
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

/// Cuts what was received into messages.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<NLMSG_HEADER>()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let message = Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            body: bytes.get(NLMSG_HEADER..length).unwrap_or_default(),
        };
        bytes = bytes
            .get(length.max(NLMSG_HEADER).next_multiple_of(4)..)
            .unwrap_or_default();
        Some(message)
    })
}

/// Reads the elements that a message of a dump lists.
fn read_elements(body: &[u8], elements: &mut Vec<Element>) {
    let find = |bytes, wanted| {
        attributes(bytes)
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, value)| value)
    };
    let listed = find(
        body.get(NFGENMSG..).unwrap_or_default(),
        NFTA_SET_ELEM_LIST_ELEMENTS,
    );
    for (_, element) in attributes(listed.unwrap_or_default()) {
        let value = |kind| find(find(element, kind)?, NFTA_DATA_VALUE);
        let time = |kind| {
            let milliseconds = find(element, kind)?.first_chunk().copied()?;
            Some(Duration::from_millis(u64::from_be_bytes(milliseconds)))
        };
        elements.push(Element {
            key: value(NFTA_SET_ELEM_KEY).unwrap_or_default().to_vec(),
            value: value(NFTA_SET_ELEM_DATA).unwrap_or_default().to_vec(),
            timeout: time(NFTA_SET_ELEM_TIMEOUT).unwrap_or_default(),
            left: time(NFTA_SET_ELEM_EXPIRATION).unwrap_or_default(),
        });
    }
}

/// Collects the acknowledgements (reason 0) and errors in what was received.
fn parse_replies(bytes: &[u8], replies: &mut Vec<Failure>) {
    for Message {
        kind,
        flags,
        sequence,
        body,
    } in messages(bytes)
    {
        if kind == NLMSG_ERROR
            && let Some((errno, rest)) = body.split_first_chunk::<4>()
        {
            let mut reply = Failure {
                sequence,
                errno: Errno::from_raw(-i32::from_ne_bytes(*errno)),
                offset: None,
                text: None,
            };
            if flags & NLM_F_ACK_TLVS != 0 {
                extended(rest, flags & NLM_F_CAPPED != 0, &mut reply);
            }
            replies.push(reply);
        }
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
