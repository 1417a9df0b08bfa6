//! Log lines on stderr in the format that Kubernetes' components share, because people's collectors know it:
//! `I1123 12:33:01.123456     815 proxy.rs:120] "SyncProxyRules complete" elapsed="2ms"`. Times are UTC.
//!
//! `-v` chooses what is written: 0 and 1 what every operator should see, 2 and 3 each sync and each object's
//! oddities, 4 and more every step. Errors of libraries are written, their chatter only from 6 on.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts logging. A second call changes nothing.
pub fn start(verbosity: u32) {
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Klog)
        .with_writer(std::io::stderr);
    let _ = tracing_subscriber::registry()
        .with(lines)
        .with(filter(verbosity))
        .try_init();
}

fn filter(verbosity: u32) -> Targets {
    let ours = match verbosity {
        0 | 1 => LevelFilter::INFO,
        2 | 3 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let libraries = if verbosity >= 6 {
        LevelFilter::DEBUG
    } else {
        LevelFilter::ERROR
    };
    Targets::new()
        .with_default(libraries)
        .with_target("kube_proxy", ours)
}

struct Klog;

impl<S, N> FormatEvent<S, N> for Klog
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let meta = event.metadata();
        let severity = match *meta.level() {
            Level::ERROR => 'E',
            Level::WARN => 'W',
            _ => 'I',
        };
        let time = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
        let file = meta.file().unwrap_or("unknown");
        let mut line = Line::default();
        event.record(&mut line);
        writeln!(
            writer,
            "{severity}{:02}{:02} {:02}:{:02}:{:02}.{:06} {:>7} {}:{}] {}{}",
            time.month(),
            time.day(),
            time.hour(),
            time.minute(),
            time.second(),
            time.subsec_nanosecond() / 1000,
            std::process::id(),
            short(file),
            meta.line().unwrap_or(0),
            line.message,
            line.fields,
        )
    }
}

/// The file's name; of a `mod.rs`, with its folder.
fn short(path: &str) -> &str {
    let short = path.strip_suffix("/mod.rs").unwrap_or(path);
    short.rfind('/').map_or(path, |slash| &path[slash + 1..])
}

/// The message, quoted, and ` key="value"` for each field.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn push(&mut self, field: &Field, text: &str) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{text:?}"),
            name => write!(self.fields, " {}={text:?}", name.trim_start_matches("r#")),
        };
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        let _ = write!(self.fields, " {}={value}", field.name());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        let _ = write!(self.fields, " {}={value}", field.name());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        let _ = write!(self.fields, " {}={value}", field.name());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        self.push(field, &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // `%value` and the message come here as well, with the quotes not yet around them.
        self.push(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
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
        let memory = Memory::default();
        let writer = memory.clone();
        let lines = tracing_subscriber::fmt::layer()
            .event_format(Klog)
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(lines).with(filter(verbosity));
        tracing::subscriber::with_default(subscriber, log);
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
        assert!(words[3].starts_with("logging.rs:"), "{}", words[3]);
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
}
