//! Netlink, as far as all who speak it here share: how messages and attributes are framed, and a socket that
//! tells what the kernel thought of a request. What messages say is the business of those who send them.

mod attribute;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub(crate) mod generic;
mod listener;
mod message;
mod socket;

pub(crate) use self::attribute::{Attributes, attributes, ip};
pub(crate) use self::listener::{Filter, Listener, NOBODY, NOT_EVEN_THE_KERNEL};
pub(crate) use self::message::{Message, begin, begin_with, complaint, end, flag, messages, nfproto};
pub(crate) use self::socket::{Failure, Socket};
