//! The lab on another kernel: Debian's packaged one, in a machine that QEMU emulates.
//!
//! The kernel of the machine that tests run on is one of many, and may lack IPVS, `dummy` interfaces or SCTP sockets. So
//! a program that is linked with this library can be run as the only program of a guest: it is the guest's first
//! process as well ([`init`]), and what it starts there are the kube-proxy, `ip`, `nft` and iptables of this
//! machine, packed into the guest's memory file system under their own paths. Nothing is installed, nothing is
//! written but files that have no name, and the guest has no network but the one that a lab makes inside it.
//!
//! The guest's clock counts instructions (one a nanosecond) and jumps over time in which nothing happens. So a busy
//! machine makes a guest late for nobody but the person who waits, and waiting costs nothing in it: timeouts are
//! reached, or not, by what the programs do. Instructions cost 20 to 50 times as much as without emulation.
//!
//! Why not user-mode Linux, which is faster: Debian's `user-mode-linux` is built without any family of nf_tables, so
//! neither the nftables mode nor today's iptables run on it.

mod cpio;
mod guest;
mod image;
pub mod init;
mod modules;
pub mod round;
pub mod unit_tests;

pub use guest::{End, Guest};
pub use image::Kernel;
pub use round::{Programs, Round};
