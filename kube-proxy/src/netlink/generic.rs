//! Generic netlink: subsystems that are known by name, and whose messages have a command in their head.

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::{Attributes, Failure, Socket, attributes, begin_with, end, flag};

/// `GENL_ID_CTRL`, who knows the others.
const CONTROLLER: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// `genlmsghdr`, which begins the body of every message.
const GENLMSGHDR: usize = 4;

/// A socket for one subsystem.
#[derive(Debug)]
pub(crate) struct Generic {
    socket: Socket,
    family: u16,
}

impl Generic {
    /// Opens a socket for the subsystem of this name. `ENOENT`: the kernel has none of this name, not even as a
    /// module that it could load.
    pub(crate) fn open(name: &str) -> Result<Self, Errno> {
        let mut socket = Socket::open_to(SockProtocol::NetlinkGeneric)?;
        let mut family = None;
        socket.dump(&family_request(name), |body| family = family_of(body))?;
        let family = family.ok_or(Errno::ENOENT)?;
        Ok(Self { socket, family })
    }

    /// Requests to this subsystem.
    pub(crate) fn requests(&self) -> Requests {
        Requests {
            family: self.family,
            bytes: Vec::new(),
            count: 0,
        }
    }

    /// Sends requests, and returns the kernel's complaints about them. What it does not complain about it did.
    pub(crate) fn ask(&mut self, requests: &Requests) -> Result<Vec<Failure>, Errno> {
        self.socket.ask(&requests.bytes)
    }

    /// Asks for a list and passes on the attributes of each of its entries.
    pub(crate) fn list(
        &mut self,
        command: u8,
        body: impl FnOnce(&mut Attributes<'_>),
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), Errno> {
        let mut request = self.requests();
        request.add(command, flag::DUMP, body);
        let dump = self.socket.dump(&request.bytes, |entry| {
            each(entry.get(GENLMSGHDR..).unwrap_or_default());
        });
        if dump.is_err() {
            // What is left of the list may be under way.
            self.socket = Socket::open_to(SockProtocol::NetlinkGeneric)?;
        }
        dump
    }
}

/// Requests, numbered from 1, that are sent together. Unlike a transaction each of them counts by itself.
#[derive(Debug)]
pub(crate) struct Requests {
    family: u16,
    bytes: Vec<u8>,
    count: u32,
}

impl Requests {
    /// Appends a request and returns its number.
    pub(crate) fn add(&mut self, command: u8, flags: u16, body: impl FnOnce(&mut Attributes<'_>)) -> u32 {
        self.count += 1;
        let head = [command, 1, 0, 0];
        let start = begin_with(&mut self.bytes, self.family, flags, self.count, &head);
        body(&mut Attributes::at_end(&mut self.bytes));
        end(&mut self.bytes, start);
        self.count
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count as usize
    }

    /// The bytes to send.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Requests to a subsystem that was not looked up.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn to(family: u16) -> Self {
        Self {
            family,
            bytes: Vec::new(),
            count: 0,
        }
    }
}

/// The number of a subsystem, out of the answer to [`family_request`].
pub(super) fn family_of(body: &[u8]) -> Option<u16> {
    let mut all = attributes(body.get(GENLMSGHDR..)?);
    let (_, id) = all.find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID)?;
    Some(u16::from_ne_bytes(*id.first_chunk()?))
}

fn family_request(name: &str) -> Vec<u8> {
    let mut request = Requests {
        family: CONTROLLER,
        bytes: Vec::new(),
        count: 0,
    };
    // The acknowledgement ends the answer.
    request.add(CTRL_CMD_GETFAMILY, flag::ACK, |message| {
        message.string(CTRL_ATTR_FAMILY_NAME, name);
    });
    request.bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subsystem_is_found_by_its_name() {
        // The controller is one itself, in every kernel.
        let generic = Generic::open("nlctrl").unwrap();
        assert_eq!(generic.family, CONTROLLER);
        assert_eq!(Generic::open("nobody-has-this").unwrap_err(), Errno::ENOENT);
    }
}
