//! The report, as it is told and shown.

use std::net::TcpListener;

use super::*;

fn report() -> Report {
    Report {
        version: "0.1.0".to_owned(),
        mode: "nftables".to_owned(),
        node_name: "node-1".to_owned(),
        node_ips: vec!["192.0.2.1".parse().unwrap()],
        healthy: true,
        services: 3,
        last_sync: Some("2026-11-22T23:20:04Z".to_owned()),
        last_sync_seconds: 0.0021,
        failures: 2,
        waiting_seconds: Some(1.25),
        last_error: Some("busy".to_owned()),
        conflicting_addresses: 1,
        conflicts: vec![Contested {
            service: "ns/new".to_owned(),
            address: "TCP 192.0.2.9:80".to_owned(),
            winner: "ns/old".to_owned(),
        }],
        refused_elements: 1,
        refusals: vec![Refused {
            service: "ns/web".to_owned(),
            element: "10.0.0.1 . tcp . 80".to_owned(),
            reason: "No space left on device".to_owned(),
        }],
        ..Report::default()
    }
}

#[test]
fn people_read_what_is_wrong() {
    let text = text(&report());
    for line in [
        "Node            node-1 192.0.2.1",
        "Mode            nftables",
        "Services        3",
        "Last sync       2026-11-22T23:20:04Z, took 2.1 ms",
        "Waiting         a change, for 1.2 s; 2 failed syncs",
        "Last error      busy",
        "Lag             not measured yet",
        "Conflicts       1",
        "  conflict: ns/new asks for TCP 192.0.2.9:80, which ns/old has",
        "  refused: 10.0.0.1 . tcp . 80 of ns/web: No space left on device",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
}

#[test]
fn the_answer_is_read_as_it_was_written_and_an_answer_of_others_is_told_from_it() {
    let answers = [
        ("200 OK", serde_json::to_string(&report()).unwrap()),
        ("404 Not Found", "404 page not found\n".to_owned()),
    ];
    for (status, body) in answers {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            assert!(request.starts_with(b"GET /status HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        match (status, ask(address)) {
            ("200 OK", Ok(answer)) => assert_eq!(read(&answer).unwrap(), report()),
            ("404 Not Found", Err(error)) => {
                assert!(error.to_string().ends_with("HTTP/1.1 404 Not Found"), "{error}");
            }
            (_, other) => panic!("{status}: {other:?}"),
        }
        server.join().unwrap();
    }
}
