//! The values of flags: from their text to what KubeProxyConfiguration has in that place.

use serde_json::{Map, Value, json};

use super::UsageError;
use super::flags::{Flag, Takes};
use crate::config::duration::parse_duration;

impl Flag {
    /// The value as KubeProxyConfiguration writes it.
    pub(super) fn value(&self, text: &str) -> Result<Value, UsageError> {
        let refuse = |problem| UsageError::InvalidArgument {
            flag: match self.short {
                Some(letter) => format!("-{letter}, --{}", self.name),
                None => format!("--{}", self.name),
            },
            value: text.to_owned(),
            problem,
        };
        if self.name == "version" {
            return Ok(Value::Null);
        }
        Ok(match self.takes {
            Takes::Text => text.into(),
            Takes::Bool => parse_bool(text)
                .ok_or_else(|| refuse("must be true or false"))?
                .into(),
            Takes::Port => text
                .parse::<u16>()
                .map_err(|_| refuse("must be a port number"))?
                .into(),
            Takes::Integer => text
                .parse::<i32>()
                .map_err(|_| refuse("must be a whole number"))?
                .into(),
            Takes::Number => text
                .parse::<f64>()
                .ok()
                .filter(|number| number.is_finite())
                .ok_or_else(|| refuse("must be a number"))?
                .into(),
            Takes::Duration => {
                parse_duration(text).ok_or_else(|| refuse("must be a duration like 1h30m or 250ms"))?;
                text.into()
            }
            Takes::List => text.split(',').filter(|item| !item.is_empty()).collect(),
            Takes::Modules => modules(text).ok_or_else(|| refuse("must be pattern=N,..."))?,
            Takes::Gates => gates(text).ok_or_else(|| refuse("must be name=true or name=false"))?,
        })
    }
}

/// The spellings that upstream takes for a boolean.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `pattern=N,pattern=N`.
fn modules(text: &str) -> Option<Value> {
    let entries = text.split(',').filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            let (pattern, verbosity) = entry.split_once('=')?;
            Some(json!({"filePattern": pattern, "verbosity": verbosity.parse::<u32>().ok()?}))
        })
        .collect()
}

/// `name=true,name=false`.
fn gates(text: &str) -> Option<Value> {
    let entries = text.split(',').filter(|gate| !gate.is_empty());
    let gates = entries.map(|gate| {
        let (name, on) = gate.split_once('=')?;
        Some((name.trim().to_owned(), parse_bool(on.trim())?.into()))
    });
    gates.collect::<Option<Map<String, Value>>>().map(Value::Object)
}
