//! What nf_tables is asked outside of transactions.

use nix::errno::Errno;

use super::encode::{MessageType, request};
use crate::model::object::Family;
use crate::netlink::flag;
pub(super) use crate::netlink::{Failure, Socket};

const NFTA_TABLE_NAME: u16 = 1;

impl Socket {
    /// Whether a table of this name exists.
    pub(super) fn table_exists(&mut self, family: Family, name: &str) -> Result<bool, Errno> {
        let failures = self.ask(&request(
            (MessageType::GetTable, flag::ACK),
            family,
            1,
            |message| {
                message.string(NFTA_TABLE_NAME, name);
            },
        ))?;
        match failures.first() {
            None => Ok(true),
            Some(failure) if failure.errno == Errno::ENOENT => Ok(false),
            Some(failure) => Err(failure.errno),
        }
    }
}
