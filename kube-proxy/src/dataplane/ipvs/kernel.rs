//! The kernel as this process left it, and the sockets to change it by.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nix::errno::Errno;

use super::device::Device;
use super::entry::At;
use super::message::{self, FAMILY, Listed, command};
use super::steps::Held;
use crate::dataplane::CommitError;
use crate::model::object::Family;
use crate::netlink::generic::Generic;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) ipvs: Generic,
    pub(super) device: Device,
    /// Virtual servers and addresses that are there. Those of others are not among them.
    pub(super) servers: BTreeMap<At, Held>,
    pub(super) addresses: BTreeSet<IpAddr>,
    /// A predecessor may serve until the first commit.
    pub(super) takes_over: bool,
    /// The virtual server whose endpoints were looked at last.
    pub(super) looked_at: Option<At>,
}

impl Kernel {
    /// Opens the sockets, in the network namespace of this thread. Changes nothing.
    pub(super) fn open() -> Result<Self, CommitError> {
        let ipvs = Generic::open(FAMILY).map_err(|errno| failed("reach IPVS", errno))?;
        let device = Device::open().map_err(|errno| failed("open a socket for route netlink", errno))?;
        Ok(Self {
            ipvs,
            device,
            servers: BTreeMap::new(),
            addresses: BTreeSet::new(),
            takes_over: false,
            looked_at: None,
        })
    }

    /// Reads what is there, apart from virtual servers that are not to be touched.
    pub(super) fn read(&mut self, is_ours: impl Fn(At) -> bool) -> Result<(), CommitError> {
        let mut servers = self.read_without_endpoints(is_ours)?;
        for (at, held) in &mut servers {
            let endpoints = self.endpoints(*at)?;
            held.endpoints = endpoints
                .into_iter()
                .map(|listed| (listed.backend, listed.weight))
                .collect();
        }
        self.servers = servers;
        Ok(())
    }

    /// Reads the addresses, and returns the virtual servers, as if none had endpoints: asking for those takes a request each.
    pub(super) fn read_without_endpoints(
        &mut self,
        is_ours: impl Fn(At) -> bool,
    ) -> Result<BTreeMap<At, Held>, CommitError> {
        let addresses = self.device.addresses();
        self.addresses = addresses.map_err(|errno| failed("list addresses", errno))?;
        let mut servers = BTreeMap::new();
        let listed = self.ipvs.list(
            command::GET_SERVICE,
            |_| {},
            |entry| {
                servers.extend(message::server(entry).filter(|(at, _)| is_ours(*at)));
            },
        );
        listed.map_err(|errno| failed("list the virtual servers of IPVS", errno))?;
        Ok(servers)
    }

    /// The endpoints of a virtual server as the kernel has them; none if it is gone.
    pub(super) fn endpoints(&mut self, at: At) -> Result<Vec<Listed>, CommitError> {
        let mut endpoints = Vec::new();
        let family = Family::of(at.ip);
        let listed = self.ipvs.list(
            command::GET_DEST,
            |message| message::endpoints_of(at, message),
            |entry| endpoints.extend(message::listed(entry, family)),
        );
        match listed {
            Ok(()) | Err(Errno::ESRCH) => Ok(endpoints),
            Err(errno) => Err(failed(&format!("list the endpoints of {at}"), errno)),
        }
    }
}

/// The kernel could not even be asked.
pub(super) fn failed(tried: &str, errno: Errno) -> CommitError {
    let tried = tried.to_owned();
    let unsupported = |tried, feature: &str| CommitError::Unsupported {
        tried,
        feature: feature.to_owned(),
    };
    match errno {
        Errno::EPERM | Errno::EACCES => CommitError::Permission {
            tried,
            capabilities: "CAP_NET_ADMIN",
        },
        Errno::ENOENT | Errno::EPROTONOSUPPORT => unsupported(tried, "IPVS (module ip_vs, CONFIG_IP_VS)"),
        Errno::EOPNOTSUPP => unsupported(tried, "dummy devices (module dummy, CONFIG_DUMMY)"),
        errno => CommitError::Refused {
            tried,
            reason: format!("{} ({errno:?})", errno.desc()),
        },
    }
}
