//! The command line, with the habits of upstream's flag library: `--flag value` and `--flag=value`, `_` for `-`
//! in names, `-v2`, `-v 2` and `-v=2`, bare booleans. `flags` lists them, `value` reads their values, `status` and `plan` are
//! the commands of those names. What the values mean is decided in `config`.

mod flags;
mod plan;
mod status;
#[cfg(test)]
pub(crate) mod tests;
mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Map, Value};

use self::flags::{Does, FLAGS, Flag, Takes};
pub use self::plan::{PLAN, Plan};

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Be a proxy.
    Run(Box<Flags>),
    /// Show what a running proxy does.
    Status {
        /// Where its metrics server listens.
        address: SocketAddr,
        /// As JSON, not as text.
        json: bool,
    },
    /// Print the help.
    Help,
    /// Print the version.
    Version {
        /// The bare number, nothing around it.
        raw: bool,
    },
}

/// The flags of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--manifests`.
    pub manifests: Option<PathBuf>,
    /// `--service-cluster-ip-range`.
    pub service_cluster_ip_range: Option<String>,
    /// `--master`.
    pub master: Option<String>,
    /// `--write-config-to`.
    pub write_config_to: Option<PathBuf>,
    /// `--cleanup`.
    pub cleanup: bool,
    /// `--init-only`.
    pub init_only: bool,
    /// Print a plan, be no proxy.
    pub plan: Option<Plan>,
    /// The fields that flags set, shaped as a KubeProxyConfiguration. With `--config`, only those that
    /// override the file.
    pub settings: Value,
    /// `--healthz-port`, deprecated.
    pub healthz_port: Option<u16>,
    /// `--metrics-port`, deprecated.
    pub metrics_port: Option<u16>,
    /// Every flag with its value, given or default, as a flag writes it.
    pub values: BTreeMap<&'static str, String>,
    /// Deprecated flags that were given.
    pub deprecated: Vec<&'static str>,
    /// Flags that have no effect: because `--config` was given, or at all.
    pub ignored: Vec<&'static str>,
}

/// Why a command line is refused.
#[derive(Debug, thiserror::Error, PartialEq)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum UsageError {
    #[error("unknown flag: --{0}")]
    UnknownFlag(String),
    #[error("unknown shorthand flag: '{0}' in -{1}")]
    UnknownShorthand(char, String),
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    #[error("flag needs an argument: {0}")]
    NeedsArgument(String),
    #[error("invalid argument {value:?} for \"{flag}\" flag: {problem}")]
    InvalidArgument {
        flag: String,
        value: String,
        problem: &'static str,
    },
    #[error("\"kube-proxy\" does not take any arguments, got {0:?}")]
    Positional(Vec<String>),
}

impl UsageError {
    fn invalid(flag: &str, value: &str, problem: &'static str) -> Self {
        Self::InvalidArgument {
            flag: flag.to_owned(),
            value: value.to_owned(),
            problem,
        }
    }
}

/// Cuts `--name=value`, for the commands that have few flags of their own.
fn cut(argument: &str) -> (&str, Option<String>) {
    match argument.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (argument, None),
    }
}

/// Whether the value of `--output`, or `-o`, is JSON.
fn is_json(flag: &str, value: &str) -> Result<bool, UsageError> {
    match value {
        "json" => Ok(true),
        "text" => Ok(false),
        _ => Err(UsageError::invalid(flag, value, "must be text or json")),
    }
}

/// Reads the arguments (without the program's name).
///
/// # Errors
/// When a flag is unknown or malformed, or an argument belongs to no flag.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Command, UsageError> {
    let mut arguments = arguments.into_iter().peekable();
    if arguments.next_if(|first| first == "status").is_some() {
        return status::parse(arguments);
    }
    if arguments.next_if(|first| first == PLAN).is_some() {
        return plan::parse(arguments);
    }
    of_a_proxy(arguments)
}

/// Reads the flags of a proxy.
fn of_a_proxy(arguments: impl IntoIterator<Item = String>) -> Result<Command, UsageError> {
    let given = split(arguments.into_iter())?;
    if given.iter().any(|(flag, _)| flag.name == "help") {
        return Ok(Command::Help);
    }
    if let Some((_, value)) = given.iter().rfind(|(flag, _)| flag.name == "version")
        && value != "false"
    {
        return Ok(Command::Version { raw: value == "raw" });
    }
    let has_config = given
        .iter()
        .any(|(flag, value)| flag.name == "config" && !value.is_empty());
    let mut flags = Flags {
        settings: Value::Object(Map::new()),
        values: FLAGS
            .iter()
            .map(|flag| (flag.name, flag.default.to_owned()))
            .collect(),
        ..Flags::default()
    };
    for (flag, text) in given {
        let value = flag.value(&text)?;
        flags.values.insert(flag.name, text.clone());
        if flag.hidden {
            flags.deprecated.push(flag.name);
        }
        match flag.does {
            Does::Sets(_) if has_config => flags.ignored.push(flag.name),
            Does::Sets(fields) | Does::Overrides(fields) => {
                for field in fields {
                    set(&mut flags.settings, field, value.clone());
                }
            }
            Does::Nothing => flags.ignored.push(flag.name),
            Does::Itself if flag.hidden && has_config => flags.ignored.push(flag.name),
            Does::Itself => flags.take(flag.name, text, value == Value::Bool(true)),
        }
    }
    Ok(Command::Run(Box::new(flags)))
}

