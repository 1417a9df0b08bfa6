//! The UDP side of a server: a datagram for a datagram.

use std::sync::Arc;

use tokio::net::UdpSocket;

use super::Answer;

/// Answers until it is dropped.
pub(super) async fn serve(socket: UdpSocket, name: Arc<str>) {
    let Ok(local) = socket.local_addr() else { return };
    let mut datagram = vec![0; 2048];
    loop {
        // An error here is an ICMP message about an earlier answer; the next datagram is not to blame.
        let Ok((length, source)) = socket.recv_from(&mut datagram).await else {
            continue;
        };
        let answer = Answer {
            server: name.to_string(),
            port: local.port(),
            source,
        };
        let asked = String::from_utf8_lossy(&datagram[..length]);
        let line = format!("{answer} {}\n", asked.trim_end());
        // A client that is gone needs no answer.
        let _ = socket.send_to(line.as_bytes(), source).await;
    }
}
