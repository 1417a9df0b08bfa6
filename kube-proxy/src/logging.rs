//! Log lines on stderr in the formats that Kubernetes' components share, because people's collectors know them. Text:
//! `I1123 12:33:01.123456     815 proxy.rs:120] "SyncProxyRules complete" elapsed="2ms"`. JSON:
//! `{"ts":1763901181123.456,"caller":"proxy.rs:120","msg":"SyncProxyRules complete","v":2,"elapsed":"2ms"}`. Times
//! are UTC, `ts` is in milliseconds of Unix time.
//!
//! `-v` chooses what is written: 0 and 1 what every operator should see, 2 and 3 each sync and each object's
//! oddities, 4 and more every step. Errors of libraries are written, their chatter only from 6 on. `levels` decides.

mod levels;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write as _};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use self::levels::{Levels, Module};

/// Lines of this target have their message without quotes, as klog's older calls write it.
pub const PLAIN: &str = "kube_proxy::plain";

/// `logging.format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// klog's.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// `logging`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `format`.
    pub format: Format,
    /// `verbosity`: the number behind `-v`.
    pub verbosity: u32,
    /// `vmodule`.
    pub modules: Vec<Module>,
}

/// Starts logging; what it gives changes the verbosity later. A second call changes nothing.
pub fn start(options: &Options) -> Levels {
    let levels = Levels::new(options);
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Lines(options.format))
        .with_writer(std::io::stderr);
    let _ = tracing_subscriber::registry()
        .with(lines)
        .with(levels.clone())
        .try_init();
    levels
}

struct Lines(Format);

impl<S, N> FormatEvent<S, N> for Lines
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
        let mut line = Line::default();
        event.record(&mut line);
        let meta = event.metadata();
        let now = jiff::Timestamp::now();
        writer.write_str(&match self.0 {
            Format::Text => text(meta, now, &line)?,
            Format::Json => json(meta, now, &line)?,
        })
    }
}

fn text(meta: &Metadata<'_>, now: jiff::Timestamp, line: &Line) -> Result<String, fmt::Error> {
    let severity = match *meta.level() {
        Level::ERROR => 'E',
        Level::WARN => 'W',
        _ => 'I',
    };
    let time = now.to_zoned(jiff::tz::TimeZone::UTC);
    let mut text = format!(
        "{severity}{:02}{:02} {:02}:{:02}:{:02}.{:06} {:>7} {}] ",
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.subsec_nanosecond() / 1000,
        std::process::id(),
        caller(meta),
    );
    if meta.target() == PLAIN {
        text.push_str(&line.message);
    } else {
        write!(text, "{:?}", line.message)?;
    }
    for (name, value) in &line.fields {
        match value {
            Value::String(value) => write!(text, " {name}={value:?}")?,
            value => write!(text, " {name}={value}")?,
        }
    }
    text.push('\n');
    Ok(text)
}

fn json(meta: &Metadata<'_>, now: jiff::Timestamp, line: &Line) -> Result<String, fmt::Error> {
    let milliseconds = now.as_microsecond() as f64 / 1000.0;
    let (caller, message) = (Value::from(caller(meta)), Value::from(line.message.as_str()));
    let mut text = format!("{{\"ts\":{milliseconds:.3},\"caller\":{caller},\"msg\":{message}");
    // An error has no verbosity, which is how it is told from the rest.
    if *meta.level() != Level::ERROR {
        write!(text, ",\"v\":{}", levels::needed(*meta.level()))?;
    }
    for (name, value) in &line.fields {
        write!(text, ",{}:{value}", Value::from(*name))?;
    }
    text.push_str("}\n");
    Ok(text)
}

/// The place in the source: `main.rs:12`, `proxy/mod.rs:120`.
fn caller(meta: &Metadata<'_>) -> String {
    let file = meta.file().unwrap_or("unknown");
    format!("{}:{}", short(file), meta.line().unwrap_or(0))
}

/// The file's name; of a `mod.rs`, with its folder.
fn short(path: &str) -> &str {
    let short = path.strip_suffix("/mod.rs").unwrap_or(path);
    short.rfind('/').map_or(path, |slash| &path[slash + 1..])
}

/// The message, and each field with its value.
#[derive(Default)]
struct Line {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Line {
    fn push(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => self.fields.push((name.trim_start_matches("r#"), value)),
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            // Writing to a String cannot fail.
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        self.push(field, text.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // `%value` and the message come here as well.
        self.push(field, format!("{value:?}").into());
    }
}
