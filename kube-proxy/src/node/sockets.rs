//! The sockets of this node's processes, as `/proc` lists them.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

/// The lists of connected sockets. (SCTP's has another form; its associations are not looked for.)
const LISTS: [&str; 4] = ["tcp", "tcp6", "udp", "udp6"];
/// States of sockets (`TCP_TIME_WAIT`, `TCP_CLOSE`, `TCP_LISTEN`) that have nobody to talk to, or not any more. A socket of
/// UDP that is connected is in the first state, others are closed.
const WITHOUT_PEER: [&str; 3] = ["06", "07", "0A"];

/// The addresses, of those asked for, that sockets in this thread's network namespace send from to a peer.
///
/// # Errors
/// When a list is there and cannot be read.
pub(crate) fn sources(is_asked_for: impl Fn(IpAddr) -> bool) -> io::Result<BTreeSet<IpAddr>> {
    let mut sources = BTreeSet::new();
    for list in LISTS {
        match std::fs::read_to_string(Path::new("/proc/thread-self/net").join(list)) {
            Ok(text) => sources.extend(read(&text).filter(|ip| is_asked_for(*ip))),
            // A kernel without this family.
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(err),
        }
    }
    Ok(sources)
}

/// The own addresses of sockets that have a peer.
fn read(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (own, _, state) = (fields.next()?, fields.next()?, fields.next()?);
        (!WITHOUT_PEER.contains(&state)).then_some(())?;
        address(own.split_once(':')?.0)
    })
}

/// Reads an address: words of 32 bits, each as this machine has it in memory.
fn address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match text.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let octets: [u8; 16] = words.concat().try_into().ok()?;
            // A socket of IPv6 that speaks IPv4.
            Some(IpAddr::from(Ipv6Addr::from(octets)).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use lab::net::Namespace;

    use super::*;

    #[test]
    fn sockets_with_a_peer_tell_their_addresses_and_others_do_not() {
        let namespace = Namespace::create(&format!("sockets-{}", std::process::id())).unwrap();
        let run = |arguments: &[&str]| {
            let status = namespace.command("ip").args(arguments).status().unwrap();
            assert!(status.success(), "ip {arguments:?}");
        };
        run(&["link", "set", "lo", "up"]);
        for ip in ["fd00::1/128", "fd00::2/128"] {
            run(&["addr", "add", ip, "dev", "lo", "nodad"]);
        }
        let found = namespace.enter(|| {
            let listener = TcpListener::bind("[::]:80").unwrap();
            let _only_listens = TcpListener::bind("127.0.0.9:80").unwrap();
            let _nobody_asked = UdpSocket::bind("127.0.0.8:80").unwrap();
            let _v4 = TcpStream::connect("127.0.0.3:80").unwrap();
            let v6 = UdpSocket::bind("[fd00::1]:0").unwrap();
            v6.connect("[fd00::2]:80").unwrap();
            let all = sources(|_| true).unwrap();
            drop(listener);
            let none = sources(|ip| ip == IpAddr::from([9, 9, 9, 9])).unwrap();
            (all, none)
        });
        let (all, none) = found.unwrap();
        // The end that listens accepted, as an IPv6 socket that speaks IPv4, at the address that was asked.
        let expected = ["127.0.0.1", "127.0.0.3", "fd00::1"].map(|ip| ip.parse().unwrap());
        assert_eq!(all, BTreeSet::from(expected));
        assert_eq!(none, BTreeSet::new());
    }

    #[test]
    fn what_is_no_list_of_sockets_names_none() {
        for text in ["", "sl", "0: 0100007F 0 01", "0: XY:1 0:0 01", "0: 01:1 0:0 01"] {
            assert_eq!(read(text).count(), 0, "{text}");
        }
    }
}
