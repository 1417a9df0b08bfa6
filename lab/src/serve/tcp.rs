//! The TCP side of a server: lines, and HTTP for `curl`. Associations of SCTP sockets are served by it, too.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Answer;

/// Longest line that is read; a client that sends more is cut off.
const LONGEST_LINE: u64 = 4096;

/// Accepts until it is dropped; the connections are dropped with it.
pub(super) async fn serve(listener: TcpListener, name: Arc<str>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, source)) => {
                connections.spawn(converse(stream, source, Arc::clone(&name)));
            }
            // Out of descriptors, or a connection that was gone before it was taken: let others finish.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

/// One connection to its end. Errors mean that the client is gone, which is its business.
async fn converse(stream: TcpStream, source: SocketAddr, name: Arc<str>) -> std::io::Result<()> {
    let answer = Answer {
        server: name.to_string(),
        port: stream.local_addr()?.port(),
        source,
    };
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    loop {
        line.clear();
        if (&mut reader).take(LONGEST_LINE).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        if line.ends_with("HTTP/1.1\r\n") || line.ends_with("HTTP/1.0\r\n") {
            while !matches!(line.as_str(), "\r\n" | "") {
                line.clear();
                (&mut reader).take(LONGEST_LINE).read_line(&mut line).await?;
            }
            let body = format!("{answer}\n");
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close";
            let response = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            return writer.write_all(response.as_bytes()).await;
        }
        writer
            .write_all(format!("{answer} {}\n", line.trim_end()).as_bytes())
            .await?;
    }
}
