//! Lines as they are written.

use std::io;
use std::sync::{Arc, Mutex};

use super::*;

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn written(verbosity: u32, log: impl FnOnce()) -> String {
    let options = Options {
        verbosity,
        ..Options::default()
    };
    written_as(&options, |_| log())
}

fn written_as(options: &Options, log: impl FnOnce(&Levels)) -> String {
    let memory = Memory::default();
    let writer = memory.clone();
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Lines(options.format))
        .with_writer(move || writer.clone());
    let levels = Levels::new(options);
    let subscriber = tracing_subscriber::registry().with(lines).with(levels.clone());
    tracing::subscriber::with_default(subscriber, || log(&levels));
    let bytes = memory.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_line_has_severity_time_process_place_message_and_fields() {
    let line = written(0, || {
        tracing::warn!(service = %"default/web", port = 80, error = "no \"room\"", "Cannot listen");
    });
    let (head, rest) = line.split_once("] ").unwrap();
    assert_eq!(
        rest,
        "\"Cannot listen\" service=\"default/web\" port=80 error=\"no \\\"room\\\"\"\n"
    );
    let words: Vec<&str> = head.split_whitespace().collect();
    assert_eq!(words[0].len(), 5);
    assert!(words[0].starts_with('W'));
    assert_eq!(words[1].len(), "12:33:01.123456".len());
    assert_eq!(words[2], std::process::id().to_string());
    assert!(words[3].starts_with("tests.rs:"), "{}", words[3]);
}

#[test]
fn a_place_names_its_file() {
    assert_eq!(short("kube-proxy/src/main.rs"), "main.rs");
    assert_eq!(short("kube-proxy/src/proxy/mod.rs"), "proxy/mod.rs");
    assert_eq!(short("main.rs"), "main.rs");
}

#[test]
fn verbosity_chooses_what_is_written() {
    let log = || {
        tracing::info!("info");
        tracing::debug!("debug");
        tracing::trace!("trace");
        tracing::warn!(target: "hyper", "a library warns");
        tracing::error!(target: "hyper", "a library fails");
    };
    for (verbosity, lines) in [(0, 2), (1, 2), (2, 3), (3, 3), (4, 4), (6, 5)] {
        assert_eq!(written(verbosity, log).lines().count(), lines, "-v={verbosity}");
    }
}

#[test]
fn in_json_a_line_is_an_object_with_upstreams_keys() {
    let options = Options {
        format: Format::Json,
        verbosity: 2,
        ..Options::default()
    };
    let lines = written_as(&options, |_| {
        tracing::debug!(service = %"default/web", port = 80, up = true, "Cannot \"listen\"");
        tracing::error!(err = "no room", "Sync failed");
        tracing::warn!("odd");
    });
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let now = jiff::Timestamp::now().as_millisecond() as f64;
    for line in &lines {
        assert!((now - line["ts"].as_f64().unwrap()).abs() < 3_600_000.0, "{line}");
        assert!(
            line["caller"].as_str().unwrap().starts_with("tests.rs:"),
            "{line}"
        );
    }
    assert_eq!(lines[0]["msg"], "Cannot \"listen\"");
    assert_eq!(
        (&lines[0]["v"], &lines[2]["v"]),
        (&Value::from(2), &Value::from(0))
    );
    assert_eq!(lines[0]["service"], "default/web");
    assert_eq!(
        (&lines[0]["port"], &lines[0]["up"]),
        (&Value::from(80), &Value::from(true))
    );
    assert_eq!(
        (&lines[1]["err"], lines[1].get("v")),
        (&Value::from("no room"), None)
    );
}

#[test]
fn the_verbosity_of_a_file_is_its_own_and_both_may_change_while_running() {
    let module = |pattern: &str, verbosity| Module {
        pattern: pattern.to_owned(),
        verbosity,
    };
    let options = Options {
        modules: vec![module("other", 5), module("te*", 2)],
        ..Options::default()
    };
    let log = || {
        tracing::debug!("debug");
        tracing::trace!("trace");
    };
    let lines = written_as(&options, |levels| {
        log();
        levels.set_verbosity(4);
        log();
        levels.set(4, Vec::new());
        log();
        levels.set_verbosity(0);
        log();
    });
    let messages: Vec<_> = lines
        .lines()
        .map(|line| line.split("] ").nth(1).unwrap())
        .collect();
    assert_eq!(messages, ["\"debug\"", "\"debug\"", "\"debug\"", "\"trace\""]);
}

#[test]
fn a_plain_line_has_no_quotes() {
    let line = written(0, || tracing::info!(target: PLAIN, "FLAG: --v=\"2\""));
    assert!(line.ends_with("] FLAG: --v=\"2\"\n"), "{line}");
}
