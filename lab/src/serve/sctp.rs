//! The SCTP side of a server: listeners, or one raw socket an address where the kernel has no SCTP sockets.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket as StdSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, setsockopt, socket,
    sockopt,
};
use tokio::net::UdpSocket;

use super::Answer;
use crate::sctp::Packet;

/// Listens for associations. The type is std's for TCP, whose calls are those of any socket that accepts: what is
/// accepted reads and writes lines as a TCP connection does.
pub(super) fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = open(at.ip(), SockType::Stream)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
    nix::sys::socket::listen(&socket, Backlog::new(128)?)?;
    Ok(socket.into())
}

/// A raw socket for everything of SCTP that arrives at this address of the thread's namespace. The type is
/// std's because that one sends and receives datagrams with addresses, and so does a raw socket.
pub(super) fn listen_raw(ip: IpAddr) -> io::Result<StdSocket> {
    let socket = open(ip, SockType::Raw)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(ip, 0)))?;
    Ok(socket.into())
}

fn open(ip: IpAddr, kind: SockType) -> nix::Result<OwnedFd> {
    let family = if ip.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    socket(family, kind, flags, SockProtocol::Sctp)
}

/// Answers every INIT to one of these ports until it is dropped.
pub(super) async fn serve(socket: UdpSocket, ip: IpAddr, ports: Arc<[u16]>, name: Arc<str>) {
    let mut buffer = [0; 2048];
    loop {
        // An error here is an ICMP message about an earlier answer.
        let Ok((length, source)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let Some(init) = Packet::decode(&buffer[..length], ip.is_ipv4()) else {
            continue;
        };
        if init.cookie.is_some() || !ports.contains(&init.to) {
            continue;
        }
        let answer = Answer {
            server: name.to_string(),
            port: init.to,
            source: SocketAddr::new(source.ip(), init.from),
        };
        let ack = Packet {
            from: init.to,
            to: init.from,
            tag: init.tag,
            cookie: Some(answer.to_string().into_bytes()),
        };
        // A client that is gone needs no answer. A raw socket knows no ports of its own.
        let _ = socket
            .send_to(&ack.encode(), SocketAddr::new(source.ip(), 0))
            .await;
    }
}