impl Flags {
    /// Keeps the value of a flag that the program reads itself; an empty value is an unset flag.
    fn take(&mut self, name: &str, text: String, on: bool) {
        let text = Some(text).filter(|text| !text.is_empty());
        match name {
            "write-config-to" => self.write_config_to = text.map(PathBuf::from),
            "cleanup" => self.cleanup = on,
            "init-only" => self.init_only = on,
            "config" => self.config = text.map(PathBuf::from),
            "manifests" => self.manifests = text.map(PathBuf::from),
            "service-cluster-ip-range" => self.service_cluster_ip_range = text,
            "master" => self.master = text,
            // Their numbers are checked already.
            "healthz-port" => self.healthz_port = text.and_then(|port| port.parse().ok()),
            "metrics-port" => self.metrics_port = text.and_then(|port| port.parse().ok()),
            _ => {}
        }
    }
}

/// Cuts the arguments into flags and their texts.
fn split(mut rest: impl Iterator<Item = String>) -> Result<Vec<(&'static Flag, String)>, UsageError> {
    let mut given = Vec::new();
    let mut positional = Vec::new();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            positional.extend(rest.by_ref());
        } else if let Some(long) = argument.strip_prefix("--") {
            given.push(split_long(long, &argument, &mut rest)?);
        } else if argument.len() > 1 && argument.starts_with('-') {
            split_short(&argument[1..], &mut rest, &mut given)?;
        } else {
            positional.push(argument);
        }
    }
    if positional.is_empty() {
        Ok(given)
    } else {
        Err(UsageError::Positional(positional))
    }
}

/// `name=value`, `name value`, or a bare boolean.
fn split_long(
    long: &str,
    argument: &str,
    rest: &mut impl Iterator<Item = String>,
) -> Result<(&'static Flag, String), UsageError> {
    let (name, value) = match long.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (long, None),
    };
    if name.is_empty() || name.starts_with('-') {
        return Err(UsageError::Syntax(argument.to_owned()));
    }
    let name = name.replace('_', "-");
    let flag = FLAGS
        .iter()
        .find(|flag| flag.name == name)
        .ok_or(UsageError::UnknownFlag(name))?;
    let value = match value {
        Some(value) => value,
        None if flag.takes == Takes::Bool => "true".to_owned(),
        None => rest
            .next()
            .ok_or_else(|| UsageError::NeedsArgument(format!("--{}", flag.name)))?,
    };
    Ok((flag, value))
}

/// Letters: `v2`, `v=2`, `v` with the value in the next argument, booleans joined to others.
fn split_short(
    letters: &str,
    rest: &mut impl Iterator<Item = String>,
    given: &mut Vec<(&'static Flag, String)>,
) -> Result<(), UsageError> {
    let mut tail = letters;
    while let Some(letter) = tail.chars().next() {
        let flag = FLAGS
            .iter()
            .find(|flag| flag.short == Some(letter))
            .ok_or_else(|| UsageError::UnknownShorthand(letter, tail.to_owned()))?;
        tail = &tail[letter.len_utf8()..];
        if let Some(value) = tail.strip_prefix('=') {
            given.push((flag, value.to_owned()));
            return Ok(());
        }
        if flag.takes == Takes::Bool {
            given.push((flag, "true".to_owned()));
            continue;
        }
        let value = if tail.is_empty() {
            rest.next()
                .ok_or_else(|| UsageError::NeedsArgument(format!("'{letter}' in -{letters}")))?
        } else {
            tail.to_owned()
        };
        given.push((flag, value));
        return Ok(());
    }
    Ok(())
}

/// Puts a value at a JSON pointer, making the objects on the way. Lists and maps of a repeated flag are joined.
pub(crate) fn set(tree: &mut Value, pointer: &str, value: Value) {
    let mut place = tree;
    for key in pointer.split('/').skip(1) {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let Value::Object(fields) = place else { return };
        place = fields.entry(key).or_insert(Value::Null);
    }
    match (place, value) {
        (Value::Array(old), Value::Array(new)) => old.extend(new),
        (Value::Object(old), Value::Object(new)) => old.extend(new),
        (place, value) => *place = value,
    }
}

/// The text of `--version`.
pub fn version(raw: bool) -> String {
    let prefix = if raw { "" } else { "kube-proxy v" };
    format!("{prefix}{}\n", env!("CARGO_PKG_VERSION"))
}

/// The text of `--help`.
pub fn help() -> String {
    let mut text = String::from(
        "kube-proxy turns what the Kubernetes API says about Services and EndpointSlices into this node's \
         kernel, so that\nService addresses reach their endpoints.\n\nUsage:\n  kube-proxy [flags]\n  kube-proxy status [--metrics-bind-address IP:PORT] [-o json]   what the running one does\n  kube-proxy plan [--diff] [-o json] [flags]   what it would program, or how the kernel differs from that\n\nFlags:\n",
    );
    for flag in FLAGS.iter().filter(|flag| !flag.hidden) {
        let letter = flag
            .short
            .map_or("    ".to_owned(), |letter| format!("-{letter}, "));
        let star = if matches!(flag.does, Does::Sets(_)) {
            "*"
        } else {
            " "
        };
        let name = match flag.takes {
            Takes::Bool => flag.name.to_owned(),
            Takes::Text => format!("{} TEXT", flag.name),
            Takes::Integer | Takes::Port => format!("{} INT", flag.name),
            Takes::Number => format!("{} NUMBER", flag.name),
            Takes::Duration => format!("{} DURATION", flag.name),
            Takes::List | Takes::Gates | Takes::Modules => format!("{} LIST", flag.name),
        };
        let default = match flag.default {
            "" | "false" | "[]" => String::new(),
            default => format!(" (default {default})"),
        };
        text.push_str(&format!("{star} {letter}--{name:<44} {}{default}\n", flag.help));
    }
    text
}
